"""Objectives and constraints at the end of a sweep, in sentences: the front, who is best for what, who broke what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.results.leaderboard import CROSS, STAR, Row
from sweeps.results.result import SweepResult
from sweeps.spec.objectives import Goals, Quantity

_MOST = 12


def goals_lines(result: SweepResult, shown: Sequence[Row]) -> list[str]:
    """Return what the goals make of the trials; nothing for accuracy alone without constraints."""
    return [*_infeasible_lines(result, shown), *_front_lines(result)]


def nothing_feasible(result: SweepResult) -> str:
    """Return why a sweep with constraints has no winner, with the trial that came nearest; empty for another reason."""
    goals = result.board.goals
    ended = [row for row in result.board.rows if row.trial.status in ("complete", "pruned")]
    broken = [row for row in ended if row.infeasible]
    if result.best is not None or not broken:
        return ""
    near = min(
        broken, key=lambda row: (row.trial.status != "complete", goals.excess(row.trial.metrics), row.trial.number)
    )
    limits = ", ".join(map(str, goals.constraints))
    return (
        f"No trial keeps the constraints ({limits}), so there is no winner and nothing is registered. The nearest was "
        f"trial {near.trial.number}: {near.infeasible}."
    )


def _infeasible_lines(result: SweepResult, shown: Sequence[Row]) -> list[str]:
    crossed = [row for row in shown if row.place == CROSS]
    lines = [
        f"{CROSS} trial {row.trial.number}{' was not run' if row.is_refused else ''}: {row.infeasible}"
        for row in crossed[:_MOST]
    ]
    refused = sum(row.is_refused for row in result.board.rows) - sum(row.is_refused for row in crossed)
    if refused:
        lines.append(f"Drawn but not run, since what is known before breaks a constraint: {refused}.")
    return lines


def _front_lines(result: SweepResult) -> list[str]:
    goals = result.board.goals
    if not result.board.pareto:
        return []
    metrics = {trial.number: trial.metrics for trial in result.trials if trial.number in result.board.pareto}
    names = " and ".join(objective.name for objective in goals.objectives)
    lines = ["", f"Pareto front of {names} ({STAR}): nothing is better in one without being worse in another."]
    best = {o: min(metrics, key=lambda n: (o.loss(metrics[n][o.metric]), n)) for o in goals.objectives}
    titles: dict[int, list[str]] = {number: [] for number in metrics}
    for objective, number in best.items():
        titles[number].append(_title(objective))
    middle = goals.compromise(metrics)
    if middle is not None and len(metrics) > 2:
        titles[middle].append("compromise")
    ranked = sorted(metrics, key=lambda number: goals.first.loss(metrics[number][goals.first.metric]))
    named = [number for number in ranked if titles[number]]
    told = sorted({*named, *ranked[:_MOST]}, key=ranked.index)
    lines += [f"  trial {number}: {_values(metrics[number], goals)}{_suffix(titles[number])}" for number in told]
    return lines + ([f"  … and {len(ranked) - len(told)} more."] if len(ranked) > len(told) else [])


def _title(objective: Quantity) -> str:
    if objective.name == "predict_time":
        return "best for speed"
    return "best model" if objective.name == "accuracy" else f"best in {objective.name}"


def _values(metrics: Mapping[str, float], goals: Goals) -> str:
    return ", ".join(f"{o.name} {o.write(metrics[o.metric])}" for o in goals.objectives)


def _suffix(titles: Sequence[str]) -> str:
    return f"  ({', '.join(titles)})" if titles else ""
