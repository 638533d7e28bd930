"""A real ``carsweep serve`` in a process of its own, with two small models that were never trained."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from carcls.config import TrialConfig
from carcls.export import load_export, write_export
from carcls.models.classifier import build_classifier
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.whitening import Projection
from carcls.serving.app import make_app
from carcls.serving.asked import Limits
from carcls.serving.served import Served

SIZE, SHOWN = 64, 12
CLASSES = ("Aero Coupe 2001", "Boxer <b>Van</b> 2007", "Corsa Wagon 2012")
_CONFIG = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, seed=3)


def picture(seed: int, width: int = 100, height: int = 80) -> NDArray[np.uint8]:
    """Return a coarse pattern, RGB uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return coarse.repeat(height // 4, axis=0).repeat(width // 4, axis=1)


def jpeg(seed: int, size: tuple[int, int] = (100, 80), **options: Any) -> bytes:
    """Return the file of a picture, so wide and high."""
    file = io.BytesIO()
    Image.fromarray(picture(seed, *size)).save(file, "JPEG", **options)
    return file.getvalue()


def write_models(folder: Path) -> list[Path]:
    """Write a model whose neighbours answer, with pictures of its gallery, and a classifier; return their folders."""
    classifier = build_classifier(_CONFIG, len(CLASSES)).eval()
    with torch.no_grad():
        classifier.head.weight *= 40
    paths = [folder / "retrieval", folder / "transfer"]
    write_export(paths[1], classifier, _CONFIG, classes=CLASSES, margin=0.0)
    identity = Projection(None, None, l2_normalize=False)
    settings = TrialConfig(family="retrieval", k=3)
    images = tuple(f"train/{place}.jpg" for place in range(SHOWN))
    labels = np.arange(SHOWN, dtype=np.int64) % len(CLASSES)
    blank = Gallery(np.zeros((SHOWN, classifier.backbone.embedding), np.float32), labels, identity, settings, images)
    write_export(paths[0], classifier, _CONFIG, classes=CLASSES, margin=0.0, gallery=blank)
    embeddings = load_export(paths[0]).compute([picture(seed) for seed in range(SHOWN)])
    gallery = Gallery(embeddings, labels, identity, settings, images)
    pictures = [jpeg(seed) for seed in range(SHOWN)]
    write_export(paths[0], classifier, _CONFIG, classes=CLASSES, margin=0.0, gallery=gallery, thumbnails=pictures)
    return paths


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and its process; None where it is a thread of this one."""

    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Return the code, the headers and the answer, read as JSON where it is; POST where there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, named)
            answer = connection.getresponse()
            found = answer.read()
            told = {name.lower(): value for name, value in answer.getheaders()}
            is_json = found.strip() and told.get("content-type", "").startswith("application/json")
            return answer.status, told, json.loads(found) if is_json else found
        finally:
            connection.close()

    def send(self, path: str, value: object) -> tuple[int, Any]:
        """POST JSON; return the code and the answer."""
        code, _, answer = self.ask(path, json.dumps(value).encode(), content_type="application/json")
        return code, answer


@contextmanager
def serving(models: Sequence[Path], *words: str, **variables: str) -> Iterator[Server]:
    """Run ``carsweep serve`` on a free port until the end; it is warm."""
    named = [word for model in models for word in ("--model", str(model))]
    command = [sys.executable, "-m", "sweeps", "serve", *named, "--port", "0", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
    )
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "Serving on" in line)
        server = Server(int(said.split("/ until")[0].rpartition(":")[2]), process)
        until(lambda: server.ask("/health")[0] == 200)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextmanager
def serving_here(models: Sequence[Path], limits: Limits) -> Iterator[Server]:
    """Serve in a thread of this process, with other limits, until the end."""
    app = make_app([Served(one.name, one.name, load_export(one), {}) for one in models], limits=limits)
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        server = Server(listening.getsockname()[1])
        try:
            until(lambda: running.started and server.ask("/health")[0] == 200)
            yield server
        finally:
            running.should_exit = True
            thread.join(20)


def until(is_so: Any, seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)
