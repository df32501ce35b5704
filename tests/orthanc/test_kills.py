"""`kill -9` at any moment: a restart finishes the work, each result once, none half, the very same bytes."""

import hashlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import pytest
from pydicom import Dataset, dcmread

from tests.inference import tiny_models as networks
from tests.orthanc.driving import ORTHANC_ROOT, storage_scp, wait_for_job, wait_for_jobs
from tests.orthanc.faults import Tried
from tests.orthanc.series import coarse, renamed, upload_images
from tools.orthanc_server import OrthancServer
from tools.ports import free_port

KILLS = 50
"""Kills at random moments."""

SERIES = 30
"""Series that they are spread over."""

REACH_S = 60.0
"""Longest wait for a job to come to a stage, in seconds."""

METAL_HU = 3000
"""What the phantom does not have."""

STAGES = (
    "waiting",
    "reading",
    "analysing",
    "lungs",
    "lesions",
    "probability",
    "writing",
    "storing",
    "done",
)
"""In the order in which a job passes them."""

Contents = dict[str, str]
"""sha256 of each stored result, by its Orthanc id."""


WARDS: list["Ward"] = []
"""All of a test, so that none of them is left running."""


class Ward:
    """One storage that lives on while its Orthanc is killed and started again."""

    def __init__(self, folder: Path, models: Path, **changes: object) -> None:
        section = {"Automatic": False, "ModelsFolder": str(models), **changes.pop("CovidCt", {})}  # type: ignore[dict-item]
        self.server = OrthancServer(folder, changes={"CovidCt": section, **changes}, root=ORTHANC_ROOT)
        self.state = self.server.storage / "covid-ct"
        WARDS.append(self)

    def stage(self, job: str, attempt: int = 0) -> str:
        """How far a job is, from the file that a killed plugin leaves; "waiting" before an attempt has begun."""
        with closing(sqlite3.connect(self.state / "jobs.sqlite", timeout=10)) as database:
            stage, attempts = database.execute("SELECT stage, attempts FROM jobs WHERE id = ?", (job,)).fetchone()
        return str(stage) if attempts >= attempt else "waiting"

    def stages(self) -> set[str]:
        """Where the jobs stand that have not ended."""
        with closing(sqlite3.connect(self.state / "jobs.sqlite", timeout=10)) as database:
            rows = database.execute("SELECT stage FROM jobs WHERE state NOT IN ('Success', 'Failure')").fetchall()
        return {str(stage) for (stage,) in rows}

    def stored(self) -> int:
        """How many instances Orthanc's own database holds after a kill; while it runs, it lets nobody look."""
        with closing(sqlite3.connect(self.server.storage / "index", timeout=10)) as index:
            return int(index.execute("SELECT COUNT(*) FROM Resources WHERE resourceType = 4").fetchone()[0])

    def reach(self, job: str, stage: str, instances: int = 0, attempt: int = 0) -> None:
        """Wait, as closely as can be, until a job's attempt is in a stage and Orthanc holds so many instances."""
        end = time.monotonic() + REACH_S
        while time.monotonic() < end:
            there = STAGES.index(self.stage(job, attempt)) >= STAGES.index(stage)
            if there and (not instances or int(self.server.get("/statistics")["CountInstances"]) >= instances):
                return
        raise AssertionError(f"Job {job} did not come to {stage}; it is in {self.stage(job)}.")

    def outbox(self, job: str) -> dict[str, bytes]:
        """The finished results of a job that are not stored yet."""
        path = self.state / "outbox" / f"{job}.zip"
        if not path.exists():
            return {}
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dcm")]
            return {name.removesuffix(".dcm"): archive.read(name) for name in names}


def contents(server: OrthancServer, series: str) -> Contents:
    """All that the study of a series holds beside that series."""
    study = server.get(f"/series/{series}")["ParentStudy"]
    return {
        item["ID"]: hashlib.sha256(server.request("GET", f"/instances/{item['ID']}/file")).hexdigest()
        for item in server.get(f"/studies/{study}/instances")
        if item["ParentSeries"] != series
    }


@pytest.fixture(scope="module")
def images(small_files: list[Path]) -> list[Dataset]:
    return coarse(small_files)


@pytest.fixture
def ward(tmp_path: Path, tiny_models: Path) -> Iterator[Ward]:
    yield Ward(tmp_path / "ward", tiny_models)
    while WARDS:
        server = WARDS.pop().server
        if server.process is not None:
            server.kill()


