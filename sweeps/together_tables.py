"""The winners of all families side by side, as values and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.comparison import Pair, SweepLine, line_of, pair_line
from sweeps.result import SweepResult
from sweeps.text import NOTHING, duration, images_of, markdown_table, percent, percent_range

COLUMNS = (
    "family",
    "winner",
    "validation",
    "test",
    "95% interval",
    "test F1",
    "trials",
    "time",
    "registered as",
)

NARROW_COLUMNS = ("family", "validation", "test", "registered as")

# What comparison.json tells of the winner of a family.
_TOLD = (
    *("family", "sweep", "trials", "model", "val_accuracy", "val_half_width", "test_accuracy", "test_f1"),
    *("test_interval", "seconds", "registered"),
)


@dataclass(frozen=True, slots=True)
class TogetherResult:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images (``sweeps.comparison``).
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    interrupted: bool
    pairs: tuple[Pair, ...] = ()

    @property
    def lines(self) -> tuple[SweepLine, ...]:
        """The winners, one line each."""
        return tuple(line_of(result) for result in self.results.values())

    @property
    def is_registered(self) -> bool:
        """Whether every family has a registered model."""
        return all(result.registered for result in self.results.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "comparison": [{name: getattr(line, name) for name in _TOLD} for line in self.lines],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }


def comparison_rows(lines: Sequence[SweepLine]) -> list[list[str]]:
    """Return the comparison as cells, header first."""
    rows = [list(COLUMNS)]
    for line in lines:
        tested = (percent(line.test_accuracy), percent_range(line.test_interval), percent(line.test_f1))
        shares = (percent(line.val_accuracy, line.val_half_width), *tested)
        registered = line.registered or NOTHING
        rows.append([line.family, line.model, *shares, str(line.trials), duration(line.seconds), registered])
    return rows


def markdown_of(together: TogetherResult) -> str:
    """Return the comparison as a Markdown table."""
    header, *body = comparison_rows(together.lines)
    data = next(iter(together.results.values())).data
    return (
        f"# {together.name}\n\n{data.name}: {data.classes} classes, images: {images_of(data.splits)}. Each winner was "
        "chosen on the validation images and read once on the test images.\n\n"
        f"{markdown_table(header, body)}\n{_paired(together.pairs)}"
    )


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"-{pair_line(pair)[1:]}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"
