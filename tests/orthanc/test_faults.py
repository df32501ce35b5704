"""Series, models and disks that are not as they should be: each with its reason, and Orthanc unharmed."""

import io
import json
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage, JPEGLosslessSV1, MRImageStorage
from pydicom.valuerep import PersonName

from covid_ct.identity import MANUFACTURER, MODEL_NAME
from tests.inference import tiny_models
from tests.orthanc.driving import ORTHANC_ROOT, ended_in_order, wait_for_job
from tests.orthanc.faults import Tried
from tests.orthanc.series import coarse, encode, renamed, upload_images
from tools.orthanc_server import REPOSITORY, OrthancError, OrthancServer

Images = list[Dataset]

MAX_SLICES = 24
"""Kept low, so that a series of too many slices is sent in no time."""

pytestmark = pytest.mark.slow


def all_of(change: Callable[[Dataset], None]) -> Callable[[Images], None]:
    """The same change in every image."""

    def apply(images: Images) -> None:
        for image in images:
            change(image)

    return apply


def one_of(change: Callable[[Dataset], None]) -> Callable[[Images], None]:
    """A change in one image in the middle."""
    return lambda images: change(images[len(images) // 2])


def put(**values: Any) -> Callable[[Dataset], None]:
    """Set attributes; None removes one."""

    def change(image: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)

    return change


def move(millimetres: float, axis: int = 2) -> Callable[[Dataset], None]:
    """Move an image."""

    def change(image: Dataset) -> None:
        position = list(image.ImagePositionPatient)
        position[axis] = round(float(position[axis]) + millimetres, 3)
        image.ImagePositionPatient = position

    return change


def tilt(images: Images) -> None:
    for number, image in enumerate(images):
        move(2.0 * number, axis=1)(image)


def fill(value: int) -> Callable[[Dataset], None]:
    """Set all pixels."""

    def change(image: Dataset) -> None:
        image.PixelData = np.full((image.Rows, image.Columns), value, "<u2").tobytes()

    return change


def noise(image: Dataset) -> None:
    random = np.random.default_rng(image.InstanceNumber)
    image.PixelData = random.integers(0, 4096, (image.Rows, image.Columns)).astype("<u2").tobytes()


def garbage(image: Dataset) -> None:
    image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    image.PixelData = encapsulate([np.random.default_rng(1).bytes(4000)])
    image["PixelData"].is_undefined_length = True


def eight_bits(image: Dataset) -> None:
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = bytes(image.Rows * image.Columns)


def double(images: Images) -> None:
    for image in renamed(images[:4], "twice"):
        image.StudyInstanceUID, image.SeriesInstanceUID = images[0].StudyInstanceUID, images[0].SeriesInstanceUID
        images.append(image)


def dense(images: Images) -> None:
    """More slices than are allowed, evenly spaced."""
    copies = renamed(images, "more")
    for image in copies:
        image.StudyInstanceUID, image.SeriesInstanceUID = images[0].StudyInstanceUID, images[0].SeriesInstanceUID
        move(4.0)(image)
    images += copies


def pad(image: Dataset) -> None:
    values = image.pixel_array.astype(np.int16) - 1024
    values[:4] = -2000
    image.RescaleIntercept, image.PixelRepresentation, image.PixelPaddingValue = 0, 1, -2000
    image.BitsStored, image.HighBit = 16, 15
    image["PixelPaddingValue"].VR = "SS"
    image.PixelData = values.tobytes()


def private_text(image: Dataset) -> None:
    block = image.private_block(0x0029, "SOMEBODY", create=True)
    block.add_new(0x01, "LT", "Grüße\nan alle\t" * 50)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName = "Müller^Ζωή^Иван 山田"


def undecodable_name(image: Dataset) -> None:
    image.SpecificCharacterSet = "ISO_IR 6"
    # Encoded as it was read, so that what is no ASCII stays.
    image["PatientName"].value = PersonName(b"M\xfcller^\xff\xfe", ["ascii"])
    image["PatientName"].value.encodings = None


REFUSED: dict[str, tuple[Callable[[Images], None], str]] = {
    "another modality": (
        all_of(put(Modality="MR", SOPClassUID=MRImageStorage)), "NotCT"),
    "a localizer": (all_of(put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), "Localizer"),
    "a result of our own": (all_of(put(Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)), "OwnResult"),
    "a multi-frame CT": (all_of(put(SOPClassUID=EnhancedCTImageStorage)), "MultiFrame"),
    "too few slices": (lambda images: images.__delitem__(slice(5, None)), "TooFewSlices"),
    "too many slices": (dense, "TooManySlices"),
    "a missing slice": (lambda images: images.__delitem__(9), "Gaps"),
    "two images at one position": (double, "DuplicatePositions"),
    "uneven spacing": (one_of(move(2.0)), "UnevenSpacing"),
    "a tilted gantry": (tilt, "GantryTilt"),
    "one image of another orientation": (one_of(put(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])), "MixedOrientation"),
    "coronal slices": (all_of(put(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])), "NotAxial"),
    "one image of another size": (one_of(put(Rows=64, PixelData=bytes(64 * 128 * 2))), "MixedSize"),
    "a matrix of 4,096²": (all_of(put(Rows=4096, Columns=4096)), "BadGeometry"),
    "a pixel spacing of zero": (all_of(put(PixelSpacing=[0, 0])), "BadGeometry"),
    "a pixel spacing of a kilometre": (all_of(put(PixelSpacing=["1e6", "1e6"])), "BadGeometry"),
    "an orientation of zeros": (all_of(put(ImageOrientationPatient=[0] * 6)), "BadGeometry"),
    "no position": (one_of(put(ImagePositionPatient=None)), "BadGeometry"),
    "no frame of reference": (all_of(put(FrameOfReferenceUID=None)), "BadHeader"),
    "a malformed frame of reference": (all_of(put(FrameOfReferenceUID="1.2.not-a-uid")), "BadHeader"),
    "two frames of reference": (one_of(put(FrameOfReferenceUID="1.2.3")), "MixedIdentity"),
    "no RescaleSlope": (all_of(put(RescaleSlope=None)), "BadHeader"),
    "a RescaleSlope of zero": (all_of(put(RescaleSlope=0)), "BadHeader"),
    "a RescaleIntercept of 1e30": (all_of(put(RescaleIntercept="1e30")), "BadHeader"),
    "truncated pixels": (one_of(put(PixelData=bytes(1000))), "BadPixels"),
    "no pixels": (one_of(put(PixelData=None)), "BadPixels"),
    "pixels of 8 bits": (all_of(eight_bits), "BadPixels"),
    "colour": (all_of(put(SamplesPerPixel=3, PhotometricInterpretation="RGB")), "BadPixels"),
    "random bytes for JPEG Lossless": (one_of(garbage), "BadPixels"),
    "random pixels": (all_of(noise), "NoLungs"),
    "nothing but air": (all_of(fill(0)), "NoLungs"),
    "nothing but water": (all_of(fill(1024)), "NoLungs"),
}  # fmt: skip

