"""Values in words: durations, shares, sizes, money, counts, settings, commands, and sentences on lines of a width."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from carcls.errors import mask_secrets, shown

DASH = "–"
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_HOUR = 3600
# What is typed as one: an option with its value, words in quotes; and a command that a sentence ends with.
_TYPED = re.compile(r"(?:--[\w-]+[ =])?'[^'\n]*'|--[\w-]+ [^\s-]\S*")
_COMMAND = re.compile(r"(?<=[:.]) (?=\S*carsweep [a-z])")
_GLUE = "\ue000"  # of no alphabet, in the place of a blank that is no end of a word


def duration(seconds: float) -> str:
    """Return a measured duration in its two largest units.

    >>> [duration(s) for s in (8.21, 75, 7325)]
    ['8.2 s', '1 min 15 s', '2 h 02 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_duration(seconds: float) -> str:
    """Return a duration to the precision that a rough estimate deserves.

    >>> [rough_duration(s) for s in (0.2, 42, 130, 5000, 200_000)]
    ['0 s', '42 s', '2 min', '1 h 23 min', '56 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / 60:.0f} min"
    if seconds < 10 * _HOUR:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / _HOUR:.0f} h"


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, masked and cut to 200 characters."""
    line = mask_secrets(str(error) or type(error).__name__).strip().partition("\n")[0]
    return line if len(line) <= 200 else line[:199] + "…"


def minute(iso: str) -> str:
    """Return an ISO time to the minute.

    >>> minute("2026-01-31T09:05:59+00:00")
    '2026-01-31 09:05'
    """
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M")


def percent(share: float | None, half_width: float | None = None, *, digits: int = 1) -> str:
    """Return a share of [0, 1] in percent, with the half of its interval where there is one; a dash without a share.

    >>> [percent(0.7226), percent(0.7226, 0.0081), percent(0.7226, digits=2), percent(None), percent(float("nan"))]
    ['72.3%', '72.3% ±0.8', '72.26%', '–', '–']
    """
    if share is None or share != share:
        return DASH
    return f"{share:.{digits}%}" + ("" if half_width is None else f" ±{half_width * 100:.{digits}f}")


def percent_range(ends: tuple[float, float] | None) -> str:
    """Return both ends of an interval of shares in percent.

    >>> percent_range((0.7, 0.7512))
    '70.0% to 75.1%'
    """
    return DASH if ends is None else f"{ends[0]:.1%} to {ends[1]:.1%}"


def points(difference: float | None, *, digits: int = 1) -> str:
    """Return a difference of shares in percentage points, with its sign.

    >>> points(0.0123), points(-0.5, digits=2)
    ('+1.2', '-50.00')
    """
    return DASH if difference is None else f"{difference * 100:+.{digits}f}"


def plural(number: int, noun: str) -> str:
    """Return a number of things.

    >>> plural(1, "run"), plural(2500, "run")
    ('1 run', '2,500 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short_count(count: float) -> str:
    """Return a large number in short.

    >>> [short_count(n) for n in (812, 45_300, 3_400_000, 25_600_000, 1_200_000_000)]
    ['812', '45.3k', '3.4M', '25.6M', '1.2G']
    """
    return next((f"{count / unit:.1f}{letter}" for unit, letter in _COUNTS if count >= unit), f"{count:g}")


def counts_text(splits: Mapping[str, int]) -> str:
    """Return how many images each split has.

    >>> counts_text({"train": 8144, "test": 40})
    '8,144 train, 40 test'
    """
    return ", ".join(f"{count:,} {split}" for split, count in splits.items())


def size_text(size_bytes: float) -> str:
    """Return a number of bytes in words.

    >>> [size_text(s) for s in (0, 20_000, 3_400_000, 2_160_000_000)]
    ['–', '20.0 kB', '3.4 MB', '2.2 GB']
    """
    from rich.filesize import decimal

    return decimal(round(size_bytes)) if size_bytes > 0 else DASH


def parse_size(name: str, text: str) -> int:
    """Return the bytes of a size such as ``20GB`` or ``1.5 TiB``.

    Raises:
        ValueError: it is none; the message begins with ``name``.

    >>> [parse_size("disk", text) for text in ("20GB", "1.5 kb", "2MiB")]
    [20000000000, 1500, 2097152]
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    found = 0
    if re.fullmatch(r"\d*\.?\d+\s*[kmgt]i?b", text.strip().lower()):  # pydantic reads a size and leaves what follows
        with suppress(ValidationError, OverflowError):
            found = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    if found < 1000:
        raise ValueError(f"{name} must be a size in kB, MB, GB or TB, got {shown(text)}. Give one such as 20GB.")
    return found


def money_text(amount: float, currency: str) -> str:
    """Return an amount of money, with what matters of a small one.

    >>> [money_text(x, "$") for x in (0.0, 0.00123, 1.316, 40, 12345.6)]
    ['$0', '$0.0012', '$1.32', '$40', '$12346']
    """
    if amount == int(amount) or amount >= 1000:
        return f"{currency}{amount:.0f}"
    return f"{currency}{amount:.2f}" if amount >= 0.1 else f"{currency}{amount:.2g}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings in one short line.

    >>> settings_text({"head_lr": 0.0012345, "flip": True, "crop": "random"})
    'head_lr=0.00123 flip crop=random'
    """
    return " ".join(_setting(name, value) for name, value in settings.items())


def _setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"


def changes_text(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what was run otherwise than documented; ``changed`` has (documented, used) by setting.

    >>> changes_text({"epochs": (10, 2)})
    'epochs 2 instead of 10'
    """
    return ", ".join(f"{name} {used} instead of {documented}" for name, (documented, used) in changed.items())


def out_words(out: Path) -> list[str]:
    """Return what a command says to find the sweeps in ``out``: nothing where that is the folder ``runs`` at hand."""
    return [] if out.absolute() == Path("runs").absolute() else ["--out", str(out.absolute())]


def command_text(*words: str, out: Path) -> str:
    """Return a command line of carsweep, as a shell reads it, that finds the sweeps in ``out``.

    >>> command_text("resume", "mine", out=Path("runs")), command_text("report", "my own", out=Path("/data"))
    ('carsweep resume mine', "carsweep report 'my own' --out /data")
    """
    return shlex.join(["carsweep", *words, *out_words(out)])


def wrapped(text: str, width: int) -> str:
    """Return sentences whose lines end between words, where a terminal would end them within one.

    What a person copies stays whole, also where it is longer than a line: words, an option with its value, what is in
    quotes, a line that is a command. Lines that fit stay as they are; what follows of an indented one is indented more.

    >>> print(wrapped("To go on with this sweep: carsweep resume NAME", 30))
    To go on with this sweep:
      carsweep resume NAME
    """
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if len(line) <= width or re.match(r"\s*\S*carsweep [a-z]", line):
        return line
    sentence, *command = _COMMAND.split(line, maxsplit=1)
    if command:
        return "\n".join([_wrapped_line(sentence, width), f"  {command[0]}"])
    start = line[: len(line) - len(line.lstrip())]
    glued = _TYPED.sub(lambda typed: typed[0].replace(" ", _GLUE), line)
    lines = textwrap.wrap(
        glued, max(width, 1), subsequent_indent=start and f"{start}  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(_GLUE, " ")
