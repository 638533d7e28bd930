"""How many altered copies of photographs are found, how long that takes, and how much memory.

    python benchmarks/leaks.py [--data FOLDER] [--each 500] [--images 100000] [--sheet FILE] [--json FILE]

Of each kind of change some photographs get a copy, changed by an amount drawn uniformly and saved as JPEG, quality 75.
All images and all copies are searched together. ``--sheet`` draws pairs that were found, drawn at random, to be looked
at. Seconds are of the search among the data set's images alone, on thumbnails that decoding has made; beside them
stands how long a fixed product of matrices takes, which tells how busy the machine is.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rows import Row, write_rows

from carcls.data.alignment import SIDE
from carcls.data.copies import find_copies
from carcls.data.decode import read_squares
from carcls.data.demo import write_demo
from carcls.data.index import Copies, components
from carcls.data.layouts import read_layout
from carcls.data.manifest import Manifest
from carcls.machine import usable_cores

ROOT = Path(__file__).resolve().parents[1]
RECALL, SECONDS, MEMORY, IMAGES = 0.95, 60.0, 500 * 2**20, 6515
Thumbnails = NDArray[np.uint8]


def main() -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="photographs in any layout; without it the demo cars, which are drawn"
    )
    parser.add_argument("--each", type=int, default=500, help="copies of each kind")
    parser.add_argument("--images", type=int, default=100_000, help="made-up images that memory and growth are told of")
    parser.add_argument("--short", action="store_true", help="20 copies of each kind, 10,000 images; judges no target")
    parser.add_argument("--sheet", type=Path, help="a picture of 200 pairs that were found")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    each, images = (20, 10_000) if asked.short else (asked.each, asked.images)
    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as place:
        manifest = read_layout(asked.data or write_demo(Path(place) / "demo"))
        data = f" --data {manifest.root.name}" if asked.data else ""
        command = f"python benchmarks/leaks.py{data} --each {each} --images {images}"
        rows = [
            *recall_rows(manifest, each, command, asked.sheet, judged=asked.data is not None and not asked.short),
            growth_row(Path(place) / "many.npy", images, command, judged=not asked.short),
        ]
    for row in rows:
        print(f"{row.what}: {row.value} ({row.target}) {row.reason}")
    if asked.json:
        write_rows(asked.json, rows)


def recall_rows(manifest: Manifest, each: int, command: str, sheet: Path | None, *, judged: bool) -> list[Row]:
    """Search a data set alone and with copies; say how long the first took, and which copies the second found."""
    sys.path.append(str(ROOT / "tests"))
    from photographs import CHANGES

    with ThreadPoolExecutor(usable_cores()) as threads:
        own = np.stack(list(threads.map(lambda row: squared(manifest, row), range(len(manifest.images)))))
        chosen = np.resize(np.random.default_rng(0).permutation(len(own)), (len(CHANGES), each))
        jobs = [(change, row) for change, rows in zip(CHANGES.values(), chosen.tolist(), strict=True) for row in rows]
        copies = np.stack(list(threads.map(lambda job: changed(manifest, *job), jobs)))
    start, busy = time.perf_counter(), time.process_time()
    alone = find_copies(own.__getitem__, np.arange(len(own)), usable_cores())
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    together = np.concatenate([own, copies])
    found = find_copies(together.__getitem__, np.arange(len(together)), usable_cores())
    groups = components(len(together), *found.pairs.T)
    is_found = (groups[chosen.ravel()] == groups[len(own) :]).reshape(chosen.shape)
    if sheet:
        draw_sheet(sheet, together, found)
    name = f"({manifest.root.name}: {len(own):,} images)"
    rows = [
        Row(
            f"copies found: {change} {name}",
            f"≥ {RECALL:.0%}",
            f"{hits.mean():.1%} of {each}",
            bool(hits.mean() >= RECALL) if judged else None,
            1,
            command,
            reason_of(judged, met=bool(hits.mean() >= RECALL), missed="see docs/data.md"),
        )
        for change, hits in zip(CHANGES, is_found, strict=True)
    ]
    met = seconds <= SECONDS * len(own) / IMAGES
    return [
        *rows,
        Row(
            f"search for copies, beyond decoding {name}",
            f"≤ {SECONDS:g} s for {IMAGES:,} images",
            f"{seconds:.1f} s, {busy:.1f} s of computing, {len(alone.pairs)} pairs; {machine_now()}",
            met if judged else None,
            1,
            command,
            reason_of(judged, met=met, missed="see docs/data.md"),
        ),
    ]


def reason_of(judged: bool, *, met: bool, missed: str) -> str:
    """Return why a target is not met, or not judged."""
    return "drawn pictures, or fewer than the target is for" if not judged else "" if met else missed


def squared(manifest: Manifest, row: int) -> Thumbnails:
    """Return the thumbnail that decoding makes of an image."""
    image = manifest.images[row]
    return read_squares(manifest.root / image.path, [SIDE], image.box)[0]


def changed(manifest: Manifest, change: Any, row: int) -> Thumbnails:
    """Return the thumbnail of a changed copy of an image, or of its box."""
    image, file = manifest.images[row], io.BytesIO()
    with Image.open(manifest.root / image.path) as opened:
        photograph = opened.convert("RGB").crop(image.box) if image.box else opened.convert("RGB")
    change(photograph, np.random.default_rng(row)).save(file, "JPEG", quality=75)
    return read_squares(file.getvalue(), [SIDE])[0]


def machine_now() -> str:
    """Return how busy the machine is."""
    square = np.random.default_rng(0).random((2000, 2000), np.float32)
    start = time.perf_counter()
    square @ square
    return f"load {os.getloadavg()[0]:.1f}, a product of 2000 × 2000 {time.perf_counter() - start:.2f} s"


def growth_row(file: Path, images: int, command: str, *, judged: bool) -> Row:
    """Search a tenth of some made-up images and all of them; say seconds and memory beyond the thumbnails."""
    busy, memory = [], 0
    for count in (images // 10, images):
        make_up(file, count)
        before, peak, stop = anonymous_bytes(), [0], threading.Event()
        watcher = threading.Thread(target=watch, args=(stop, peak))
        watcher.start()
        start = time.process_time()
        find_copies(np.load(file, mmap_mode="r").__getitem__, np.arange(count), usable_cores())
        busy.append(time.process_time() - start)
        stop.set()
        watcher.join()
        memory = peak[0] - before
    growth = busy[1] / busy[0] / 10
    return Row(
        f"search for copies among {images:,} made-up images",
        f"< {MEMORY / 2**20:g} MiB beyond the thumbnails",
        f"{memory / 2**20:.0f} MiB; {busy[0]:.0f} s of computing for a tenth, {busy[1]:.0f} s for all: "
        f"{growth:.2f}× the growth of the images",
        memory < MEMORY if judged else None,
        1,
        command,
        reason_of(judged, met=memory < MEMORY, missed="see docs/data.md"),
    )


def make_up(file: Path, count: int) -> None:
    """Write thumbnails of pictures with coarse structure, of which every hundredth is its neighbour mirrored."""
    rng = np.random.default_rng(0)
    written = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE, 3))
    for begin in range(0, count, 1000):
        part = min(1000, count - begin)
        coarse = rng.integers(0, 256, (part, 8, 8, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
        coarse = coarse // 2 + rng.integers(0, 64, (part, SIDE, SIDE, 1), np.uint8)
        coarse[::100] = coarse[1::100, :, ::-1]
        written[begin : begin + part] = coarse
    written.flush()


def watch(stop: threading.Event, peak: list[int]) -> None:
    """Keep the most anonymous memory that was seen."""
    while not stop.wait(0.05):
        peak[0] = max(peak[0], anonymous_bytes())


def anonymous_bytes() -> int:
    """Return this process's memory without files that are mapped."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def draw_sheet(file: Path, thumbnails: Thumbnails, found: Copies, most: int = 200, columns: int = 10) -> None:
    """Draw pairs beside each other, drawn at random."""
    rows = np.random.default_rng(1).permutation(len(found.pairs))[:most]
    sheet = Image.new("RGB", (columns * (2 * SIDE + 8), -(-len(rows) // columns) * (SIDE + 4)), "white")
    for place, row in enumerate(rows.tolist()):
        pair = Image.fromarray(np.concatenate(list(thumbnails[found.pairs[row]]), axis=1))
        sheet.paste(pair, (place % columns * (2 * SIDE + 8), place // columns * (SIDE + 4)))
    sheet.save(file)


if __name__ == "__main__":
    main()
