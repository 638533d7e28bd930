"""What a person sees while a sweep runs and at its end."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from carcls.data.config import DataSummary
from carcls.outcome import Measurement
from sweeps.cli.output import say
from sweeps.cli.summary import print_result
from sweeps.cli.view import SweepView, open_view
from sweeps.engine.budget import BudgetStatus
from sweeps.results.leaderboard import Leaderboard, find_best
from sweeps.results.result import Registered, SweepResult, TestEvaluation
from sweeps.spec.loading import load_spec
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.spec.spec import SweepSpec
from sweeps.tables import Grid
from sweeps.trial import NOTHING, Duplicate, TrialRecord


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    """Return the demo preset with three trials."""
    return load_spec("transfer", overrides={"trials": 3})


def console_of(*, terminal: bool) -> tuple[Console, io.StringIO]:
    """Return a console and what is written to it."""
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=120, highlight=False, color_system=None), text


def record(
    spec: SweepSpec, number: int, accuracy: float | None, status: str = "complete", reason: str = ""
) -> TrialRecord:
    """Return a trial that has ended."""
    config = spec.trial_config({"dropout": 0.25}).model_dump()
    metrics = {} if accuracy is None else {"val_accuracy": accuracy, "val_loss": 1.0}
    return TrialRecord(number, None, {"dropout": 0.25}, config, status, metrics, 2, 3.0, reason)  # type: ignore[arg-type]


def status_of(*trials: TrialRecord, goals: Goals = ACCURACY_ALONE) -> BudgetStatus:
    """Return the status of a sweep of these trials."""
    ended = sum(trial.status != "running" for trial in trials)
    best = find_best(trials, goals)
    return BudgetStatus(NOTHING, None, ended, best, records={trial.number: trial for trial in trials})


def play(view: SweepView, spec: SweepSpec) -> None:
    """Show a sweep of a documented and a searched trial."""
    view.packing(5, 10)
    view.packing(10, 10)
    documented = replace(record(spec, 0, None, "running"), experiment="transfer/frozen")
    best, failed = record(spec, 1, 0.625), replace(documented, status="failed", reason="the loss became NaN")
    begun, trained = (replace(best, status="running", epochs=n, metrics={"val_accuracy": 0.5}) for n in (0, 1))
    told: dict[int, TrialRecord] = {}
    for trial in (documented, begun, trained, best, failed):
        told[trial.number] = trial
        view.on_status(status_of(*told.values()))
        view.trial_changed(trial)


def test_no_line_of_a_pipe_ends_in_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is as narrow as COLUMNS says, without rich's blanks; a sentence stays one line."""
    monkeypatch.setenv("COLUMNS", "20")
    console = Console(file=io.StringIO(), highlight=False)
    title = Text("a title of more than twenty letters", style="bold")
    say(
        console,
        title,
        "",
        Grid(["name", "what"], [["[a]", "some words to fold"], ["b", "–"]], ["name", "what"], ["what"]),
    )
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "a title of more than twenty letters",
        "",
        "name  what",
        "[a]   some words to",
        "      fold",
        "b     –",
    ]


def test_plain_view_prints_one_line_per_event(spec: SweepSpec) -> None:
    """A log file has each event on a line of its own, with what matters in it; of images only each tenth."""
    console, text = console_of(terminal=False)
    with open_view(spec, console) as view:
        play(view, spec)
    lines = text.getvalue().splitlines()
    assert len(lines) == 7
    for done in range(1001):
        view.packing(done, 1000)
    assert len(text.getvalue().splitlines()) == 7 + 11
    assert "transfer/frozen" in lines[2]
    assert "dropout=0.25" in lines[3]
    assert "50.0%" in lines[4]
    assert "62.5%" in lines[5]
    assert "the loss became NaN" in lines[6]


class Curve(tuple[Measurement, ...]):
    """A history that counts how often it is read."""

    read = 0

    def __iter__(self) -> Iterator[Measurement]:
        Curve.read += 1
        return super().__iter__()


def test_events_read_no_history_and_a_picture_reads_what_has_changed(spec: SweepSpec) -> None:
    """So an event of a sweep costs the same however many trials it has, and a picture what is new in it."""
    view = SweepView(spec, console_of(terminal=False)[0])
    trials = [replace(record(spec, number, 0.5), history=Curve()) for number in range(20)]
    console = console_of(terminal=True)[0]

    def reads(*told: TrialRecord) -> list[int]:
        Curve.read = 0
        for trial in told:
            view.on_status(status_of(*trials))
            view.trial_changed(trial)
        events = Curve.read
        console.print(view)
        return [events, Curve.read]

    first = reads(*trials)
    trials[3] = replace(trials[3], epochs=3)
    assert (first, reads(trials[3]), reads(trials[3])) == ([0, 2 * 20], [0, 2], [0, 0])


