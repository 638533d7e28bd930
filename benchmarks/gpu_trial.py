"""Trials that note where they run, and that break their process's GPU when they are told to.

Ray's processes import this module, so its folder must be in PYTHONPATH before Ray starts. What a trial trains is real:
``carcls.families.run_trial``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.machine import held_gpus, hold_gpus
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore
from sweeps.engine.engine import EngineResult, run_trials
from sweeps.engine.session import RaySession
from sweeps.engine.task import Work
from sweeps.spec.spec import SweepSpec

SIZE = 64
_TRAINING = {"image_size": SIZE, "batch_size": 16, "epochs": 2}
# What trials are, by the device that they are meant for.
TRIALS: dict[str, dict[str, Any]] = {
    "cuda": {"family": "transfer", "config": _TRAINING | {"backbone": "efficientnet_lite0", "unfreezing": "full"}},
    "cpu": {"family": "scratch", "config": _TRAINING | {"backbone": "scratch", "depth": 2, "width": 4, "stem": "none"}},
}
MEETING_SECONDS = 45.0


def load(path: Path) -> SimpleNamespace:
    """Read what ``sweep_of`` wrote: the data set, the log, and what trials are to do besides training."""
    asked = json.loads(path.read_text(encoding="utf-8"))
    return SimpleNamespace(log=Path(asked["log"]), does=asked["does"], dataset=Dataset.load(Path(asked["dataset"])))


def run(config: TrialConfig, data: SimpleNamespace, stages: StageStore, report: Report) -> Outcome:
    """Do what is asked for, train the trial, and note where, with which memory, from when to when."""
    import torch

    from carcls.families import run_trial
    from carcls.training.images import pick_device
    from carcls.training.memory import memory_errors_named

    seen = {"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "held": held_gpus()}
    begun = note(data.log, event="begin", **seen, micro_batch=config.micro_batch)
    with memory_errors_named(config):
        _do(data, begun)
    outcome = run_trial(config, data.dataset, stages, report)
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    more = {"device": str(pick_device()), "initialized": initialized, "precision": outcome.precision}
    if initialized:
        more |= {"peak": torch.cuda.max_memory_allocated(), "fraction": torch.cuda.get_per_process_memory_fraction()}
    note(data.log, event="end", **seen, **more)
    return outcome


def _do(data: SimpleNamespace, begun: int) -> None:
    """Do what was asked: ``meet`` n trials, ``allocate`` a share of the card; ``assert`` or ``die`` in the first n."""
    import torch

    from carcls.training.images import pick_device

    does, device = data.does, pick_device()  # which limits the process's memory
    end = time.monotonic() + MEETING_SECONDS
    while begun <= does.get("meet", 0) > len(notes_of(data.log, "begin")) and time.monotonic() < end:
        time.sleep(0.05)
    if share := does.get("allocate"):
        _, total = torch.cuda.mem_get_info()
        taken = torch.empty(int(share * total), dtype=torch.uint8, device=device)
        del taken
        torch.cuda.empty_cache()
    if begun <= does.get("assert", 0):
        beyond = torch.full((4,), 7, device=device)
        torch.zeros(2, device=device)[beyond] += 1  # the kernel asserts that 7 is below 2
        torch.cuda.synchronize()
    if begun <= does.get("die", 0):
        os._exit(1)


def steps_on_the_cpu(load: Mapping[str, Any], stages: Path) -> Iterator[dict[str, float]]:
    """Yield as ``carcls.training.shared.steps`` does, whatever GPU the process believes to hold."""
    from carcls.training.shared import steps

    hold_gpus(0.0)
    return steps(load, stages)


def note(log: Path, **what: Any) -> int:
    """Add a line; return how many of its event there are now."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **what}) + "\n")
    return len(notes_of(log, what["event"]))


def notes_of(log: Path, event: str = "") -> list[dict[str, Any]]:
    """Return what trials noted, in the order of writing; of one event, or all."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [line for line in map(json.loads, lines) if event in ("", line["event"])]


def most_at_once(notes: list[dict[str, Any]]) -> int:
    """Return how many trials ran at the same time at most."""
    count = most = 0
    for line in sorted(notes, key=lambda line: line["time"]):
        count += 1 if line["event"] == "begin" else -1
        most = max(most, count)
    return most


def sweep_of(
    folder: Path,
    device: str,
    dataset: Dataset,
    session: RaySession,
    does: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[EngineResult, list[dict[str, Any]], list[str]]:
    """Run a sweep of tiny trials in an empty folder; return its result, what trials noted, and what it told a person.

    Args:
        folder: of the sweep and its store.
        device: ``cuda`` or ``cpu``; names the trials.
        dataset: which images.
        session: of Ray.
        does: what trials do besides training; see ``_do``.
        changes: of the spec.
    """
    folder.mkdir(parents=True)
    dataset.save(folder / "dataset.json")
    paths = {"dataset": str(folder / "dataset.json"), "log": str(folder / "log")}
    (folder / "asked.json").write_text(json.dumps({**paths, "does": dict(does or {})}), encoding="utf-8")
    fields = {
        **TRIALS[device],
        "trials": 4,
        "near": 0.0,
        "search": {"dropout": {"low": 0.0, "high": 0.5}},
        "early_stopping": {"enabled": False},
        **changes,
    }
    spec = SweepSpec.model_validate(fields)
    said: list[str] = []
    where = (folder / "sweep", folder / "asked.json", folder / "stages")
    work = Work(spec, *where, session, runner="gpu_trial:run", loader="gpu_trial:load")
    result = run_trials(work, [], notify=said.append)
    return result, notes_of(folder / "log"), said
