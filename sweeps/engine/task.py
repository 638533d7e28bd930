"""What a sweep computes besides its trials: one task after the other, in the process that ran the last trial.

Libraries and data are loaded there already. The command itself loads no PyTorch, takes no part of a GPU that nobody
gave it, and answers a signal at once. A task needs no journal: what it makes is in the store, or in the sweep's folder,
when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import ray

from carcls.errors import OutOfMemory, TrialFailure
from carcls.machine import is_broken_device
from carcls.stages import StageStore
from sweeps.engine.resources import Process, Share
from sweeps.engine.session import RaySession
from sweeps.engine.shares import PROBER, share_of
from sweeps.engine.worker import free_gpu_memory, load_data, take_share
from sweeps.failures import Try, failure_of, next_try, tried_text

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

MAX_DEATHS = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What the processes of a sweep work on, and where.

    Attributes:
        spec: of the sweep.
        folder: of the sweep.
        dataset: what ``Dataset.save`` wrote.
        stages: folder of the stage store; on a cluster every machine must see it, and the dataset file.
        session: of Ray, which is started or joined when something is to be done.
        images: that an epoch goes through, by which slow trials are distinguished from those that hang.
        runner: ``module:function`` with the signature of ``carcls.families.run_trial``.
        loader: ``module:function`` that reads the dataset file.
        prober: ``module:function`` that ``sweeps.engine.probing`` measures, which says what it returns.
    """

    spec: SweepSpec
    folder: Path
    dataset: Path
    stages: Path
    session: RaySession
    images: int = 0
    runner: str = "carcls.families:run_trial"
    loader: str = "carcls.data.dataset:Dataset.load"
    prober: str = PROBER

    def as_order(self) -> dict[str, Any]:
        """Return what the orders of all trials share (see ``sweeps.engine.worker.run_order``), as JSON can hold it.

        ``folder`` is where a crash leaves ``error.txt``; ``stopping`` holds the fields of ``EarlyStopping``.
        """
        return {
            "dataset": str(self.dataset.resolve()),
            "stages": str(self.stages.resolve()),
            "folder": str((self.folder / "trials").resolve()),
            "runner": self.runner,
            "loader": self.loader,
            "stopping": self.spec.early_stopping.model_dump(),
        }


class _Broken(TrialFailure):
    """The process can use its GPU no more; another one may."""


def run_task(
    work: Work,
    function: str,
    arguments: Mapping[str, Any],
    *,
    batch_size: int = 1,
    notify: Callable[[str], None] = lambda _: None,
) -> Any:
    """Return what ``function(dataset, stages, **arguments)`` returns in a trial's process, with a trial's share.

    What runs out of memory is tried again as a trial is: with a larger part of a GPU, in another process; then, where
    it trains, in micro-batches.

    Args:
        work: of the sweep.
        function: ``module:function``, importable wherever trials run.
        arguments: what Ray can send.
        batch_size: on how many images at a time it trains; then it takes ``micro_batch``, too. 1 trains on none.
        notify: gets a sentence for each such try.

    Raises:
        TrialFailure: it failed in a way that trials can fail in: says why, and what was tried.
        OSError: its process died again and again.
    """
    session, deaths = work.session, 0
    share = share_of(work.spec, work.stages, session.connect(work.folder / "ray.log"))
    given = Try(share.cpus, share.gpus)
    while True:
        process = _process_with(session, given)
        parts = {"micro_batch": given.micro_batch} if given.micro_batch else {}
        try:
            return _compute(process, work, function, {**arguments, **parts})
        except OutOfMemory as failure:
            # There are no neighbours whom more cores would keep away.
            more = next_try(replace(given, cpus=process.cpus, gpus=process.gpus), batch_size, process.cpus)
            if more is None:
                see = " See who else holds it (nvidia-smi)." if process.gpus else ""
                raise OutOfMemory(f"{failure}{tried_text(given.tried)}{see}") from None
            notify(f"out of memory after the trials; trying again with {more.tried[-1]}")
            given = more
        except (_Broken, ray.exceptions.RayError) as error:
            session.release()
            deaths += 1
            if deaths > MAX_DEATHS:
                why = str(error) if isinstance(error, _Broken) else type(error).__name__
                raise OSError(f"its process died: {why}") from error


def _process_with(session: RaySession, share: Try) -> Process:
    """Return the process that the last trial left; another one where that one is another sweep's, or has too little."""
    if session.process is not None and not session.process.has(Share(share.cpus, share.gpus, 1)):
        session.release()
    if session.process is None:
        actor = ray.remote(_Worker).options(num_cpus=share.cpus, num_gpus=share.gpus).remote()
        session.process = Process(actor, share.cpus, share.gpus)
    return session.process


def _compute(process: Process, work: Work, function: str, arguments: Mapping[str, Any]) -> Any:
    actor, *share = process
    try:
        return ray.get(actor.__ray_call__.remote(_run, share, work.as_order(), function, dict(arguments)))
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


class _Worker:
    """A process with a trial's share that ran no trial."""


def _run(_: Any, share: list[float], order: dict[str, Any], function: str, arguments: dict[str, Any]) -> Any:
    take_share(*share)
    try:
        data = load_data(order["loader"], order["dataset"])
        return resolve_name(function)(data, StageStore(Path(order["stages"])), **arguments)
    except Exception as error:
        failure = failure_of(error)
        if is_broken_device(error):
            raise _Broken(failure.reason) from None
        if failure.kind == "bug":
            raise
        raise (OutOfMemory if failure.kind == "out_of_memory" else TrialFailure)(failure.reason) from error
    finally:
        free_gpu_memory()
