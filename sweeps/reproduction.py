"""The documented experiments, run as they were documented and read once on test, beside their documented numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from sweeps.documented import find_experiment
from sweeps.leaderboard import find_best
from sweeps.winner import evaluate_on_test, files_of, summarize, write_down

if TYPE_CHECKING:
    from sweeps.command import Command
    from sweeps.engine import EngineResult
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult, TestReading
    from sweeps.sitting import Sitting
    from sweeps.spec import SweepSpec
    from sweeps.tracking import Mirror

    # Of each experiment by name its test evaluation, or why there is none.
    Tests = dict[str, TestReading | str]

MEASURES = ("loss", "accuracy", "f1", "precision", "recall", "fit_seconds", "predict_seconds")


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A documented experiment and what came of it here.

    Attributes:
        name, family: of the experiment.
        documented: reported measures: shares in [0, 1], ``loss`` in nats, times in seconds.
        measured: the same measures on our test images; empty when it failed.
        interval: 95% interval of the measured accuracy.
        validation_accuracy: in [0, 1]; the best of a family is chosen by it.
        changed: setting -> [documented, used], for settings that were run otherwise.
        approximate, leaked, note: as in ``DocumentedExperiment``.
        status, reason: how the trial ended.
    """

    name: str
    family: str
    documented: Mapping[str, float]
    measured: Mapping[str, float]
    interval: tuple[float, float] | None
    validation_accuracy: float | None
    changed: Mapping[str, tuple[Any, Any]]
    approximate: bool
    leaked: bool
    note: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All of them.

    Attributes:
        name: of the reproduction and its folder.
        data: name of the data set.
        demo: whether these are the demo cars.
        images: images of ``train``, ``validation`` and ``test``.
        classes: how many.
        cut: whether pictures were cut to bounding boxes.
        comparisons: in the documented order.
        best: family -> name of the experiment with the best validation accuracy.
    """

    name: str
    data: str
    demo: bool
    images: Mapping[str, int]
    classes: int
    cut: bool
    comparisons: tuple[Reproduced, ...]
    best: Mapping[str, str]
    interrupted: ClassVar[bool] = False  # one that is has no tables

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def markdown(self) -> str:
        """Return the tables of the documentation, each cell documented / measured."""
        from sweeps.reproduction_tables import markdown_of

        return markdown_of(self)

    @property
    def is_whole(self) -> bool:
        """Whether every experiment has a result."""
        return all(comparison.measured for comparison in self.comparisons)


def evaluate_each(
    tests: Tests, sitting: Sitting, engine: EngineResult, mirror: Mirror, tell: Callable[[str], None]
) -> SweepResult:
    """Evaluate each experiment of a family on the test images, and not its winner; ``tests`` gets what they told."""
    result = summarize(sitting, engine.records, interrupted=engine.interrupted)
    if not engine.interrupted:
        for name, record in _experiments(sitting.spec, engine.records).items():
            tell(f"reading test: {name}")
            tests[name] = _evaluate(sitting, record, tell)
    write_down(sitting, result)
    mirror.summarise(engine.records, best=result.winner)
    return result


def _experiments(spec: SweepSpec, records: Sequence[TrialRecord]) -> dict[str, TrialRecord | None]:
    """Return the trial of each experiment: equal experiments have one, and one that was not run has none."""
    trials = {TrialConfig.model_validate(dict(record.config)).digest: record for record in records}
    return {name: trials.get(config.digest) for name, config in spec.experiment_configs()}


def _evaluate(sitting: Sitting, record: TrialRecord | None, tell: Callable[[str], None]) -> TestReading | str:
    if record is None:
        return "it was not run"
    if record.status != "complete":
        return record.reason
    try:
        return evaluate_on_test(sitting, record, tell, files=files_of(record))
    except (TrialFailure, OSError) as failure:
        return f"the test images could not be read with it: {failure}"


def reproduction_of(command: Command, results: Sequence[SweepResult], tests: Tests) -> Reproduction:
    """Return what the sweeps of a reproduction came to, in their order, with the tests of their experiments."""
    data, first = results[0].data, command.root / results[0].sweep
    comparisons: list[Reproduced] = []
    best: dict[str, str] = {}
    for spec, result in zip(command.specs, results, strict=True):
        found = _experiments(spec, result.trials)
        comparisons += [_compare(spec, name, record, tests[name]) for name, record in found.items()]
        winner = find_best([record for record in found.values() if record is not None])
        if winner is not None:
            best[result.family] = next(name for name, record in found.items() if record is winner)
    return Reproduction(
        name=command.name,
        data=data.name,
        demo=command.specs[0].data.path is None,
        images=data.splits,
        classes=data.classes,
        cut=any(image.box is not None for image in Dataset.load(first / "dataset.json").manifest.images),
        comparisons=tuple(comparisons),
        best=best,
    )


def _compare(spec: SweepSpec, name: str, record: TrialRecord | None, test: TestReading | str) -> Reproduced:
    experiment = find_experiment(name)
    found = {} if isinstance(test, str) else test.metrics
    status = "missing" if record is None else record.status
    return Reproduced(
        name=name,
        family=experiment.family,
        documented=dict(experiment.documented),
        measured={measure: found[f"test_{measure}"] for measure in MEASURES if f"test_{measure}" in found},
        interval=None if isinstance(test, str) else test.interval,
        validation_accuracy=record.metrics.get("val_accuracy") if record else None,
        changed=spec.changed_settings(name),
        approximate=experiment.approximate,
        leaked=experiment.leaked,
        note=experiment.note,
        status="failed" if status == "complete" and isinstance(test, str) else status,
        reason=test if isinstance(test, str) else "",
    )
