"""The winners of all families side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.comparison import Pair, SweepLine, compare, line_of, pair_line
from sweeps.comparison_files import read_sweeps
from sweeps.result import SweepResult
from sweeps.text import NOTHING, duration, images_of, markdown_table, percent, percent_range

if TYPE_CHECKING:
    from sweeps.command import Command

COLUMNS = ("family", "winner", "validation", "test", "95% interval", "test F1", "trials", "time", "registered as")
# What comparison.json tells of the winner of a family.
_TOLD = (
    *("family", "sweep", "trials", "model", "val_accuracy", "val_half_width", "test_accuracy", "test_f1"),
    *("test_interval", "seconds", "registered"),
)


@dataclass(frozen=True, slots=True)
class Together:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images (``sweeps.comparison``).
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    pairs: tuple[Pair, ...] = ()

    @property
    def lines(self) -> tuple[SweepLine, ...]:
        """The winners, one line each."""
        return tuple(line_of(result) for result in self.results.values())

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
            "comparison": [{name: getattr(line, name) for name in _TOLD} for line in self.lines],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }

    def rows(self) -> list[list[str]]:
        """Return the cells of ``COLUMNS``, a row for each family."""
        return [_cells(line) for line in self.lines]

    def markdown(self) -> str:
        """Return the comparison as a Markdown table."""
        data = next(iter(self.results.values())).data
        return (
            f"# {self.name}\n\n{data.name}: {data.classes} classes, images: {images_of(data.splits)}. Each winner was "
            "chosen on the validation images and read once on the test images.\n\n"
            f"{markdown_table(COLUMNS, self.rows())}\n{_paired(self.pairs)}"
        )


def compare_winners(command: Command, results: Sequence[SweepResult], seconds: float) -> Together:
    """Compare the winners of a job's sweeps by their stored answers to the test images, which are not read again.

    One that was interrupted has no pairs yet.
    """
    together = Together(command.name, seconds, {result.family: result for result in results})
    if together.interrupted:
        return together
    files = read_sweeps(command.root, [result.sweep for result in results])
    groups = compare(files.results, files.predictions).groups
    pairs = tuple(pair for group in groups for pair in group.pairs)
    return Together(together.name, seconds, together.results, pairs)


def _cells(line: SweepLine) -> list[str]:
    tested = (percent(line.test_accuracy), percent_range(line.test_interval), percent(line.test_f1))
    validated = percent(line.val_accuracy, line.val_half_width)
    registered = line.registered or NOTHING
    return [line.family, line.model, validated, *tested, str(line.trials), duration(line.seconds), registered]


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"-{pair_line(pair)[1:]}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"
