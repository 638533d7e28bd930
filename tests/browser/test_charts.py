"""The report's charts in a real browser: one trial is highlighted in all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import ask, study_spec

from carcls.outcome import Measurement
from sweeps.report.page import write_report
from sweeps.spec.sweep_file import write_file
from sweeps.study.study import Study

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two sweeps; in each trial n has the accuracy n / 20 after its third epoch."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        spec = study_spec(name=name, trials=12)
        write_file(out / name, "sweep", None, [spec])
        with Study.open(out / name, spec) as study:
            for number in range(12):
                asked = ask(study)
                for epoch in (1, 2, 3):
                    study.report(asked.number, Measurement(epoch, {"val_accuracy": number * epoch / 60}))
                study.note_worker(asked.number, f"node pid {number % 2}")
                metrics = {"val_accuracy": number / 20}
                study.tell_complete(asked.number, {"metrics": metrics, "epochs": 3, "seconds": 9.0, "model": "m"})
    write_report([out / "one", out / "two"], out / "report.html", title="two sweeps")
    return out / "report.html"


def lit(page: Page, sweep: str) -> list[str]:
    """Return the charts in which something is highlighted, and the leaderboard, of a sweep of the page."""
    script = """(sweep) => [...document.querySelectorAll(`#${sweep} .lit`)].map(
        shape => shape.closest("section[aria-labelledby]").getAttribute("aria-labelledby").split("-").at(-1))"""
    found: list[str] = page.evaluate(script, sweep)
    return found


def test_a_number_highlights_its_trial_in_every_chart(open_page: Callable[..., Page], report: Path) -> None:
    """In the charts and the leaderboard of that sweep alone, and it is said in words; an unknown number says so."""
    page = open_page(report)
    field = page.locator("#s2 [name=trial]")
    field.fill("7")
    assert lit(page, "s2") == ["board", "curves", "slices", "parallel", "timeline"]
    assert lit(page, "s1") == []
    said = page.locator("#s2 [name=trial-words]")
    assert said.text_content() == "trial 7 (search), complete, accuracy 35.0% after 3 epochs"
    field.fill("99")
    assert (lit(page, "s2"), said.text_content()) == ([], "trial 99 has no shape of its own")


def test_a_click_on_a_curve_keeps_its_trial_highlighted(open_page: Callable[..., Page], report: Path) -> None:
    """The pointer shows a trial while it is on it; after a click it stays."""
    page = open_page(report)
    shape = page.locator("#s1-chart-curves").locator("xpath=..").locator('[data-trial="3"] .line')
    shape.hover()
    assert "curves" in lit(page, "s1")
    page.mouse.move(0, 0)
    page.locator("#s1 h2").hover()
    assert lit(page, "s1") == []
    shape.click()
    page.locator("#s1 h2").hover()
    assert page.locator("#s1 [name=trial]").input_value() == "3"
    assert "slices" in lit(page, "s1")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_charts_fit_any_screen_and_are_accessible(
    open_page: Callable[..., Page],
    accessibility_findings: Callable[[Page], list[str]],
    report: Path,
    width: int,
    dark: bool,
) -> None:
    """The page does not scroll sideways, axe finds nothing serious, and each drawing has words for who sees none."""
    page = open_page(report, width, dark=dark)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert accessibility_findings(page) == []
    labels: list[Any] = page.locator("svg.chart").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(labels) == 2 * 6
    assert all(labels)