ANALYSED: dict[str, Callable[[Images], None]] = {
    "padding of -2000": all_of(pad),
    "private text and a name in four scripts": all_of(private_text),
    "a name that its character set does not allow": all_of(undecodable_name),
    "no birth date, sex, study id and the like": all_of(
        put(PatientBirthDate=None, PatientSex=None, StudyID=None, AccessionNumber=None, StudyDate=None, StudyTime=None)
    ),
}


@pytest.fixture(scope="module")
def images(small_files: list[Path]) -> Images:
    return coarse(small_files)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[OrthancServer]:
    section = {
        "Automatic": False,
        "ModelsFolder": str(tiny_models),
        "SeriesRules": {"MaxSlices": MAX_SLICES},
    }
    with OrthancServer(tmp_path_factory.mktemp("node"), changes={"CovidCt": section}, root=ORTHANC_ROOT) as started:
        yield started
    assert ended_in_order(started), started.log.read_text(errors="replace")[-3000:]
    log = started.log.read_text(errors="replace")
    assert "Phantom^Thorax" not in log
    assert "COVID-CT-PHANTOM" not in log
    assert "Müller" not in log


@pytest.mark.parametrize("what", REFUSED)
def test_a_series_that_cannot_be_analysed(node: OrthancServer, images: Images, tried: Tried, what: str) -> None:
    spoil, reason = REFUSED[what]
    spoilt = renamed(images, what)
    spoil(spoilt)
    series = upload_images(node, spoilt)
    before = node.get("/statistics")["CountInstances"]
    job = wait_for_job(node, node.post("/covid/analyze", {"Series": series})["ID"])
    assert (job["State"], job["Content"]["Reason"]) == ("Failure", reason), job["ErrorDescription"]
    assert spoilt[0].SeriesInstanceUID in job["ErrorDescription"], "the sentence names the series"
    assert "Phantom" not in json.dumps(job)
    assert node.get("/statistics")["CountInstances"] == before
    assert job["Content"]["Attempts"] <= 1, "never retried"
    tried(f"A series: {what}", f"`{reason}`")


