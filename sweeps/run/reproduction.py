"""The documented experiments, run as documented and evaluated once on test, beside their documented numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from sweeps.results.leaderboard import find_best
from sweeps.spec.documented import LEAK_MARK, DocumentedExperiment, experiments_of, find_experiment
from sweeps.text import DASH, Grid, changes_text, counts_text, markdown_table, percent, percent_range

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

# The tables are those of the documentation; a family's measures in its order.
_SHARES, _SECONDS = ("accuracy", "f1", "precision", "recall"), ("fit_seconds", "predict_seconds")
MEASURES = ("loss", *_SHARES, *_SECONDS)
_OF_FAMILY = {"transfer": ("loss", *_SHARES), "retrieval": (*_SHARES, *_SECONDS), "scratch": ("loss", *_SHARES)}
_TITLES = {"f1": "F1", "fit_seconds": "fit", "predict_seconds": "predict"}


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
    def short(self) -> str:
        """Its name where its family is known."""
        return self.experiment.name.partition("/")[2]

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

    @property
    def interval_text(self) -> str:
        """The interval of its test accuracy, or its status where there is none."""
        return self.status if isinstance(self.test, str) else percent_range(self.test.interval)

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

    @property
    def is_whole(self) -> bool:
        """Whether every experiment has a result."""
        return all(comparison.measured for comparison in self.comparisons)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        return "\n\n".join(b if isinstance(b, str) else markdown_table(b) for b in self.blocks()) + "\n"

    def blocks(self) -> list[str | Grid]:
        """Return the whole report: texts in Markdown, and the documentation's tables, documented / measured."""
        data, families = self.data, dict[str, list[Reproduced]]()
        for row in self.comparisons:
            families.setdefault(row.experiment.family, []).append(row)
        blocks: list[str | Grid] = [
            f"# Documented experiments, reproduced: {self.name}",
            f"Data: {data.name}, {data.classes} classes, images: {counts_text(data.splits)}.",
            "Each cell reads documented / measured. Measured numbers are of the test images, which were read once for "
            "each experiment. Nothing was chosen on them: the best of a family is the best on the validation images.",
        ]
        if self.demo:
            blocks.append("**These are drawn demo cars: no measured number can be compared with a documented one.**")
        for family, rows in families.items():
            blocks += [f"## {family.title()}", _family_table(rows), "\n".join(_notes(rows))]
        return [*blocks, "## Final comparison", self._final_table(families), "\n".join(self._protocol())]

    def _final_table(self, families: Iterable[str]) -> Grid:
        """Return the best of each family: as documented by the documented accuracy, as measured by validation."""
        rows, body = {row.experiment.name: row for row in self.comparisons}, []
        for family in families:
            documented = max(experiments_of(family), key=lambda experiment: experiment.documented["accuracy"])
            reported = [_reported(documented, share) for share in _SHARES]
            body.append([f"{family.title()}, documented", documented.name.partition("/")[2], *reported, DASH])
            best = rows.get(self.best.get(family, ""))
            measured = [_number(share, best.measured.get(share) if best else None) for share in _SHARES]
            name, interval = (best.short, best.interval_text) if best else ("none finished", DASH)
            body.append([f"{family.title()}, measured", name, *measured, interval])
        return _grid(["family", "best"], _SHARES, body)

    def _protocol(self) -> list[str]:
        cut = "cut to their bounding boxes" if self.cut else "as they are"
        lines = [
            f"- Pictures were used {cut} here; the documented runs used whole pictures.",
            f"- Our test split has {self.data.test:,} images, our training split {self.data.train:,}; the published "
            "ones have 8,041 and 8,144, and the documented transfer score is of 2,681 images.",
            "- ~: the documented number was rounded.",
        ]
        if any(row.experiment.leaked for row in self.comparisons):
            lines.append(f"- {LEAK_MARK}: the documented number is not comparable; see the note in its family's table.")
        return lines


def _family_table(rows: Sequence[Reproduced]) -> Grid:
    """Return one family's table; each cell reads documented / measured."""
    measures, body = _OF_FAMILY[rows[0].experiment.family], []
    for row in rows:
        cells = [f"{_reported(row.experiment, one)} / {_number(one, row.measured.get(one))}" for one in measures]
        body.append([row.short, *cells, row.interval_text])
    return _grid(["experiment"], measures, body)


def _grid(words: Sequence[str], measures: Iterable[str], rows: Sequence[Sequence[str]]) -> Grid:
    numbers = [*(_TITLES.get(measure, measure) for measure in measures), "95% interval"]
    return Grid([*words, *numbers], rows, words, [*words[1:], *numbers])


def _number(measure: str, value: float | None) -> str:
    if value is None:
        return DASH
    if measure in _SHARES:
        return percent(value, digits=2)  # as documented
    return f"{value:.4f}" + (" s" if measure in _SECONDS else "")


def _reported(experiment: DocumentedExperiment, measure: str) -> str:
    """Write a documented number, marked where it was rounded or compares with nothing."""
    if measure not in experiment.documented:
        return DASH
    about, mark = "~" if experiment.approximate else "", LEAK_MARK if experiment.leaked else ""
    return f"{about}{_number(measure, experiment.documented[measure])}{mark}"


def _notes(rows: Sequence[Reproduced]) -> list[str]:
    """Say what was run otherwise than documented, what has no result, and how the documented numbers were made.

    A line for each text, with the names of the experiments that it is said of; all of several are ``all``.
    """
    changes, failures, notes = dict[str, list[str]](), dict[str, list[str]](), dict[str, list[str]]()
    for row in rows:
        for setting, change in row.changed.items():
            changes.setdefault(f"{changes_text({setting: change})}.", []).append(row.short)
        if isinstance(row.test, str):
            why = " ".join((row.test or row.status).split())
            failures.setdefault(f"no result: {why if why.endswith(('.', '!', '?')) else f'{why}.'}", []).append(
                row.short
            )
        name = f"{row.short} {LEAK_MARK}" if row.experiment.leaked else row.short
        notes.setdefault(row.experiment.note, []).append(name)
    return [
        f"- {'all' if len(names) == len(rows) > 1 else ', '.join(names)}: {text}"
        for said in (changes, failures, notes)
        for text, names in said.items()
    ]


def evaluate_each(tests: Tests, session: SweepSession, engine: EngineResult, mirror: Mirror) -> SweepResult:
    """Evaluate each experiment of a family on the test images, and not its winner; ``tests`` gets what they told."""
    result = session.summarize(engine.records, interrupted=engine.interrupted)
    if not engine.interrupted:
        for name, record in _experiments(session.spec, engine.records).items():
            session.tell(f"reading test: {name}")
            tests[name] = _evaluate(session, record)
    session.save(result)
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


def _evaluate(session: SweepSession, record: TrialRecord | None) -> TestReading | str:
    if record is None:
        return "it was not run"
    if record.status != "complete":
        return record.reason
    files = f"test-{record.number:04d}.json", f"test-predictions-{record.number:04d}.npz"
    try:
        return session.evaluate_on_test(record, files=files)
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
            changed, parts = spec.changed_settings(name), record.config.get("micro_batch") if record else None
            if parts:  # no experiment has micro-batches
                changed = {**changed, "micro_batch": (None, parts)}
            comparisons.append(Reproduced(find_experiment(name), changed, record, tests[name]))
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
