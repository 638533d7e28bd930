"""The winners of all families side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.results.result import SweepResult
from sweeps.run.comparison import Pair, columns_of, compare_sweeps, sweep_json
from sweeps.text import counts_text, markdown_table, table_of

if TYPE_CHECKING:
    from sweeps.run.command import Command

# Of the columns of sweeps beside others: those that every screen has room for, and these with the others.
_NARROW = ("family", "val_accuracy", "test_accuracy", "registered")
NARROW_COLUMNS, COLUMNS = columns_of(*_NARROW), columns_of(*_NARROW, "model", "test_f1", "trials", "seconds")


@dataclass(frozen=True, slots=True)
class Together:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images (``sweeps.run.comparison``).
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    pairs: tuple[Pair, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether one of its sweeps was; those after it did not begin."""
        return any(result.interrupted for result in self.results.values())

    @property
    def is_whole(self) -> bool:
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

    def markdown(self) -> str:
        """Return the comparison as a Markdown table."""
        data = next(iter(self.results.values())).data
        return (
            f"# {self.name}\n\n{data.name}: {data.classes} classes, images: {counts_text(data.splits)}. Each winner "
            "was chosen on the validation images and read once on the test images.\n\n"
            f"{markdown_table(table_of(COLUMNS, self.results.values()))}\n{_paired(self.pairs)}"
        )


def compare_winners(command: Command, results: Sequence[SweepResult], seconds: float) -> Together:
    """Compare the winners of a job's sweeps by their stored answers to the test images, which are not read again.

    One that was interrupted has no pairs yet.
    """
    by_family = {result.family: result for result in results}
    if results[-1].interrupted:
        return Together(command.name, seconds, by_family)
    groups = compare_sweeps(command.root, [result.sweep for result in results]).groups
    return Together(command.name, seconds, by_family, tuple(pair for group in groups for pair in group.pairs))


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"- {pair}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"
