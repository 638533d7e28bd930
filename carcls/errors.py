"""Everything carsweep raises on purpose.

    CarsweepError
    ├── InputError               the user's mistake; the command line prints it in one line and exits with 2
    │   ├── SpecError            every mistake of a spec together, each with its path
    │   ├── DataError            a data set that is missing, empty, of no known layout, or too broken
    │   │   └── UnreadableImage  one image that cannot be used, and why
    │   ├── WeightsError         pretrained weights that cannot be had, or do not fit
    │   ├── OutputError          a folder that cannot be written
    │   └── TrackingError        a tracking server that does not answer
    ├── LostProcess              a process that worked for a trial is lost; the trial can go on from its checkpoint
    ├── SweepStopped             trials keep failing for one reason; the sweep can go on once it is mended
    └── TrialFailure             one trial cannot go on; the sweep does
        ├── NonFiniteLoss        the loss became NaN or infinite
        ├── OutOfMemory          the device's memory did not suffice
        ├── NoDevice             the GPU that the trial was given cannot be used
        ├── BadData              an image or a stage vanished or is damaged
        │   └── DamagedCheckpoint    what a trial would go on from
        └── DiskFull             the disk has no room

Messages read "{name} must {rule}, got {value!r}." and end with the remedy.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

# From so many names on, a list of them all is no help to somebody who misspelt one.
_MANY_NAMES = 12
_LONGEST_VALUE = 120


class CarsweepError(Exception):
    """Base of every error that carsweep raises on purpose."""


class InputError(CarsweepError):
    """A mistake of the user's; says what to do next."""


class SpecError(InputError):
    """One or more mistakes in a spec, reported together.

    Args:
        mistakes: one sentence each, beginning with the path of the setting (``search.dropout.high: …``).
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(printable(mistake) for mistake in mistakes)
        super().__init__("\n".join(self.mistakes))


class DataError(InputError):
    """The data set cannot be used."""


class UnreadableImage(DataError):  # noqa: N818 - what it says is a reason, mostly shown and not raised
    """One image cannot be used; ``str()`` of it is the reason, without the path."""


class WeightsError(InputError):
    """Pretrained weights cannot be had, or do not fit the backbone."""


class OutputError(InputError):
    """A folder for results cannot be written."""


class TrackingError(InputError):
    """The tracking server cannot be used."""


class SweepStopped(CarsweepError):  # noqa: N818 - says what happened to the sweep
    """Trials kept failing for one reason, or Ray did not start; the message gives it, and the command that goes on."""


class LostProcess(CarsweepError):  # noqa: N818 - what happened to it, not a programming error
    """A process that a trial had started died, or can use its GPU no more."""


class TrialFailure(CarsweepError):  # noqa: N818 - a failed trial is an outcome, not a programming error
    """One trial cannot go on. ``str()`` of it is the reason shown on the leaderboard."""


class NonFiniteLoss(TrialFailure):
    """The training or validation loss became NaN or infinite."""


class OutOfMemory(TrialFailure):
    """The device's memory did not suffice for this trial."""


class NoDevice(TrialFailure):
    """The trial was given a GPU, and PyTorch can use none."""


class BadData(TrialFailure):
    """Something that the trial reads vanished, or is damaged; the message names the file."""


class DamagedCheckpoint(BadData):
    """What a trial would go on from cannot be read; the trial can begin anew."""


class DiskFull(TrialFailure):
    """The disk has no room for what the trial writes; the message names the folder."""


def nearest(name: str, known: Iterable[str]) -> str:
    """End an unknown-name message: the nearest known names if there are any, and all of them unless they are many.

    >>> nearest("dropuot", ["dropout", "epochs"])
    ' Did you mean dropout? Known: dropout, epochs.'
    >>> nearest("lr", ["head_lr", "backbone_lr", "epochs"])
    ' Did you mean backbone_lr or head_lr? Known: backbone_lr, epochs, head_lr.'
    """
    names = sorted({*known})
    close = difflib.get_close_matches(name, names, n=1) or [known for known in names if name in known.split("_")]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return hint if close and len(names) > _MANY_NAMES else f"{hint} Known: {', '.join(names)}."


def shown(value: Any) -> str:
    """Write a value for the end of a message: its ``repr``, with the middle of what is long, deep or endless left out.

    >>> shown([0.5, "a"]), shown("x" * 1000)[-4:], len(shown("x" * 1000)) < 130
    ("[0.5, 'a']", "xxx'", True)
    """
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 31]}...{text[-28:]}"


def _short_repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _LONGEST_VALUE - 20
    short.maxlevel = 3
    return short


_SHORT = _short_repr()


def mask_secrets(text: str) -> str:
    """Hide what stands before the @ of every address in ``text``, and the values of password-like query parameters.

    >>> mask_secrets("http://ann:s3cret@host:5000/mlflow?password=x&a=1, got 'ann:s3cret@host:8265'")
    "http://***@host:5000/mlflow?password=***&a=1, got '***@host:8265'"
    """
    # Greedy up to the last @ before a slash or a space: passwords may hold an @ themselves.
    text = re.sub(r"(?<=://)[^\s/'\"]*@", "***@", text)
    # And where an address has no scheme, or was taken for a path, which has lost a slash.
    text = re.sub(r"(?:(?<![^\s'\"=])|(?<=:/))[^\s/'\"=:]+:[^\s/'\"]+@(?=[\w\[])", "***@", text)
    return re.sub(r"(?i)([?&;][^=&\s]*(?:password|passwd|pwd|token|secret|key)[^=&\s]*=)[^&\s'\"]+", r"\1***", text)


def printable(text: str) -> str:
    """Return the text on one line, and without what would act on a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
