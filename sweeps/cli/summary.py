"""The end of a command that ran sweeps, for a person: leaderboard, what it is worth, the winner, next steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from carcls.catalog import FAMILIES
from sweeps.cli.output import WIDE, Verbatim, carsweep_command, duplicates_text, say
from sweeps.report.details import CONFIRMED
from sweeps.report.page import REPORT
from sweeps.report.verdict import compared_text, idle_seeds_text, test_text, why_no_winner, winner_text
from sweeps.results.leaderboard import CROSS, STAR, Row, shown_columns
from sweeps.results.result import Registered, SweepResult, saved_text, spent_text
from sweeps.run.comparison import NARROW_COLUMNS, WINNER_COLUMNS, Pair, Together
from sweeps.run.reproduction import Reproduction
from sweeps.spec.objectives import Quantity
from sweeps.tables import Grid, table_of
from sweeps.text import counts_text, duration, out_words, plural, settings_text

_SHOWN, _SHOWN_GOALS, _SHOWN_PAIRS = 20, 12, 20
_WIDE_BOARD = 95


def print_outcome(console: Console, out: Path, outcome: SweepResult | Together | Reproduction) -> None:
    """Print what a command came to, whose folder of runs is ``out``."""
    match outcome:
        case SweepResult():
            print_result(console, outcome)
        case Together():
            for result in outcome.results.values():
                print_result(console, result, closing=False)
            title = f"\n{outcome.name}: the winners of all families, in {duration(outcome.seconds)}"
            columns = WINNER_COLUMNS if console.width >= WIDE else NARROW_COLUMNS
            winners = table_of(columns, outcome.results.values(), fold=("model",))
            say(console, Text(title, style="bold"), winners, *pair_lines(outcome.pairs))
            if not outcome.interrupted:
                say(console, f"\n{_written(out / outcome.name / 'comparison')}", *_report_lines(out / outcome.name))
                best = [one for one in outcome.results.values() if one.registered][:1]
                asked = [carsweep_command("predict", _test_image(one), *_store_words(one)) for one in best]
                ui = carsweep_command("ui", outcome.name, *out_words(out))
                say(console, "\nNext: ask the best of them, or look at the runs.", *map(Verbatim, [*asked, ui]))
        case _:
            drawn = (Markdown(part) if isinstance(part, str) else part for part in outcome.blocks())
            parts = [part for one in drawn for part in (one, "")] if console.is_terminal else [outcome.markdown()]
            say(console, *parts, _written(out / outcome.name / "reproduction"), *_report_lines(out / outcome.name))


def _report_lines(folder: Path) -> list[str]:
    """Name the report, if it was written."""
    return [f"Report: {folder / REPORT}"] if (folder / REPORT).is_file() else []


def _written(stem: Path) -> str:
    return f"Written to {stem}.md and {stem.name}.json."


def pair_lines(pairs: Sequence[Pair]) -> list[str]:
    """Return what the tests of pairs say; nothing where there are none."""
    if not pairs:
        return []
    corrected = f", Holm's correction over {len(pairs)} pairs" if len(pairs) > 1 else ""
    title = f"\nWinners on the same {pairs[0].numbers.images} test images, in points (exact McNemar test{corrected}):"
    left_out = len(pairs) - _SHOWN_PAIRS
    more = [f"  … and {left_out} more pairs; --json has them all."] if left_out > 0 else []
    return [title, *(f"  {pair}" for pair in pairs[:_SHOWN_PAIRS]), *more]


def print_result(console: Console, result: SweepResult, *, closing: bool = True) -> None:
    """Print the leaderboard and what to do next.

    Args:
        console: where to.
        result: of the sweep.
        closing: whether to print the winner's test score and what to do next.
    """
    say(console, *_parts(result, wide=console.width >= _WIDE_BOARD, closing=closing))


def _parts(result: SweepResult, *, wide: bool, closing: bool) -> Iterator[RenderableType]:
    board, shown = result.board, result.board.shown[:_SHOWN]
    yield _title(result)
    yield table_of(shown_columns(shown, wide=wide, goals=board.goals), shown)
    yield "\nSettings that differ from the sweep's base:"
    yield Grid(None, [(f"  trial {row.trial.number}", settings_text(row.settings) or "none") for row in shown])
    yield from _left_out(result)
    yield from (f"trial {trial.number} failed: {trial.reason}" for trial in result.trials if trial.status == "failed")
    if board.confirmed:
        yield (
            "\nConfirmed with fresh seeds, best first; ± is their standard deviation, above too, where the other "
            "columns are of the search:"
        )
        yield table_of(CONFIRMED, board.confirmed)
    yield from verdict_lines(result)
    if board.confirmed and result.best and not closing:
        yield _winner_text(result)
    yield from _infeasible_lines(result, shown)
    yield from _front_lines(result)
    if result.spent:
        yield spent_text(result.spent)
    if saved := saved_text(result.stage_hits, result.saved_seconds):
        yield saved
    if closing:
        yield from _closing_lines(result)


def _title(result: SweepResult) -> Text:
    data, rows = result.data, result.board.rows
    run = sum(row.trial.derived_from is None and not row.trial.refused for row in rows)
    confirming = len(result.trials) - len(rows)
    more = f" and {plural(confirming, 'run')} to confirm the best" if confirming else ""
    return Text(
        f"\n{result.sweep}: {plural(run, 'trial')}{more} in {duration(result.seconds)} on {data.name} "
        f"({data.classes} classes, {counts_text(data.splits)} images)",
        style="bold",
    )


def _left_out(result: SweepResult) -> list[str]:
    derived = sum(trial.derived_from is not None for trial in result.trials)
    more, duplicates = len(result.board.shown) - _SHOWN, duplicates_text(result.trials)
    lines = [f"… and {more} more."] if more > 0 else []
    if derived:
        lines.append(
            f"{plural(derived, 'derived trial')} (another k, distance or vote on a trial's embeddings); of a trial and "
            "those derived from it the best is shown."
        )
    if duplicates:
        lines.append(f"{duplicates}.")
    return [*lines, f"All rows: {result.out}/{result.sweep}/leaderboard.json"] if lines else []


def _closing_lines(result: SweepResult) -> list[str]:
    report = [] if result.interrupted else _report_lines(Path(result.out) / result.sweep)
    if result.best is None:
        return [*([] if result.interrupted else [why_no_winner(result.board)]), *report]
    lines = ["", _winner_text(result), test_text(result.test)] if result.test else [""]
    model = result.registered
    if model is None:
        return [*lines, *report]
    return [
        *lines,
        f"Registered as {model.name}, version {model.version}, {model.standing}",
        *report,
        "",
        "Next:",
        # Neither indented nor wrapped: a shell takes what is pasted as it stands.
        *(Verbatim(line) for line in _next_commands(result, model)),
    ]


def _next_commands(result: SweepResult, model: Registered) -> list[str]:
    """Return what a shell takes to ask a model about an image, to look at the runs, and to make it the champion."""
    is_near, store = FAMILIES[result.family].neighbours, _store_words(result)
    asked = [_test_image(result), "--model", f"{model.name}/{model.version}", *store]
    return [
        carsweep_command("predict", *asked),
        *([carsweep_command("similar", *asked)] if is_near else []),
        carsweep_command("ui", result.sweep, *out_words(Path(result.out))),
        *([carsweep_command("promote", result.family, *store)] if model.alias else []),
    ]


def _store_words(result: SweepResult) -> list[str]:
    """Return what a command says to find the model of a result; nothing where that is in ``runs`` at hand."""
    out = Path(result.out)
    is_default = result.tracking_uri == f"sqlite:///{out / 'mlflow.db'}"
    return [*out_words(out), *([] if is_default else ["--tracking-uri", result.tracking_uri])]


def _test_image(result: SweepResult) -> str:
    """Return the path of an image that the model was tested on, as the sweep's folder tells it."""
    try:
        said = json.loads((Path(result.out) / result.sweep / "dataset.json").read_text(encoding="utf-8"))
        manifest, first = said["manifest"], said["splits"]["test"][0]
        return str(Path(manifest["root"]) / manifest["images"]["path"][first])
    except (OSError, ValueError, LookupError, TypeError):
        return "car.jpg"


