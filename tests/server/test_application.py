"""The plugin put together over a fake Orthanc, with its threads."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from covid_ct.errors import ModelError
from covid_ct.inference.slot import ModelSlot
from covid_ct.server.application import Application
from covid_ct.server.database import SqliteDatabase
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Job, Trigger
from tests.inference.tiny_models import write_all
from tests.postgresql import PostgresqlServer
from tests.series.images import encode, make_series
from tests.server.fake_orthanc import FakeOrthanc
from tests.server.test_routes import ask, post

EVENTS = FakeOrthanc.ChangeType


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture
def orthanc(models: Path, tmp_path: Path) -> FakeOrthanc:
    """One that holds a chest CT of air, which is analysed and refused for having no lungs."""
    made = FakeOrthanc(
        {"StorageDirectory": str(tmp_path), "CovidCt": {"ModelsFolder": str(models), "Threads": 1, "AETitles": []}}
    )
    for image in make_series():
        image.PixelData = bytes(len(image.PixelData))
        made.store(encode([image])[0])
    return made


@pytest.fixture
def run() -> Iterator[Callable[[FakeOrthanc], Application]]:
    """Starts the plugin, as Orthanc does, and stops it at the end."""
    running = []

    def start(orthanc: FakeOrthanc) -> Application:
        running.append(Application(orthanc))  # type: ignore[arg-type]
        running[-1].on_change(EVENTS.ORTHANC_STARTED, "")
        return running[-1]

    yield start
    for application in running:
        application.on_change(EVENTS.ORTHANC_STOPPED, "")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("covid-")] == []


def ended_job(application: Application) -> dict[str, Any]:
    """The oldest job, once it has ended."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        _, jobs = ask(application.routes, "list_jobs", get={"expand": ""})
        if jobs and "CompletionTime" in jobs[-1]:
            return dict(jobs[-1])
        time.sleep(0.05)
    raise AssertionError(jobs)


def series_of(orthanc: FakeOrthanc) -> str:
    return orthanc._series(next(iter(orthanc.headers.values())))


def test_a_stable_series_is_analysed_and_remembered(
    orthanc: FakeOrthanc, run: Callable[[FakeOrthanc], Application]
) -> None:
    first = run(orthanc)
    first.on_change(EVENTS.STABLE_SERIES, series_of(orthanc))
    job = ended_job(first)
    assert (job["Content"]["Trigger"], job["Content"]["Reason"]) == ("StableSeries", "NoLungs")
    first.on_change(EVENTS.ORTHANC_STOPPED, "")
    assert ask(first.routes, "list_jobs")[0] == 503
    again = ended_job(run(orthanc))
    assert {**again, "Timestamp": ""} == {**job, "Timestamp": ""}


def test_a_series_that_is_gone_silences_nothing(
    orthanc: FakeOrthanc, run: Callable[[FakeOrthanc], Application]
) -> None:
    application = run(orthanc)
    application.on_change(EVENTS.STABLE_SERIES, "00000000-00000000-00000000-00000000-00000000")
    application.on_change(EVENTS.JOB_SUCCESS, "gone")
    application.on_change(EVENTS.STABLE_SERIES, series_of(orthanc))
    assert ended_job(application)["State"] == "Failure"


