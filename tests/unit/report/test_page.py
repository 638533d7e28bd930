"""The report's page: what it tells is what the sweep's files tell, whatever state they are in."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import ask, complete, study_spec, trial_record
from reported import noisy_cars, write_sweep

from carcls.errors import InputError
from carcls.evaluation.significance import compare_hits
from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.cli.report import report
from sweeps.cli.run import _command_of, run
from sweeps.lock import locked
from sweeps.report.advice import advice_of
from sweeps.report.facts import Facts
from sweeps.report.page import write_report
from sweeps.report.verdict import verdict_of
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Champion, SweepResult
from sweeps.run.comparison import side_by_side
from sweeps.run.reporting import leave_report
from sweeps.run.session import repeats_wanted
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.records import read_history
from sweeps.study.study import Study
from sweeps.text import money_text, percent

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'


class Seen(HTMLParser):
    """What a reader of HTML takes from a page: each element with its attributes, table cells, and other texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self._in_row = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note an element; a cell begins anew."""
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
            self._in_row = True
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        """Add to the last cell, or to the other texts."""
        if self._in_row and self.rows[-1]:
            self.rows[-1][-1] += data.strip()
        elif data.strip():
            self.texts.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        """End a row."""
        self._in_row = self._in_row and tag != "tr"


def begun(folder: Path, **changes: Any) -> tuple[SweepSpec, Study]:
    """Return a sweep that has begun in ``folder``, and its study."""
    spec = study_spec(name=folder.name, **changes)
    write_file(folder, "sweep", None, [spec])
    return spec, Study.open(folder, spec)


def page_of(*folders: Path) -> str:
    """Return the page of sweeps."""
    return write_report(folders, None, title=folders[0].name)


def rows_of(page: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each trial's number with the texts of its row."""
    seen = Seen(page)
    numbers = [int(str(of["data-number"])) for tag, of in seen.elements if tag == "tr" and "data-number" in of]
    board = [row for row in seen.rows if row[-1:] == ["copy"]]
    return zip(numbers, board, strict=True)


def test_a_sweep_of_one_trial_has_its_answer(tmp_path: Path) -> None:
    """One trial wins over nobody: no luck of a choice is told, and its accuracy is the journal's."""
    _, study = begun(tmp_path / "one", trials=1)
    complete(study, ask(study), {"val_accuracy": 0.625})
    page = page_of(tmp_path / "one")
    assert "Trial 0 leads so far with 62.5% validation accuracy" in page
    assert "Chosen as the best of" not in page
    assert [(number, row[:4]) for number, row in rows_of(page)] == [(0, ["1", "0", "search", "62.5%"])]


def test_columns_that_say_the_same_in_each_row_are_one_line(tmp_path: Path) -> None:
    """What all trials have in common is told once above the leaderboard; what tells them apart keeps its column."""
    _, study = begun(tmp_path / "same", trials=2)
    for accuracy, f1 in ((0.5, 0.4), (0.5, 0.3)):
        complete(study, ask(study), {"val_accuracy": accuracy, "val_f1": f1, "parameters": 3.4e6})
    page = page_of(tmp_path / "same")
    (titles,) = [row for row in Seen(page).rows if row[-1:] == ["repeat"]]
    assert {"rank", "trial", "experiment", "val accuracy", "f1"} <= {*titles}
    assert "parameters" not in titles
    assert "The same in each that has it: parameters 3.4M" in page


def test_the_luck_of_a_choice_counts_all_that_were_chosen_among() -> None:
    """Trials that were stopped early lost on the same images; a choice by another number than accuracy adds none."""
    trials = [trial_record(n, n / 10) for n in range(3)] + [trial_record(n, 0.1, status="pruned") for n in (3, 4)]
    first, other = (
        Facts(Path("x"), spec, Leaderboard(tuple(trials), {}, 100, spec.goals), None, None, StageStore(Path("stages")))
        for spec in (study_spec(), study_spec(objectives=["f1", "accuracy"]))
    )
    said = " ".join(verdict_of(first).belief)
    assert "Chosen as the best of 5 networks, 2 of them stopped early, on 100 images" in said
    # The mean of the largest of 5 is 1.163 deviations; two that answer independently disagree on 2 x 0.2 x 0.8.
    assert f"up to {100 * 1.163 * (0.32 / 200) ** 0.5:.1f} points better" in said
    assert "Chosen as the best" not in " ".join(verdict_of(other).belief)


