"""The documented experiments, run as documented and evaluated once on test, beside their documented numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from sweeps.results.leaderboard import find_best
from sweeps.run.reproduction_tables import blocks_of, markdown_of
from sweeps.run.winner import evaluate_on_test, files_of, summarize, write_down
from sweeps.spec.documented import DocumentedExperiment, find_experiment

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.engine.engine import EngineResult
    from sweeps.results.result import SweepResult, TestReading
    from sweeps.run.command import Command
    from sweeps.run.session import SweepSession
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.mirror import Mirror
    from sweeps.trial import TrialRecord

    # Of each experiment by name its test evaluation, or why there is none.
    Tests = dict[str, TestReading | str]

MEASURES = ("loss", "accuracy", "f1", "precision", "recall", "fit_seconds", "predict_seconds")


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A documented experiment and what came of it here.

    Attributes:
        experiment: as it was documented.
        changed: setting -> (documented, used), for settings that were run otherwise.
        record: of its trial; None where it was not run.
        test: its test evaluation, or why there is none.
    """

    experiment: DocumentedExperiment
    changed: Mapping[str, tuple[Any, Any]]
    record: TrialRecord | None
    test: TestReading | str

    @property
    def measured(self) -> dict[str, float]:
        """The documented measures on our test images; empty without an evaluation."""
        found = {} if isinstance(self.test, str) else self.test.metrics
        return {measure: found[f"test_{measure}"] for measure in MEASURES if f"test_{measure}" in found}

    @property
    def status(self) -> str:
        """How its trial ended; one that could not be evaluated failed."""
        if self.record is None:
            return "missing"
        return "failed" if self.record.status == "complete" and isinstance(self.test, str) else self.record.status

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        experiment, failed = self.experiment, isinstance(self.test, str)
        return {
            "name": experiment.name,
            "family": experiment.family,
            "documented": dict(experiment.documented),
            "measured": self.measured,
            "interval": None if isinstance(self.test, str) else list(self.test.interval),
            "validation_accuracy": self.record.metrics.get("val_accuracy") if self.record else None,
            "changed": {name: list(change) for name, change in self.changed.items()},
            "approximate": experiment.approximate,
            "leaked": experiment.leaked,
            "note": experiment.note,
            "status": self.status,
            "reason": self.test if failed else "",
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All of them.

    Attributes:
        name: of the reproduction and its folder.
        data: the images.
        demo: whether these are the demo cars.
        cut: whether pictures were cut to bounding boxes.
        comparisons: in the documented order.
        best: family -> name of the experiment with the best validation accuracy.
    """

    name: str
    data: DataSummary
    demo: bool
    cut: bool
    comparisons: tuple[Reproduced, ...]
    best: Mapping[str, str]
    interrupted: ClassVar[bool] = False  # one that is has no tables

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "data": self.data.name,
            "demo": self.demo,
            "images": dict(self.data.splits),
            "classes": self.data.classes,
            "cut": self.cut,
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
            "best": dict(self.best),
        }

    def markdown(self) -> str:
        """Return the tables of the documentation, each cell documented / measured."""
        return markdown_of(blocks_of(self))

    @property
    def is_whole(self) -> bool:
        """Whether every experiment has a result."""
        return all(comparison.measured for comparison in self.comparisons)


def evaluate_each(
    tests: Tests, session: SweepSession, engine: EngineResult, mirror: Mirror, tell: Callable[[str], None]
) -> SweepResult:
    """Evaluate each experiment of a family on the test images, and not its winner; ``tests`` gets what they told."""
    result = summarize(session, engine.records, interrupted=engine.interrupted)
    if not engine.interrupted:
        for name, record in _experiments(session.spec, engine.records).items():
            tell(f"reading test: {name}")
            tests[name] = _evaluate(session, record, tell)
    write_down(session, result)
    mirror.summarise(engine.records, best=result.winner)
    return result


def _experiments(spec: SweepSpec, records: Sequence[TrialRecord]) -> dict[str, TrialRecord | None]:
    """Return the trial of each experiment: equal experiments have one, and one that was not run has none.

    A trial that ran out of memory and was given micro-batches is its experiment's all the same.
    """
    trials = {_digest(TrialConfig.model_validate(dict(record.config))): record for record in records}
    return {name: trials.get(_digest(config)) for name, config in spec.experiment_configs()}


def _digest(config: TrialConfig) -> str:
    return config.model_copy(update={"micro_batch": None}).digest


def _changed(spec: SweepSpec, name: str, record: TrialRecord | None) -> dict[str, tuple[Any, Any]]:
    """Return what was run otherwise than documented, as ``Reproduced.changed``; no experiment has micro-batches."""
    given = record.config.get("micro_batch") if record else None
    return spec.changed_settings(name) | ({"micro_batch": (None, given)} if given else {})


def _evaluate(session: SweepSession, record: TrialRecord | None, tell: Callable[[str], None]) -> TestReading | str:
    if record is None:
        return "it was not run"
    if record.status != "complete":
        return record.reason
    try:
        return evaluate_on_test(session, record, tell, files=files_of(record))
    except (TrialFailure, OSError) as failure:
        return f"the test images could not be read with it: {failure}"


def reproduction_of(command: Command, results: Sequence[SweepResult], tests: Tests) -> Reproduction:
    """Return what the sweeps of a reproduction came to, in their order, with the tests of their experiments."""
    images = Dataset.load(command.root / results[0].sweep / "dataset.json").manifest.images
    comparisons: list[Reproduced] = []
    best: dict[str, str] = {}
    for spec, result in zip(command.specs, results, strict=True):
        found = _experiments(spec, result.trials)
        for name, record in found.items():
            comparisons.append(Reproduced(find_experiment(name), _changed(spec, name, record), record, tests[name]))
        winner = find_best([record for record in found.values() if record is not None])
        if winner is not None:
            best[result.family] = next(name for name, record in found.items() if record is winner)
    return Reproduction(
        command.name,
        results[0].data,
        demo=command.specs[0].data.path is None,
        cut=any(image.box is not None for image in images),
        comparisons=tuple(comparisons),
        best=best,
    )
