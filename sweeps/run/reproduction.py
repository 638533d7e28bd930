"""The documented experiments, run as documented and evaluated once on test, beside their documented numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from carcls.config import HOW_COMPUTED, TrialConfig, default_of
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from sweeps.results.leaderboard import find_best
from sweeps.spec.documented import LEAK_MARK, DocumentedExperiment, experiments_of, find_experiment
from sweeps.tables import Grid, markdown_table
from sweeps.text import DASH, changes_text, counts_text, percent, percent_range

if TYPE_CHECKING:
    from sweeps.engine.engine import EngineResult
    from sweeps.results.result import SweepResult, TestEvaluation
    from sweeps.run.command import Command
    from sweeps.run.session import SweepSession
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.mirror import Mirror
    from sweeps.trial import TrialRecord

    # Of each experiment by name its test evaluation, or why there is none.
    Tests = dict[str, TestEvaluation | str]

# In the order of the documentation's tables, which have of each family what was reported of it.
_SHARES, _SECONDS = ("accuracy", "f1", "precision", "recall"), ("fit_seconds", "predict_seconds")
MEASURES = ("loss", *_SHARES, *_SECONDS)
_DOCUMENTED = ("name", "family", "approximate", "leaked", "note")
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
    test: TestEvaluation | str

    @property
    def short(self) -> str:
        """Its name where its family is known."""
        return self.experiment.name.partition("/")[2]

    @property
    def measured(self) -> dict[str, float]:
        """The documented measures on our test images; empty without an evaluation."""
        found = {} if isinstance(self.test, str) else self.test.metrics
        return {one: found[f"test_{one}"] for one in MEASURES if f"test_{one}" in found}

    @property
    def status(self) -> str:
        """How its trial ended; ``missing`` where it was not run, ``failed`` where it could not be evaluated."""
        status = self.record.status if self.record else "missing"
        return "failed" if status == "complete" and isinstance(self.test, str) else status

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values (docs/json.md)."""
        documented = {name: getattr(self.experiment, name) for name in _DOCUMENTED}
        return {
            **documented,
            "documented": dict(self.experiment.documented),
            "measured": self.measured,
            "interval": None if isinstance(self.test, str) else self.test.interval,
            "validation_accuracy": self.record.metrics.get("val_accuracy") if self.record else None,
            "changed": self.changed,
            "status": self.status,
            "reason": self.test if isinstance(self.test, str) else "",
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All of them; its fields are those of the JSON (docs/json.md).

    Attributes:
        name: of the reproduction and its folder.
        data: name of the data set.
        demo: whether these are the demo cars.
        images: how many each split has.
        classes: how many there are.
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

    @property
    def is_whole(self) -> bool:
        """Whether every experiment has a result."""
        return all(row.measured for row in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [row.as_dict() for row in self.comparisons]
        return {**{part.name: getattr(self, part.name) for part in fields(self)}, "comparisons": rows}

    def markdown(self) -> str:
        """Return the report as Markdown."""
        return "\n\n".join(b if isinstance(b, str) else markdown_table(b) for b in self.blocks()) + "\n"

    def blocks(self) -> Iterator[str | Grid]:
        """Yield the whole report: texts in Markdown, and the documentation's tables, documented / measured."""
        yield f"# Documented experiments, reproduced: {self.name}"
        yield f"Data: {self.data}, {self.classes} classes, images: {counts_text(self.images)}."
        yield (
            "Each cell reads documented / measured. Measured numbers are of the test images, which were evaluated "
            "once for each experiment. Nothing was chosen on them: the best of a family is so on the validation images."
        )
        if self.demo:
            yield "**These are drawn demo cars: no measured number can be compared with a documented one.**"
        for family, rows in itertools.groupby(self.comparisons, lambda row: row.experiment.family):
            yield from self._family(family, [*rows])
        cut = "cut to their bounding boxes" if self.cut else "as they are"
        yield (
            f"- Pictures were used {cut} here; the documented runs used whole pictures.\n"
            f"- Our test split has {self.images['test']:,} images, our training split {self.images['train']:,}; the "
            "published ones have 8,041 and 8,144, and the documented transfer score is of 2,681 images.\n"
            f"- ~: the documented number was rounded. {LEAK_MARK}: it is not comparable; see the note on it."
        )

    def _family(self, family: str, rows: Sequence[Reproduced]) -> Iterator[str | Grid]:
        """Yield a family's table and notes: the documented best by its accuracy, the measured one by validation."""
        yield f"## {family.title()}"
        experiments, body = experiments_of(family), []
        measures = [one for one in MEASURES if any(one in experiment.documented for experiment in experiments)]
        for row in rows:
            cells = [f"{_reported(row.experiment, one)} / {_number(one, row.measured.get(one))}" for one in measures]
            body.append(
                [row.short, *cells, row.status if isinstance(row.test, str) else percent_range(row.test.interval)]
            )
        numbers = [*(_TITLES.get(measure, measure) for measure in measures), "95% interval"]
        yield Grid(["experiment", *numbers], body, ["experiment"], numbers)
        documented = max(experiments, key=lambda experiment: experiment.documented["accuracy"])
        name, reported = documented.name.partition("/")[2], _reported(documented, "accuracy")
        best = next((row for row in rows if row.experiment.name == self.best.get(family)), None)
        measured = f"{best.short}, {_number('accuracy', best.measured.get('accuracy'))}" if best else "none finished"
        yield "\n".join([f"- best: {name}, {reported} documented; {measured} measured.", *_notes(rows)])


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
            failures.setdefault(f"no result: {why}{'' if why.endswith(('.', '!', '?')) else '.'}", []).append(row.short)
        name = f"{row.short} {LEAK_MARK}" if row.experiment.leaked else row.short
        notes.setdefault(row.experiment.note, []).append(name)
    return [
        f"- {'all' if len(names) == len(rows) > 1 else ', '.join(names)}: {text}"
        for texts in (changes, failures, notes)
        for text, names in texts.items()
    ]


def evaluate_each(tests: Tests, session: SweepSession, engine: EngineResult, mirror: Mirror) -> SweepResult:
    """Evaluate each experiment of a family on the test images, and not its winner; ``tests`` gets what they told."""
    result = session.summarize(engine)
    if not engine.interrupted:
        for name, record in _experiments(session.spec, engine.records).items():
            session.tell(f"evaluating on the test images: {name}")
            tests[name] = _evaluate(session, record)
    session.save(result)
    mirror.summarise(engine.records, best=result.winner)
    return result


def _evaluate(session: SweepSession, record: TrialRecord | None) -> TestEvaluation | str:
    if record is None:
        return "it was not run"
    if record.status != "complete":
        return record.reason
    files = f"test-{record.number:04d}.json", f"test-predictions-{record.number:04d}.npz"
    try:
        return session.evaluate_on_test(record, files=files)
    except (TrialFailure, OSError) as failure:
        return f"the test images could not be evaluated with it: {failure}"


def _experiments(spec: SweepSpec, records: Iterable[TrialRecord]) -> dict[str, TrialRecord | None]:
    """Return the trial of each experiment: equal experiments have one, and one that was not run has none.

    A trial that ran out of memory and was given micro-batches, or has several GPUs, is its experiment's all the same.
    """

    def digest(config: TrialConfig) -> str:
        return config.model_copy(update={name: default_of(name) for name in HOW_COMPUTED}).digest

    trials = {digest(TrialConfig.model_validate(dict(record.config))): record for record in records}
    return {name: trials.get(digest(config)) for name, config in spec.experiment_configs()}


def reproduction_of(command: Command, results: Sequence[SweepResult], tests: Tests) -> Reproduction:
    """Return what the sweeps of a reproduction came to, in their order, with the tests of their experiments."""
    data, rows, best = results[0].data, list[Reproduced](), dict[str, str]()
    for spec, result in zip(command.specs, results, strict=True):
        found = _experiments(spec, result.trials)
        for name, record in found.items():
            how = {} if record is None else {name: record.config.get(name, default_of(name)) for name in HOW_COMPUTED}
            computed = {n: (default_of(n), used) for n, used in how.items() if used != default_of(n)}
            changed = {**spec.changed_settings(name), **computed}  # no experiment is documented otherwise
            rows.append(Reproduced(find_experiment(name), changed, record, tests[name]))
        winner = find_best([record for record in found.values() if record is not None])
        if winner is not None:
            best[result.family] = next(name for name, record in found.items() if record is winner)
    images = Dataset.load(command.root / results[0].sweep / "dataset.json").manifest.images
    return Reproduction(
        name=command.name,
        data=data.name,
        demo=command.specs[0].data.path is None,
        images=dict(data.splits),
        classes=data.classes,
        cut=any(image.box is not None for image in images),
        comparisons=tuple(rows),
        best=best,
    )
