"""The report's answers in a real browser: a mistake is opened with the keyboard, on a wide and on a narrow window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from answered import HOSTILE, SIZE, noisy_cars, write_answers
from helpers import ask, complete, study_spec

from carcls.stages import write_json
from sweeps.report.facts import read_facts
from sweeps.report.mistakes import _key
from sweeps.report.page import write_report
from sweeps.spec.sweep_file import write_file
from sweeps.study.study import Study

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep with one trial, whose mistakes are each near to the same training image."""
    root = tmp_path_factory.mktemp("answers")
    data, stages = noisy_cars(root)
    folder, name = root / "out" / "mine", "training/one/validation.npz"
    spec = study_spec(name="mine", trials=1, fixed={"image_size": SIZE})
    write_file(folder, "sweep", None, [spec])
    data.save(folder / "dataset.json")
    write_answers(stages.root / name, data, data.splits.validation)
    with Study.open(folder, spec) as study:
        complete(study, ask(study), {"val_accuracy": 0.5}, model="training/one", predictions=name)
    near = [[int(data.splits.train[0]), 0.25]]
    found = {"said": "The nearest of all.", "images": {str(row): near for row in data.splits.validation}}
    key = _key(data, read_facts(folder).board.trials[0])
    stages.get_or_make("nearest", key, lambda work: write_json(work / "nearest.json", found))
    write_report([folder], folder / "report.html", title="mine")
    return folder / "report.html"


@pytest.mark.parametrize("width", [360, 1280])
def test_a_mistake_opens_with_the_keyboard(open_page: Callable[..., Page], report: Path, width: int) -> None:
    """Its picture grows and the nearest training images come into sight; nothing makes the page wider than it is."""
    page = open_page(report, width, dark=width == 360)
    mistake = page.locator(".answers-mistakes details").first
    picture, nearest = mistake.locator("summary img"), mistake.get_by_text("distance 0.250")
    small = picture.bounding_box()
    assert not nearest.is_visible()
    mistake.locator("summary").focus()
    page.keyboard.press("Enter")
    assert nearest.is_visible()
    large = picture.bounding_box()
    assert small is not None
    assert large is not None
    assert large["width"] >= 2 * small["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.keyboard.press("Enter")
    assert not nearest.is_visible()


def test_answers_are_accessible_and_print(
    open_page: Callable[..., Page], report: Path, accessibility_findings: Callable[[Page], list[str]]
) -> None:
    """Axe finds nothing serious, pictures say what they show, and paper has every row of the table of classes."""
    page = open_page(report)
    assert accessibility_findings(page) == []
    said = page.locator(".answers img").evaluate_all("all => all.map(one => one.alt)")
    assert f"training image of {HOSTILE}" in said
    assert all(one.startswith(("training image of ", "validation image of ")) for one in said)
    page.emulate_media(media="print")
    cut = "all => all.some(one => one.scrollHeight > one.clientHeight + 1)"
    assert not page.locator(".answers-table").evaluate_all(cut)
