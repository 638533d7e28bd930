"""The page of ``carsweep serve`` in Chromium: a photograph is chosen, and what the page then shows is what is true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from carcls.export import load_export
from tests.served import SHOWN, Server, jpeg, serving, until

if TYPE_CHECKING:
    from playwright.sync_api import Page


KEY = "a-token-of-tests"


def _choose(page: Page, photograph: bytes, name: str = "car.jpg") -> None:
    page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": photograph})


def _widths(page: Page) -> list[int]:
    """Return the widths of the neighbours' pictures, 0 for one that is not there yet. (The policy forbids eval.)"""
    found: list[int] = page.locator(".near img").evaluate_all("all => all.map(one => one.naturalWidth)")
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_a_photograph_is_answered_by_both_models(
    open_page: Callable[..., Page],
    accessibility_findings: Callable[[Page], list[str]],
    server: Server,
    models: list[Path],
    width: int,
    scheme: str,
) -> None:
    """Class and probability of each, the nearest pictures, where it looked; read out, with no fault that axe finds."""
    page = open_page(server.address, width, dark=scheme == "dark", hosts=(server.address,))
    _choose(page, jpeg(4))
    page.wait_for_selector("article:nth-of-type(2) .label")
    for place, model in enumerate(models):
        (expected,) = load_export(model).predict([jpeg(4)])
        card = page.locator("article").nth(place)
        assert card.locator(".label").inner_text() == expected.label
        assert f"{expected.label}, {100 * expected.probability:.1f}%" in page.inner_text("#status")
    until(lambda: all(_widths(page)))
    assert page.locator(".near li").count() == 3
    assert "distance" in page.locator(".near li").first.inner_text()
    page.check("#looked")
    page.wait_for_selector("article canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("b").count() == 0  # a class with markup in its name is text
    assert accessibility_findings(page) == []


def test_another_k_and_distance_are_asked_at_once(open_page: Callable[..., Page], server: Server) -> None:
    """The neighbours shown are as many as were asked for, and their shares are not called calibrated."""
    page = open_page(server.address, hosts=(server.address,))
    _choose(page, jpeg(2))
    page.wait_for_selector(".near li")
    for k, distance in ((1, "euclidean"), (7, "cosine"), (SHOWN, "cosine")):
        page.select_option("#distance", distance)
        page.fill("#k", str(k))
        page.dispatch_event("#k", "change")
        until(lambda wanted=k: page.locator(".near li").count() == wanted)
    assert "not calibrated" in page.locator("article").first.inner_text()
    page.select_option("#other", "")
    until(lambda: page.locator("article").count() == 1)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photograph_can_be_dropped_and_pasted(
    way: str, open_page: Callable[..., Page], server: Server, models: list[Path]
) -> None:
    """As from a folder's window or a clipboard; what else is dropped, such as text, asks nothing."""
    page = open_page(server.address, hosts=(server.address,))
    page.wait_for_selector("#model option", state="attached")
    _hand_over(page, way, None)
    (expected,) = load_export(models[0]).predict([jpeg(4)])
    _hand_over(page, way, jpeg(4))
    page.wait_for_selector("article .label")
    assert page.locator("article .label").first.inner_text() == expected.label
    assert page.locator("#drop.over").count() == 0


def _hand_over(page: Page, way: str, photograph: bytes | None) -> None:
    """Drop or paste a photograph, or a text where there is none."""
    page.locator("#drop").evaluate(
        """(target, { way, bytes }) => {
            const held = new DataTransfer();
            if (bytes) held.items.add(new File([new Uint8Array(bytes)], "car.jpg", { type: "image/jpeg" }));
            else held.setData("text/plain", "a text");
            const options = { bubbles: true, cancelable: true };
            if (way === "paste") {
                target.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: held }));
                return;
            }
            for (const kind of ["dragenter", "dragover", "drop"])
                target.dispatchEvent(new DragEvent(kind, { ...options, dataTransfer: held }));
        }""",
        {"way": way, "bytes": None if photograph is None else list(photograph)},
    )


def test_what_is_no_picture_is_said_politely(open_page: Callable[..., Page], server: Server) -> None:
    """In the line that screen readers follow, and the next photograph is answered."""
    page = open_page(server.address, 360, hosts=(server.address,), heard="422")
    _choose(page, b"I am a text.", "car.txt")
    until(lambda: "cannot be read" in page.inner_text("#status"))
    page.set_input_files("#file", {"name": "car.jpg", "mimeType": "image/jpeg", "buffer": jpeg(1)})
    page.wait_for_selector("article .label")


def test_a_server_with_a_token_asks_for_it(open_page: Callable[..., Page], models: list[Path]) -> None:
    """A wrong one is said to be wrong; with the right one the page works, pictures included."""
    with serving(models, CARSWEEP_TOKEN=KEY) as server:
        page = open_page(server.address, dark=True, hosts=(server.address,), heard="401")
        for token, selector in (("not-this-one", "#login"), (KEY, "#model option")):
            page.fill("#token", token)
            page.click("#login button")
            page.wait_for_selector(selector, state="attached")
            if selector == "#login":
                until(lambda: "not the token" in page.inner_text("#status"))
        page.set_input_files("#file", {"name": "car.jpg", "mimeType": "image/jpeg", "buffer": jpeg(1)})
        until(lambda: any(_widths(page)))
