"""OHIF's prebuilt application and Orthanc's DICOMweb under one address, as a reverse proxy would give them."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

DATA_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "orthanc",
    "configuration": {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/dicom-web",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "staticWado": True,
        "singlepart": "bulkdata,video",
        "acceptHeader": ["multipart/related; type=application/octet-stream; transfer-syntax=*"],
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
    },
}
"""OHIF's data source for Orthanc, as docs/viewers.md gives it."""

APP_CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showLoadingIndicator": True,
    "showWarningMessageForCrossOrigin": False,
    "defaultDataSourceName": "orthanc",
    "dataSources": [DATA_SOURCE],
}


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
                self._answer(200, "text/javascript", f"window.config = {json.dumps(APP_CONFIG)};".encode())
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
