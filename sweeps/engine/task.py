"""What a sweep computes besides its trials: one task of Ray after the other, with a trial's share, where trials ran.

So the command itself loads no PyTorch and takes no part of a GPU that nobody gave it, and a signal is answered at once.
A task needs no journal: what it makes is in the store, or in the sweep's folder, when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import ray

from carcls.errors import TrialFailure
from carcls.stages import StageStore
from sweeps.engine.resources import trial_resources
from sweeps.engine.worker import load_data, take_share
from sweeps.failures import failure_of

if TYPE_CHECKING:
    from sweeps.engine.session import RaySession
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

LOADER = "carcls.data.dataset:Dataset.load"
MAX_DEATHS = 2


def run_task(
    function: str,
    arguments: Mapping[str, Any],
    spec: SweepSpec,
    folder: Path,
    stages_root: Path,
    session: RaySession,
) -> Any:
    """Return what ``function(dataset, stages, **arguments)`` returns in a trial's process.

    Args:
        function: ``module:function``, importable wherever trials run.
        arguments: what Ray can send.
        spec: of the sweep; says what share of a machine a trial gets.
        folder: of the sweep, with its ``dataset.json``.
        stages_root, session: as in ``run_trials``.

    Raises:
        TrialFailure: it failed in a way that trials can fail in: says why.
        OSError: its process died again and again.
    """
    with session.connected(folder / "ray.log") as machines:
        if session.preloading is not None:  # rather than that a second process loads the same beside it
            ray.wait([session.preloading])
            session.preloading = None
        share = trial_resources(spec, *machines)
        task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=MAX_DEATHS)(_run)
        files = str((folder / "dataset.json").resolve()), str(stages_root.resolve())
        answer = task.remote(function, *files, share.cpus, share.gpus, dict(arguments))
        try:
            return ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            raise OSError(f"its process died: {type(error).__name__}") from error


def _run(function: str, dataset: str, stages: str, cpus: float, gpus: float, arguments: dict[str, Any]) -> Any:
    take_share(cpus, gpus)
    try:
        return resolve_name(function)(load_data(LOADER, dataset), StageStore(Path(stages)), **arguments)
    except Exception as error:
        failure = failure_of(error)
        if failure.kind == "bug":
            raise
        raise TrialFailure(failure.reason) from error


class Preload:
    """An observer that has Ray keep one more process ready, which loads what trials need: the winner is tested in it.

    It begins with the first epoch where a core is left to load it, and else once the first trial is complete: before,
    the trials' own processes have much to load themselves.

    Args:
        session: of Ray, which a task that needs the process finds it by.
        concurrency: so many trials run at a time.
    """

    def __init__(self, session: RaySession, concurrency: int) -> None:
        self._session, self._concurrency = session, concurrency

    def trial_changed(self, record: TrialRecord) -> None:
        """Begin once."""
        if self._session.preloading is not None:
            return
        has_core = record.epochs > 0 and ray.cluster_resources().get("CPU", 0) > self._concurrency
        if record.status == "complete" or has_core:
            self._session.preloading = ray.remote(num_cpus=0, max_retries=0)(_load).remote(dict(record.config))


def _load(config: dict[str, Any]) -> None:
    from carcls.config import TrialConfig
    from carcls.families import load_libraries

    load_libraries(TrialConfig.model_validate(config))
