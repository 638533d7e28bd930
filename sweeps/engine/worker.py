"""What Ray runs in a trial's process, and how its measurements travel.

Processes are used again, so that libraries and data are loaded once in each. Short epochs are reported in groups, since
each message waits for a turn of Tune's loop.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import ray
from ray import get_runtime_context, tune

from carcls.config import TrialConfig
from carcls.helpers import end_helpers
from carcls.machine import hold_gpus, is_broken_device, keep_freed_memory
from carcls.outcome import Measurement, Outcome
from carcls.stages import StageStore
from carcls.unfreezing import first_unfrozen
from sweeps.failures import Failure, failure_of
from sweeps.spec.fields import EarlyStopping

TRACEBACK = "error.txt"
Runner = Callable[[TrialConfig, Any, StageStore, Callable[[Measurement], None]], Outcome]

# So long Ray may take to end a process.
_KILL_SECONDS = 10.0
# So long a measurement may wait for the next one; epochs that take longer are reported at once.
GROUP_SECONDS = 0.5
# A trial that has taken longer reports its last epoch before it ends: that may take long, and is known by it.
_BEFORE_END_SECONDS = 1.0
# Where this process runs, once it has reported it: each report costs milliseconds.
_place_reported: list[str] = []


def run_order(order: Mapping[str, Any]) -> None:
    """Run one trial: report its measurements, then ``outcome`` or ``failure``; first of all a process's ``place``.

    The last measurements come with the outcome. A failure is the JSON of ``sweeps.failures.Failure``. After a CUDA
    error the process ends itself, since it can use its GPU no more, and so does one that cannot use it at all; the
    trial goes on in another one.

    A trial that is stopped ends inside its report: the thread waits there, and leaves when the process is used again.

    Args:
        order: ``number``, ``config``, ``cpus`` and ``gpus`` of the trial, with what ``Work.as_order`` has.
    """
    # One word is enough: a trial that waits for what another one makes does not hang.
    start, stages = time.perf_counter(), StageStore(Path(order["stages"]), lambda: tune.report({"waits": True}))
    try:
        if not _place_reported:
            _place_reported.append(_place())
            tune.report({"place": _place_reported[0]})
        take_share(order["cpus"], order["gpus"])
        keep_freed_memory()
        outcome, reports = _run(order, stages)
    except Exception as error:
        failure = _answer(error, order)
        last: dict[str, Any] = {"failure": json.dumps(asdict(failure))}
        if failure.kind == "device":
            tune.report(last)
            _end_process()
    else:
        said = {**asdict(outcome), "seconds": time.perf_counter() - start, "stages": stages.take_used()}
        last = {**reports.take(), "outcome": json.dumps(said, default=float)}
    free_gpu_memory()
    tune.report({**last, "done": True})


def free_gpu_memory() -> None:
    """Give back what PyTorch keeps of a GPU: what comes next in this process may need other sizes, others need it.

    After a CUDA error even that raises; it must not hide the error.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _place() -> str:
    """Return the JSON of ``sweeps.engine.recovery.Place``: of one GPU or a part of one, if the process has one."""
    context, group = get_runtime_context(), ray.util.get_current_placement_group()
    gpus = context.get_accelerator_ids().get("GPU", [])
    here = {"node": context.get_node_id(), "gpu": gpus[0] if len(gpus) == 1 else ""}
    worker = f"{platform.node()}{' GPU ' * bool(gpus)}{','.join(gpus)} pid {os.getpid()}"
    return json.dumps({**here, "group": group.id.hex() if group else "", "worker": worker})


def _answer(error: Exception, order: Mapping[str, Any]) -> Failure:
    """Return what the error means; keep the traceback of what is not expected."""
    failure, file = failure_of(error), Path(order["folder"]) / f"trial-{order['number']:04d}" / TRACEBACK
    if failure.kind != "bug":
        return failure
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(traceback.format_exc(), encoding="utf-8")
    if is_broken_device(error):
        _end_process()
    return replace(failure, reason=f"{failure.reason} The traceback is in {file}")


def _run(order: Mapping[str, Any], stages: StageStore) -> tuple[Outcome, Reports]:
    """Return the trial's outcome, and the measurements that were not reported yet."""
    runner: Runner = resolve_name(order["runner"])
    data = load_data(order["loader"], order["dataset"])
    config, stopping = TrialConfig.model_validate(order["config"]), EarlyStopping.model_validate(order["stopping"])
    reports = Reports(tune.report, reported_at_once(config, stopping), last=last_reported(config))

    def report(measurement: Measurement) -> None:
        metrics = {name: float(value) for name, value in measurement.metrics.items()}
        said = {"epoch": measurement.epoch, "metrics": metrics, "trained": measurement.trained}
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
    """Use no more threads, and later no more of a GPU, than the trial's share; Ray itself only keeps books.

    A trial that was stopped may have left processes behind, which have their share of it.
    """
    end_helpers()
    hold_gpus(gpus)
    threads = max(1, int(cpus))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _end_process() -> None:
    """End this process through Ray, which then prints nothing about a process that died unexpectedly."""
    ray.kill(get_runtime_context().current_actor)
    time.sleep(_KILL_SECONDS)
    os._exit(1)


class Reports:
    """Collects measurements and sends them, each once and in order.

    The first waits for no other: it shows that trial and process work.

    Args:
        send: gets ``{"measurements": JSON}``; may not return when the trial is stopped.
        at_once: epochs whose measurement waits for no other.
        clock: seconds that only grow.
        last: the last epoch that is reported before the trial ends.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        at_once: Container[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        last: int = 0,
    ) -> None:
        self._send, self._at_once, self._last, self._clock = send, at_once, last, clock
        self._waiting: list[dict[str, Any]] = []
        self._began, self._sent = clock(), -math.inf

    def note(self, said: dict[str, Any]) -> None:
        """Take a measurement, plain JSON values with its ``epoch``; send what waits when it is time."""
        self._waiting.append(said)
        now = self._clock()
        is_last = said["epoch"] == self._last and now - self._began >= _BEFORE_END_SECONDS
        if is_last or said["epoch"] in self._at_once or now - self._sent >= GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits, if anything does."""
        if self._waiting:
            self._send(self.take())
            self._sent = self._clock()

    def take(self) -> dict[str, Any]:
        """Return what waits, for a message that is sent anyway; nothing waits after."""
        waiting, self._waiting = self._waiting, []
        return {"measurements": json.dumps(waiting)} if waiting else {}


def reported_at_once(config: TrialConfig, stopping: EarlyStopping) -> frozenset[int]:
    """Return the epochs (from 1) reported at once: a trial may end there, or the backbone is unfrozen for the next.

    >>> sorted(reported_at_once(TrialConfig(epochs=10, unfreezing="5:all"), EarlyStopping()))
    [2, 5, 6]
    """
    epochs = config.epochs
    return frozenset({*stopping.rungs(epochs), first_unfrozen(config.unfreezing, epochs) % epochs})


def last_reported(config: TrialConfig) -> int:
    """Return the last epoch (from 1) that a trial reports before it ends; retrieval reports the last with its score."""
    return config.epochs - config.has_neighbours
