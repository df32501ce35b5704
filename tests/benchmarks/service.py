"""The same pipeline as a service outside Orthanc, over HTTP and over DIMSE: what the network hop costs."""

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.results import overlay
from covid_ct.results.objects import ResultBuilder, ResultObject, write_result
from covid_ct.series.decoding import decode
from covid_ct.series.reading import read_series
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import BUILD, REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series, renamed
from tests.benchmarks.servers import WatchedServer, watched_server
from tools.ports import free_port

AET = "WORKER"

REPEATS = 1
"""Runs that count, after a first one that loads everything."""

Steps = dict[str, float]
"""Seconds of getting the images, analysing them and returning the results."""


def measure(slices: int = REFERENCE, matrix: int = 512, repeats: int = REPEATS) -> dict[str, Steps]:
    """Seconds of each step, in-process and outside, with the same Orthanc; the median run by total time of each way."""
    files = phantom_series(slices, matrix)
    analyzer = Analyzer(REPOSITORY / "models")
    port = free_port()
    ways: dict[str, list[Steps]] = {"in Orthanc": [], "service over HTTP": [], "service over DIMSE": []}
    modalities = {"worker": [AET, "127.0.0.1", port]}
    with watched_server("service", {"Automatic": False}, DicomModalities=modalities) as server:
        for number in range(repeats + 1):
            series = [server.upload(renamed(files, f"service {number} {way}")) for way in ways]
            found = (
                _inside(server, series[0]),
                _http(server, series[1], analyzer),
                _dimse(server, series[2], analyzer, port),
            )
            # In the first round everything is loaded that later ones have.
            for steps, one in zip(ways.values(), found, strict=True):
                if number > 0 or repeats == 0:
                    steps.append(one)
    return {way: sorted(runs, key=lambda run: sum(run.values()))[(len(runs) - 1) // 2] for way, runs in ways.items()}


def section() -> Section:
    """The table of the ways."""
    load = current_load()
    ways = measure()
    inside = ways["in Orthanc"]
    rows = [
        [way, *steps.values(), sum(steps.values()), sum(steps.values()) - sum(inside.values())]
        for way, steps in ways.items()
    ]
    return new_section(
        "The same pipeline outside Orthanc",
        f"{REFERENCE} slices; seconds, one run after a first that loads all. The service is a process of "
        "its own on the same machine "
        "with the same "
        "code (but `waking_cores`) and its models loaded, told of the series at once (a real one would poll or wait "
        "for a call). Over "
        "HTTP it gets "
        "each image from `/instances/{id}/file` on one kept connection and posts each result; over DIMSE Orthanc "
        "sends the series "
        "to its `storescp` (C-STORE after C-MOVE) and `storescu` sends the results back. Loopback: a real network "
        "adds its own "
        "latency and bandwidth.",
        table(["way", *inside, "total", "more than in Orthanc"], rows),
        load_before=load,
    )


def _inside(server: WatchedServer, series: str) -> Steps:
    job = server.wait([server.ask(series)])[0]
    stages = server.stages(job["ID"])
    return {
        "getting": stages["reading"],
        "analysing and writing": stages["analysing"] + stages["writing"],
        "returning": stages["storing"],
    }


def _http(server: WatchedServer, series: str, analyzer: Analyzer) -> Steps:
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.server.http_port)

    def request(method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError):
            # Orthanc ends a connection that is silent for a second.
            connection.close()
            connection.request(method, path, body)
            answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, (path, answer.status)
        return content

    instances = json.loads(request("GET", f"/series/{series}"))["Instances"]

    def files() -> Iterator[bytes]:
        for instance in instances:
            yield request("GET", f"/instances/{instance}/file")

    volume = read_series(files(), decode)
    read = time.perf_counter()
    folder = BUILD / "service"
    results = _analyse(analyzer, volume, folder)
    analysed = time.perf_counter()
    for path in results:
        request("POST", "/instances", path.read_bytes())
    connection.close()
    return _steps(begin, read, analysed)


def _dimse(server: WatchedServer, series: str, analyzer: Analyzer, port: int) -> Steps:
    folder = BUILD / "service"
    shutil.rmtree(folder, ignore_errors=True)
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    receiver = subprocess.Popen(["storescp", "-aet", AET, "-od", str(inbox), str(port)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        uid = server.server.get(f"/series/{series}")["MainDicomTags"]["SeriesInstanceUID"]
        study = server.server.get(f"/series/{series}/study")["MainDicomTags"]["StudyInstanceUID"]
        to_orthanc = ["-aec", "ORTHANC", "127.0.0.1", str(server.server.dicom_port)]
        begin = time.perf_counter()
        subprocess.run(
            ["movescu", "-S", "-aet", AET, "-aem", AET, "-k", "0008,0052=SERIES",
             "-k", f"0020,000d={study}", "-k", f"0020,000e={uid}", *to_orthanc],
            check=True, capture_output=True,
        )  # fmt: skip
        volume = read_series((path.read_bytes() for path in inbox.iterdir()), decode)
        read = time.perf_counter()
        results = _analyse(analyzer, volume, folder / "results")
        analysed = time.perf_counter()
        # storescu offers one transfer syntax for all it sends.
        pictures = [path for path in results if path.name.startswith(overlay.NAME)]
        for syntax, paths in (("-xe", [path for path in results if path not in pictures]), ("-xy", pictures)):
            subprocess.run(
                ["storescu", "-R", syntax, "-aet", AET, *to_orthanc, *map(str, paths)], check=True, capture_output=True
            )
        return _steps(begin, read, analysed)
    finally:
        receiver.terminate()
        receiver.wait(30)


def _analyse(analyzer: Analyzer, volume, folder: Path) -> list[Path]:  # type: ignore[no-untyped-def]
    """Findings and results as files."""
    folder.mkdir(parents=True, exist_ok=True)
    builder = ResultBuilder(volume, analyzer.identities)
    images: list[ResultObject] = []
    findings = analyzer.analyze(volume, segmented=lambda maps: images.extend(builder.images(maps)))
    paths = []
    for result in (*images, *builder.documents(findings)):
        paths.append(folder / result.name)
        write_result(result.dataset, paths[-1])
    return paths


def _steps(begin: float, read: float, analysed: float) -> Steps:
    return {
        "getting": read - begin,
        "analysing and writing": analysed - read,
        "returning": time.perf_counter() - analysed,
    }
