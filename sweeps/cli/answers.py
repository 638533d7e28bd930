"""Answers of models to images: yielded as they come, and written for programs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.errors import UnreadableImage
from sweeps.text import plural

if TYPE_CHECKING:
    from carcls.export import Prediction, Predictor
    from sweeps.tracking.found import FoundModel

    # The path of an image, and what is said of it.
    Answer = tuple[str, Prediction | UnreadableImage]

# So often a person hears how far it is.
_TELL_SECONDS = 10.0


def answers_to(predictor: Predictor, names: Iterable[str], top: int, abstain: float | None = None) -> Iterator[Answer]:
    """Yield the path of each image with what the model says, or why it cannot be read, as they are read."""
    asked: deque[str] = deque()

    def paths() -> Iterator[Path]:
        for name in names:
            asked.append(name)
            yield Path(name)

    for answer in predictor.answers(paths(), top=top, abstain=abstain):
        yield asked.popleft(), answer


def told(answers: Iterable[Answer], notify: Callable[[str], None]) -> Iterator[Answer]:
    """Yield the answers, and say now and then how many there are."""
    told = start = time.monotonic()
    for done, answer in enumerate(answers, start=1):
        yield answer
        now = time.monotonic()
        if now - told > _TELL_SECONDS:
            told = now
            notify(f"{plural(done, 'image')} so far, {done / (now - start):.0f} a second")


def cells_of(answer: Answer) -> list[str]:
    """Return the path, then classes and probabilities, or for one that cannot be read nothing, nothing, why."""
    name, said = answer
    if isinstance(said, UnreadableImage):
        return [name, "", "", str(said)]
    named = [(said.label, said.probability), *said.top[1:]]
    return [name, *(cell for label, share in named for cell in (label, f"{share:.4f}"))]


def named(found: FoundModel) -> dict[str, Any]:
    """Return what JSON has of the model that answered."""
    return {"name": found.name, "version": found.version, "aliases": list(found.aliases)}


def plain(answer: Answer) -> dict[str, Any]:
    """Return what JSON has of an answer."""
    name, said = answer
    if isinstance(said, UnreadableImage):
        return {"image": name, "error": str(said)}
    return {"image": name, **asdict(said), "top": [{"label": one, "probability": share} for one, share in said.top]}
