"""carsweep and the baseline, run as a user runs them: a command in a process of its own, timed from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
_EPOCH = re.compile(r"trial (\d+) epoch (\d+)/\d+: val accuracy ([\d.]+)%")


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said.

    Attributes:
        seconds: wall time from its start to its end.
        answer: the JSON object on stdout.
        lines: what it printed to stderr, each with the seconds after the start.
    """

    seconds: float
    answer: dict[str, Any]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def first(self, pattern: str) -> float:
        """Return the seconds until the first line that holds ``pattern``, a regular expression.

        Raises:
            LookupError: no line does.
        """
        return self._seconds(pattern)[0]

    def last(self, pattern: str) -> float:
        """Return the seconds until the last line that holds ``pattern``; raises as ``first`` does."""
        return self._seconds(pattern)[-1]

    def _seconds(self, pattern: str) -> list[float]:
        found = [second for second, line in self.lines if re.search(pattern, line)]
        if not found:
            printed = "\n".join(line for _, line in self.lines[-10:])
            raise LookupError(f"no line holds {pattern!r}; the last ones:\n{printed}")
        return found

    def timeline(self) -> list[tuple[float, float]]:
        """Return when which validation accuracy (as printed, to a thousandth) was reached for the first time."""
        best: list[tuple[float, float]] = []
        for second, line in self.lines:
            found = _EPOCH.search(line)
            if found and (not best or float(found[3]) / 100 > best[-1][1]):
                best.append((second, float(found[3]) / 100))
        return best


def carsweep(*words: str | Path) -> Told:
    """Run ``carsweep WORDS``; its JSON is read where the words ask for it.

    Raises:
        RuntimeError: it failed; holds what it printed last.
    """
    return _run([sys.executable, "-m", "sweeps.cli", *map(str, words)], read="--json" in words)


def sweep(spec: Mapping[str, Any], data: Path, out: Path, name: str = "sweep", *words: str) -> Told:
    """Run ``carsweep run FAMILY --spec …`` in the folder of runs ``out``, whose store may or may not be warm.

    Nothing but what ``spec`` searches is searched: what the family's packaged spec searches besides is taken out.
    """
    family, file = spec["family"], out / f"{name}.yaml"
    packaged = yaml.safe_load((ROOT / "sweeps" / "spec" / "presets" / f"{family}.yaml").read_text(encoding="utf-8"))
    whole = {**spec, "search": {**dict.fromkeys(packaged["search"]), **spec["search"]}}
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return carsweep("run", family, "--spec", file, "--data", data, "--out", out, "--name", name, "--json", *words)


def plain_tune(words: Sequence[str | Path]) -> Told:
    """Run the baseline.

    Raises:
        RuntimeError: it failed, or one of its trials did.
    """
    told = _run([sys.executable, str(ROOT / "benchmarks" / "plain_tune.py"), *map(str, words)], read=True)
    if told.answer["failed"]:
        raise RuntimeError(f"{told.answer['failed']} trials of plain_tune.py failed.")
    return told


def _run(command: list[str], *, read: bool) -> Told:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stdout:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)

        def listen() -> None:
            assert process.stderr is not None
            lines.extend((time.perf_counter() - start, line.rstrip()) for line in process.stderr)

        # A thread, because processes that Ray leaves behind may hold the pipe open after the command has ended.
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        code = process.wait()
        seconds = time.perf_counter() - start
        listener.join(5.0)
        stdout.seek(0)
        said = stdout.read()
    if code:
        last = "\n".join(line for _, line in lines[-15:])
        raise RuntimeError(f"exit code {code} of {' '.join(command[1:4])}:\n{last}\n{said[-500:]}")
    return Told(seconds, _object(said) if read else {}, list(lines))


def _object(said: str) -> dict[str, Any]:
    """Read the JSON object of a command, before which Ray may have printed its tables."""
    start = said.rfind("\n{") + 1
    found: dict[str, Any] = json.loads(said[start:])
    return found