@pytest.mark.parametrize(
    ("champion", "note"),
    [
        (
            Champion("1", 0.5, (0.4, 0.6), apart="it was tested on other images, of demo"),
            "it was tested on other images",
        ),
        (Champion("1", 0.5, (0.4, 0.6), compare_hits(np.arange(40) < 30, np.arange(40) < 20)), "+25.0 points (95% +14"),
        (Champion("1", 0.5, (0.4, 0.6), compare_hits(np.arange(40) < 20, np.arange(40) < 30)), "-25.0 points (95% -40"),
        (Champion("3", 0.5, (0.4, 0.6)), "this winner is it"),
        (Champion("1", apart="its answers are missing"), "not comparable: its answers are missing"),
    ],
    ids=["other images", "better", "worse", "the winner", "unknown"],
)
def test_the_champion_stands_beside_the_winner(ended: Facts, champion: Champion, note: str) -> None:
    """With score and interval, and the difference or why there is none; nothing of it is asked of MLflow."""
    assert ended.result is not None
    assert ended.result.registered is not None
    registered = replace(ended.result.registered, champion=champion)
    read = SweepResult.from_dict(json.loads(json.dumps(replace(ended.result, registered=registered).as_dict())))
    figure = verdict_of(replace(ended, result=read)).figures[-1]
    assert (figure.label, figure.value) == ("The family's champion", percent(champion.accuracy))
    where = "its own" if champion.apart else "the"
    assert figure.note.startswith(f"carsweep-transfer {champion.version}, on {where} test images")
    assert ("95% interval 40.0% to 60.0%" in figure.note) == (champion.interval is not None)
    assert note in figure.note
    asks = any("promote" in one.command for one in advice_of(replace(ended, result=read)))
    assert asks == ("+25.0" in note)


