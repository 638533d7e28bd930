"""What stands before every endpoint: whose pages may ask, the token, headers, counts, and words for a failure."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Container
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carcls.serving.hosts import is_loopback
from carcls.serving.metrics import Metrics

# Nothing comes from elsewhere, and nobody frames the page.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_COUNTED = {"/", "/predict", "/search", "/models", "/thumbnails", "/health", "/metrics", "/openapi.json", "/docs"}
_log = logging.getLogger("uvicorn.error")


class Guard:
    """Refuses strangers, adds the headers, counts, and says in JSON that a request failed.

    Args:
        app: what is guarded.
        metrics: where requests are counted.
        token: that requests must bring; empty where only this machine can ask, by its own names.
        open_paths: that need no token.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str, open_paths: Container[str]) -> None:
        self._app, self._metrics, self._token, self._open = app, metrics, token.encode(), open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, start, has_begun = str(scope["path"]), time.perf_counter(), False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                known = {name.lower() for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in known]
                message = {**message, "headers": [*message["headers"], *added]}
                kind = "/" + path.split("/")[1]
                kind = kind if kind in _COUNTED else "other"
                self._metrics.note(kind, message["status"], time.perf_counter() - start)
            await send(message)

        app = self._refusal(scope, path) or self._app
        try:
            await app(scope, receive, answer)
        except Exception:
            _log.exception("a request to %s failed", path)
            if not has_begun:
                failed = JSONResponse({"error": "the server failed at this request; its log says more"}, 500)
                await failed(scope, receive, answer)

    def _refusal(self, scope: Scope, path: str) -> JSONResponse | None:
        headers = dict(scope["headers"])
        # A page elsewhere whose name leads to this machine asks nothing.
        if not self._token and not is_loopback(_host(headers.get(b"host", b""))):
            return JSONResponse({"error": "the host must be localhost or a loopback address; others need a token"}, 400)
        if not self._token or path in self._open:
            return None
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return None
        needed = {"error": "a token is needed: Authorization: Bearer TOKEN"}
        return JSONResponse(needed, 401, headers={"www-authenticate": "Bearer"})


def _host(header: bytes) -> str:
    """Return the name or address in a Host header, without its port."""
    try:
        return urlsplit(f"//{header.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""