def uninterrupted(folder: Path, models: Path, all_images: Sequence[Sequence[Dataset]]) -> dict[str, Contents]:
    """What Orthanc holds of each series where nothing goes wrong, by the series' Orthanc id."""
    with Ward(folder, models).server as server:
        series = [upload_images(server, images) for images in all_images]
        for one in series:
            server.post("/covid/analyze", {"Series": one})
        wait_for_jobs(server, len(series), 600)
        return {one: contents(server, one) for one in series}


@pytest.mark.slow
def test_a_kill_at_each_stage_loses_nothing(
    ward: Ward, images: list[Dataset], tiny_models: Path, tmp_path: Path, tried: Tried
) -> None:
    server = ward.server
    points = ("waiting", "reading", "lesions", "writing", "storing", "storing")
    named = [renamed(images, f"{point} {number}") for number, point in enumerate(points)]
    expected = uninterrupted(tmp_path / "calm", tiny_models, named)
    server.start()
    for number, (point, series_images) in enumerate(zip(points, named, strict=True)):
        series = upload_images(server, series_images)
        assert series in expected
        before = int(server.get("/statistics")["CountInstances"])
        job = server.post("/covid/analyze", {"Series": series})["ID"]
        results = len(expected[series])
        if point != "waiting":
            # The second time in the stage "storing" some of the results are there.
            ward.reach(job, point, before + (results // 2 if number == len(points) - 1 else 0))
        server.kill()
        killed_in, stored, finished = ward.stage(job), ward.stored() - before, ward.outbox(job)
        server.start()
        ended = wait_for_job(server, job)
        assert ended["State"] == "Success", ended["ErrorDescription"]
        found = contents(server, series)
        assert found == expected[series]
        kinds = {result["Kind"]: result["ID"] for result in ended["Content"]["Results"]}
        for kind, dicom in finished.items():
            assert found[kinds[kind]] == hashlib.sha256(dicom).hexdigest(), "finished before the kill, stored after it"
        if point == "storing":
            assert stored >= results or finished, "what is being stored was finished before"
        tried(
            f"`kill -9` when a job has come to “{point}”" + (", the second time" if point in points[:number] else ""),
            f"died in “{killed_in}” with {stored} of {results} results stored; the restart finished it, "
            "bytes as without the kill",
        )
    # A job has succeeded once its results are stored; what was kept for a restart is removed after that.
    end = time.monotonic() + REACH_S
    while left := list((ward.state / "outbox").iterdir()):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_a_kill_before_a_series_is_stable(ward: Ward, images: list[Dataset], tiny_models: Path, tried: Tried) -> None:
    """Its event is lost; Orthanc's list of changes is not."""
    ward = Ward(ward.server.folder, tiny_models, CovidCt={"Automatic": True}, StableAge=5)
    ward.server.start()
    series = upload_images(ward.server, renamed(images, "unstable"))
    ward.server.kill()
    ward.server.start()
    (job,) = wait_for_jobs(ward.server, 1)
    ward.server.kill()
    assert (job["State"], job["Content"]["Series"]) == ("Success", series)
    tried("`kill -9` before a series is stable, so that its event is lost", "the sweep after the restart found it")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["`kill -9`", "A restart in order"])
def test_an_end_while_results_are_forwarded(
    how: str, ward: Ward, images: list[Dataset], tiny_models: Path, tmp_path: Path, tried: Tried
) -> None:
    """All arrive, some of them twice: Orthanc may resume a job that it had saved, and the plugin starts one."""
    port, arrived = free_port(), tmp_path / "arrived"
    arrived.mkdir()
    node = {"slow": {"AET": "SLOW", "Host": "127.0.0.1", "Port": port}}
    ward = Ward(ward.server.folder, tiny_models, CovidCt={"Destinations": ["slow"]}, DicomModalities=node)
    # Each arrival gets a file of its own.
    with storage_scp(port, arrived, "--fork", "+uf", "--sleep-during", "1"):
        ward.server.start()
        series = upload_images(ward.server, renamed(images, "forwarded"))
        job = ward.server.post("/covid/analyze", {"Series": series})["ID"]
        ended = wait_for_job(ward.server, job)
        end = time.monotonic() + REACH_S
        while not list(arrived.iterdir()) and time.monotonic() < end:
            time.sleep(0.05)
        before = len(list(arrived.iterdir()))
        if how == "`kill -9`":
            ward.server.kill()
        else:
            ward.server.stop()
        assert 0 < before < len(ended["Content"]["Results"])
    with storage_scp(port, arrived, "--fork", "+uf"):
        ward.server.start()
        end = time.monotonic() + REACH_S
        while (state := ward.server.get(f"/covid/jobs/{job}")["Content"]["Deliveries"][0]["State"]) != "Success":
            assert time.monotonic() < end, state
            time.sleep(0.1)
    counts = Counter(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for path in arrived.iterdir())
    assert len(counts) == len(ended["Content"]["Results"])
    twice = sum(count > 1 for count in counts.values())
    tried(
        f"{how} while results are forwarded",
        f"{before} had arrived; after the restart all {len(counts)} were there, {twice} of them sent more than once",
    )


def test_a_series_that_brings_orthanc_down_twice_is_set_aside(
    ward: Ward, images: list[Dataset], tmp_path: Path, tried: Tried
) -> None:
    """A network that does not come back from metal stands for one that crashes on it: Orthanc is killed there."""
    models = networks.write_all(tmp_path / "models")
    scale = {"clip_hu": [-1024, METAL_HU], "scale_to": [-1024, METAL_HU]}
    networks.write(models, networks.manifest("lungs", model_input=scale), networks.endless_above(METAL_HU - 100))
    ward = Ward(ward.server.folder, models)
    server = ward.server
    server.start()
    poison = renamed(images, "poison")
    for image in poison:
        pixels = image.pixel_array.copy()
        pixels[:32, :32] = METAL_HU + 1024
        image.PixelData = pixels.tobytes()
    job = server.post("/covid/analyze", {"Series": upload_images(server, poison)})["ID"]
    other = server.post("/covid/analyze", {"Series": upload_images(server, renamed(images, "good"))})["ID"]
    for attempt in (1, 2):
        # Until the restarted plugin has looked, the file tells of the attempt that was killed.
        ward.reach(job, "lungs", attempt=attempt)
        server.kill()
        server.start()
    ended = wait_for_job(server, job)
    assert (ended["State"], ended["Content"]["Reason"]) == ("Failure", "CrashedRepeatedly")
    assert '"lungs"' in ended["ErrorDescription"], "it says in which stage"
    assert wait_for_job(server, other)["State"] == "Success", "the next in the queue does not suffer"
    assert server.get(f"/covid/jobs/{job}")["Content"]["Attempts"] == 2, "no third time"
    assert server.post(f"/covid/jobs/{job}/retry", {})["State"] in ("Pending", "Running")
    server.kill()
    tried(
        "A series that brings Orthanc down twice",
        "set aside with stage and reason, the others go on; a retry by REST begins it anew",
    )


@pytest.mark.slow
def test_fifty_kills_at_random_moments(
    ward: Ward, images: list[Dataset], tiny_models: Path, tmp_path: Path, tried: Tried
) -> None:
    server = ward.server
    named = [renamed(images, f"random {number}") for number in range(SERIES)]
    expected = uninterrupted(tmp_path / "calm", tiny_models, named)
    moments = random.Random(19)  # noqa: S311 - the same shares of a job in each run
    accepted: dict[str, str] = {}
    died_in: Counter[str] = Counter()
    waiting = list(named)
    job_s = 0.3
    set_aside = 0
    for _ in range(KILLS):
        server.start()
        # There is always something to do, or most kills would meet an idle plugin.
        jobs = {job["ID"]: job for job in server.get("/covid/jobs?expand")}
        job_s = max([job_s, *(job["EffectiveRuntime"] for job in jobs.values() if job["State"] == "Success")])
        failed = [job for job in jobs.values() if job["State"] == "Failure"]
        assert all(job["Content"]["Reason"] == "CrashedRepeatedly" for job in failed)
        if waiting and not ward.stages():
            series = upload_images(server, waiting.pop())
            accepted[server.post("/covid/analyze", {"Series": series})["ID"]] = series
        elif failed:
            set_aside += 1
            server.post(f"/covid/jobs/{failed[0]['ID']}/retry", {})
        time.sleep(moments.uniform(0, job_s))
        server.kill()
        died_in.update(ward.stages() - {"waiting"} or {"idle"})
    server.start()
    for series_images in waiting:
        series = upload_images(server, series_images)
        accepted[server.post("/covid/analyze", {"Series": series})["ID"]] = series
    for job, series in accepted.items():
        if wait_for_job(server, job, 600)["State"] == "Failure":
            set_aside += 1
            server.post(f"/covid/jobs/{job}/retry", {})
        assert wait_for_job(server, job, 600)["State"] == "Success"
        assert contents(server, series) == expected[series]
    assert len(accepted) == SERIES
    assert died_in["idle"] <= KILLS // 2, died_in
    where = ", ".join(f"{stage} {count}" for stage, count in sorted(died_in.items()))
    tried(
        f"`kill -9` at {KILLS} random moments over {SERIES} series",
        f"all results there once, bytes as without kills; a series was set aside and retried {set_aside} times; "
        f"jobs stood at: {where}",
    )
