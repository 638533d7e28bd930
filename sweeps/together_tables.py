"""The winners of all families side by side, as values and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.comparison import Pair, columns_of, sweep_json
from sweeps.result import SweepResult
from sweeps.text import images_of, markdown_table

# Of the columns of sweeps beside others: those that every screen has room for, and the others.
NARROW_COLUMNS = ("family", "val_accuracy", "test_accuracy", "registered")
COLUMNS = (*NARROW_COLUMNS, "model", "test_f1", "trials", "seconds")


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
    def is_registered(self) -> bool:
        """Whether every family has a registered model."""
        return all(result.registered for result in self.results.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "comparison": [sweep_json(result) for result in self.results.values()],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }


def markdown_of(together: TogetherResult) -> str:
    """Return the comparison as a Markdown table."""
    columns = columns_of(*COLUMNS)
    cells = [[column.cell(result) for column in columns] for result in together.results.values()]
    data = next(iter(together.results.values())).data
    return (
        f"# {together.name}\n\n{data.name}: {data.classes} classes, images: {images_of(data.splits)}. Each winner was "
        "chosen on the validation images and read once on the test images.\n\n"
        f"{markdown_table([column.title for column in columns], cells)}\n{_paired(together.pairs)}"
    )


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"- {pair}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"