def _winner_text(result: SweepResult) -> str:
    return winner_text(result.board, refit=bool(result.test and result.test.refit))


def verdict_lines(result: SweepResult) -> list[str]:
    """Return what is to be said after the leaderboard; nothing where there is nothing to compare."""
    several = len(result.comparison) > 1
    compared = (compared_text(one, result.board, several=several) for one in result.comparison)
    return [*idle_seeds_text(result.board), *compared]


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
    """List the Pareto front by the first objective: the best in each objective, the compromise, and what fits."""
    goals, front = result.board.goals, result.board.pareto
    if not front:
        return []
    metrics = {trial.number: trial.metrics for trial in result.trials if trial.number in front}
    titles: dict[int, list[str]] = {number: [] for number in metrics}
    for objective in goals.objectives:
        best = min(metrics, key=lambda n: (objective.loss(metrics[n][objective.metric]), n))
        titles[best].append(_best_in(objective))
    middle = goals.compromise(metrics)
    if middle is not None and len(metrics) > 2:
        titles[middle].append("compromise")
    ranked = sorted(metrics, key=lambda number: goals.first.loss(metrics[number][goals.first.metric]))
    listed = [number for place, number in enumerate(ranked) if titles[number] or place < _SHOWN_GOALS]
    names = " and ".join(objective.name for objective in goals.objectives)
    lines = ["", f"Pareto front of {names} ({STAR}): nothing is better in one without being worse in another."]
    for number in listed:
        values = ", ".join(f"{o.name} {o.write(metrics[number][o.metric])}" for o in goals.objectives)
        lines.append(f"  trial {number}: {values}" + (f"  ({', '.join(titles[number])})" if titles[number] else ""))
    return lines + ([f"  … and {len(ranked) - len(listed)} more."] if len(ranked) > len(listed) else [])


def _best_in(objective: Quantity) -> str:
    if objective.name == "predict_time":
        return "best for speed"
    return "best model" if objective.name == "accuracy" else f"best in {objective.name}"
