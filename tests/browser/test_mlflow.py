"""MLflow's own pages on a sweep of 200 trials and on a job, as a person sees them."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from helpers import free_port
from tracked import mirrored_sweep

from sweeps.run.tracked import page_of
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import read_spec, write_file
from sweeps.trial import TrialRecord

# It asks who the user is, which a server without users does not know, and measures itself.
HEARD = "404|ResizeObserver"
FAMILIES = ("transfer", "retrieval", "scratch")
SECONDS = 60_000  # milliseconds that a busy machine may take


@contextmanager
def shown(out: Path, name: str) -> Iterator[str]:
    """Yield the address that ``carsweep ui`` prints, of a server that answers and has warned of nothing."""
    port = free_port()
    command = [sys.executable, "-m", "sweeps.cli", "ui", name, "--out", str(out), "--port", str(port)]
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            first, second = next(server.stdout), next(server.stdout)
            assert first.startswith("MLflow starts on ")
            assert second.startswith("Open ")
            errors.seek(0)
            assert "Warning" not in errors.read()
            address = second.split()[1]
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).close()
            yield address
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrialRecord]]:
    """A job of three sweeps, beside one whose name begins as theirs, and the 200 trials of its first."""
    out = tmp_path_factory.mktemp("runs")
    write_file(out / "demo", "all", None, [load_spec(family, demo=True) for family in FAMILIES])
    mirrored_sweep(out, "transfer", "demo-other", 3)
    trials = [mirrored_sweep(out, family, f"demo-{family}", 200 if family == "transfer" else 12) for family in FAMILIES]
    return out, trials[0]


@pytest.fixture(scope="module")
def server(sweeps: tuple[Path, list[TrialRecord]]) -> Iterator[tuple[str, str]]:
    """The addresses of the leaderboard of the sweep and of the job, on one server."""
    with shown(sweeps[0], "demo") as job:
        base = job.partition("#")[0]
        yield base + page_of(sweeps[0], "demo-transfer", None), job


@pytest.fixture
def open_runs(open_page: Callable[..., Any]) -> Callable[[str], Any]:
    """Return a function that opens one of MLflow's pages of runs and waits for the first of them."""

    def open_it(address: str) -> Any:
        page = open_page(address, 1440, hosts=(address.partition("#")[0],), heard=HEARD)
        page.set_default_timeout(SECONDS)
        page.locator(".ag-pinned-left-cols-container .ag-row").first.wait_for()
        return page

    return open_it


def names(page: Any) -> list[str]:
    """Return the names of the runs that are seen, from the top."""
    rows = page.locator(".ag-pinned-left-cols-container .ag-row")
    found = [(int(row.get_attribute("row-index")), row.locator("a").first.inner_text()) for row in rows.all()]
    return [name for _, name in sorted(found)]


def test_the_leaderboard_opens_with_the_winner_on_top(
    server: tuple[str, str], sweeps: tuple[Path, list[TrialRecord]], open_runs: Callable[[str], Any]
) -> None:
    """The address that is printed shows the trials of that sweep, the best first, with what is searched beside it."""
    page = open_runs(server[0])
    ranked = sorted(sweeps[1], key=lambda one: -one.metrics["val_accuracy"])
    assert names(page)[:10] == [f"trial {one.number} · search" for one in ranked[:10]]
    heads = [head.strip() for head in page.get_by_role("columnheader").all_inner_texts()]
    assert {"val_accuracy", "val_top5", "val_loss", "carsweep.state", "Duration", "dropout"} <= set(heads)
    assert "Source" not in heads
    assert page.get_by_text(re.compile(r"demo-transfer: complete, best \d\d\.\d% on validation")).first.is_visible()


def test_charts_begin_with_the_curves_of_the_best(server: tuple[str, str], open_runs: Callable[[str], Any]) -> None:
    """Validation accuracy comes first, then parallel coordinates of what is searched."""
    page = open_runs(f"{server[0]}&compareRunsMode=CHART")
    cards = page.locator("[data-testid='experiment-view-compare-runs-card']")
    cards.first.wait_for()
    assert [card.inner_text().split("\n")[0] for card in cards.all()[:2]] == ["val_accuracy", "Parallel Coordinates"]


def test_ten_runs_are_compared_by_what_is_searched(
    server: tuple[str, str], sweeps: tuple[Path, list[TrialRecord]], open_runs: Callable[[str], Any]
) -> None:
    """The compare page has the searched settings as parameters and no others."""
    page = open_runs(server[0])
    boxes = page.locator(".ag-pinned-left-cols-container .ag-row .ag-selection-checkbox input")
    for place in range(10):
        boxes.nth(place).check(force=True)
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_role("heading", name="Comparing 10 Runs from 1 Experiment").wait_for()
    searched = set(read_spec(sweeps[0] / "demo-transfer").search)
    table = page.locator(".mlflow-compare-run-table").nth(1)
    shown_names = {row.inner_text().split("\t")[0].strip() for row in table.locator("tr").all()}
    assert shown_names - {""} == searched


def test_a_job_shows_its_families_in_one_table(server: tuple[str, str], open_runs: Callable[[str], Any]) -> None:
    """Transfer, retrieval and scratch are beside each other, each run with its family."""
    page = open_runs(server[1])
    assert page.get_by_text("Displaying Runs from 3 Experiments").is_visible()
    seen = set(page.locator(".ag-center-cols-container [col-id*='Experiment Name']").all_inner_texts())
    assert seen <= {f"carsweep-{family}" for family in FAMILIES}
    assert len(seen) > 1


def test_the_address_of_a_server_is_printed(
    server: tuple[str, str], sweeps: tuple[Path, list[TrialRecord]], run: Callable[..., tuple[int, str, str]]
) -> None:
    """Where the runs are on a tracking server, it is asked for its version and the sweep, and nothing is started."""
    uri = server[0].partition("/#")[0]
    code, out, _ = run("ui", "demo-transfer", "--out", str(sweeps[0]), "--tracking-uri", uri)
    assert (code, out) == (0, f"The runs are on a tracking server: {server[0]}\n")
