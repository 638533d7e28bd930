"""How long answers of `carsweep serve` take under eight clients, and whether its memory stays flat.

    python benchmarks/serving.py [--seconds N] [--requests N] [--json FILE]

The model is efficientnet_lite0 at 128 pixels with 196 classes. Eight clients send a photograph of 500 × 375 pixels a
second each, over loopback, after a warm-up; then four send as many as they can, while the server's memory is read.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from commands import ROOT
from rows import Row, write_rows

P95_MS, GROWTH, CLIENTS, CLASSES = 150.0, 1.05, 8, 196


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="that the eight clients ask for")
    parser.add_argument("--requests", type=int, default=10_000, help="while memory is read")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT)]
    from tests.served import jpeg, serving

    photograph = jpeg(1, quality=90, size=(500, 376))
    command = f"python benchmarks/serving.py --seconds {asked.seconds:g} --requests {asked.requests}"
    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as folder:
        _write_model(Path(folder))
        with serving([Path(folder)]) as server:

            def ask() -> float:
                start = time.perf_counter()
                assert server.ask("/predict", photograph)[0] == 200
                return time.perf_counter() - start

            for _ in range(50):
                ask()
            times = np.array(_paced(ask, asked.seconds)) * 1000
            p95, load = float(np.quantile(times, 0.95)), os.getloadavg()[0]
            value = f"{p95:.0f} ms (median {np.median(times):.0f} ms, worst {times.max():.0f} ms; load {load:.1f})"
            what = f"an answer of carsweep serve, 95% of {len(times)}, {CLIENTS} clients of one request a second each"
            rows = [Row(what, f"< {P95_MS:g} ms", value, p95 < P95_MS, len(times), command, "")]
            memory = _memory(ask, asked.requests, psutil.Process(server.process.pid))
            first, last = memory[1], memory[-1]
            value = f"{last / first:.3f}x ({first / 2**20:.0f} to {last / 2**20:.0f} MiB after a tenth and at the end)"
            what = f"memory of carsweep serve over {asked.requests:,} requests"
            rows.append(Row(what, f"<= {GROWTH}x", value, last <= GROWTH * first, 1, command, ""))
    for row in rows:
        print(f"{row.what}: {row.value} ({row.target}) {row.reason}")
    if asked.json:
        write_rows(asked.json, rows)


def _write_model(folder: Path) -> None:
    from carcls.config import TrialConfig
    from carcls.export import write_export
    from carcls.models.classifier import build_classifier

    config = TrialConfig(backbone="efficientnet_lite0", weights="random", image_size=128)
    names = [f"class {place}" for place in range(CLASSES)]
    write_export(folder, build_classifier(config, CLASSES).eval(), config, classes=names, margin=0.0)


def _paced(ask: object, seconds: float) -> list[float]:
    """Return the seconds of every answer to clients that each ask once a second, at moments of their own."""
    times: list[float] = []
    begin = time.perf_counter()

    def client(place: int) -> None:
        turn = begin + place / CLIENTS
        while turn < begin + seconds:
            time.sleep(max(0.0, turn - time.perf_counter()))
            times.append(ask())  # type: ignore[operator]
            turn += 1.0

    _at_once([threading.Thread(target=client, args=(place,)) for place in range(CLIENTS)])
    return times


def _memory(ask: object, requests: int, process: psutil.Process) -> list[int]:
    """Return the bytes that the server holds before, and after each tenth of the requests, of four clients."""
    found = [process.memory_info().rss]
    for first, last in pairwise(range(0, requests + 1, max(1, requests // 10))):
        share = (last - first) // 4

        def client(count: int = share) -> None:
            for _ in range(count):
                ask()  # type: ignore[operator]

        _at_once([threading.Thread(target=client) for _ in range(4)])
        found.append(process.memory_info().rss)
    return found


def _at_once(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
