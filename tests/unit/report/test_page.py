"""The report's page: what it tells is what the sweep's files tell, whatever state they are in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers import ask, complete, study_spec

from carcls.outcome import Measurement
from sweeps.cli.run import _command_of, run
from sweeps.report.page import write_report
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.records import read_history
from sweeps.study.study import Study

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'


class Seen(HTMLParser):
    """What a reader of HTML takes from a page: each element with its attributes, and the texts of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
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
        """Add to the last cell."""
        if self._in_row and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

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


def spec_of_command(command: str) -> SweepSpec:
    """Return the sweep that a command line asks for."""
    program, word, family, *rest = shlex.split(command)
    assert (program, word) == ("carsweep", "run")
    parsed = run.commands[family].make_context(family, rest).params
    others = {"dry_run", "read", "as_json", "print_spec"}
    (spec,) = _command_of(family, **{name: said for name, said in parsed.items() if name not in others}).specs
    return spec


@pytest.mark.parametrize("markdown", [False, True])
def test_text_stays_text(tmp_path: Path, markdown: bool) -> None:
    """HTML in a reason or a note makes no element, and nothing but the page's own script may run."""
    folder = tmp_path / "hostile"
    _, study = begun(folder, trials=2, note=HOSTILE)
    study.tell_failed(ask(study).number, HOSTILE, "bug")
    asked = ask(study)
    study.report(asked.number, Measurement(1, {"val_accuracy": 0.5}))
    page = write_report([folder], None, title=HOSTILE, markdown=markdown)
    if markdown:
        assert not re.search(r"(?<!\\)<", page)
        return
    seen = Seen(page).elements
    assert [tag for tag, _ in seen].count("script") == 1
    assert not [tag for tag, of in seen if tag == "img" or any(name.startswith("on") for name in of)]
    (policy,) = [of["content"] for tag, of in seen if tag == "meta" and "http-equiv" in of]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