def test_live_view_leaves_the_last_picture_on_the_terminal(spec: SweepSpec) -> None:
    """Then it shows the best accuracy and every trial, also one that ended in an earlier session, or has not ended."""
    console, text = console_of(terminal=True)
    with open_view(spec, console) as view:
        play(view, spec)
        assert view.state.status
        view.on_status(
            status_of(*view.state.status.records.values(), record(spec, 7, 0.25), record(spec, 8, None, "running"))
        )
    last = text.getvalue().rsplit("sweep  ", 1)[1]
    assert "3 of 3 trials" in last
    assert "accuracy 62.5% · trial 1" in last
    assert re.search(r"\n +0  failed .* frozen", last)
    assert re.search(r"\n +7  complete .* 25\.0%", last)
    assert re.search(r"\n +8  unfinished ", last)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb is the terminal of editors and of some logs."""
    monkeypatch.setenv("TERM", "dumb")
    console, text = console_of(terminal=True)
    with open_view(spec, console) as view:
        play(view, spec)
    assert len(text.getvalue().splitlines()) == 7
    assert "\x1b" not in text.getvalue()


def test_runs_with_fresh_seeds_count_among_the_trials_to_come(spec: SweepSpec) -> None:
    """They are trained as the others are."""
    view = SweepView(spec.model_copy(update={"confirm": "2x3"}), console_of(terminal=False)[0])
    assert view.how_far().startswith(f"{spec.trials + 6} trials")


def test_the_progress_line_tells_the_best_by_the_sweeps_own_objective() -> None:
    """With the time of an answer as objective and a limit on parameters, the fastest trial within it is the best."""
    spec = load_spec("transfer", overrides={"objectives": ["predict_time"], "constraints": ["parameters <= 5M"]})
    console, text = console_of(terminal=False)
    view, trials = SweepView(spec, console), list[TrialRecord]()
    for number, (accuracy, milliseconds, parameters) in enumerate([(0.9, 4.0, 1e6), (0.5, 2.0, 2e6), (0.8, 1.0, 9e6)]):
        found = record(spec, number, accuracy)
        metrics = {**found.metrics, "predict_ms": milliseconds, "parameters": parameters}
        trials.append(replace(found, metrics=metrics))
        view.on_status(status_of(*trials, goals=spec.goals))
        view.trial_changed(trials[-1])
    assert "best predict_time 2 ms (trial 1)" in text.getvalue().splitlines()[-1]


def result_of(spec: SweepSpec) -> SweepResult:
    """Return a sweep with a winner and a failed trial."""
    trials = [record(spec, 0, 0.75), record(spec, 1, None, "failed", "out of memory")]
    return SweepResult(
        sweep="mine",
        family="transfer",
        out="/runs",
        data=DataSummary("cars", "abc", 30, 2, {"train": 20, "validation": 4, "test": 6}),
        board=Leaderboard(tuple(trials), spec.trial_config({}).model_dump(), 4),
        winner=0,
        test=TestEvaluation({"test_accuracy": 0.5}, (0.2, 0.8), 6),
        registered=Registered("carsweep-transfer", "3", "challenger", "models:/carsweep-transfer@challenger"),
        tracking_uri="sqlite:////runs/mlflow.db",
        seconds=12.5,
        stage_hits=3,
        saved_seconds=75.0,
    )


def end_of(result: SweepResult) -> str:
    """Return what is printed at the end of a sweep."""
    console, text = console_of(terminal=False)
    print_result(console, result)
    return text.getvalue()


def test_the_end_shows_winner_interval_registry_and_next_steps(spec: SweepSpec) -> None:
    """Whoever reads only the end knows how good the model is, where it is, and what to do with it."""
    shown = end_of(result_of(spec))
    said = ["75.0% ±", "dropout=0.25", "out of memory", "Test accuracy 50.0%", "20.0% to 80.0%", "evaluated once"]
    said += ["version 3, alias challenger", "carsweep ui mine --out /runs\n"]
    said += ["carsweep predict car.jpg --model carsweep-transfer/3 --out /runs\n", "promote transfer --out /runs\n"]
    said += ["Cached stages were found 3 times and saved 1 min 15 s of computing."]
    assert [words for words in said if words not in shown] == []


def test_the_end_names_trials_that_were_not_run(spec: SweepSpec) -> None:
    """Whoever misses a number learns which trial answers it, whether they are equal or nearly so."""
    winner, failed = result_of(spec).trials
    twins = tuple(Duplicate(number, number % 2 == 1, {}) for number in range(2, 15))
    board = replace(result_of(spec).board, trials=(replace(winner, duplicates=twins), failed))
    shown = end_of(replace(result_of(spec), board=board))
    said = "13 drawn trials were not run: 2 (same as trial 0), 3 (nearly the same as trial 0), 4 (same as trial 0)"
    assert said in shown
    assert "11 (nearly the same as trial 0) and 3 more." in shown


def test_the_end_without_a_winner_says_so(spec: SweepSpec) -> None:
    """When every trial failed, the end says why and offers no model."""
    board = replace(result_of(spec).board, trials=result_of(spec).trials[1:])
    shown = end_of(replace(result_of(spec), winner=None, test=None, registered=None, board=board))
    assert "no winner" in shown
    assert "out of memory" in shown
    assert "load_model" not in shown
