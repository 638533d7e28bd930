"""The documented experiments, run as they were documented and read once on test, beside their documented numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.errors import InputError, TrialFailure
from carcls.stages import write_json
from sweeps.documented import find_experiment
from sweeps.leaderboard import find_best
from sweeps.reproduction_tables import markdown_of
from sweeps.sweep_file import is_sweep, write_file
from sweeps.winner import evaluate_on_test, files_of, summarize, write_down, write_text

if TYPE_CHECKING:
    from sweeps.engine import EngineResult
    from sweeps.observers import Watcher
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult, TestReading
    from sweeps.sitting import Sitting
    from sweeps.spec import SweepSpec
    from sweeps.tracking import Mirror

MEASURES = ("loss", "accuracy", "f1", "precision", "recall", "fit_seconds", "predict_seconds")


@dataclass(frozen=True, slots=True)
class Comparison:
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
    comparisons: tuple[Comparison, ...]
    best: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @property
    def is_complete(self) -> bool:
        """Whether every experiment has a result."""
        return all(comparison.measured for comparison in self.comparisons)


def run_reproduction(
    specs: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    *,
    open_view: Callable[[SweepSpec], AbstractContextManager[Watcher]],
    address: str | None = None,
    edits: Sequence[str] | None = None,
) -> Reproduction | None:
    """Run the experiments, read each on test once, and write ``reproduction.md`` and ``.json`` into ``<out>/<name>``.

    Everything that can be checked of all families is checked before the first begins; Ray is started once. What has
    been run before under the name is not run again. Returns None when it was interrupted.

    Args:
        specs: from ``reproduction_specs``, settled.
        name: of the reproduction.
        out: folder of all sweeps.
        tracking_uri: as in ``run_sweep``.
        open_view: makes who is told of a sweep.
        address: of a Ray cluster.
        edits: as in ``run_sweep``.

    Raises:
        InputError: something given cannot be used; no trial has started.
    """
    from sweeps.job import open_sitting, run_trials_of
    from sweeps.job_checks import check_sweep, fit_to_data
    from sweeps.session import RaySession

    folder = folder_of(name, out)
    for spec in specs:
        check_sweep(spec, out, tracking_uri, address)
    write_file(folder, "reproduce", tracking_uri, specs)
    finished: list[_Family] = []
    with RaySession(address) as ray:
        for spec in specs:
            family = _Family()
            with (
                open_view(spec) as view,
                open_sitting(spec, out, tracking_uri, ray, watcher=view, edits=edits) as sitting,
            ):
                for later in specs[1:] if not finished else ():
                    fit_to_data(later, len(sitting.dataset.splits.train))
                result = run_trials_of(sitting, view, family, job=name)
            if result.interrupted:
                return None
            finished.append(family)
    reproduction = _put_together(name, finished)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "reproduction.json", reproduction.as_dict())
    write_text(folder / "reproduction.md", markdown_of(reproduction))
    return reproduction


def folder_of(name: str, out: Path) -> Path:
    """Return where a reproduction is written.

    Raises:
        InputError: a sweep has that name.
    """
    folder = out.expanduser().absolute() / name
    if is_sweep(folder):
        raise InputError(f"--name must be of no sweep, got {name!r}, which is one. Give another --name.")
    return folder


class _Family:
    """Reads the test score of every experiment of a family once its trials are over."""

    def __init__(self) -> None:
        self.comparisons: list[Comparison] = []
        self.result: SweepResult | None = None
        self.best: str | None = None
        self.cut = self.demo = False

    def __call__(
        self, sitting: Sitting, engine: EngineResult, mirror: Mirror, tell: Callable[[str], None]
    ) -> SweepResult:
        """Compare each experiment with its documented numbers."""
        self.result = summarize(sitting, engine.records, interrupted=engine.interrupted)
        self.cut = any(image.box is not None for image in sitting.dataset.manifest.images)
        self.demo = sitting.spec.data.path is None
        if not engine.interrupted:
            by_digest = {_digest(record): record for record in engine.records}
            for name, config in sitting.spec.experiment_configs():
                tell(f"reading test: {name}")
                self.comparisons.append(_compare(sitting, name, by_digest.get(config.digest), tell))
            self.best = self._best(engine.records, sitting)
        write_down(sitting, self.result)
        mirror.summarise(engine.records, best=self.result.winner)
        return self.result

    def _best(self, records: Sequence[TrialRecord], sitting: Sitting) -> str | None:
        best = find_best(records)
        if best is None:
            return None
        digests = {config.digest: name for name, config in reversed(sitting.spec.experiment_configs())}
        return digests[_digest(best)]


def _digest(record: TrialRecord) -> str:
    return TrialConfig.model_validate(dict(record.config)).digest


def _compare(sitting: Sitting, name: str, record: TrialRecord | None, tell: Callable[[str], None]) -> Comparison:
    experiment = find_experiment(name)
    test, reason = _read_test(sitting, record, tell)
    found = test.metrics if test else {}
    return Comparison(
        name=name,
        family=experiment.family,
        documented=dict(experiment.documented),
        measured={measure: found[f"test_{measure}"] for measure in MEASURES if f"test_{measure}" in found},
        interval=test.interval if test else None,
        validation_accuracy=record.metrics.get("val_accuracy") if record else None,
        changed=sitting.spec.changed_settings(name),
        approximate=experiment.approximate,
        leaked=experiment.leaked,
        note=experiment.note,
        status=_status(record, test),
        reason=reason,
    )


def _status(record: TrialRecord | None, test: TestReading | None) -> str:
    if record is None:
        return "missing"
    return "failed" if record.status == "complete" and test is None else record.status


def _read_test(
    sitting: Sitting, record: TrialRecord | None, tell: Callable[[str], None]
) -> tuple[TestReading | None, str]:
    """Return the test reading of a complete trial, or none and why."""
    if record is None:
        return None, "it was not run"
    if record.status != "complete":
        return None, record.reason
    try:
        return evaluate_on_test(sitting, record, tell, files=files_of(record)), ""
    except (TrialFailure, OSError) as failure:
        return None, f"the test images could not be read with it: {failure}"


def _put_together(name: str, families: Sequence[_Family]) -> Reproduction:
    first = families[0].result
    assert first is not None
    return Reproduction(
        name=name,
        data=first.data.name,
        demo=families[0].demo,
        images=first.data.splits,
        classes=first.data.classes,
        cut=families[0].cut,
        comparisons=tuple(comparison for family in families for comparison in family.comparisons),
        best={family.result.family: family.best for family in families if family.result and family.best},
    )