def test_an_engine_that_cannot_be_built_is_told_when_it_turns_out(
    orthanc: FakeOrthanc, run: Callable[[FakeOrthanc], Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = threading.Event()
    build = ModelSlot._build
    monkeypatch.setattr(ModelSlot, "_build", lambda slot: allowed.wait(60) and build(slot))
    orthanc.configuration["CovidCt"] |= {"Providers": ["TensorRT", "CPU"]}
    application = run(orthanc)
    application.on_change(EVENTS.STABLE_SERIES, series_of(orthanc))
    assert ended_job(application)["Content"]["Reason"] == "NoLungs"
    assert not any("Tensorrt" in line for line in orthanc.log)
    allowed.set()
    for thread in threading.enumerate():
        if thread.name == "covid-warnings":
            thread.join(60)
    _, shown = ask(application.routes, "show_status")
    assert len(shown["ProviderWarnings"]) == 3
    for warning in shown["ProviderWarnings"]:
        assert any(warning in line for line in orthanc.log)


@pytest.mark.parametrize(
    ("section", "words"), [({"Wrong": 1}, 'no key "Wrong"'), ({"ModelsFolder": "/nowhere"}, "/nowhere")]
)
def test_what_is_wrong_at_the_start_switches_analysis_off(
    orthanc: FakeOrthanc, run: Callable[[FakeOrthanc], Application], section: dict[str, Any], words: str
) -> None:
    orthanc.configuration["CovidCt"] |= section
    application = run(orthanc)
    application.on_change(EVENTS.STABLE_SERIES, series_of(orthanc))
    assert any(words in line for line in orthanc.log)
    status, answer = ask(application.routes, "analyze", **post(series_of(orthanc)))
    assert (status, words in answer["Message"]) == (503, True)
    _, shown = ask(application.routes, "show_status")
    assert (shown["Analysis"], words in shown["Problem"]) == ("off", True)


def test_jobs_move_to_postgresql_when_orthanc_does(
    orthanc: FakeOrthanc, run: Callable[[FakeOrthanc], Application], empty_postgresql: dict[str, str], tmp_path: Path
) -> None:
    before = SqliteDatabase(tmp_path / "covid-ct" / "jobs.sqlite")
    JobStore(before, "before").add(Job("j1", series_of(orthanc), "1.2", Trigger.REST))
    before.close()
    uri = "postgresql://{user}@{host}:{port}/{dbname}".format(**empty_postgresql)
    orthanc.configuration["PostgreSQL"] = {"EnableIndex": True, "ConnectionUri": uri}
    application = run(orthanc)
    job = ended_job(application)
    assert (job["ID"], job["Content"]["Reason"]) == ("j1", "ModelsChanged")
    assert [path.name for path in (tmp_path / "covid-ct").glob("jobs.*")] == ["jobs.moved"]
    _, status = ask(application.routes, "show_status")
    assert status["Servers"] == [job["Content"]["Server"]]


def test_a_postgresql_that_refuses_is_told_and_asked_again(
    orthanc: FakeOrthanc,
    run: Callable[[FakeOrthanc], Application],
    postgresql: PostgresqlServer,
    empty_postgresql: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Orthanc waits for its database while it starts; so do we."""
    monkeypatch.setattr("covid_ct.server.worker.TROUBLE_S", 0.1)
    orthanc.configuration["PostgreSQL"] = {
        "EnableIndex": True, "Host": "127.0.0.1", "Port": postgresql.port, "Username": "orthanc",
        "Database": empty_postgresql["dbname"],
    }  # fmt: skip
    postgresql.stop()
    try:
        application = run(orthanc)
        assert any("PostgreSQL" in line for line in orthanc.log)
        status, answer = ask(application.routes, "analyze", **post(series_of(orthanc)))
        assert (status, "PostgreSQL" in answer["Message"]) == (507, True)
    finally:
        postgresql.start()
    assert ask(application.routes, "analyze", **post(series_of(orthanc)))[0] == 200
    assert ended_job(application)["Content"]["Reason"] == "NoLungs"


def test_how_the_models_are_to_run_reaches_them(
    orthanc: FakeOrthanc, monkeypatch: pytest.MonkeyPatch, models: Path, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def slot(*_: object, **settings: Any) -> None:
        asked.append(settings)
        raise ModelError("enough")

    monkeypatch.setattr("covid_ct.analysis.analyzer.ModelSlot", slot)
    orthanc.configuration["CovidCt"] |= {"Gpu": 1, "ModelTimeout": 7}
    Application(orthanc).routes.stop()  # type: ignore[arg-type]
    assert asked == [{"gpu": 1, "run_limit_s": 7, "engine_cache": tmp_path / "covid-ct" / "engines"}]


def test_whatever_goes_wrong_at_the_start_leaves_orthanc_alone(
    orthanc: FakeOrthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_text: str) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("covid_ct.server.application.json.loads", broken)
    application = Application(orthanc)  # type: ignore[arg-type]
    monkeypatch.undo()
    status, answer = ask(application.routes, "show_status")
    assert (status, answer["Analysis"]) == (200, "off")
    assert answer["Problem"] == "The plugin met RecursionError: too deep"
