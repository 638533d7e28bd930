"""A real HTTP server on loopback that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener(ThreadingHTTPServer):
    """Answers each request with a status; keeps what came."""

    def __init__(self, status: int, headers: dict[str, str], wait: threading.Event | None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.headers, self.wait = status, headers, wait
        self.heard: list[tuple[str, str, dict[str, str], Any]] = []

    def url(self, path: str = "/hook", user: str = "") -> str:
        """Return its address."""
        return f"http://{user}127.0.0.1:{self.server_port}{path}"


class _Answer(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        """Keep the request, wait if it is to be waited, and answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.command, self.path, dict(self.headers), body))
        if self.server.wait is not None:
            self.server.wait.wait(30)
        with suppress(OSError):
            self.send_response(self.server.status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def listening(status: int = 200, *, wait: threading.Event | None = None, **headers: str) -> Iterator[Listener]:
    """Run a server while the body runs."""
    with Listener(status, headers, wait) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            if wait is not None:
                wait.set()
            server.shutdown()
