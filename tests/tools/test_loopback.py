"""Asking an Orthanc on this machine."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tools.loopback import TO_THIS_MACHINE


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None:
        pass


def test_a_proxy_that_pip_needs_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with TO_THIS_MACHINE.open(f"http://127.0.0.1:{server.server_port}/", timeout=5) as answer:
                assert answer.read() == b"here"
        finally:
            server.shutdown()
            thread.join()
