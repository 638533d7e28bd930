"""All families as one job: one data set, one store of stages, one budget, one comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import ARCHITECTURE_SETTINGS, NEIGHBOUR_SETTINGS
from carcls.errors import SpecError
from carcls.evaluation.significance import wilson_interval
from carcls.stages import write_json
from sweeps.budget import shared_budgets
from sweeps.comparison import Pair, compare, pair_line
from sweeps.comparison_files import read_sweeps
from sweeps.remembered import remember
from sweeps.spec import FAMILIES, SweepSpec
from sweeps.spec_families import overrides_for, setting_of, settings_for
from sweeps.spec_layers import TRIAL_SETTINGS
from sweeps.spec_loading import load_spec
from sweeps.winner import write_text

if TYPE_CHECKING:
    from sweeps.observers import Watcher
    from sweeps.result import SweepResult

COLUMNS = (
    "family",
    "winner",
    "validation",
    "test",
    "95% interval",
    "test F1",
    "trials",
    "time",
    "registered as",
)

NARROW_COLUMNS = ("family", "validation", "test", "registered as")

# What a training depends on, of the settings of a trial.
_TRAINING_SETTINGS = tuple(n for n in TRIAL_SETTINGS if n not in (*NEIGHBOUR_SETTINGS, *ARCHITECTURE_SETTINGS))


@dataclass(frozen=True, slots=True)
class Contender:
    """The winner of one family.

    Attributes:
        family, sweep: whose winner it is.
        trials: that were run.
        model: name of the documented experiment, or ``search``.
        val_accuracy, val_half_width: in [0, 1]; None where no trial finished.
        test_accuracy, test_f1, test_interval: on the test images, read once.
        seconds: of the whole sweep.
        registered: ``name version``; empty when it is not.
    """

    family: str
    sweep: str
    trials: int
    model: str
    val_accuracy: float | None
    val_half_width: float | None
    test_accuracy: float | None
    test_f1: float | None
    test_interval: tuple[float, float] | None
    seconds: float
    registered: str


@dataclass(frozen=True, slots=True)
class TogetherResult:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images (``sweeps.comparison``).
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    contenders: tuple[Contender, ...]
    interrupted: bool
    pairs: tuple[Pair, ...] = ()

    @property
    def is_registered(self) -> bool:
        """Whether every family has a registered model."""
        return all(result.registered for result in self.results.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "comparison": [asdict(contender) for contender in self.contenders],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }


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
    from sweeps.job import check_sweep
    from sweeps.session import one_session

    started = time.monotonic()
    out = out.expanduser().absolute()
    for spec in specs:
        check_sweep(_with_start(spec, out, None), out, address, edited=edits is not None)
    remember(out / name, "all", tracking_uri, specs)
    results: dict[str, SweepResult] = {}
    with one_session():
        for place, spec in enumerate(specs):
            spec = _with_start(within_hours(spec, started, len(specs) - place), out, results.get("transfer"))
            spec = within_budgets(spec, results.values(), len(specs) - place)
            others = specs[1:] if place == 0 else ()
            results[spec.family] = _run_one(spec, others, name, out, tracking_uri, open_view, address, edits)
            if results[spec.family].interrupted:
                break
    interrupted = any(result.interrupted for result in results.values())
    contenders = tuple(_contender(result) for result in results.values())
    pairs = () if interrupted else _pairs(out, [result.sweep for result in results.values()])
    together = TogetherResult(name, time.monotonic() - started, results, contenders, interrupted, pairs)
    if not interrupted:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", together.as_dict())
        write_text(folder / "comparison.md", markdown_of(together))
    return together


def _pairs(out: Path, names: Sequence[str]) -> tuple[Pair, ...]:
    """Compare the winners by their stored answers to the test images, which are not read again."""
    files = read_sweeps(out, names)
    return tuple(pair for group in compare(files.results, files.predictions).groups for pair in group.pairs)


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
    from sweeps.job import check_against_data, conclude_sweep, open_sitting, run_trials_of

    with open_view(spec) as view:
        view.note(f"{spec.family}: {spec.trials} trials")
        with open_sitting(spec, out, tracking_uri, progress=view, address=address, edits=edits) as sitting:
            for other in others:
                check_against_data(other, sitting.dataset)
            return run_trials_of(sitting, view, view, conclude_sweep, job=name)


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


def _with_start(spec: SweepSpec, out: Path, transfer: SweepResult | None) -> SweepSpec:
    """Let retrieval begin with the training of the transfer family's winner; a sweep that goes on keeps its start."""
    if spec.family != "retrieval":
        return spec
    before = out / str(spec.name) / "spec.yaml"
    if before.is_file():
        return spec.model_copy(update={"starts": SweepSpec.from_file(before).starts})
    if transfer is None or transfer.best is None or spec.trials <= len(spec.experiments):
        return spec
    return spec.model_copy(update={"starts": ({n: transfer.best.params[n] for n in _TRAINING_SETTINGS},)})


def _contender(result: SweepResult) -> Contender:
    best, test = result.best, result.test
    accuracy = best.metrics.get("val_accuracy") if best else None
    images = result.data.splits["validation"]
    ends = None if accuracy is None else wilson_interval(round(accuracy * images), images)
    named = None if best is None else best.number if best.confirms is None else best.confirms
    trial = next((t for t in result.trials if t.number == named), None)
    registered = result.registered
    return Contender(
        family=result.family,
        sweep=result.sweep,
        trials=sum(t.sibling_of is None and t.confirms is None for t in result.trials),
        model="none" if trial is None else trial.experiment or "search",
        val_accuracy=accuracy,
        val_half_width=(ends[1] - ends[0]) / 2 if ends else None,
        test_accuracy=test.metrics.get("test_accuracy") if test else None,
        test_f1=test.metrics.get("test_f1") if test else None,
        test_interval=test.interval if test else None,
        seconds=result.seconds,
        registered=f"{registered.name} {registered.version}" if registered else "",
    )


def comparison_rows(contenders: Sequence[Contender]) -> list[list[str]]:
    """Return the comparison as cells, header first."""
    rows = [list(COLUMNS)]
    for c in contenders:
        half = f" ±{c.val_half_width * 100:.1f}" if c.val_half_width is not None else ""
        interval = f"{c.test_interval[0] * 100:.1f}–{c.test_interval[1]:.1%}" if c.test_interval else "–"
        shares = (_share(c.val_accuracy) + half, _share(c.test_accuracy), interval, _share(c.test_f1))
        rows.append([c.family, c.model, *shares, str(c.trials), _minutes(c.seconds), c.registered or "–"])
    return rows


def markdown_of(together: TogetherResult) -> str:
    """Return the comparison as a Markdown table."""
    header, *body = comparison_rows(together.contenders)
    lines = [header, ["---" for _ in header], *body]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    data = next(iter(together.results.values())).data
    images = ", ".join(f"{count:,} {split}" for split, count in data.splits.items())
    return (
        f"# {together.name}\n\n{data.name}: {data.classes} classes, images: {images}. Each winner was chosen on the "
        f"validation images and read once on the test images.\n\n{table}\n" + _paired(together.pairs)
    )


def _paired(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = "\n".join(f"-{pair_line(pair)[1:]}" for pair in pairs)
    return f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
