"""What Ray runs in a trial's process. Processes are used again, so that libraries and data are loaded once in each."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypedDict

import ray
from ray import get_runtime_context, tune

from carcls.config import TrialConfig
from carcls.machine import hold_gpus, keep_freed_memory
from carcls.outcome import Measurement, Outcome
from carcls.stages import StageStore
from sweeps.engine.reports import Reports, last_told, told_at_once
from sweeps.failures import Failure, Location, failure_of, is_broken_device
from sweeps.spec.fields import EarlyStopping

TRACEBACK = "error.txt"
Runner = Callable[[TrialConfig, Any, StageStore, Callable[[Measurement], None]], Outcome]


# So long Ray may take to end a process.
_KILL_SECONDS = 10.0
# The machine that this process has told that it is on, once it has: each report costs milliseconds.
_told: list[str] = []


class Order(TypedDict):
    """What a worker is told to do; plain JSON values.

    ``folder`` is where a crash leaves ``error.txt``; ``runner`` and ``loader`` are ``module:function``; ``stopping``
    holds the fields of ``EarlyStopping``.
    """

    number: int
    config: dict[str, Any]
    dataset: str
    stages: str
    folder: str
    cpus: float
    gpus: float
    runner: str
    loader: str
    stopping: dict[str, Any]


def run_order(order: Order) -> None:
    """Run one trial: report its measurements, then ``outcome`` or ``failure``; first of all a process's ``location``.

    The last measurements come with the outcome. A failure is told as the JSON of ``sweeps.failures.Failure``. After a
    CUDA error the process ends itself, since it can use its GPU no more, and so does one that cannot use it at all; the
    trial goes on in another one.

    A trial that is stopped ends inside its report: the thread waits there, and leaves when the process is used again.
    """
    # One word is enough: a trial that waits for what another one makes does not hang.
    start, stages = time.perf_counter(), StageStore(Path(order["stages"]), lambda: tune.report({"waits": True}))
    try:
        if not _told:
            _told.append(_location())
            tune.report({"location": _told[0]})
        take_share(order["cpus"], order["gpus"])
        keep_freed_memory()
        outcome, reports = _run(order, stages, start)
    except Exception as error:
        failure = _answer(error, order)
        last: dict[str, Any] = {"failure": json.dumps(asdict(failure))}
        if failure.kind == "device":
            tune.report(last)
            _end_process()
    else:
        said = {**asdict(outcome), "seconds": time.perf_counter() - start, "stages": stages.take_used()}
        last = {**reports.take(), "outcome": json.dumps(said, default=float)}
    _free_memory()
    tune.report({**last, "done": True})


def _location() -> str:
    """Return the JSON of ``sweeps.failures.Location``."""
    context = get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return json.dumps(asdict(Location(context.get_node_id(), gpus[0] if len(gpus) == 1 else "")))


def _answer(error: Exception, order: Order) -> Failure:
    """Return what the error means; keep the traceback of what is not expected."""
    failure, trial = failure_of(error), Path(order["folder"]) / f"trial-{order['number']:04d}"
    if failure.kind != "bug":
        return failure
    _keep_traceback(trial)
    if is_broken_device(error):
        _end_process()
    return replace(failure, reason=f"{failure.reason} The traceback is in {trial / TRACEBACK}")


def _run(order: Order, stages: StageStore, start: float) -> tuple[Outcome, Reports]:
    """Return the trial's outcome, and the measurements that were not reported yet."""
    runner: Runner = resolve_name(order["runner"])
    data = load_data(order["loader"], order["dataset"])
    config = TrialConfig.model_validate(order["config"])
    at_once = told_at_once(config, EarlyStopping.model_validate(order["stopping"]))
    reports = Reports(tune.report, at_once, last=last_told(config))

    def report(measurement: Measurement) -> None:
        metrics = {name: float(value) for name, value in measurement.metrics.items()}
        seconds = time.perf_counter() - start
        said = {"epoch": measurement.epoch, "metrics": metrics, "seconds": seconds, "trained": measurement.trained}
        reports.note({**said, "stages": stages.take_used()})

    try:
        return runner(config, data, stages, report), reports
    except Exception:
        reports.flush()  # a failed trial came so far
        raise


@lru_cache(maxsize=1)
def load_data(loader: str, path: str) -> Any:
    """Return what ``loader`` reads from a file; the last one is kept."""
    return resolve_name(loader)(Path(path))


def take_share(cpus: float, gpus: float) -> None:
    """Use no more threads and GPU memory than the trial's share; Ray itself only keeps books."""
    hold_gpus(gpus)
    threads = max(1, int(cpus))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    if 0 < gpus <= 1 and Path("/dev/nvidiactl").exists():
        _limit_gpu_memory(gpus)


@lru_cache(maxsize=1)
def _limit_gpu_memory(share: float) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def _free_memory() -> None:
    """Give cached GPU memory back; the next trial of this process may need other sizes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _end_process() -> None:
    """End this process through Ray, which then prints nothing about a process that died unexpectedly."""
    ray.kill(get_runtime_context().current_actor)
    time.sleep(_KILL_SECONDS)
    os._exit(1)


def _keep_traceback(trial: Path) -> None:
    trial.mkdir(parents=True, exist_ok=True)
    (trial / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