@pytest.mark.parametrize("what", ANALYSED)
def test_a_series_that_only_looks_bad(node: OrthancServer, images: Images, tried: Tried, what: str) -> None:
    odd = renamed(images, what)
    ANALYSED[what](odd)
    job = wait_for_job(node, node.post("/covid/analyze", {"Series": upload_images(node, odd)})["ID"])
    assert job["State"] == "Success", job["ErrorDescription"]
    assert {"lungs.seg", "lesions.seg", "report.pdf"} <= {result["Kind"] for result in job["Content"]["Results"]}
    tried(f"A series: {what}", "analysed")


def test_two_patients_under_one_series_uid(node: OrthancServer, images: Images, tried: Tried) -> None:
    """To Orthanc they are two series, and to us: neither gets slices of the other."""
    mixed = renamed(images, "two patients")
    for image in mixed[::2]:
        image.PatientID = "SOMEBODY-ELSE"
    series = {node.upload(encode(image))["ParentSeries"] for image in mixed}
    assert len(series) == 2
    jobs = [wait_for_job(node, node.post("/covid/analyze", {"Series": one})["ID"]) for one in series]
    assert {job["Content"]["Reason"] for job in jobs} == {"TooFewSlices"}
    tried("Two patients' slices under one series UID", "two series to Orthanc; neither gets slices of the other")


def test_a_series_deleted_while_it_is_analysed(node: OrthancServer, images: Images, tried: Tried) -> None:
    names = [f"deleted {number}" for number in range(3)]
    series = [upload_images(node, renamed(images, name)) for name in names]
    jobs = [node.post("/covid/analyze", {"Series": one})["ID"] for one in series]
    for one in series:
        node.request("DELETE", f"/series/{one}")
    ended = [wait_for_job(node, job) for job in jobs]
    assert {(job["State"], job["Content"]["Reason"]) for job in ended} <= {
        ("Failure", "SeriesChanged"),
        ("Success", ""),
    }
    assert ended[-1]["Content"]["Reason"] == "SeriesChanged", "the last was still in the queue"
    tried("A series deleted while it waits or is read", "`SeriesChanged`, the others go on")


def test_a_series_that_grows_while_it_waits(node: OrthancServer, images: Images, tried: Tried) -> None:
    first = upload_images(node, renamed(images, "before the growing one"))
    growing = renamed(images, "growing")
    series = upload_images(node, growing[:-2])
    ahead = node.post("/covid/analyze", {"Series": first})["ID"]
    early = node.post("/covid/analyze", {"Series": series})["ID"]
    upload_images(node, growing[-2:])
    assert wait_for_job(node, ahead)["State"] == "Success"
    assert wait_for_job(node, early)["Content"]["Reason"] == "SeriesChanged"
    late = node.post("/covid/analyze", {"Series": series})["ID"]
    assert late != early
    whole = wait_for_job(node, late)
    assert whole["State"] == "Success"
    assert len([job for job in node.get("/covid/jobs?expand") if job["Content"]["Series"] == series]) == 2
    tried("A series that grows while it waits", "`SeriesChanged` for what it was, a new analysis of what it is")


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "answers NaN on a patient": (lambda: tiny_models.nan_above(100), "no numbers"),
    "never ends on a patient": (lambda: tiny_models.endless_above(100), "within 2 s"),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_model_that_fails_on_a_patient(
    start: Callable[..., OrthancServer], images: Images, tmp_path: Path, tried: Tried, what: str
) -> None:
    network, words = MODELS[what]
    models = tiny_models.write_all(tmp_path / "models")
    tiny_models.write(models, tiny_models.manifest("lungs"), network())
    server = start(CovidCt={"ModelsFolder": str(models), "ModelTimeout": 2})
    for number in range(2):
        series = upload_images(server, renamed(images, f"model {number}"))
        job = wait_for_job(server, server.post("/covid/analyze", {"Series": series})["ID"])
        assert (job["State"], job["Content"]["Reason"]) == ("Failure", "ModelError")
        assert words in job["ErrorDescription"]
        assert "Tiny lungs" in job["ErrorDescription"], "the sentence names the model"
    tried(f"A model that {what}", f"`ModelError`, “{words}”; Orthanc and the next job go on")


