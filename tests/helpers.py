"""What several tests read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pytest
from PIL import Image

from carcls.config import TrialConfig
from carcls.evaluation.confidence import Confidence
from carcls.outcome import Measurement
from carcls.stages import LOG, StageStore
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree
from sweeps.study.journal import JOURNAL, sealed
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from sweeps.engine.task import Work
    from sweeps.study.study import Asked, Study


def events_of(store: StageStore) -> list[SimpleNamespace]:
    """Return the lines of a store's log, oldest first: ``kind``, ``digest``, ``event``, ``seconds``, ``pid``."""
    log = store.root / LOG
    return [SimpleNamespace(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def spec_of_yaml(text: str, source: str = "spec.yaml") -> SweepSpec:
    """Return the spec that ``SweepSpec.to_yaml`` wrote."""
    return SweepSpec.from_tree(read_tree(text, source))


@contextmanager
def importable(folder: Path, name: str, code: str) -> Iterator[Path]:
    """Write a module where processes of trials look for modules: they inherit the path."""
    (folder / f"{name}.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


class Diary:
    """An observer that keeps what it hears, and may act on an epoch."""

    def __init__(self, on_epoch: Callable[[int, int], None] = lambda *_: None) -> None:
        self.news: list[tuple[str, int]] = []
        self.finished: list[TrialRecord] = []
        self.epochs: list[tuple[int, int]] = []
        self._on_epoch = on_epoch

    def trial_changed(self, record: TrialRecord) -> None:
        """Note what is new, keep the record of a trial that has ended, and act on an epoch."""
        if record.status != "running":
            self.news.append(("finished", record.number))
            self.finished.append(record)
        elif ("started", record.number) in self.news:
            self.news.append(("epoch", record.number))
            self.epochs.append((record.number, record.epochs))
            self._on_epoch(record.number, record.epochs)
        else:
            self.news.append(("started", record.number))


@contextmanager
def light_work(
    folder: Path, spec: SweepSpec, module: str, data: Mapping[str, Any], stages: Path | None = None
) -> Iterator[Work]:
    """Yield the work of a sweep under ``folder`` with the light runner of a module, whose data set is ``data``."""
    from sweeps.engine.session import RaySession
    from sweeps.engine.task import Work

    (folder / "dataset.json").write_text(json.dumps({"log": str(folder / "log"), **data}))
    where = (folder / "sweep", folder / "dataset.json", stages or folder / "stages")
    with RaySession() as session:
        yield Work(spec, *where, session, runner=f"{module}:run", loader=f"{module}:load")


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Return what the runner noted, in the order of writing."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def study_spec(**changes: Any) -> SweepSpec:
    """Return a sweep over the dropout in which no trial is stopped early; with changes."""
    fields = {"family": "transfer", "search": {"dropout": Range(0.0, 0.5)}, "early_stopping": {"enabled": False}}
    return SweepSpec.model_validate({**fields, **changes})


def trial_record(number: int, accuracy: float | None, **changes: Any) -> TrialRecord:
    """Return a complete trial of one epoch whose dropout, unless ``config`` has another, is its number's; changed."""
    config = TrialConfig.model_validate({"dropout": number / 100, **changes.pop("config", {})}).model_dump()
    metrics = {} if accuracy is None else {"val_accuracy": accuracy}
    fields = {"experiment": None, "settings": {}, "status": "complete", "metrics": metrics, "epochs": 1, "seconds": 1.0}
    return TrialRecord(**{"number": number, "config": config, **fields, **changes})


def ask(study: Study) -> Asked:
    """Ask for a trial that must be there."""
    asked = study.ask()
    assert asked is not None
    return asked


def asked_of(study: Study) -> Iterator[Asked]:
    """Yield what the study hands out until it has nothing."""
    while (asked := study.ask()) is not None:
        yield asked


def complete(study: Study, asked: Asked, metrics: Mapping[str, float], **more: Any) -> None:
    """Report the last epoch of a trial, at which nobody is stopped, and close the trial with it."""
    assert not study.report(asked.number, Measurement(asked.config.epochs, metrics))
    study.tell_complete(asked.number, {"metrics": metrics, "epochs": asked.config.epochs, "model": "m", **more})


def run_study(study: Study, measure: Callable[[Asked], Mapping[str, float]]) -> list[Asked]:
    """Complete all that the study still owes; return it."""
    done = []
    for asked in asked_of(study):
        complete(study, asked, measure(asked))
        done.append(asked)
    return done


def rewrite_journal(folder: Path, change: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]) -> None:
    """Write a study's journal anew, with what ``change`` makes of its lines; each gets its sum."""
    content, total = b"", 0
    for log in change([json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]):
        line, total = sealed({name: value for name, value in log.items() if name != "sum"}, total)
        content += line
    (folder / JOURNAL).write_bytes(content)


def draw_pictures(root: Path, classes: int = 4, train: int = 10, test: int = 4) -> Path:
    """Draw class folders with a test split: every picture another one, 96 x 64 pixels."""
    for label in range(classes):
        for split, first, count in (("train", 0, train), ("test", 500, test)):
            folder = root / split / f"Make Model {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = np.random.default_rng(1000 * label + first + number).integers(0, 256, (6, 9, 3), np.uint8)
                picture = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
                picture.save(folder / f"{number:05d}.jpg")
    return root


def export_with_gallery(
    folder: Path, pictures: Path, *, thumbnails: bool = False, confidence: Confidence | None = None
) -> Path:
    """Export a small random network whose gallery has the training pictures that ``draw_pictures`` drew."""
    from carcls.export import read_pixels, write_export
    from carcls.export.engines import TorchEngine
    from carcls.models.classifier import build_classifier
    from carcls.neighbours.gallery import Gallery

    values = {"backbone": "timm:resnet10t", "weights": "random", "image_size": 64, "pooling": "average", "k": 3}
    config = TrialConfig.model_validate({"family": "retrieval", **values})
    images = sorted((pictures / "train").rglob("*.jpg"))
    classes = sorted({image.parent.name for image in images})
    classifier = build_classifier(config, len(classes)).eval()
    embeddings = TorchEngine(classifier, 64, "average")(np.stack([read_pixels(image, 64) for image in images]))
    labels = np.array([classes.index(image.parent.name) for image in images])
    names = tuple(image.relative_to(pictures).as_posix() for image in images)
    gallery = replace(Gallery.fitted(config, embeddings, labels), images=names)
    more: dict[str, Any] = {"thumbnails": [image.read_bytes() for image in images]} if thumbnails else {}
    more["confidence"] = confidence
    details = {"sweep": "mine"}
    write_export(folder, classifier, config, classes=classes, margin=0.0, details=details, gallery=gallery, **more)
    return folder


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> dict[str, Any]:
        """The one object on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value


def run_carsweep(folder: Path, words: Sequence[str], *, stop_at: str | None = None) -> Done:
    """Run a command in ``folder`` to its end; with ``stop_at``, a pattern, send SIGINT once stderr has it."""
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        command = [sys.executable, "-m", "sweeps.cli", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, cwd=folder, text=True)
        deadline = time.monotonic() + 300
        while stop_at is not None and not re.search(stop_at, errors.read_text(), re.DOTALL):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, errors.read_text()
            time.sleep(0.1)
        if stop_at is not None:
            process.send_signal(SIGINT)
        out, _ = process.communicate(timeout=600)
    return Done(process.returncode, out, errors.read_text())


def stages_made(out: Path, kind: str = "") -> int:
    """Return how many stages, or of those of a kind, were computed under a folder of runs."""
    events = events_of(StageStore(out / "stages"))
    return sum(event.event == "made" and kind in ("", event.kind) for event in events)


def commands_of(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command of a group that does something, with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Make a folder that is a real disk of so many bytes (``4m``) while the test runs; skip the test where none can."""
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
