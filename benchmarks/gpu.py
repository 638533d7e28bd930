"""What carsweep does on a card: facts and speeds on a machine with one GPU, part by part.

    python benchmarks/gpu.py --list
    python benchmarks/gpu.py --part ladder --part pack --data FOLDER
    python benchmarks/gpu.py --all --data FOLDER [--json FILE]
    python benchmarks/gpu.py --all --device cpu        # on tiny sizes, what needs no GPU: does the script itself work?

Each part is a process of its own with a limit of 120 s, prints one JSON object, and stops none of the others: the card,
the versions, ``figures``, and ``claims``, each with ``ok`` (null where this run cannot judge), the measured value and,
where there is one, the target. A part that is ended at its limit keeps what it had measured; what it leaves running is
ended and counted. FOLDER has train/<class> and test/<class>, or is in any other layout that carsweep reads; without it
the demo cars are drawn. The exit code is 1 when a part failed or a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from endings import processes_of
from soak import pids_of

from carcls.machine import visible_gpus

HERE = Path(__file__).resolve().parent
LIMIT = 120.0
# So many seconds the processes of a part may take to end by themselves, Ray's among them.
PATIENCE = 10.0
# In this order: what had never run on a card comes first. A part is a function; its first sentence is its description.
PARTS = {
    "ladder": "gpu_sweeps",
    "assert": "gpu_sweeps",
    "quarantine": "gpu_sweeps",
    "pack": "gpu_steps",
    "neighbours": "gpu_steps",
    "export": "gpu_steps",
    "precision": "gpu_steps",
    "placement": "gpu_sweeps",
    "killed": "gpu_sweeps",
    "twice": "gpu_sweeps",
    "busy": "gpu_steps",
    "epoch": "gpu_steps",
    "beside": "gpu_sweeps",
    "frozen": "gpu_sweeps",
    "retrieval": "gpu_sweeps",
    "several": "gpu_sweeps",
}


def main() -> int:
    """Run the parts that are asked for, each in a process of its own; return 1 unless all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), metavar="NAME", help="repeatable; see --list")
    parser.add_argument("--all", action="store_true", help="every part, the untried first")
    parser.add_argument("--list", action="store_true", help="print the parts, one a line, and stop")
    parser.add_argument("--data", type=Path, help="a data set in any layout; without it the demo cars")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="a GPU where there is one, if not given")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a part may take")
    parser.add_argument("--json", type=Path, help="write the objects there, as a list")
    asked = parser.parse_args()
    if asked.list:
        from gpu_part import description_of

        print("\n".join(f"{name:<12}{description_of(name, module)}" for name, module in PARTS.items()))
        return 0
    if not (asked.part or asked.all):
        parser.error("name a part with --part, or take --all; --list names them")
    device = asked.device or ("cuda" if visible_gpus() else "cpu")
    data = asked.data.resolve() if asked.data else None
    found = []
    for name in PARTS if asked.all else asked.part:
        found.append(run(name, device, data, asked.limit))
        print(json.dumps(found[-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any(one["error"] or any(claim["ok"] is False for claim in one["claims"]) for one in found))


def run(name: str, device: str, data: Path | None, limit: float) -> dict[str, Any]:
    """Run one part; return what it measured, however it ended.

    Returns:
        ``part``, ``device``, ``seconds``; ``card``, ``torch`` and ``cuda`` if it came so far; ``figures`` by name;
        ``claims``; ``error``, why it did not end well, or empty; ``skipped``, why it was not run, or empty.
    """
    mark, start = f"gpu-{os.getpid()}-{name}", time.perf_counter()
    path = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "CARSWEEP_ENDINGS": mark}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    with tempfile.TemporaryDirectory(prefix="carsweep-gpu-", ignore_cleanup_errors=True) as place:
        into = Path(place) / "found.jsonl"
        into.touch()
        words = [sys.executable, str(HERE / "gpu_part.py"), PARTS[name], name, device, place, str(data or "")]
        with (Path(place) / "log.txt").open("w") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        seconds = round(time.perf_counter() - start, 1)
        lines = [json.loads(line) for line in into.read_text(encoding="utf-8").splitlines()]
        last = (Path(place) / "log.txt").read_text(encoding="utf-8", errors="replace").strip()[-800:]
        left = end_all(mark)
    error = f"ended at its limit of {limit:g} s; {last}" if code is None else last or f"exit code {code}"
    claims = [line["claim"] for line in lines if "claim" in line]
    if code is not None:
        claims.append({"what": "leaves no process behind", "ok": not left, "value": left, "target": ""})
    return {
        "part": name,
        "device": device,
        "seconds": seconds,
        **{key: value for line in lines if "about" in line for key, value in line["about"].items()},
        "skipped": "".join(line["skipped"] for line in lines if "skipped" in line),
        "figures": {key: value for line in lines if "figures" in line for key, value in line["figures"].items()},
        "claims": claims,
        "error": error if code != 0 else "",
    }


def end_all(mark: str) -> list[str]:
    """End what is left of a part once it had time to end by itself; return the names of what was left."""
    left = processes_of(mark, PATIENCE)
    for pid in pids_of(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


if __name__ == "__main__":
    sys.exit(main())
