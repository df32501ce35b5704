"""Run Orthanc with the plugin in the foreground, until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from tools.orthanc_server import REPOSITORY, OrthancError, OrthancServer


def main() -> int:
    """Command line; exit status 0 after Ctrl-C, 1 where Orthanc does not start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http-port", type=int, default=8042)
    parser.add_argument("--dicom-port", type=int, default=4242)
    parser.add_argument("--storage", type=Path, default=REPOSITORY / "build/serve/storage")
    arguments = parser.parse_args()
    server = OrthancServer(
        REPOSITORY / "build/serve",
        storage=arguments.storage,
        http_port=arguments.http_port,
        dicom_port=arguments.dicom_port,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with server:
            print(
                f"Orthanc answers at {server.url}/app/explorer.html and, as ORTHANC, on DICOM port {server.dicom_port}."
            )
            print(f"Its storage is {server.storage}, its log {server.log}. Ctrl-C ends it.", flush=True)
            assert server.process is not None
            return server.process.wait()
    except KeyboardInterrupt:
        return 0
    except OrthancError as error:
        print(error, file=sys.stderr)
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
