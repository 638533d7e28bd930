"""What a sweep computes besides its trials: one task after the other, in the process that ran the last trial.

Libraries and data are loaded there already. The command itself loads no PyTorch, takes no part of a GPU that nobody
gave it, and answers a signal at once. A task needs no journal: what it makes is in the store, or in the sweep's folder,
when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import ray

from carcls.errors import TrialFailure
from carcls.stages import StageStore
from sweeps.engine.resources import Process
from sweeps.engine.session import RaySession
from sweeps.engine.shares import share_of
from sweeps.engine.worker import load_data, take_share
from sweeps.failures import failure_of

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
    prober: str = "carcls.training.shared:steps"

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


def run_task(work: Work, function: str, arguments: Mapping[str, Any]) -> Any:
    """Return what ``function(dataset, stages, **arguments)`` returns in a trial's process, with a trial's share.

    Args:
        work: of the sweep.
        function: ``module:function``, importable wherever trials run.
        arguments: what Ray can send.

    Raises:
        TrialFailure: it failed in a way that trials can fail in: says why.
        OSError: its process died again and again.
    """
    session, died = work.session, None
    share = share_of(work.spec, work.stages, session.connect(work.folder / "ray.log"))
    if session.process is not None and not session.process.has(share):  # it is another sweep's
        session.release()
    for _ in range(1 + MAX_DEATHS):
        if session.process is None:  # no trial has left one
            actor = ray.remote(_Worker).options(num_cpus=share.cpus, num_gpus=share.gpus).remote()
            session.process = Process(actor, share.cpus, share.gpus)
        actor, *share_of_it = session.process
        try:
            return ray.get(actor.__ray_call__.remote(_run, share_of_it, work.as_order(), function, dict(arguments)))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            died = error
            session.release()
    raise OSError(f"its process died: {type(died).__name__}") from died


class _Worker:
    """A process with a trial's share that ran no trial."""


def _run(_: Any, share: list[float], order: dict[str, Any], function: str, arguments: dict[str, Any]) -> Any:
    take_share(*share)
    try:
        data = load_data(order["loader"], order["dataset"])
        return resolve_name(function)(data, StageStore(Path(order["stages"])), **arguments)
    except Exception as error:
        failure = failure_of(error)
        if failure.kind == "bug":
            raise
        raise TrialFailure(failure.reason) from error