def _without(models: Path) -> None:
    (models / "lesions/model.json").unlink()


def _changed(models: Path) -> None:
    with (models / "covid/model.onnx").open("ab") as file:
        file.write(b"\0")


def _nan(models: Path) -> None:
    tiny_models.write(models, tiny_models.manifest("lungs"), tiny_models.nan_above(-1))


def _endless(models: Path) -> None:
    tiny_models.write(models, tiny_models.manifest("lungs"), tiny_models.endless_above(-5000))


@pytest.mark.parametrize(
    ("what", "spoil", "words"),
    [
        ("a missing manifest", _without, "lesions"),
        ("a file that is not the manifest's", _changed, "sha256"),
        ("a model that answers NaN to everything", _nan, "no numbers"),
        ("a model that never ends", _endless, "within 1 s"),
    ],
)
def test_bad_models_are_found_at_start(
    start: Callable[..., OrthancServer],
    images: Images,
    tmp_path: Path,
    tried: Tried,
    what: str,
    spoil: Callable[[Path], None],
    words: str,
) -> None:
    models = tiny_models.write_all(tmp_path / "models")
    spoil(models)
    server = start(CovidCt={"ModelsFolder": str(models), "ModelTimeout": 1})
    status = server.get("/covid/status")
    assert (status["Analysis"], words in status["Problem"]) == ("off", True), status["Problem"]
    series = upload_images(server, renamed(images, "off"))
    with pytest.raises(Exception, match="503"):
        server.post("/covid/analyze", {"Series": series})
    assert server.get("/system")["ApiVersion"]
    assert status["Problem"] in server.log.read_text(errors="replace")
    tried(f"Start with {what}", "Orthanc runs, analysis is off, log, status and `POST` (503) say why")