def test_a_job_says_which_of_its_sweeps_have_not_begun(tmp_path: Path) -> None:
    """The page of a job that was stopped in its first family names the others."""
    _, study = begun(tmp_path / "job-scratch", trials=1, family="scratch")
    complete(study, ask(study), {"val_accuracy": 0.5})
    write_file(tmp_path / "job", "all", None, [study_spec(family=family) for family in ("scratch", "transfer")])
    done = CliRunner().invoke(report, ["job", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "not begun: job-transfer" in (tmp_path / "job" / "report.html").read_text(encoding="utf-8")


def test_only_files_are_written(tmp_path: Path) -> None:
    """A page that cannot be written is refused before anything is read, and what is no file stays what it is."""
    _, study = begun(tmp_path / "one", trials=1)
    complete(study, ask(study), {"val_accuracy": 0.625})
    os.mkfifo(tmp_path / "pipe")
    for path, rule in (("pipe", "must be a file"), ("gone/page.html", "must be in a folder that can be written to")):
        done = CliRunner().invoke(report, ["one", "--out", str(tmp_path), "-o", str(tmp_path / path)])
        assert isinstance(done.exception, InputError)
        assert rule in str(done.exception)
    assert (tmp_path / "pipe").is_fifo()


def test_a_sweep_with_only_failures_says_so(tmp_path: Path) -> None:
    """Without a winner the page says why, and shows the failed trials."""
    _, study = begun(tmp_path / "bad", trials=2)
    for _ in range(2):
        study.tell_failed(ask(study).number, HOSTILE, "bug")
    page = page_of(tmp_path / "bad")
    assert "No trial finished, so there is no winner." in page
    assert [row[0] for _, row in rows_of(page)] == ["failed", "failed"]


def test_each_row_can_be_repeated(tmp_path: Path) -> None:
    """The command of a row, as a shell and the command line read it, makes one trial of exactly its settings."""
    folder = tmp_path / "again"
    search = {"dropout": {"low": 0.0, "high": 0.7}, "unfreezing": ["frozen", "full"], "crop": ["none", "random"]}
    config = {"image_size": 96, "flip": True, "rotation": 15.0}
    _, study = begun(folder, trials=8, search=search, config=config, seed=7, data={"path": "/my cars", "margin": 0.1})
    for place in range(8):
        complete(study, ask(study), {"val_accuracy": place / 10})
    trials = {record.number: record for record in read_history(folder).records}
    commands = [str(of["data-command"]) for _, of in Seen(page_of(folder)).elements if "data-command" in of]
    for (number, _), command in zip(rows_of(page_of(folder)), commands, strict=True):
        spec = spec_of_command(command)
        assert (spec.trials, dict(spec.search), spec.experiments) == (1, {}, ())
        assert spec.trial_config({}).digest == trials[number].trial_config.digest
        assert (spec.data.path, spec.data.margin) == ("/my cars", 0.1)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A sweep of 40 trials that has ended, with stored answers."""
    root = tmp_path_factory.mktemp("ended")
    data = noisy_cars(
        root / "cars", ["Audi A4 Sedan 2012", HOSTILE.replace("/", "∕")], StageStore(root / "runs/stages")
    )
    return write_sweep(root / "runs", "mine", data, 40, price="3.6/hour")


def test_every_number_is_one_of_the_files(ended: Facts) -> None:
    """The leaderboard is the journal's, the figures are the result's, the luck is that of the stored answers."""
    page = page_of(ended.folder)
    seen, told = Seen(page), json.loads((ended.folder / "result.json").read_text(encoding="utf-8"))
    trials = {trial["number"]: trial for trial in told["trials"]}
    titles = next(row for row in seen.rows if row[:2] == ["rank", "trial"])
    for number, row in rows_of(page):
        cells, trial = dict(zip(titles, row, strict=True)), trials[number]
        assert cells["trial"] == str(number)
        accuracy = trial["metrics"].get("val_accuracy")
        assert cells["val accuracy"].partition(" ")[0] == ("–" if accuracy is None else f"{accuracy:.1%}")
        assert cells["epochs"] == str(trial["epochs"])
        assert cells["note"] == trial["reason"]
        if trial["status"] == "complete":
            assert cells["predict time"] == f"{trial['metrics']['predict_ms']:.3g} ms"
        for setting in ("dropout", "head_lr"):
            assert float(cells[setting]) == pytest.approx(trial["params"][setting], rel=0.005)
        assert (cells["unfreezing"], cells["optimizer"]) == (
            trial["params"]["unfreezing"],
            trial["params"]["optimizer"],
        )
    best, figures = trials[told["best"]["number"]], dict(zip(seen.texts, seen.texts[1:], strict=False))
    assert figures["Validation accuracy"] == f"{best['metrics']['val_accuracy']:.1%}"
    assert figures["Test accuracy"] == f"{told['test']['metrics']['test_accuracy']:.1%}"
    (compared,) = told["comparison"]
    said = next(text for text in seen.texts if text.startswith(f"Trial {best['number']} against the runner-up, trial"))
    assert f"trial {compared['against']}, on {told['data']['splits']['validation']} validation images" in said
    assert f"{100 * compared['difference']:+.1f} points" in said
    assert f"p {compared['p']:.3f}" in said
    for status, spent in told["spent"]["by_status"].items():
        (row,) = [row for row in seen.rows if row[0] == status and len(row) == 4]
        assert row[2:] == [str(spent["epochs"]), "–" if spent["cost"] is None else money_text(spent["cost"], "$")]
    assert luck_told(seen) == pytest.approx(luck_computed(ended), abs=0.0006)


def luck_told(seen: Seen) -> float:
    """Return what the page says the choice among many adds, in [0, 1]."""
    (said,) = re.findall(r"would look up to ([\d.]+) points better", " ".join(seen.texts))
    return float(said) / 100


def luck_computed(facts: Facts) -> float:
    """Return what it adds, from the answers themselves and by drawing, rather than by the formula of the report."""
    best = [row.trial for row in facts.board.networks]
    read = [np.load(facts.stages.root / trial.predictions) for trial in best[:10]]
    hits = np.stack([answers["predicted"] == answers["labels"] for answers in read])
    pairs = [(hits[a] != hits[b]).mean() for a in range(10) for b in range(a)]
    stopped = sum(trial.status == "pruned" for trial in facts.board.trials)
    drawn = np.random.default_rng(0).standard_normal((200_000, len(best) + stopped)).max(axis=1).mean()
    return float(drawn * np.sqrt(np.mean(pairs) / 2 / hits.shape[1]))


def test_a_sweep_that_runs_or_was_stopped_says_so(tmp_path: Path, ended: Facts) -> None:
    """While a process holds it the page says that it runs; later that it is unfinished, with the command to go on."""
    assert ended.dataset is not None
    left = write_sweep(tmp_path / "runs", "left", ended.dataset, 12, ended=False)
    with locked(left.folder):
        assert "running, as of " in page_of(left.folder)
    page = page_of(left.folder)
    assert "unfinished, as of " in page
    assert "carsweep resume left" in page
    assert "Test accuracy" in page
    assert "the test images are evaluated once, when the sweep is done" in page


def test_several_objectives_have_a_figure_each(tmp_path: Path, ended: Facts) -> None:
    """The first decides the winner; the front is drawn and its trials have a star."""
    assert ended.dataset is not None
    both = write_sweep(tmp_path / "runs", "both", ended.dataset, 20, objectives=["accuracy", "predict_time"])
    seen = Seen(page_of(both.folder))
    best, figures = both.board.best, dict(zip(seen.texts, seen.texts[1:], strict=False))
    assert best is not None
    assert figures["Predict time"] == f"{best.metrics['predict_ms']:.3g} ms"
    stars = [number for number, row in rows_of(page_of(both.folder)) if row[0].startswith("★")]
    assert sorted(stars) == list(both.board.pareto)


def test_a_confirmed_winner_is_told_by_its_fresh_seeds(tmp_path: Path) -> None:
    """The figure is their mean, and the shrinkage of the search's promise is told."""
    folder = tmp_path / "sure"
    spec, study = begun(folder, trials=2, confirm="1x3")
    for accuracy in (0.5, 0.7):
        complete(study, ask(study), {"val_accuracy": accuracy})
    assert study.confirm(repeats_wanted(spec, read_history(folder).records))
    for accuracy in (0.6, 0.64, 0.65):
        complete(study, ask(study), {"val_accuracy": accuracy})
    seen = Seen(page_of(folder))
    assert "Trial 1 leads so far with 63.0% validation accuracy" in seen.texts
    assert "63.0% ±2.6" in seen.texts
    assert any("The search had promised 70.0%, -7.0 points off." in text for text in seen.texts)


def test_several_sweeps_are_one_page(ended: Facts) -> None:
    """Each address is there once, each link leads to one, and the results stand side by side on top."""
    assert ended.dataset is not None
    other = write_sweep(ended.folder.parent, "other", ended.dataset, 12)
    sweeps = [ended.folder.name, other.folder.name]
    compared = side_by_side(ended.folder.parent, sweeps)
    seen = Seen(write_report([ended.folder, other.folder], None, title="job", compared=compared))
    ids = [str(of["id"]) for _, of in seen.elements if "id" in of]
    assert sorted(ids) == sorted(set(ids))
    assert {str(of["href"])[1:] for tag, of in seen.elements if tag == "a"} <= set(ids)
    assert [row[0] for row in seen.rows if row[1:4] == ["transfer", "complete", "search"]] == sweeps


def test_a_report_that_fails_costs_one_sentence(tmp_path: Path) -> None:
    """Nothing is raised; who waits for the sweep is told how to get it later."""
    told: list[str] = []
    leave_report(tmp_path, "gone", ["gone"], told.append)
    (sentence,) = told
    assert sentence.startswith("The report could not be written (")
    assert sentence.endswith(f"To write it: carsweep report gone --out {tmp_path}")


def spec_of_command(command: str) -> SweepSpec:
    """Return the sweep that a command line asks for."""
    program, word, family, *rest = shlex.split(command)
    assert (program, word) == ("carsweep", "run")
    parsed = run.commands[family].make_context(family, rest).params
    others = {"dry_run", "read", "as_json", "print_spec"}
    (spec,) = _command_of(family, **{name: said for name, said in parsed.items() if name not in others}).specs
    return spec


def test_text_stays_text(tmp_path: Path, ended: Facts) -> None:
    """HTML in a reason, a note, a title or a class makes no element, and nothing but the page's own script may run."""
    folder = tmp_path / "hostile"
    _, study = begun(folder, trials=2, note=HOSTILE)
    study.tell_failed(ask(study).number, HOSTILE, "bug")
    study.report(ask(study).number, Measurement(1, {"val_accuracy": 0.5}))
    for where in (folder, ended.folder):
        seen = Seen(write_report([where], None, title=HOSTILE)).elements
        assert [tag for tag, _ in seen].count("script") == 1
        assert not [tag for tag, of in seen if any(name.startswith("on") for name in of) or of.get("src") == "x"]
        (policy,) = [str(of["content"]) for tag, of in seen if tag == "meta" and "http-equiv" in of]
        assert policy.startswith("default-src 'none'; ")
        assert not re.search(r"(?<!\\)<", write_report([where], None, title=HOSTILE, markdown=True))


def test_markdown_has_the_same_numbers(ended: Facts) -> None:
    """Figures, belief, leaderboard, answers and details of the page are in the Markdown, too."""
    text = write_report([ended.folder], None, title="mine", markdown=True).replace("\\", "")
    for _, row in rows_of(page_of(ended.folder)):
        assert f"| {' | '.join(row[:4])} |" in text
    verdict = verdict_of(ended)
    assert all(f"| {one.label} | {one.value} | {one.note} |" in text for one in verdict.figures)
    assert all(sentence in text for sentence in verdict.belief)
    assert all(one.command in text and one.why in text for one in advice_of(ended))
