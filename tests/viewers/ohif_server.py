"""OHIF's prebuilt application and Orthanc's DICOMweb under one address, as a reverse proxy would give them."""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tools.orthanc_server import REPOSITORY

DOCUMENTATION = REPOSITORY / "docs/viewers.md"


def documented_configuration() -> str:
    """OHIF's app-config.js as the documentation gives it."""
    (snippet,) = re.findall(r"```js\n(window\.config = .*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    return str(snippet)


@contextmanager
def serve_ohif(application: Path, orthanc_url: str) -> Iterator[str]:
    """Serve OHIF until the block ends; gives the address."""
    orthanc = urlsplit(orthanc_url).netloc

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments, **keywords) -> None:
            super().__init__(*arguments, directory=str(application), **keywords)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/dicom-web/"):
                self._forward()
            elif path == "/app-config.js":
                self._answer(200, "text/javascript", documented_configuration().encode())
            elif (application / path.strip("/")).is_file():
                super().do_GET()
            else:  # the application's own routes
                self._answer(200, "text/html", (application / "index.html").read_bytes())

        def _forward(self) -> None:
            connection = http.client.HTTPConnection(orthanc, timeout=300)
            headers = {name: self.headers[name] for name in ("Accept",) if name in self.headers}
            connection.request("GET", self.path, headers={**headers, "Host": self.headers["Host"]})
            answer = connection.getresponse()
            self._answer(answer.status, answer.getheader("Content-Type", ""), answer.read())
            connection.close()

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the browser tells what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
