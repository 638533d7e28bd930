"""One part of benchmarks/gpu.py, in a process of its own: what it is given, and where it says what it finds."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from cars import Cars, lay_out
from endings import make_images

from carcls.machine import gpu_kind, visible_gpus

NEEDS_A_GPU = "needs a GPU: not run"


@dataclass(frozen=True)
class Part:
    """What a part is given. What it finds is written at once, so that one that is ended keeps it.

    Attributes:
        device: ``cuda`` or ``cpu``; on a CPU a part takes tiny sizes, for only the script is tried there.
        place: a folder of its own.
        data: a data set; None draws the demo cars.
    """

    device: str
    place: Path
    data: Path | None

    @property
    def tiny(self) -> bool:
        """Whether only the script is tried."""
        return self.device == "cpu"

    @cached_property
    def cars(self) -> Cars:
        """The images: at most 30 classes, or 4 where only the script is tried; there noise takes the demo's place."""
        (self.place / "images").mkdir()
        source = self.data
        if self.tiny and source is None:
            source = self.place / "noise"
            make_images(source, train=16)
        return lay_out(source, 4 if self.tiny else 30, self.place / "images")

    def figures(self, **values: Any) -> None:
        """Note what was measured, by name."""
        self._write("figures", values)

    def claim(self, what: str, ok: bool | None, value: Any, target: str = "") -> None:
        """Note whether something holds, and the value by which that was judged; None where it cannot be judged."""
        self._write("claim", {"what": what, "ok": ok, "value": value, "target": target})

    def speed(self, what: str, value: float | None, sign: Literal["≤", "≥"], limit: float, unit: str = "×") -> None:
        """Note whether a target of speed is met, which nobody can say of tiny sizes, or where nothing was measured."""
        judged = None if self.tiny or value is None else value <= limit if sign == "≤" else value >= limit
        self.claim(what, judged, value, f"{sign} {limit:g}{unit}")

    def skip(self, why: str) -> None:
        """Note why nothing was run."""
        self._write("skipped", why)

    def about(self) -> None:
        """Note the card and the versions, and compute as trials do."""
        import torch

        from carcls.seeding import make_deterministic

        make_deterministic()
        card = gpu_kind() if self.device == "cuda" else "none"  # PyTorch would begin CUDA for it, and take memory
        self._write("about", {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda or "none"})

    def _write(self, kind: str, value: Any) -> None:
        with (self.place / "found.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({kind: value}, default=str) + "\n")


Function = Callable[[Part], None]


def on_a_gpu(function: Function) -> Function:
    """Mark a part that measures nothing without CUDA."""
    function.needs_gpu = True  # type: ignore[attr-defined]
    return function


def function_of(name: str, module: str) -> Function:
    """Return the function of a part; one whose name is a word of Python's or of a module has an underscore after it."""
    found = importlib.import_module(module)
    function: Function = getattr(found, name, None) or getattr(found, f"{name}_")
    return function


def description_of(name: str, module: str) -> str:
    """Return the first sentence of a part's description."""
    return (inspect.getdoc(function_of(name, module)) or "").split("\n")[0]


def memory_used() -> int | None:
    """Return the MiB of the first card that are taken, by whomever; None where nvidia-smi does not answer."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


@contextmanager
def utilisation() -> Iterator[Callable[[], float | None]]:
    """Sample nvidia-smi's utilisation of the GPU while the body runs; what it yields tells the mean in percent then.

    It is the share of time in which a kernel ran. None where nvidia-smi does not answer.
    """
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    samples: list[float] = []
    try:
        process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield lambda: None
        return
    try:
        yield lambda: round(fmean(samples), 1) if samples else None
    finally:
        process.terminate()
        said = process.communicate()[0].split()
        samples += [float(word) for word in said if word.isdigit()][3:]  # the first are of the time before


def main() -> None:
    """Run the part that the words name: module, name, device, folder, data."""
    module, name, device, place, data = sys.argv[1:]
    part = Part(device, Path(place), Path(data) if data else None)
    part.about()
    function = function_of(name, module)
    if device == "cuda" and not visible_gpus():
        raise SystemExit("no GPU is visible here: nvidia-smi -L lists none, or CUDA_VISIBLE_DEVICES hides them")
    if device == "cpu" and getattr(function, "needs_gpu", False):
        part.skip(NEEDS_A_GPU)
    else:
        function(part)


if __name__ == "__main__":
    main()
