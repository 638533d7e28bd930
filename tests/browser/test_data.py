"""The audit's page in a real browser: nothing is wider than the window, axe finds nothing serious, links lead on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from answered import HOSTILE, SIZE, noisy_cars

from carcls.data.audit import class_counts, read_sides, same_pictures, split_names
from carcls.evaluation.labels import LabelIssue
from carcls.families.labels import LabelAudit
from sweeps.report.audit import DataAudit
from sweeps.report.data import data_page

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of cars of noise, of which each is suspicious and one is torn; a class has a hostile name."""
    root = tmp_path_factory.mktemp("data")
    data, stages = noisy_cars(root)
    issues = tuple(LabelIssue(row, (int(data.labels[row]) + 1) % 4, 0.001, 0.9) for row in range(80))
    audit = DataAudit(
        data,
        ["cars: 4 classes.", HOSTILE],
        class_counts(data),
        split_names(data),
        read_sides(data, stages),
        same_pictures(data, stages),
        LabelAudit("efficientnet_lite0", SIZE, 80, 0, 0.5, issues),
    )
    path = root / "page.html"
    path.write_text(data_page(audit, stages.root, SIZE))
    return path


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_and_is_accessible(
    open_page: Callable[..., Page],
    accessibility_findings: Callable[[Page], list[str]],
    page_file: Path,
    width: int,
) -> None:
    """On a phone in the dark and on a desk; every picture is drawn, and the hostile name is text."""
    page = open_page(page_file, width, dark=width == 360)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert accessibility_findings(page) == []
    assert page.locator(".data-labels > li").count() == 50
    assert page.get_by_text("and 30 more, which --json lists").count() == 1
    assert page.get_by_role("heading", name=HOSTILE).count() == 1
    assert page.locator("h3:not(:has(bdi))").count() == 0  # a name from right to left leaves the counts beside it
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert np.all(sizes)


def test_the_parts_are_reached_with_the_keyboard(open_page: Callable[..., Page], page_file: Path) -> None:
    """Tab leads to the list of parts, and Enter to one."""
    page = open_page(page_file)
    link = page.get_by_role("link", name="Suspicious labels")
    for _ in range(10):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#labels").bounding_box()["y"] < 100
