"""How long `carsweep ui NAME` keeps somebody waiting for the leaderboard of a sweep of 200 trials.

    python benchmarks/pages.py [--trials N] [--runs N] [--json FILE]

Two waits: from the command until it prints the address; and from opening the address, in a Chromium that was just
started and knows nothing of the pages, until the best run is seen in the table. Needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import ROOT
from rows import Row, write_rows

ADDRESS_SECONDS, PAGE_SECONDS = 6.0, 5.0
_ROWS = ".ag-pinned-left-cols-container .ag-row"


def main() -> None:
    """Measure both waits and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="of the sweep")
    parser.add_argument("--runs", type=int, default=5, help="commands, each with a browser of its own")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from tracked import mirrored_sweep

    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as folder:
        mirrored_sweep(Path(folder), "transfer", "mine", asked.trials)
        waits = [waits_of(Path(folder)) for _ in range(asked.runs)]
    command, trials = f"python benchmarks/pages.py --trials {asked.trials} --runs {asked.runs}", asked.trials
    what = (f"carsweep ui until it prints the address of {trials} trials", "their first screen in a new browser")
    rows = [
        _row(*one, command) for one in zip(what, zip(*waits, strict=True), (ADDRESS_SECONDS, PAGE_SECONDS), strict=True)
    ]
    for row in rows:
        print(f"{row.what}: {row.value} ({row.target}) {row.reason}")
    if asked.json:
        write_rows(asked.json, rows)


def waits_of(out: Path) -> tuple[float, float]:
    """Return the seconds until the address is printed, and until the page that it opens shows the best run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "sweeps.cli", "ui", "mine", "--out", str(out), "--port", port]
    environment, start = {**os.environ, "PYTHONPATH": str(ROOT)}, time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as ours:
        try:
            assert ours.stdout is not None
            address = next(line.split()[1] for line in ours.stdout if line.startswith("Open "))
            return time.perf_counter() - start, seconds_of_page(address)
        finally:
            ours.terminate()


def seconds_of_page(address: str) -> float:
    """Return the seconds that a browser without a cache takes until the first run is in the table."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.locator(_ROWS).first.wait_for(timeout=120_000)
        seconds = time.perf_counter() - start
        browser.close()
        return seconds


def _row(what: str, seconds: tuple[float, ...], most: float, command: str) -> Row:
    worst, each = max(seconds), " ".join(f"{one:.1f}" for one in seconds)
    value = f"{statistics.median(seconds):.1f} s (median, worst {worst:.1f} s; load {os.getloadavg()[0]:.1f})"
    reason = "" if worst < most else f"the runs took {each} s; what remains is MLflow's own loading and drawing"
    return Row(what, f"< {most:g} s, each run", value, worst < most, len(seconds), command, reason)


if __name__ == "__main__":
    main()
