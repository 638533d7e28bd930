"""The end of a sweep, for a person: leaderboard, the winner on the test images, next steps."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sweeps.budget_text import spent_text
from sweeps.cli.goals import cost_columns, goals_lines, nothing_feasible, place_of
from sweeps.cli.running import write_twins
from sweeps.cli.streams import callable_name
from sweeps.cli.verdict import draw_confirmed, verdict_lines
from sweeps.confirm import find_confirmed
from sweeps.leaderboard import Row, condensed, leaderboard_of
from sweeps.objectives import Quantity
from sweeps.result import SweepResult, TestReading
from sweeps.text import NOTHING, duration, images_of, percent, percent_range, plural, settings_text, table

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 20
_WIDE = 95


def print_result(console: Console, result: SweepResult, base: Mapping[str, Any], *, closing: bool = True) -> None:
    """Print the leaderboard and what to do next.

    Args:
        console: where to.
        result: of the sweep.
        base: the settings that the sweep started from; the table shows what differs from them.
        closing: whether to tell the winner's test score and what to do next.
    """
    board = leaderboard_of(result, base)
    console.print()
    console.print(_title(result, board.rows))
    rows = condensed(board.rows)
    console.print(draw_rows(rows[:_SHOWN], wide=console.width >= _WIDE, costs=cost_columns(result.goals)))
    console.print("\nSettings that differ from the sweep's base:")
    console.print(_draw_settings(rows[:_SHOWN]))
    for line in _left_out(len(rows), board.rows, result):
        console.print(line, markup=False, soft_wrap=True)
    for trial in result.trials:
        if trial.status == "failed":
            console.print(f"trial {trial.number} failed: {trial.reason}", markup=False, soft_wrap=True)
    if result.confirmed:
        console.print(
            "\nConfirmed with fresh seeds, best first; ± is their standard deviation, above too, where the other "
            "columns are of the search:",
            soft_wrap=True,
        )
        console.print(draw_confirmed(result.confirmed))
    for line in verdict_lines(result):
        console.print(line, markup=False, soft_wrap=True)
    if result.confirmed and result.best and not closing:
        console.print(_winner_line(result), markup=False, soft_wrap=True)
    for line in goals_lines(result, board, rows[:_SHOWN]):
        console.print(line, markup=False, soft_wrap=True)
    if result.spent:
        console.print(spent_text(result.spent), markup=False, soft_wrap=True)
    if result.saved_seconds:
        saved = duration(result.saved_seconds)
        console.print(f"Shared stages saved the trials {saved} of computing.", markup=False, soft_wrap=True)
    for line in _closing_lines(result) if closing else []:
        console.print(line, markup=False, soft_wrap=True)


def _left_out(shown: int, rows: Sequence[Row], result: SweepResult) -> list[str]:
    siblings = sum(row.sibling_of is not None for row in rows)
    lines = [f"… and {shown - _SHOWN} more."] if shown > _SHOWN else []
    if siblings:
        lines.append(
            f"{siblings} combinations of k, distance and vote were answered on the way of other trials; of each trial "
            "and its combinations the best is shown."
        )
    twins = [(twin.number, row.number, twin.near) for row in rows for twin in row.twins]
    if twins:
        lines.append(f"{write_twins(twins)}.")
    return [*lines, f"All rows: {result.out}/{result.sweep}/leaderboard.json"] if lines else []


def _title(result: SweepResult, rows: Sequence[Row]) -> Text:
    data = result.data
    run = sum(row.sibling_of is None and not row.is_refused for row in rows)
    confirming = sum(trial.confirms is not None for trial in result.trials)
    more = f" and {confirming} runs that confirm the best" if confirming else ""
    return Text(
        f"{result.sweep}: {run} trials{more} in {duration(result.seconds)} on {data.name} "
        f"({data.classes} classes, {images_of(data.splits)} images)",
        style="bold",
    )


def draw_rows(rows: Sequence[Row], *, wide: bool, costs: Sequence[Quantity] = ()) -> Table:
    """Draw the leaderboard, with columns of ``costs``; a narrow one leaves out what a glance can spare."""
    retrieval = any(row.map_at_r is not None for row in rows)
    measures: tuple[str, ...] = () if costs else ("recall@5", "mAP@R") if retrieval else ("top-5",)  # no room for all
    paid = tuple(quantity.name.replace("_", " ") for quantity in costs)
    header = (
        "rank",
        "trial",
        "experiment",
        "val accuracy",
        *paid,
        *((*measures, "f1", "epochs") if wide else ()),
        "time",
    )
    cells = []
    for row in rows:
        measured = () if costs else (row.recall_at_5, row.map_at_r) if retrieval else (row.top5,)
        more = (*map(percent, measured), percent(row.f1), str(row.epochs)) if wide else ()
        name = row.experiment or ("search" if row.sibling_of is None else f"search, by trial {row.sibling_of}")
        spent = (_cost(row, quantity) for quantity in costs)
        cells.append((place_of(row), str(row.number), name, _accuracy(row), *spent, *more, duration(row.seconds)))
    return table(header, cells, words=("experiment",))


def _cost(row: Row, quantity: Quantity) -> str:
    value = row.predict_ms if quantity.unit == "milliseconds" else row.parameters
    return NOTHING if value is None else quantity.write(value)


def _draw_settings(rows: Sequence[Row]) -> Table:
    return table(None, [(f"  trial {row.number}", settings_text(row.settings) or "none") for row in rows])


def _accuracy(row: Row) -> str:
    if row.confirmed is not None:
        return percent(row.confirmed.mean, row.confirmed.spread)
    return percent(row.accuracy, row.half_width)


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
    winner = find_confirmed(result.confirmed)
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
    goals = result.goals
    kept = ", among the trials that keep all constraints" if goals.constraints else ""
    by = f" by {goals.first.name}, the first objective" if goals.first.name != "accuracy" or goals.are_several else ""
    return f"on the validation images{by}{kept}"


def _test_line(test: TestReading) -> str:
    accuracy = percent(test.metrics.get("test_accuracy"))
    times = "once" if test.readings == 1 else f"{test.readings} times, for {plural(test.models, 'model')} of this sweep"
    interval = percent_range(test.interval)
    return f"Test accuracy {accuracy} (95% interval {interval}, {test.images} images, read {times})."
