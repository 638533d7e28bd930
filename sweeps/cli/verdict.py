"""What a leaderboard is worth, for a person: what fresh seeds said, and whether the winner differs from the others."""

from __future__ import annotations

from collections.abc import Sequence

from carcls.evaluation.significance import NO_DIFFERENCE
from sweeps.results.result import Compared, SweepResult
from sweeps.study.confirmation import Confirmed
from sweeps.text import Grid, percent, points

# Words in names of metrics that are times: the same model takes others each time.
_TIMES = {"ms", "seconds"}


def draw_confirmed(confirmed: Sequence[Confirmed]) -> Grid:
    """Draw one row for each trial that was confirmed, best first; accuracies in percent, shrinkage in points."""
    rows = [
        (str(one.number), _runs(one), percent(one.mean, one.spread), percent(one.search), points(one.shrinkage))
        for one in confirmed
    ]
    return Grid(("trial", "fresh seeds", "mean ± spread", "search score", "shrinkage"), rows)


def verdict_lines(result: SweepResult) -> list[str]:
    """Return what is to be said after the leaderboard; nothing where there is nothing to compare."""
    winner = result.board.best_confirmed
    lines = []
    if result.board.confirmed and winner is None:
        lines.append("No run with a fresh seed finished, so that nothing is confirmed: the search chose the winner.")
    if winner is not None and _seeds_are_idle(winner, result):
        lines.append(f"The seed changes nothing in trial {winner.number}: all its runs are the same model.")
    return [*lines, *(_compared_line(compared, result) for compared in result.comparison)]


def _seeds_are_idle(one: Confirmed, result: SweepResult) -> bool:
    """Tell whether all runs measured the same to the last digit, as they do where nothing is trained."""
    runs = [trial.metrics for trial in result.trials if trial.number in one.runs]
    timeless = [{name: x for name, x in metrics.items() if not _TIMES & set(name.split("_"))} for metrics in runs]
    return len(runs) > 1 and all(metrics == timeless[0] for metrics in timeless)


def _runs(one: Confirmed) -> str:
    return str(one.asked) if one.is_whole else f"{len(one.runs)} of {one.asked}"


def _compared_line(compared: Compared, result: SweepResult) -> str:
    """Say how the winner stands to another trial.

    The words are those of a test: what is not shown may still be there.
    """
    winner = result.board.best_confirmed
    assert result.best is not None
    if winner is None:
        sides = f"Trial {result.best.number} against the runner-up, trial {compared.against}"
    else:
        sides = f"Trial {winner.number} against trial {compared.against}, both with fresh seeds"
    low, high = map(points, compared.interval)
    difference = f"{points(compared.difference)} points (95% {low} to {high})"
    corrected = ", by Holm" if len(result.comparison) > 1 else ""
    verdict = "a difference is shown" if compared.shown else NO_DIFFERENCE
    images = result.data.splits["validation"]
    return f"{sides}, on {images} validation images: {difference}, p {_chance(compared.p)}{corrected}: {verdict}."


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
