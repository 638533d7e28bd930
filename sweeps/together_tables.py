"""The winners of all families side by side, as values and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.comparison import Pair, SweepLine, line_of, pair_line
from sweeps.result import SweepResult

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
        half = f" ±{line.val_half_width * 100:.1f}" if line.val_half_width is not None else ""
        interval = f"{line.test_interval[0] * 100:.1f}–{line.test_interval[1]:.1%}" if line.test_interval else "–"
        shares = (_share(line.val_accuracy) + half, _share(line.test_accuracy), interval, _share(line.test_f1))
        rows.append(
            [line.family, line.model, *shares, str(line.trials), _minutes(line.seconds), line.registered or "–"]
        )
    return rows


def markdown_of(together: TogetherResult) -> str:
    """Return the comparison as a Markdown table."""
    header, *body = comparison_rows(together.lines)
    lines = [header, ["---" for _ in header], *body]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    data = next(iter(together.results.values())).data
    images = ", ".join(f"{count:,} {split}" for split, count in data.splits.items())
    return (
        f"# {together.name}\n\n{data.name}: {data.classes} classes, images: {images}. Each winner was chosen on the "
        f"validation images and read once on the test images.\n\n{table}\n" + _paired(together.pairs)
    )


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"-{pair_line(pair)[1:]}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
