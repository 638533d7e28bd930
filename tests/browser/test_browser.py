"""The browser that other tests look through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_findings_of_a_page_are_seen(
    tmp_path: Path, open_page: Callable[..., Any], accessibility_findings: Callable[..., list[str]]
) -> None:
    """A picture without words and grey text on grey are found, so that a page without findings is worth something."""
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><html lang="en"><title>t</title><img src="data:,"><p style="color:#999">pale</p>')
    findings = " ".join(accessibility_findings(open_page(page)))
    assert "image-alt" in findings
    assert "color-contrast" in findings
