"""The winners of all families side by side, as values and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from carcls.evaluation.significance import wilson_interval
from sweeps.comparison import Pair, pair_line
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


@dataclass(frozen=True, slots=True)
class Contender:
    """The winner of one family.

    Attributes:
        family, sweep: whose winner it is.
        trials: that were run.
        model: name of the documented experiment, or ``search``.
        val_accuracy, val_half_width: in [0, 1]; None where no trial finished.
        test_accuracy, test_f1, test_interval: on the test images, read once.
        seconds: of the whole sweep.
        registered: ``name version``; empty when it is not.
    """

    family: str
    sweep: str
    trials: int
    model: str
    val_accuracy: float | None
    val_half_width: float | None
    test_accuracy: float | None
    test_f1: float | None
    test_interval: tuple[float, float] | None
    seconds: float
    registered: str


@dataclass(frozen=True, slots=True)
class TogetherResult:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images (``sweeps.comparison``).
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    contenders: tuple[Contender, ...]
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
            "comparison": [asdict(contender) for contender in self.contenders],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }


def contender_of(result: SweepResult) -> Contender:
    """Return the winner of a family's sweep."""
    best, test = result.best, result.test
    accuracy = best.metrics.get("val_accuracy") if best else None
    images = result.data.splits["validation"]
    ends = None if accuracy is None else wilson_interval(round(accuracy * images), images)
    named = None if best is None else best.number if best.confirms is None else best.confirms
    trial = next((t for t in result.trials if t.number == named), None)
    registered = result.registered
    return Contender(
        family=result.family,
        sweep=result.sweep,
        trials=sum(t.sibling_of is None and t.confirms is None for t in result.trials),
        model="none" if trial is None else trial.experiment or "search",
        val_accuracy=accuracy,
        val_half_width=(ends[1] - ends[0]) / 2 if ends else None,
        test_accuracy=test.metrics.get("test_accuracy") if test else None,
        test_f1=test.metrics.get("test_f1") if test else None,
        test_interval=test.interval if test else None,
        seconds=result.seconds,
        registered=f"{registered.name} {registered.version}" if registered else "",
    )


def comparison_rows(contenders: Sequence[Contender]) -> list[list[str]]:
    """Return the comparison as cells, header first."""
    rows = [list(COLUMNS)]
    for c in contenders:
        half = f" ±{c.val_half_width * 100:.1f}" if c.val_half_width is not None else ""
        interval = f"{c.test_interval[0] * 100:.1f}–{c.test_interval[1]:.1%}" if c.test_interval else "–"
        shares = (_share(c.val_accuracy) + half, _share(c.test_accuracy), interval, _share(c.test_f1))
        rows.append([c.family, c.model, *shares, str(c.trials), _minutes(c.seconds), c.registered or "–"])
    return rows


def markdown_of(together: TogetherResult) -> str:
    """Return the comparison as a Markdown table."""
    header, *body = comparison_rows(together.contenders)
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