@pytest.mark.parametrize("file", ["covid_ct/results/report.py", "covid_ct/server/routes.py"])
def test_a_damaged_package(start: Callable[..., OrthancServer], tmp_path: Path, tried: Tried, file: str) -> None:
    """Zeros, as a power cut leaves them; Orthanc would end on an exception here."""
    shutil.copytree(REPOSITORY / "plugin", tmp_path / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    damaged = tmp_path / "plugin" / file
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    server = start(PythonScript=str(tmp_path / "plugin/covid.py"))
    assert server.get("/system")["ApiVersion"]
    assert "covid-ct is not loaded" in server.log.read_text(errors="replace")
    tried("Start with a Python file that a power cut left full of zeros", "Orthanc runs, the log says what is broken")


def test_a_read_only_models_folder(
    start: Callable[..., OrthancServer], images: Images, tmp_path: Path, tried: Tried
) -> None:
    models = tiny_models.write_all(tmp_path / "models")
    for path in (*models.rglob("*"), models):
        path.chmod(path.stat().st_mode & ~0o222)
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    server = start(CovidCt={"ModelsFolder": str(models)})
    job = wait_for_job(
        server, server.post("/covid/analyze", {"Series": upload_images(server, renamed(images, "read-only"))})["ID"]
    )
    assert job["State"] == "Success"
    # Root may write whatever the mode says; nothing did.
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before
    for path in (models, *models.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    tried("A read-only models folder", "analysed; nothing is written there")


def test_a_state_folder_that_cannot_be_made(start: Callable[..., OrthancServer], tmp_path: Path, tried: Tried) -> None:
    (tmp_path / "file").write_text("")
    server = start(CovidCt={"StateFolder": str(tmp_path / "file" / "state")})
    status = server.get("/covid/status")
    assert status["Analysis"] == "off"
    assert "file" in status["Problem"]
    tried("A state folder that cannot be made", "Orthanc runs, analysis is off, log and status say why")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(folder: Path, left: int) -> Path:
    """Leave so many bytes of a file system free."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - left))
    return ballast


def test_a_disk_that_is_full_while_results_are_written(
    start: Callable[..., OrthancServer], images: Images, small_disk: Path, tiny_models: Path, tried: Tried
) -> None:
    server = start(CovidCt={"ModelsFolder": str(tiny_models), "StateFolder": str(small_disk / "state")})
    series = upload_images(server, renamed(images, "full disk"))
    ballast = fill_up(small_disk, 200_000)
    job = server.post("/covid/analyze", {"Series": series})["ID"]
    failed = wait_for(lambda: _in_state(server, job, "Retry"))
    assert "No space left" in failed["ErrorDescription"]
    assert not list((small_disk / "state" / "outbox").iterdir()), "nothing half written is left"
    ballast.unlink()
    ended = wait_for_job(server, job)
    assert (ended["State"], ended["Content"]["Attempts"]) == ("Success", 2)
    tried("A disk that is full while results are written", "`Retry` with the reason; done once there is room")


def test_a_disk_so_full_that_no_job_can_be_kept(
    start: Callable[..., OrthancServer], images: Images, small_disk: Path, tiny_models: Path, tried: Tried
) -> None:
    server = start(CovidCt={"ModelsFolder": str(tiny_models), "StateFolder": str(small_disk / "state")})
    series = upload_images(server, renamed(images, "no room"))
    ballast = fill_up(small_disk, 0)
    with pytest.raises(OrthancError, match=r"(?s)507.*cannot be kept"):
        server.post("/covid/analyze", {"Series": series})
    ballast.unlink()
    job = server.post("/covid/analyze", {"Series": series})["ID"]
    assert wait_for_job(server, job)["State"] == "Success"
    tried("A disk so full that no job can be kept", "507 with the reason; nothing is accepted that is not on disk")


def test_a_disk_that_is_full_while_orthanc_stores(
    start: Callable[..., OrthancServer],
    images: Images,
    small_disk: Path,
    tmp_path: Path,
    tiny_models: Path,
    tried: Tried,
) -> None:
    storage = small_disk / "storage"
    server = start(
        StorageDirectory=str(storage),
        CovidCt={"ModelsFolder": str(tiny_models), "StateFolder": str(tmp_path / "state")},
    )
    series = upload_images(server, renamed(images, "full storage"))
    ballast = fill_up(small_disk, 50_000)
    job = server.post("/covid/analyze", {"Series": series})["ID"]
    failed = wait_for(lambda: _in_state(server, job, "Retry"))
    assert "Orthanc" in failed["ErrorDescription"]
    with ZipFile(tmp_path / "state" / "outbox" / f"{job}.zip") as finished:
        assert "report.pdf.dcm" in finished.namelist(), "what was finished waits for the next attempt"
    ballast.unlink()
    assert wait_for_job(server, job)["State"] == "Success"
    tried("A disk that is full while Orthanc stores results", "`Retry`; the finished results wait and are stored later")


def test_a_series_of_20000_slices(
    start: Callable[..., OrthancServer], images: Images, tiny_models: Path, tried: Tried
) -> None:
    """Of four pixels each; it is counted before anything else is looked at."""
    server = start(CovidCt={"ModelsFolder": str(tiny_models), "Automatic": True})
    (image,) = renamed(images[:1], "endless")
    image.Rows, image.Columns, image.PixelData = 2, 2, bytes(8)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid = "1.2.826.0.1.3680043.8.498.100000"
    dicom = encode(image)
    for begin in range(100_000, 120_000, 2_000):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for number in range(begin, begin + 2_000):
                file.writestr(f"{number}.dcm", dicom.replace(uid.encode(), f"{uid[:-6]}{number}".encode()))
        answers = json.loads(server.request("POST", "/instances", archive.getvalue(), "application/zip"))
    series = answers[0]["ParentSeries"]
    assert len(server.get(f"/series/{series}")["Instances"]) == 20_000
    job = wait_for_job(server, server.post("/covid/analyze", {"Series": series})["ID"])
    assert (job["State"], job["Content"]["Reason"]) == ("Failure", "TooManySlices")
    assert "has 20000 slices, at most 3000" in job["ErrorDescription"]
    good = server.post("/covid/analyze", {"Series": upload_images(server, renamed(images, "after endless"))})["ID"]
    assert wait_for_job(server, good)["State"] == "Success"
    # From 1.12.7 on, Orthanc itself, whatever its Python script, goes on for minutes about such a series.
    server.kill()
    tried(
        "A series of 20,000 slices", "`TooManySlices`, counted before anything else is looked at; the next is analysed"
    )


def wait_for(look: Callable[[], Any], timeout_s: float = 120) -> Any:
    """What is looked for, once it is there."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def _in_state(server: OrthancServer, job: str, state: str) -> dict[str, Any] | None:
    shown: dict[str, Any] = server.get(f"/covid/jobs/{job}")
    assert shown["State"] in (state, "Pending", "Running"), shown
    return shown if shown["State"] == state else None
