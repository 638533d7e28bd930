"""The end of a sweep, for a person: leaderboard, what it is worth, the winner on the test images, next steps."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from carcls.evaluation.significance import NO_DIFFERENCE
from sweeps.cli.output import callable_name, carsweep_command, say, write_twins
from sweeps.results.leaderboard import CROSS, STAR, Row, shown_columns
from sweeps.results.result import Compared, SweepResult, TestReading, spent_text
from sweeps.spec.objectives import Quantity
from sweeps.study.confirmation import Confirmed
from sweeps.text import (
    Grid,
    counts_text,
    duration,
    percent,
    percent_range,
    plural,
    points,
    settings_text,
    table_of,
)

_SHOWN, _SHOWN_GOALS = 20, 12
_WIDE = 95
# Words in names of metrics that are times: the same model takes others each time.
_TIMES = {"ms", "seconds"}


def print_result(console: Console, result: SweepResult, *, closing: bool = True) -> None:
    """Print the leaderboard and what to do next.

    Args:
        console: where to.
        result: of the sweep.
        closing: whether to tell the winner's test score and what to do next.
    """
    say(console, *_parts(result, wide=console.width >= _WIDE, closing=closing))


def _parts(result: SweepResult, *, wide: bool, closing: bool) -> Iterator[RenderableType]:
    board, shown = result.board, result.board.shown[:_SHOWN]
    yield ""
    yield _title(result)
    yield table_of(shown_columns(shown, wide=wide, goals=board.goals), shown)
    yield "\nSettings that differ from the sweep's base:"
    yield Grid(None, [(f"  trial {row.trial.number}", settings_text(row.settings) or "none") for row in shown])
    yield from _left_out(result)
    for trial in result.trials:
        if trial.status == "failed":
            yield f"trial {trial.number} failed: {trial.reason}"
    if board.confirmed:
        yield (
            "\nConfirmed with fresh seeds, best first; ± is their standard deviation, above too, where the other "
            "columns are of the search:"
        )
        yield _confirmed(board.confirmed)
    yield from verdict_lines(result)
    if board.confirmed and result.best and not closing:
        yield _winner_line(result)
    yield from _infeasible_lines(result, shown)
    yield from _front_lines(result)
    if result.spent:
        yield spent_text(result.spent)
    if result.saved_seconds:
        yield f"Shared stages saved the trials {duration(result.saved_seconds)} of computing."
    if closing:
        yield from _closing_lines(result)


def _left_out(result: SweepResult) -> list[str]:
    derived = sum(trial.sibling_of is not None for trial in result.trials)
    more = len(result.board.shown) - _SHOWN
    lines = [f"… and {more} more."] if more > 0 else []
    if derived:
        verb = "was" if derived == 1 else "were"
        lines.append(
            f"{plural(derived, 'combination')} of k, distance and vote {verb} answered on the way of other trials; of "
            "each trial and its combinations the best is shown."
        )
    twins = write_twins(result.trials)
    if twins:
        lines.append(f"{twins}.")
    return [*lines, f"All rows: {result.out}/{result.sweep}/leaderboard.json"] if lines else []


def _title(result: SweepResult) -> Text:
    data, rows = result.data, result.board.rows
    run = sum(row.trial.sibling_of is None and not row.trial.refused for row in rows)
    confirming = len(result.trials) - len(rows)
    more = f" and {plural(confirming, 'run')} to confirm the best" if confirming else ""
    return Text(
        f"{result.sweep}: {plural(run, 'trial')}{more} in {duration(result.seconds)} on {data.name} "
        f"({data.classes} classes, {counts_text(data.splits)} images)",
        style="bold",
    )


def _closing_lines(result: SweepResult) -> list[str]:
    if result.best is None:
        return [] if result.interrupted else [_why_no_winner(result)]
    lines = [""]
    if result.test:
        lines += [_winner_line(result), _test_line(result.test)]
    if result.registered:
        model = result.registered
        held = f"alias {model.alias}" if model.alias else "while another version is the challenger"
        lines += [
            f"Registered as {model.name}, version {model.version}, {held}.",
            "",
            "Next: ask the model, or look at the runs.",
            # Not indented: a shell and Python take what is pasted as it stands.
            f"{shlex.quote(callable_name('python'))} - <<'END'",
            "import mlflow",
            f"mlflow.set_tracking_uri({result.tracking_uri!r})",
            f"model = mlflow.pyfunc.load_model({model.uri!r})",
            f"print(model.predict([{_test_image(result)!r}]))",
            "END",
            carsweep_command("ui", result.sweep, "--out", result.out),
        ]
    return lines


def _test_image(result: SweepResult) -> str:
    """Return the path of an image that the model was tested on, as the sweep's folder tells it."""
    try:
        said = json.loads((Path(result.out) / result.sweep / "dataset.json").read_text(encoding="utf-8"))
        manifest, first = said["manifest"], said["splits"]["test"][0]
        return str(Path(manifest["root"]) / manifest["images"]["path"][first])
    except (OSError, ValueError, LookupError, TypeError):
        return "car.jpg"


