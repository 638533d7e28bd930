"""Answers of models to images: yielded as they come, and written for programs."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.errors import InputError, UnreadableImage
from sweeps.text import DASH, plural

if TYPE_CHECKING:
    from carcls.export import Prediction, Predictor
    from sweeps.tracking.found import FoundModel

    # The path of an image, and what is said of it.
    Answer = tuple[str, Prediction | UnreadableImage]

# So often a person hears how far it is.
_TELL_SECONDS = 10.0


def images_of(words: Sequence[str], others: Counter[str]) -> Iterator[str]:
    """Return the images that the words of a command name; there is one, which is known before a model is loaded.

    Args:
        words: as of ``images_named``; ``-`` is stdin.
        others: counts the files in folders that are no images, by extension.

    Raises:
        InputError: there is none.
    """
    from carcls.data.paths import images_named, require_images

    require_images(words, sys.stdin)
    images = images_named(words, sys.stdin, others)
    first = next(images, None)
    if first is None:
        raise InputError(f"PATH must name images, got none in {', '.join(map(repr, words[:3]))}.{left_out(others)}")
    return chain([first], images)


def left_out(others: Counter[str]) -> str:
    """Say how many files are no images, by extension; nothing where there are none."""
    return f" Left out: {', '.join(f'{n} {end or DASH}' for end, n in others.most_common())}." if others else ""


def require_file(option: str, file: Path | None) -> None:
    """Check that an option names a file that can be written, if it names one.

    Raises:
        InputError: its folder is not there, or something else has its name.
    """
    if file is not None and (not file.absolute().parent.is_dir() or (file.exists() and not file.is_file())):
        raise InputError(f"{option} must name a file in a folder that exists, got {str(file)!r}. Correct it.")


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
