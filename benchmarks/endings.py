"""Does every sweep end as it should? Runs many short sweeps, and writes down how each ended.

    python benchmarks/endings.py --sweeps 300 --file endings.jsonl
    python benchmarks/endings.py --sweeps 100 --file hostile.jsonl --hostile

A sweep ended well when its exit code is 0, its result.json has a registered model, no run in MLflow is left RUNNING,
and no process of it is left. Each is one line of the file, and one that is there is not run again, so the command can
be stopped and typed again; the last line that it prints counts the file. ``--hostile`` provokes what else is a matter
of timing: imports outside of the main thread are slow, the cyclic collector does not run by itself, and while Ray ends
another thread keeps the interpreter for two seconds, as the import of a large library does, and then collects.
``--carsweep`` names the command of another checkout, to see how it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SETTINGS = ["image_size=32", "depth=2", "width=4", "stem=none", "epochs=1", "experiments=[]", "batch_size=16"]
# In the command's own process: found as sitecustomize, before anything of carsweep is imported.
HOSTILE = """
import gc, sys, threading, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.001)
        return None

def busy():
    main = threading.main_thread().ident
    while True:
        code = sys._current_frames()[main].f_code
        if code.co_name == "shutdown" and code.co_filename.endswith("ray/_private/worker.py"):
            sys.setswitchinterval(30.0)
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                pass
            gc.collect()
            sys.setswitchinterval(0.005)
        time.sleep(0.001)

if any(word.endswith("bin/carsweep") for word in sys.orig_argv):
    gc.disable()
    gc.enable = lambda: None
    sys.meta_path.insert(0, Slow())
    threading.Thread(target=busy, daemon=True).start()
"""


def main() -> None:
    """Run the sweeps that the file lacks, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=300)
    parser.add_argument("--file", type=Path, required=True, help="JSON lines, one for each sweep.")
    parser.add_argument("--hostile", action="store_true", help="Make the race that once killed sweeps hard to win.")
    parser.add_argument("--carsweep", type=Path, default=Path(sys.executable).with_name("carsweep"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endings-") as name:
        folder = Path(name)
        make_images(folder / "data")
        (folder / "hostile").mkdir()
        (folder / "hostile" / "sitecustomize.py").write_text(HOSTILE, encoding="utf-8")
        for number in range(len(read(options.file)), options.sweeps):
            line = run(options.carsweep, folder, number, hostile=options.hostile)
            with options.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{number + 1} of {options.sweeps}: {line['ending']}, {line['seconds']} s", file=sys.stderr)
    print(json.dumps(count(read(options.file))))


def make_images(root: Path, classes: int = 4, train: int = 10, test: int = 4) -> None:
    """Write class folders of small coloured noise."""
    for label in range(classes):
        for split, images in (("train", train), ("test", test)):
            folder = root / split / f"Make Model {label}"
            folder.mkdir(parents=True)
            for image in range(images):
                colours = np.random.default_rng([label, image, split == "test"]).integers(0, 256, (6, 9, 3), np.uint8)
                Image.fromarray(colours).resize((96, 64), Image.Resampling.BICUBIC).save(folder / f"{image:05d}.jpg")


def run(carsweep: Path, folder: Path, number: int, *, hostile: bool) -> dict[str, Any]:
    """Run one sweep of one trial over the store that those before have filled; return how it ended."""
    out, name = folder / "runs", f"sweep-{number:04d}"
    mark = f"endings-{os.getpid()}-{number}"
    environment = {**os.environ, "CARSWEEP_ENDINGS": mark}
    if hostile:
        environment["PYTHONPATH"] = os.pathsep.join([str(folder / "hostile"), os.environ.get("PYTHONPATH", "")])
    command = [str(carsweep), "run", "scratch", "--data", str(folder / "data"), "--set", *SETTINGS]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--trials", "1", "--name", name, "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    seconds = round(time.monotonic() - started, 1)
    registered, running, left = is_registered(out / name), running_runs(out / "mlflow.db"), processes_of(mark)
    well = done.returncode == 0 and registered and not running and not left
    last = (done.stderr.strip().splitlines() or [""])[-1][-200:]
    shutil.rmtree(out / name, ignore_errors=True)
    return {
        "number": number,
        "ending": "well" if well else "badly",
        "exit_code": done.returncode,
        "registered": registered,
        "running": running,
        "left": left,
        "seconds": seconds,
        **({} if well else {"last": last}),
    }


def is_registered(folder: Path) -> bool:
    """Tell whether the sweep's result names a registered model."""
    try:
        return bool(json.loads((folder / "result.json").read_text(encoding="utf-8"))["registered"])
    except (OSError, ValueError, KeyError):
        return False


def running_runs(database: Path) -> int:
    """Count the runs that MLflow believes to go on; they are closed, so that each sweep answers for its own."""
    if not database.is_file():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        found = connection.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
        connection.execute("UPDATE runs SET status = 'FAILED' WHERE status = 'RUNNING'")
    return int(found)


def processes_of(mark: str, patience: float = 5.0) -> list[str]:
    """Return the names of processes that have the mark in their environment, once they had time to end."""
    end = time.monotonic() + patience
    while True:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"CARSWEEP_ENDINGS={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                    found.append((place / "comm").read_text(encoding="utf-8").strip())
            except OSError:
                continue
        if not found or time.monotonic() >= end:
            return found
        time.sleep(0.1)


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines that the file has."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def count(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts, which add up to the sweeps."""
    codes = Counter(str(line["exit_code"]) for line in lines)
    return {
        "sweeps": len(lines),
        **Counter(line["ending"] for line in lines),
        "exit_codes": dict(codes),
        "registered": sum(line["registered"] for line in lines),
        "running": sum(line["running"] for line in lines),
        "left": sum(bool(line["left"]) for line in lines),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
    }


if __name__ == "__main__":
    main()
