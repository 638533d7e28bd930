"""All families as one job: one data set, one store of stages, one budget, one comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import ARCHITECTURE_SETTINGS, NEIGHBOUR_SETTINGS
from carcls.errors import SpecError
from carcls.stages import write_json
from sweeps.budget import shared_budgets
from sweeps.comparison import Pair, compare_sweeps
from sweeps.space_values import TRIAL_SETTINGS
from sweeps.spec import FAMILIES, SweepSpec
from sweeps.spec_families import overrides_for, setting_of, settings_for
from sweeps.spec_loading import load_spec
from sweeps.sweep_file import is_sweep, read_spec, write_file
from sweeps.together_tables import TogetherResult, markdown_of
from sweeps.winner import write_text

if TYPE_CHECKING:
    from sweeps.observers import Watcher
    from sweeps.result import SweepResult

# What a training depends on, of the settings of a trial.
_TRAINING_SETTINGS = tuple(n for n in TRIAL_SETTINGS if n not in (*NEIGHBOUR_SETTINGS, *ARCHITECTURE_SETTINGS))


def specs_of_all(
    *, name: str, sets: Sequence[str], overrides: Mapping[str, Any], trials: int | None
) -> tuple[SweepSpec, ...]:
    """Return the sweeps of all families, called ``<name>-<family>``.

    A setting reaches the families that it means something in, an experiment its own. ``trials`` are for all together:
    each family gets its documented experiments, and an equal share of the rest.

    Raises:
        SpecError: a setting is wrong, or there are fewer trials than documented experiments.
    """
    load_spec(FAMILIES[0], overrides={"name": name})
    if any(setting_of(text) == "trials" for text in sets):
        raise SpecError(["trials: must be given as --trials, which is for all families together."])
    specs = [_spec_of(family, name, sets, overrides) for family in FAMILIES]
    if trials is None:
        return tuple(specs)
    counts = _divided(trials, [max(1, len(spec.experiments)) for spec in specs])
    return tuple(spec.model_copy(update={"trials": count}) for spec, count in zip(specs, counts, strict=True))


def _spec_of(family: str, name: str, sets: Sequence[str], overrides: Mapping[str, Any]) -> SweepSpec:
    named = {**overrides_for(family, overrides), "name": f"{name}-{family}"}
    spec = load_spec(family, sets=settings_for(family, sets), overrides=named)
    own = tuple(experiment for experiment in spec.experiments if experiment.startswith(f"{family}/"))
    return spec.model_copy(update={"experiments": own})


def _divided(trials: int, least: Sequence[int]) -> list[int]:
    rest = trials - sum(least)
    if rest < 0:
        raise SpecError(
            [
                f"--trials: must be at least {sum(least)}, for the documented experiments of each family and one trial "
                f"at the least, got {trials}."
            ]
        )
    return [own + rest // len(least) + (place < rest % len(least)) for place, own in enumerate(least)]


def run_together(
    specs: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    *,
    open_view: Callable[[SweepSpec], AbstractContextManager[Watcher]],
    address: str | None = None,
    edits: Sequence[str] | None = None,
) -> TogetherResult:
    """Run the sweeps one after the other, and compare their winners.

    Everything that can be checked of all of them is checked before the first begins. Ray is started once. Retrieval
    begins with the training settings of the transfer family's winner, whose network is in the store already. Each
    family may use an equal share of the hours, epochs and money that are left. Writes
    ``<out>/<name>/comparison.json`` and ``.md``.

    Args:
        specs: from ``specs_of_all``, settled.
        name: of the job.
        out: folder of all sweeps.
        tracking_uri: as in ``run_sweep``.
        open_view: makes who is told of a sweep.
        address: of a Ray cluster.
        edits: what was changed in the specs of a job that goes on, in words; None allows no change of a search.

    Raises:
        InputError: something given cannot be used; no trial has started.
    """
    from sweeps.job_checks import check_sweep
    from sweeps.session import one_session

    started = time.monotonic()
    out = out.expanduser().absolute()
    for spec in specs:
        check_sweep(with_start(spec, out, None), out, tracking_uri, address, edited=edits is not None)
    write_file(out / name, "all", tracking_uri, specs)
    results: dict[str, SweepResult] = {}
    with one_session():
        for place, spec in enumerate(specs):
            spec = with_start(within_hours(spec, started, len(specs) - place), out, results.get("transfer"))
            spec = within_budgets(spec, results.values(), len(specs) - place)
            others = specs[1:] if place == 0 else ()
            results[spec.family] = _run_one(spec, others, name, out, tracking_uri, open_view, address, edits)
            if results[spec.family].interrupted:
                break
    interrupted = any(result.interrupted for result in results.values())
    pairs = () if interrupted else _pairs(out, [result.sweep for result in results.values()])
    together = TogetherResult(name, time.monotonic() - started, results, interrupted, pairs)
    if not interrupted:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", together.as_dict())
        write_text(folder / "comparison.md", markdown_of(together))
    return together


def _pairs(out: Path, names: Sequence[str]) -> tuple[Pair, ...]:
    """Compare the winners by their stored answers to the test images, which are not read again."""
    return tuple(pair for group in compare_sweeps(out, names).groups for pair in group.pairs)


def _run_one(
    spec: SweepSpec,
    others: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    open_view: Callable[[SweepSpec], AbstractContextManager[Watcher]],
    address: str | None,
    edits: Sequence[str] | None,
) -> SweepResult:
    from sweeps.job import conclude_sweep, open_sitting, run_trials_of
    from sweeps.job_checks import fit_to_data

    with open_view(spec) as view:
        view.note(f"{spec.family}: {spec.trials} trials")
        with open_sitting(spec, out, tracking_uri, watcher=view, address=address, edits=edits) as sitting:
            for other in others:
                fit_to_data(other, len(sitting.dataset.splits.train))
            return run_trials_of(sitting, view, conclude_sweep, job=name)


def within_hours(spec: SweepSpec, started: float, families_left: int) -> SweepSpec:
    """Give a family an equal share of the hours that are left; ``started`` is on time.monotonic's clock."""
    if spec.hours is None:
        return spec
    left = max(1e-6, spec.hours - (time.monotonic() - started) / 3600)
    return spec.model_copy(update={"hours": left / families_left})


def within_budgets(spec: SweepSpec, before: Iterable[SweepResult], families_left: int) -> SweepSpec:
    """Give a family an equal share of the epochs and the money that the families ``before`` it have left."""
    spent = [result.spent for result in before]
    epochs, cost = (sum(part.get(name) or 0 for part in spent) for name in ("epochs", "cost"))
    return spec.model_copy(update=shared_budgets(spec, epochs, cost, families_left))


def with_start(spec: SweepSpec, out: Path, transfer: SweepResult | None) -> SweepSpec:
    """Let retrieval begin with the training of the transfer family's winner; a sweep that goes on keeps its start."""
    if spec.family != "retrieval":
        return spec
    before = out / str(spec.name)
    if is_sweep(before):
        return spec.model_copy(update={"starts": read_spec(before).starts})
    if transfer is None or transfer.best is None or spec.trials <= len(spec.experiments):
        return spec
    return spec.model_copy(update={"starts": ({n: transfer.best.config[n] for n in _TRAINING_SETTINGS},)})
