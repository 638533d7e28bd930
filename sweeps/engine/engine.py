"""Runs a sweep's trials with Ray Tune, over a study that outlives it.

Tune places trials on processes, restarts those that die and stops those that the study gives up. All it knows can be
lost: the journal and the stage store are enough to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.engine.bridge import Bridge
from sweeps.engine.forecast import Account, BudgetStatus
from sweeps.engine.halt import Halt
from sweeps.engine.hangs import Patience, expected_seconds
from sweeps.engine.quarantine import Quarantine
from sweeps.engine.resources import Machine, least_seconds, trial_resources
from sweeps.engine.session import RaySession
from sweeps.engine.task import LOADER
from sweeps.engine.tune import run_tune
from sweeps.interrupts import interruptible
from sweeps.results.result import UsedUp
from sweeps.study.confirmation import Repeat
from sweeps.study.proposals import Costs
from sweeps.study.study import Study
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from sweeps.engine.observers import Observer
    from sweeps.spec.spec import SweepSpec

# Says by which runs the trials of a search that is over are confirmed.
Confirm = Callable[[Sequence[TrialRecord]], Sequence[Repeat]]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What a run of the engine leaves.

    Attributes:
        records: every trial of the study, those of earlier runs included.
        interrupted: whether Ctrl-C or failures ended it; unfinished trials go on in the next run.
        used_up: the budget because of which trials were left to the next run; empty when there is none.
        stopped: the failures that ended it; empty if none did.
    """

    records: tuple[TrialRecord, ...]
    interrupted: bool
    used_up: UsedUp
    stopped: str = ""


def run_trials(
    spec: SweepSpec,
    dataset_file: Path,
    stages_root: Path,
    folder: Path,
    observers: Sequence[Observer],
    session: RaySession,
    *,
    runner: str = "carcls.families:run_trial",
    loader: str = LOADER,
    confirm: Confirm | None = None,
    edits: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_status: Callable[[BudgetStatus], None] = lambda _: None,
    costs: Costs = lambda _: {},
    images: int = 0,
) -> EngineResult:
    """Run the trials that the study in ``folder`` still owes, and return all it has.

    Ctrl-C once, SIGTERM or a request to stop (sweeps.lock) ends each running trial after its epoch, or without it
    after STOP_SECONDS; in the next run it goes on from its last finished epoch. Ctrl-C twice raises KeyboardInterrupt.
    Once a budget (``spec.hours``, epochs, cost) is used up no trial starts; those that run finish. What confirms the
    search comes after it, and after its hours.

    Args:
        spec: the sweep.
        dataset_file: what ``Dataset.save`` wrote.
        stages_root: folder of the stage store; on a cluster every machine must see it, and the dataset file.
        folder: of the sweep.
        observers: told what happens, in this order; an exception ends the sweep resumably and is raised again.
        session: of Ray, which is started or joined if anything is to be run.
        runner: ``module:function`` with the signature of ``carcls.families.run_trial``.
        loader: ``module:function`` that reads the dataset file.
        confirm: asked once the search is over, unless it was interrupted; what it answers is run too.
        edits, costs: as in ``Study.open``.
        tell: gets a sentence when the sweep begins to stop.
        on_status: told what is spent and what is to come, before the observers are told the news.
        images: that an epoch goes through, by which slow trials are told from those that hang.

    Raises:
        InputError: the spec asks for more than there is, or the folder holds another sweep.
    """
    halt = Halt(time.monotonic() + (spec.hours or float("inf")) * 3600, folder, tell)
    common = {
        "dataset": str(dataset_file.resolve()),
        "stages": str(stages_root.resolve()),
        "folder": str((folder / "trials").resolve()),
        "runner": runner,
        "loader": loader,
        "stopping": spec.early_stopping.model_dump(),
    }
    with Study.open(folder, spec, edits=edits, costs=costs) as study, interruptible(halt.interrupt):
        if study.reopened:
            tell(f"Tried again, since they failed through no fault of their own: {_trials(study.reopened)}.")
        more = study.has_work or _confirm(study, halt, confirm)
        if more:
            with session.connected(folder / "ray.log") as machines, Quarantine(tell) as quarantine:
                bridge = _bridge(spec, study, halt, quarantine, machines, observers, on_status, images)
                while more:
                    try:
                        run_tune(bridge, common, folder)
                    finally:
                        study.release()
                    more = not halt.confirming and _confirm(study, halt, confirm)
        if halt.error is not None:
            raise halt.error
        used_up: UsedUp = halt.used_up if study.has_work else ""
        ended = halt.cause in ("interrupt", "failures")
        return EngineResult(tuple(study.records()), ended, used_up, halt.stopped)


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _confirm(study: Study, halt: Halt, confirm: Confirm | None) -> bool:
    """Go on to what confirms the search; tell whether there is anything to run."""
    if confirm is None or not halt.may_go_on():
        return False
    halt.confirming = True
    return study.confirm(confirm(study.records()))


def _bridge(
    spec: SweepSpec,
    study: Study,
    halt: Halt,
    quarantine: Quarantine,
    machines: Sequence[Machine],
    observers: Sequence[Observer],
    on_status: Callable[[BudgetStatus], None],
    images: int,
) -> Bridge:
    share = trial_resources(spec, *machines)
    account = Account(spec, share, study.records(), halt.deadline)
    study.note_spending(account.meter.read)
    return Bridge(
        study=study,
        account=account,
        halt=halt,
        patience=Patience(partial(expected_seconds, share, images), least_seconds()),
        quarantine=quarantine,
        observers=observers,
        on_status=on_status,
        share=share,
        cores=max(machine.cores for machine in machines),
    )