def _winner_line(result: SweepResult) -> str:
    """Say who won and which model stands for it."""
    assert result.best is not None
    winner = result.board.best_confirmed
    number = result.best.number
    if winner is None:
        line = f"Trial {number} won {_by_what(result)}."
    else:
        line = (
            f"Trial {winner.number} won {_by_what(result)}: {percent(winner.mean, winner.spread)} over "
            f"{len(winner.runs)} fresh seeds. Trial {number}, its run nearest to that mean, stands for it."
        )
    if result.test and result.test.refit:
        line += " The model is a refit: trained anew on training and validation images, so it has no validation score."
    return line


def _by_what(result: SweepResult) -> str:
    goals = result.board.goals
    kept = ", among the trials that keep all constraints" if goals.constraints else ""
    by = f" by {goals.first.name}, the first objective" if goals.first.name != "accuracy" or goals.are_several else ""
    return f"on the validation images{by}{kept}"


def _test_line(test: TestReading) -> str:
    accuracy = percent(test.metrics.get("test_accuracy"))
    times = "once" if test.readings == 1 else f"{test.readings} times, for {plural(test.models, 'model')} of this sweep"
    interval = percent_range(test.interval)
    return f"Test accuracy {accuracy} (95% interval {interval}, {test.images} images, read {times})."


def _confirmed(confirmed: Sequence[Confirmed]) -> Grid:
    """Draw one row for each trial that was confirmed, best first; accuracies in percent, shrinkage in points."""
    rows = [
        (
            str(one.number),
            str(one.asked) if one.is_whole else f"{len(one.runs)} of {one.asked}",
            percent(one.mean, one.spread),
            percent(one.search),
            points(one.shrinkage),
        )
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
    chance = "< 0.001" if compared.p < 0.001 else f"{compared.p:.3f}"
    images = result.data.splits["validation"]
    return f"{sides}, on {images} validation images: {difference}, p {chance}{corrected}: {verdict}."


def _why_no_winner(result: SweepResult) -> str:
    """Say why a sweep has none; where constraints are the reason, with the trial that came nearest."""
    goals = result.board.goals
    broken = [row for row in result.board.rows if row.infeasible and row.trial.status in ("complete", "pruned")]
    if not broken:
        return "No trial finished, so there is no winner."
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
        f"{CROSS} trial {row.trial.number}{' was not run' if row.trial.refused else ''}: {row.infeasible}"
        for row in crossed[:_SHOWN_GOALS]
    ]
    refused = sum(row.trial.refused for row in result.board.rows) - sum(row.trial.refused for row in crossed)
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
        titles[number].append(_best_in(objective))
    middle = goals.compromise(metrics)
    if middle is not None and len(metrics) > 2:
        titles[middle].append("compromise")
    ranked = sorted(metrics, key=lambda number: goals.first.loss(metrics[number][goals.first.metric]))
    named = [number for number in ranked if titles[number]]
    told = sorted({*named, *ranked[:_SHOWN_GOALS]}, key=ranked.index)
    for number in told:
        values = ", ".join(f"{o.name} {o.write(metrics[number][o.metric])}" for o in goals.objectives)
        lines.append(f"  trial {number}: {values}" + (f"  ({', '.join(titles[number])})" if titles[number] else ""))
    return lines + ([f"  … and {len(ranked) - len(told)} more."] if len(ranked) > len(told) else [])


def _best_in(objective: Quantity) -> str:
    if objective.name == "predict_time":
        return "best for speed"
    return "best model" if objective.name == "accuracy" else f"best in {objective.name}"
