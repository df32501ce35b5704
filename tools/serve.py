"""Run Orthanc with the plugin in the foreground, until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from tools.installation import MAX_PORT, is_port
from tools.orthanc_server import REPOSITORY, OrthancError, OrthancServer
from tools.ports import is_free


def main() -> int:
    """Command line; exit status 0 after Ctrl-C, 1 where a port is none or taken, or Orthanc does not start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http-port", type=int, help="default: 8042, or another where that is taken")
    parser.add_argument("--dicom-port", type=int, help="default: 4242, or another where that is taken")
    parser.add_argument("--storage", type=Path, default=REPOSITORY / "build/serve/storage")
    arguments = parser.parse_args()
    for port in filter(None, (arguments.http_port, arguments.dicom_port)):
        if not is_port(port):
            print(f"{port} is no port; ports go from 1 to {MAX_PORT}.", file=sys.stderr)
            return 1
        if not is_free(port):
            print(f"Port {port} is in use; end what listens there, or name another one.", file=sys.stderr)
            return 1
    server = OrthancServer(
        REPOSITORY / "build/serve",
        storage=arguments.storage,
        http_port=arguments.http_port or 8042,
        dicom_port=arguments.dicom_port or 4242,
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
