"""One sweep, or several as one job: checked as a whole, run one after the other in one session of Ray, then compared.

Jobs differ in where their specs come from (``sweeps.run.command``) and in what is compared at the end: the winners of
all families (``comparison``), or documented experiments with their documented numbers (``reproduction``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.catalog import FAMILIES
from carcls.config import ARCHITECTURE_SETTINGS, NEIGHBOUR_SETTINGS
from carcls.stages import write_json, write_text
from sweeps.results.result import SweepResult
from sweeps.run.check import Checked, check_sweeps
from sweeps.run.conclusion import conclude
from sweeps.run.notify import check_address, notifying
from sweeps.run.reporting import leave_report
from sweeps.run.sweep import run_sweep
from sweeps.spec.sweep_file import is_sweep, read_spec, require_kind, write_file
from sweeps.spec.values import TRIAL_SETTINGS
from sweeps.text import plural
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from sweeps.engine import Progress, Watcher
    from sweeps.run.command import Command
    from sweeps.run.comparison import Together
    from sweeps.run.plan import Plan
    from sweeps.run.reproduction import Reproduction, Tests
    from sweeps.spec.spec import SweepSpec

_CHECKING = "checking data, machines, weights and MLflow …"
# What a training depends on, of the settings of a trial.
_TRAINING_SETTINGS = tuple(n for n in TRIAL_SETTINGS if n not in (*NEIGHBOUR_SETTINGS, *ARCHITECTURE_SETTINGS))


def plan_sweeps(
    command: Command,
    open_view: Callable[[SweepSpec], AbstractContextManager[Progress]] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Plan]:
    """Return what each sweep of a command would take, after the checks that a run makes before its first trial.

    Args:
        command: to be run.
        open_view: makes who is told while images are read, which plans need not do; None counts them by their listing.
        tell: gets what is waited for.

    Raises:
        InputError: as ``run_sweeps``.
    """
    from sweeps.run.plan import plan_sweep

    command = _prepared(command)
    plans = []
    with Waiting(tell, _CHECKING):
        checked = check_sweeps(command, plan=True)
    for each in checked:
        with open_view(each.spec) if open_view else nullcontext() as view:
            plans.append(plan_sweep(each, command, view))
    return plans


def run_sweeps(
    command: Command,
    open_view: Callable[[SweepSpec], AbstractContextManager[Watcher]],
    tell: Callable[[str], None],
) -> SweepResult | Together | Reproduction | None:
    """Run what the sweeps of a command still owe, and compare what comes of them.

    Everything that can be checked of all of them is checked before the first begins. Each sweep of a job may use an
    equal share of the hours, epochs and money that are left. Of a job ``OUT/NAME/comparison.json`` and ``.md``, or
    ``reproduction.json`` and ``.md``, and a report of all are written once all its sweeps are done.

    Args:
        command: to be run.
        open_view: makes who is told of a sweep.
        tell: gets what is to be said before.

    Returns:
        The result of a sweep, or the comparison of a job; None of a reproduction that was interrupted.

    Raises:
        InputError: something given cannot be used; no trial has started, unless it is MLflow's store that turns out
            to be unusable when it is opened.
    """
    from sweeps.run.comparison import side_by_side

    command = _prepared(command)
    with Waiting(tell, _CHECKING):
        checked = check_sweeps(command)
    if command.is_job:
        specs = [each.spec for each in checked]  # with what its sweeps keep unsaid
        write_file(command.root / command.name, command.kind, command.tracking_uri, specs)
    with notifying(command, tell) as ending:
        outcome = _run_checked(checked, command, open_view, tell, ending.results)
        if command.is_job and outcome is not None and not outcome.interrupted:
            sweeps = [result.sweep for result in ending.results]
            leave_report(command.root, command.name, sweeps, tell, compared=side_by_side(command.root, sweeps))
        ending.is_whole = outcome is not None and outcome.is_whole
    return outcome


def _run_checked(
    checked: Sequence[Checked],
    command: Command,
    open_view: Callable[[SweepSpec], AbstractContextManager[Watcher]],
    tell: Callable[[str], None],
    results: list[SweepResult],
) -> SweepResult | Together | Reproduction | None:
    """Run the sweeps that passed the checks, each of which adds its result; else as ``run_sweeps``."""
    from sweeps.engine.session import RaySession
    from sweeps.run.reproduction import evaluate_each

    started = time.monotonic()
    tests: Tests = {}
    finish = partial(evaluate_each, tests) if command.kind == "reproduce" else conclude
    # Ray ends when all else is done: winners registered, results written, MLflow's runs closed.
    with RaySession(command.address, checked[0].machine, tell) as ray:
        for each in checked:
            if command.is_job:
                spec = with_share(each.spec, (time.monotonic() - started) / 3600, results, len(checked) - len(results))
                each = replace(each, spec=with_start(spec, command.root, results))
            with open_view(each.spec) as view:
                if command.is_job:
                    view.note(f"{each.spec.family}: {plural(each.spec.trials, 'trial')}")
                results.append(run_sweep(each, command, ray, view, finish))
            if results[-1].interrupted:
                break
    return _compared(command, results, tests, time.monotonic() - started) if command.is_job else results[0]


def _compared(
    command: Command, results: Sequence[SweepResult], tests: Tests, seconds: float
) -> Together | Reproduction | None:
    """Return the comparison of a job's sweeps; once all are done, write it down."""
    from sweeps.run.comparison import compare_winners
    from sweeps.run.reproduction import reproduction_of

    outcome: Together | Reproduction
    if command.kind == "all":
        name, outcome = "comparison", compare_winners(command, results, seconds)
    elif results[-1].interrupted:
        return None
    else:
        name, outcome = "reproduction", reproduction_of(command, results, tests)
    if not outcome.interrupted:
        write_json(command.root / command.name / f"{name}.json", outcome.as_dict())
        write_text(command.root / command.name / f"{name}.md", outcome.markdown())
    return outcome


