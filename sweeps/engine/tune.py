"""Ray Tune around the bridge: its searcher, scheduler and stopper pass on what Tune asks and tells."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.engine.bridge import Bridge
from sweeps.engine.worker import run_order

# The first is of Ray's memory monitor, which ends a process on purpose; the others mean that it, or what it was about
# to tell, went with its machine.
_DEATHS = (OutOfMemoryError, NodeDiedError, WorkerCrashedError, ObjectLostError)


def run_tune(bridge: Bridge, common: Mapping[str, Any], folder: Path) -> None:
    """Run all trials that the bridge hands out.

    Args:
        bridge: of the sweep.
        common: what all orders share (see ``sweeps.engine.worker.Order``).
        folder: of the sweep; what Tune writes below ``trials`` is read by nobody.
    """
    # Tune loads MLflow, a second or more, when it is given callbacks of its user's.
    tuner = tune.Tuner(
        tune.with_resources(run_order, _resources_of),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(bridge, common),
            scheduler=_Scheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=bridge.share.concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "trials").resolve()),
            failure_config=tune.FailureConfig(max_failures=0),
            stop=_Stopper(bridge),
            verbose=0,
        ),
    )
    with _every_death_is_one():
        tuner.fit()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"


def _resources_of(order: Mapping[str, Any]) -> dict[str, float]:
    """Return what Ray is asked for, for a trial's order."""
    return {"cpu": order["cpus"], "gpu": order["gpus"]} if order["gpus"] else {"cpu": order["cpus"]}


class _Passing:
    """Passes on to the bridge. Tune saves such objects; the memory of these is the journal."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_Passing, Searcher):  # type: ignore[misc]  # Tune knows searchers by their base class
    def __init__(self, bridge: Bridge, common: Mapping[str, Any]) -> None:
        super().__init__()
        self._bridge, self._common = bridge, common

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's order, or that there is none; None while one that runs may have to be tried again."""
        if not self._bridge.may_start():
            return str(Searcher.FINISHED)
        trial = None
        with self._bridge.halt.catching():
            trial = self._bridge.ask(trial_id)
        if trial is None:
            return None if self._bridge.study.has_live else str(Searcher.FINISHED)
        share = {"cpus": trial.given.cpus, "gpus": trial.given.gpus}
        return {**self._common, "number": trial.number, "config": trial.config.model_dump(), **share}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that the trial ended, or its process."""
        with self._bridge.halt.catching():
            self._bridge.end(trial_id, result or {}, died=error)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""


class _Scheduler(_Passing, FIFOScheduler):  # type: ignore[misc]  # Tune knows schedulers by their base class
    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._chosen: set[str] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the first trial that no process is being started for; None when there is one for each.

        Tune gives the process of a trial that ended to the trial chosen here, and ends the process that starts for that
        one. With trials shorter than the start of a process, all would run in the first process.

        It is asked before each event, so a trial that has begun is seen here before it says its first word.
        """
        live = tune_controller.get_live_trials()
        for trial in live:
            if trial.status == Trial.RUNNING:
                self._bridge.begin(trial.trial_id, trial.temporary_state.ray_actor)
        fresh = [trial for trial in live if trial.status == Trial.PENDING and trial.trial_id not in self._chosen]
        if not fresh:
            return None
        first = min(fresh, key=lambda trial: trial.config["number"])
        self._chosen.add(first.trial_id)
        return first

    def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass a message on; answer stop or continue. The last message of a trial comes when it is complete."""
        stop = True
        with self._bridge.halt.catching():
            stop = self._bridge.hear(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, _controller: Any, trial: Any) -> None:
        """Pass on why the trial's process died: Tune keeps that in a file, death after death."""
        try:
            said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        except (OSError, TypeError):
            said = ""
        self._bridge.lose(trial.trial_id, said.rpartition("Failure # ")[2])


class _Stopper(_Passing, Stopper):  # type: ignore[misc]  # Tune knows stoppers by their base class
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def __call__(self, *_: Any) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the sweep ends now; asked step after step."""
        self._bridge.end_hanging()
        return self._bridge.must_end()


@contextmanager
def _every_death_is_one() -> Iterator[None]:
    """Let Tune answer every death of a trial's process as one; of some it would give up the experiment.

    The name that is replaced is not public. Without it, trials run all the same.
    """
    manager: Any = getattr(sys.modules.get("ray.air.execution._internal.actor_manager"), "RayActorManager", None)
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None:
        yield
        return

    def told(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        failed(self, tracked_actor_task, as_death(exception))

    manager._actor_task_failed = told
    try:
        yield
    finally:
        manager._actor_task_failed = failed


def as_death(error: Exception) -> Exception:
    """Return the error as one that Tune takes for the death of a process, with the same words, if it is one.

    >>> type(as_death(OutOfMemoryError("the node was low on memory"))).__name__
    'RayActorError'
    """
    return RayActorError(error_msg=str(error)) if isinstance(error, _DEATHS) else error
