"""A real Chromium; where it is not installed, the tests that need it are skipped."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
# Without the last three it looks for its makers' hosts, which nothing here does.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, such as Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens an address or a file in a context of its own; what goes wrong in it fails the test.

    ``width``, ``height`` are of the window, ``dark`` chooses the theme, ``hosts`` are those that it may ask, ``heard``
    is a pattern of errors in the console that are the page's own affair.
    """
    contexts, wrong = [], []

    def open_it(
        address: str | Path,
        width: int = 1280,
        height: int = 900,
        *,
        dark: bool = False,
        hosts: tuple[str, ...] = (),
        heard: str = "",
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))

        def said(message: Any) -> None:
            if message.type == "error" and not (heard and re.search(heard, message.text)):
                wrong.append(f"console: {message.text}")

        page.on("console", said)

        def seen(request: Any) -> None:
            if not request.url.startswith(("file:", "data:", "blob:", "about:", *hosts)):
                wrong.append(f"foreign host: {request.url}")

        page.on("request", seen)
        page.goto(address.absolute().as_uri() if isinstance(address, Path) else address)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def accessibility_findings() -> Callable[[Page], list[str]]:
    """Return a function that has axe look at a page: its serious and critical findings, with what they are about."""

    def look(page: Page) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:5]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    return look