def _prepared(command: Command) -> Command:
    """Return the command as it is checked and written down: retrieval that has begun keeps where it began.

    Raises:
        InputError: something else has its name, or nobody can be notified.
    """
    require_kind(command.root / command.name, command.kind)
    specs = []
    for spec in command.specs:
        # Absolute, they mean the same wherever the sweep goes on.
        paths = {name: path for name in ("path", "images") if (path := getattr(spec.data, name)) is not None}
        paths = {name: str(Path(path).expanduser().absolute()) for name, path in paths.items()}
        spec = spec.model_copy(update={"data": spec.data.model_copy(update=paths)})
        specs.append(with_start(spec, command.root) if command.kind == "all" else spec)
    return replace(command, specs=tuple(specs), notify=check_address(command.notify))


def with_share(spec: SweepSpec, spent_hours: float, before: Sequence[SweepResult], left: int) -> SweepSpec:
    """Give a sweep an equal share of the hours, epochs and money that are left of what all may use.

    Args:
        spec: with the budgets of all together.
        spent_hours: since the job began.
        before: what the sweeps before it left.
        left: sweeps that share what is left, this one included.
    """
    epochs, cost = (sum(result.spent.get(name) or 0 for result in before) for name in ("epochs", "cost"))
    shares: dict[str, float] = {}
    if spec.hours is not None:
        shares["hours"] = max(1e-6, spec.hours - spent_hours) / left
    if spec.epochs_budget is not None:
        shares["epochs_budget"] = max(0, math.ceil((spec.epochs_budget - epochs) / left))
    if spec.max_cost is not None:
        shares["max_cost"] = max(0.0, (spec.max_cost - cost) / left)
    return spec.model_copy(update=shares)


def with_start(spec: SweepSpec, out: Path, before: Sequence[SweepResult] = ()) -> SweepSpec:
    """Let a search for neighbours begin with the training that won transfer, whose network is in the store already.

    One that has begun keeps where it began, whoever wins now.
    """
    record = FAMILIES[spec.family]
    if not (record.neighbours and record.pretrained):
        return spec
    if is_sweep(out / str(spec.name)):
        return spec.model_copy(update={"starts": read_spec(out / str(spec.name)).starts})
    best = next((result.best for result in before if result.family == "transfer"), None)
    if best is None or spec.trials <= len(spec.experiments):
        return spec
    return spec.model_copy(update={"starts": ({name: best.config[name] for name in _TRAINING_SETTINGS},)})
