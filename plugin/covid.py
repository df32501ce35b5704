"""The script that Orthanc's Python plugin loads: adds the packages, names the callbacks, hands over.

Callbacks are named functions of this module: plugin 5.0 and later crashes at shutdown on anything less.
"""

import gc
import site
import sys
from pathlib import Path
from typing import Any

import orthanc

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parent / f".venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

sys.path.insert(0, str(HERE))
# Where there is no such folder, the packages are those of Orthanc's own Python.
site.addsitedir(str(PACKAGES))

try:
    from covid_ct.server.application import Application
    from covid_ct.server.routes import PATHS
except Exception as error:  # noqa: BLE001 - an exception here would stop Orthanc
    orthanc.LogError(
        f"covid-ct is not loaded, a Python package is missing or broken: {type(error).__name__}: {error}. "
        f"Looked in {PACKAGES}."
    )
    PATHS = {}
else:
    application = Application(orthanc)


def on_change(change: int, level: int, resource: str) -> None:
    application.on_change(change, resource)


def analyze(output: Any, uri: str, **request: Any) -> None:
    application.routes.analyze(output, request)


def list_jobs(output: Any, uri: str, **request: Any) -> None:
    application.routes.list_jobs(output, request)


def show_job(output: Any, uri: str, **request: Any) -> None:
    application.routes.show_job(output, request)


def act_on_job(output: Any, uri: str, **request: Any) -> None:
    application.routes.act_on_job(output, request)


def show_series(output: Any, uri: str, **request: Any) -> None:
    application.routes.show_series(output, request)


def show_status(output: Any, uri: str, **request: Any) -> None:
    application.routes.show_status(output, request)


def serve_page(output: Any, uri: str, **request: Any) -> None:
    application.routes.serve_page(output, request)


if PATHS:
    for name, path in PATHS.items():
        orthanc.RegisterRestCallback(path, globals()[name])
    orthanc.RegisterOnChangeCallback(on_change)
    orthanc.ExtendOrthancExplorer(application.explorer_script)
    # What is loaded by now stays; each search for garbage among it would hold Python's lock for a tenth of a second.
    gc.freeze()
