"""The HTTP API and the page: requests are limited and checked here, and answered by one network at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from carcls.errors import InputError, UnreadableImage
from carcls.export import read_pixels
from carcls.export.inputs import Files
from carcls.machine import usable_cores
from carcls.serving.asked import Limits, RequestParameters, images_in
from carcls.serving.guard import Guard
from carcls.serving.metrics import Metrics
from carcls.serving.openapi import describe_api
from carcls.serving.served import Served

PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_NO_FILES = Files(forbidden=True)


def make_app(models: Sequence[Served], *, token: str = "", limits: Limits | None = None) -> Starlette:
    """Return the server's application.

    Args:
        models: at least one; the first answers where a request names none.
        token: that requests must bring; empty where only this machine can ask.
        limits: of requests; None for the usual ones.
    """
    server = _Server({model.key: model for model in models}, limits or Limits())
    routes = [Route(path, partial(_page_file, name)) for path, name in _PAGE_FILES.items()]
    routes += [
        Route("/predict", server.predict, methods=["POST"]),
        Route("/search", server.search, methods=["POST"]),
        Route("/models", server.models),
        Route("/thumbnails/{model:path}/{place:int}", server.thumbnail),
        Route("/health", server.health),
        Route("/metrics", server.counts),
        Route("/openapi.json", _openapi),
        Route("/docs", _docs),
    ]
    guard = Middleware(Guard, metrics=server.metrics, token=token, open_paths={*_PAGE_FILES, "/health"})
    said: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {HTTPException: _say}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=said)


class _Server:
    """The endpoints, which share the models, the threads and the counts."""

    def __init__(self, models: dict[str, Served], limits: Limits) -> None:
        self._models, self._limits, self.metrics = models, limits, Metrics()
        # PyTorch computes on every core by itself; images are decoded beside it.
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._decoding = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
        self._warming = [self._network.submit(_warm, model) for model in models.values()]

    async def predict(self, request: Request) -> Response:
        """Say of which class images are."""
        return await self._answer(request, self._model(request), searches=False)

    async def search(self, request: Request) -> Response:
        """Say which training images are most like the images."""
        model = self._model(request, searches=True)
        return await self._answer(request, model, searches=True)

    async def models(self, _: Request) -> Response:
        """Say which models there are."""
        return JSONResponse({"models": [model.describe() for model in self._models.values()]})

    async def thumbnail(self, request: Request) -> Response:
        """Return a small picture of an image of a model's gallery."""
        model = self._models.get(request.path_params["model"])
        place = request.path_params["place"]
        found: bytes | None = None
        if model is not None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._decoding, model.predictor.thumbnail, place)
        if not found:
            raise HTTPException(404, "there is no such picture")
        return Response(found, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    async def health(self, _: Request) -> Response:
        """Say whether every model has answered once."""
        if not all(one.done() for one in self._warming):
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ok", "models": list(self._models)})

    async def counts(self, _: Request) -> Response:
        """Return the counts for Prometheus."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _model(self, request: Request, *, searches: bool = False) -> Served:
        named = request.query_params.get("model")
        fitting = [model for model in self._models.values() if model.most_k or not searches]
        if named is None and fitting:
            return fitting[0]
        if named is None:
            raise HTTPException(404, "no model here has a gallery to search; serve a retrieval model")
        if named not in self._models:
            raise HTTPException(404, f"model must be one of {', '.join(self._models)}")
        return self._models[named]

    async def _answer(self, request: Request, model: Served, *, searches: bool) -> Response:
        if self.metrics.in_flight >= self._limits.waiting:
            busy = f"{self._limits.waiting} requests are being answered; ask again in a second"
            return JSONResponse({"error": busy}, 429, headers={"retry-after": "1"})
        self.metrics.in_flight += 1
        sent = _Body(self._limits, self.metrics)
        try:
            answered = self._answered(request, model, sent, searches=searches)
            return await asyncio.wait_for(answered, self._limits.seconds)
        except TimeoutError:
            raise HTTPException(503, f"there was no answer within {self._limits.seconds:g} seconds") from None
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            sent.release()
            self.metrics.in_flight -= 1

    async def _answered(self, request: Request, model: Served, sent: _Body, *, searches: bool) -> Response:
        start = time.perf_counter()
        if searches and not model.most_k:
            raise HTTPException(422, f"{model.title} has no gallery to search; name a retrieval model")
        try:
            asked = RequestParameters.read(request.query_params)
            predictor = model.asked(asked.k or (min(10, model.most_k) if searches else None), asked.distance)
            least = 0.0 if asked.abstain is None else predictor.threshold(asked.abstain)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        images, is_one = images_in(request.headers.get("content-type", ""), await sent.read(request), self._limits)
        say = partial(model.answer, top=asked.top or 5, least=least, looked=asked.looked)
        loop, answers = asyncio.get_running_loop(), list[dict[str, Any]]()
        squares = [self._decoding.submit(_square, image, predictor.image_size) for image in images]
        try:
            for square in squares:
                pixels = await asyncio.wrap_future(square)
                self.metrics.note_image(readable=not isinstance(pixels, UnreadableImage))
                if isinstance(pixels, UnreadableImage):
                    answers.append({"error": str(pixels)})
                else:
                    answers.append(await loop.run_in_executor(self._network, partial(say, predictor, pixels)))
        finally:  # of a request that took too long nothing more begins; what a thread has begun it ends
            for square in squares:
                square.cancel()
        if is_one and "error" in answers[0]:
            raise HTTPException(422, f"the image cannot be read: {answers[0]['error']}")
        told = {"model": model.key, "title": model.title, "seconds": round(time.perf_counter() - start, 4)}
        return JSONResponse({**told, **answers[0]} if is_one else {**told, "predictions": answers})


class _Body:
    """The body of a request, whose bytes count among those that the server holds until the request has ended."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics, self._bytes = limits, metrics, 0

    async def read(self, request: Request) -> bytes:
        """Return all of it.

        Raises:
            HTTPException: it is too large, or all that are held are.
        """
        too_large = HTTPException(413, f"a request may have {self._limits.body // 2**20} MiB; send a smaller image")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body:
            raise too_large
        parts = []
        async for part in request.stream():
            self._bytes += len(part)
            self._metrics.held += len(part)
            if self._bytes > self._limits.body:
                raise too_large
            if self._metrics.held > self._limits.bodies:
                busy = f"{self._limits.bodies // 2**20} MiB of images are being answered; ask again in a second"
                raise HTTPException(429, busy, {"retry-after": "1"})
            parts.append(part)
        return b"".join(parts)

    def release(self) -> None:
        """Count its bytes no longer."""
        self._metrics.held -= self._bytes


def _square(image: Any, size: int) -> NDArray[np.uint8] | UnreadableImage:
    try:
        return read_pixels(image, size, _NO_FILES)
    except UnreadableImage as why:
        return why


def _warm(model: Served) -> None:
    """Have the model answer once, which builds what the first answer needs."""
    side = model.predictor.image_size
    model.answer(model.predictor, np.zeros((side, side, 3), np.uint8), top=1, least=0.0, looked=False)


async def _page_file(name: str, _: Request) -> Response:
    return FileResponse(PAGE / name)


async def _say(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _openapi(_: Request) -> Response:
    return JSONResponse(describe_api())


async def _docs(_: Request) -> Response:
    """Return the API for people, on a page that needs nothing from elsewhere."""
    api, rows = describe_api(), []
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            asked = "".join(
                f"<li><code>{escape(one['name'])}</code>: {escape(one['description'])}</li>"
                for one in about.get("parameters", [])
            )
            rows.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(about['summary'])}</p>")
            rows.append(f"<ul>{asked}</ul>")
    head = f'<!doctype html><html lang="en"><head><title>{escape(api["info"]["title"])}</title>'
    head += '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/page.css"></head>'
    return HTMLResponse(
        f"{head}<body><main><h1>{escape(api['info']['title'])}</h1><p>{escape(api['info']['description'])} "
        f'<a href="/openapi.json">openapi.json</a> says it to programs; <a href="/">the page</a> uses it.</p>'
        f"{''.join(rows)}</main></body></html>"
    )
