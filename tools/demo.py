"""Start Orthanc with the plugin, send it a chest CT, wait for the automatic analysis, and show what it found."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from covid_ct.phantom import PhantomOptions, PhantomTruth, make_phantom, write_folder
from covid_ct.results import overlay
from tools.orthanc_server import OrthancError, OrthancServer

STABLE_AGE_S = 2
"""Seconds until Orthanc counts the demo's series as complete; nobody wants to wait a minute."""

ANALYSIS_TIMEOUT_S = 900.0
"""Longest wait for the findings, in seconds."""


def main() -> int:
    """Command line; exit status 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ct", type=Path, help="folder of DICOM files; without it a phantom is made")
    parser.add_argument("--once", action="store_true", help="end after the findings instead of staying up")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="covid-ct-demo-") as folder:
        server = OrthancServer(Path(folder), http_port=8042, dicom_port=4242, changes={"StableAge": STABLE_AGE_S})
        try:
            with server:
                return _demonstrate(server, arguments.ct, arguments.once, Path(folder))
        except KeyboardInterrupt:
            return 0
        except OrthancError as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            return 1


def _demonstrate(server: OrthancServer, ct: Path | None, once: bool, scratch: Path) -> int:
    plugin = server.get("/covid/status")
    if plugin["Analysis"] != "on":
        raise OrthancError(plugin["Problem"])
    truth = None
    if ct is None:
        print("Making a phantom: a thorax whose truth is known", flush=True)
        phantom = make_phantom(PhantomOptions())
        ct, truth = scratch / "phantom", phantom.truth
        write_folder(phantom, ct)
    series = _send(server, ct)
    job = _wait(server, series)
    print(_describe(job, truth))
    print(f"\nCT with overlay:   {server.url}/covid/app/results.html?series={series}")
    print(f"Orthanc Explorer:  {server.url}/app/explorer.html#series?uuid={series}")
    print(f"Findings as JSON:  {server.url}/covid/series/{series}")
    if not once:
        print("Ctrl-C ends the demo and removes its storage.", flush=True)
        assert server.process is not None
        if status := server.process.wait():
            tail = server.log.read_text(errors="replace")[-2000:]
            raise OrthancError(f"Orthanc ended by itself, with status {status}. The end of its log:\n{tail}")
    return 0


def _send(server: OrthancServer, folder: Path) -> str:
    """Upload all DICOM files of a folder; the Orthanc id of the series that has the most of them."""
    print(f"Sending {folder} to Orthanc at {server.url}", flush=True)
    counts: dict[str, int] = {}
    skipped = 0
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            series = server.upload(path.read_bytes())["ParentSeries"]
        except OrthancError:
            skipped += 1
        else:
            counts[series] = counts.get(series, 0) + 1
    if not counts:
        raise OrthancError(f"{folder} holds no DICOM files.")
    print(
        f"Orthanc stored {sum(counts.values())} images" + (f"; {skipped} other files were skipped." if skipped else ".")
    )
    return max(counts, key=lambda series: counts[series])


def _wait(server: OrthancServer, series: str) -> dict[str, Any]:
    """The ended job of a series, with a bar that shows how far it is."""
    end = time.monotonic() + ANALYSIS_TIMEOUT_S
    considered = time.monotonic() + STABLE_AGE_S + 5.0
    while time.monotonic() < end:
        jobs = server.get(f"/covid/jobs?expand&limit=1&series={series}")
        if jobs:
            job: dict[str, Any] = jobs[0]
            _bar(job["Progress"], job["Content"]["Stage"])
            if job["State"] in ("Success", "Failure"):
                print()
                if job["State"] == "Failure":
                    raise OrthancError(job["ErrorDescription"])
                return job
        elif time.monotonic() > considered:
            # Unasked, a series that cannot be analysed makes no job; asking tells why.
            server.post("/covid/analyze", {"Series": series})
        else:
            _bar(0, "waiting for the series to become stable")
        time.sleep(0.25)
    raise OrthancError(f"The analysis did not end within {ANALYSIS_TIMEOUT_S:.0f} s; see {server.log}.")


def _bar(percent: int, stage: str) -> None:
    if sys.stdout.isatty():
        print(f"\r[{'#' * (percent // 4):25}] {percent:3d} %  {stage:45}", end="", flush=True)


def _describe(job: dict[str, Any], truth: PhantomTruth | None) -> str:
    findings = job["Content"]["Findings"]
    known = truth.to_dict() if truth else {}
    sides = ("total", "right", "left")
    heading = "".join(f"{side:>10}" for side in sides)
    lines = [""] + ([f"{'':28}{'measured':>30}{'truth':>30}"] if truth else [])
    lines.append(f"{'':28}{heading}" + (heading if truth else ""))
    for key, name, unit, factor in (
        ("lung_volume_ml", "Lung volume", "ml", 1),
        ("lesion_volume_ml", "Lesion volume", "ml", 1),
        ("lesion_to_lung_ratio", "Lesion to lung", "%", 100),
        ("ground_glass_volume_ml", "Ground glass", "ml", 1),
        ("consolidation_volume_ml", "Consolidation", "ml", 1),
    ):
        values = [factor * shown[key][side] for shown in (findings, known) if shown for side in sides]
        lines.append(f"{name + ' (' + unit + ')':28}" + "".join(f"{value:10.1f}" for value in values))
    lines.append(f"{'COVID-19 probability':28}{findings['covid_probability']:10.2f}")
    lines += [f"Model: {model['role']} {model['name']} {model['version']}" for model in findings["models"]]
    lines += [f"Warning: {warning}" for warning in findings["warnings"]]
    lines.append("For research and teaching use only. Not for diagnosis.")
    lines += ["", f"Job {job['ID']} took {job['EffectiveRuntime']:.1f} s. Results in the same study:"]
    images = [result for result in job["Content"]["Results"] if result["Kind"].startswith(overlay.NAME)]
    lines += [f"  {result['Kind']:24} {result['ID']}" for result in job["Content"]["Results"] if result not in images]
    lines += [f"  {f'{overlay.NAME} ({len(images)} images)':24} series {images[0]['ParentSeries']}"]
    return "\n".join(lines)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
