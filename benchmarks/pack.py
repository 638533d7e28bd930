"""Time the packing of a data set, and the most memory that all its processes hold together.

Usage: python benchmarks/pack.py FOLDER [--size 224] [--workers N] [--split train|all]

Prints the seconds and the peak resident memory of the first preparation, which decodes, and of the second, which must
not. Pages of the page cache are not counted; shared pages are counted once per process, so the sum errs upwards.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.machine import usable_cores
from carcls.stages import StageStore


def main() -> None:
    """Prepare the folder twice and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--split", choices=("train", "all"), default="all", help="train: FOLDER/train alone")
    arguments = parser.parse_args()
    folder = arguments.folder / "train" if arguments.split == "train" else arguments.folder
    with tempfile.TemporaryDirectory() as store:
        for attempt in ("first", "second"):
            seconds, peak, counts = measure(folder, StageStore(Path(store)), arguments.size, arguments.workers)
            print(f"{attempt}: {seconds:.2f} s, peak resident {peak / 2**20:.0f} MiB, {sum(counts.values())} images")


def measure(folder: Path, stages: StageStore, size: int, workers: int) -> tuple[float, int, dict[str, int]]:
    """Return seconds, peak resident bytes of the process tree, and images per split."""
    stop, peak = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], sum(map(resident_bytes, process_tree())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        data = prepare_dataset(DataConfig(path=str(folder)), stages, size, workers=workers)
        seconds = time.perf_counter() - start
    finally:
        stop.set()
        watcher.join()
    return seconds, max(peak[0], resident_bytes("self")), data.counts


def process_tree() -> list[str]:
    """Return the ids of this process and its children, from /proc."""
    children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return ["self", *(pid for group in children for pid in group)]


def resident_bytes(pid: str) -> int:
    """Return the resident memory of one process; 0 when it has just ended."""
    try:
        lines = Path("/proc", pid, "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


if __name__ == "__main__":
    main()
