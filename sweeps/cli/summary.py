"""The end of a sweep, for a person: leaderboard, the winner on the test images, next steps."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from sweeps.cli.goals import goals_lines, nothing_feasible
from sweeps.cli.streams import callable_name, say
from sweeps.cli.trials import write_twins
from sweeps.cli.verdict import draw_confirmed, verdict_lines
from sweeps.results.leaderboard import shown_columns
from sweeps.results.result import SweepResult, TestReading
from sweeps.results.spending import spent_text
from sweeps.text import Grid, counts_text, duration, percent, percent_range, plural, settings_text, table_of

_SHOWN = 20
_WIDE = 95


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
        yield draw_confirmed(board.confirmed)
    yield from verdict_lines(result)
    if board.confirmed and result.best and not closing:
        yield _winner_line(result)
    yield from goals_lines(result, shown)
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
    run = sum(row.trial.sibling_of is None and not row.is_refused for row in rows)
    confirming = len(result.trials) - len(rows)
    more = f" and {plural(confirming, 'run')} to confirm the best" if confirming else ""
    return Text(
        f"{result.sweep}: {plural(run, 'trial')}{more} in {duration(result.seconds)} on {data.name} "
        f"({data.classes} classes, {counts_text(data.splits)} images)",
        style="bold",
    )


def _closing_lines(result: SweepResult) -> list[str]:
    if result.best is None:
        return [] if result.interrupted else [nothing_feasible(result) or "No trial finished, so there is no winner."]
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
            shlex.join([callable_name("carsweep"), "ui", result.sweep, "--out", result.out]),
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
