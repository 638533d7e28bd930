"""What the report tells of a trial's answers: which classes are confused, the worst mistakes, how sure to be of it all.

The answers to the validation images are there to choose by; those to the test images stand beside them, and nothing is
derived from them. All is read from files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from carcls.errors import InputError, TrialFailure
from carcls.evaluation.calibration import Calibration, ConfidenceBin, calibration
from carcls.evaluation.confusion import Cell, ClassScore, ConfusedPair, class_scores, confused_pairs, count_answers
from carcls.evaluation.grouping import GroupScore, car_groups, group_scores
from carcls.evaluation.predictions import StoredPredictions, read_probabilities
from carcls.evaluation.significance import Proportion
from sweeps.report.mistakes import Mistake, answers_file, has_nearest, read_nearest, stored_answers, worst_mistakes
from sweeps.report.pictures import pictures_of
from sweeps.results.result import TEST_PREDICTIONS, TestEvaluation
from sweeps.text import command_text, percent

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.report.facts import Facts
    from sweeps.trial import TrialRecord

PAIRS, EXAMPLES = 10, 2
PICTURE, LARGER_PICTURE = 96, 128
"""Pixels a side; the larger one is of mistakes."""
LOOK = "sweeps.report.mistakes:look_at_mistakes"
SHARE_OF_TIME, MOST_SECONDS = 0.05, 20.0
"""Of the sweep's time, and in all, that it may take."""
# Calls a ``module:function`` with a data set, a store and these arguments, as ``SweepSession.compute`` does.
Compute = Callable[..., Any]
Thing = TypeVar("Thing")
Key = TypeVar("Key")
Rows = list[tuple[str, tuple[Thing | None, Thing | None]]]
"""A name, and what the validation answers and the test answers say of it, if they do."""
# Stored answers must give the accuracy that the result tells, to the last digit that JSON keeps.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to the images of one split; classes are positions in ``names``.

    Attributes:
        split: ``validation`` or ``test``.
        names: of the classes.
        accuracy: of the images, at least 1, those answered right.
        cells: the confusion matrix.
        pairs: the classes that are confused most.
        classes: each that has images or answers, the hardest to recognise first.
        mistakes: the surest first; none of the test images.
        groups: scores by make, body and year, as far as the names tell; see ``car_groups``.
        calibration: None where no probabilities were stored.
    """

    split: str
    names: tuple[str, ...]
    accuracy: Proportion
    cells: tuple[Cell, ...]
    pairs: tuple[ConfusedPair, ...]
    classes: tuple[ClassScore, ...]
    mistakes: tuple[Mistake, ...]
    groups: Mapping[str, tuple[GroupScore, ...]]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class AnswersPart:
    """What the page shows of answers.

    Attributes:
        trial: number of the one that answered.
        wins: whether it is the winner; else the best of a sweep that has none (yet).
        validation: its answers to choose by.
        test: those of the one test evaluation, where it was of this trial.
        test_missing: why there are none.
        nearest: among which images the nearest were looked for, or why they were not; a sentence or two.
        examples: rows of training images, by class, of the classes in the pairs.
        pictures: data URIs, by rows.
        served: what was done to the probabilities of the model that is served; empty where nothing is known.
    """

    trial: int
    wins: bool
    validation: Answers
    test: Answers | None
    test_missing: str
    nearest: str
    examples: Mapping[int, tuple[int, ...]]
    pictures: Mapping[int, str]
    served: str

    @property
    def class_rows(self) -> Rows[ClassScore]:
        """Each class with what both splits say of it."""
        names, tested = self.validation.names, self.test.classes if self.test else ()
        found = _beside(self.validation.classes, tested, lambda one: one.label)
        return [(names[label], both) for label, both in found]

    @property
    def group_rows(self) -> dict[str, Rows[GroupScore]]:
        """Makes, bodies and years, as far as the names tell; each with what both splits say of it."""
        tested = self.test.groups if self.test else {}
        found = {what: (own, tested.get(what, ())) for what, own in self.validation.groups.items()}
        return {what: _beside(*both, lambda one: one.name) for what, both in found.items()}

    @property
    def bin_rows(self) -> Rows[ConfidenceBin]:
        """Each range of confidence that answers of either split are in, from low to high."""
        splits = (self.validation, self.test)
        first, second = (one.calibration.bins if one and one.calibration else () for one in splits)
        rows = _beside(first, second, lambda one: (one.low, one.high))
        return [(f"{100 * low:.0f}–{100 * high:.0f}%", both) for (low, high), both in sorted(rows, key=itemgetter(0))]


def _beside(
    first: Sequence[Thing], second: Sequence[Thing], key: Callable[[Thing], Key]
) -> list[tuple[Key, tuple[Thing | None, Thing | None]]]:
    sides = [{key(one): one for one in side} for side in (first, second)]
    return [(name, (sides[0].get(name), sides[1].get(name))) for name in dict.fromkeys([*sides[0], *sides[1]])]


def answers_part(facts: Facts, compute: Compute | None = None) -> AnswersPart | None:
    """Return what there is to tell of the answers of a sweep's winner; of its best trial, where it has none.

    Args:
        facts: of the sweep.
        compute: calls LOOK where the nearest training images of the mistakes are not known yet; None leaves them out.

    Returns:
        None where there is nothing; then ``why_no_answers`` says why.
    """
    record, data = _shown_trial(facts), facts.dataset
    if record is None or data is None:
        return None
    missing, near = _look(facts, data, record, compute), read_nearest(data, facts.stages, record)
    path = answers_file(facts.stages, record)
    stored = stored_answers(path, data, data.splits.validation)
    if stored is None:
        return None
    mistakes = worst_mistakes(path, data, near)
    validation = _answers_of("validation", stored, path, data.classes, mistakes)
    test, test_missing = _test_answers(facts, data, record)
    examples = _examples(data, validation.pairs)
    return AnswersPart(
        trial=record.number,
        wins=facts.ended is not None and facts.ended.winner == record.number,
        validation=validation,
        test=test,
        test_missing=test_missing,
        nearest=near.get("said", f"The training images nearest to them are not known. {missing}"),
        examples=examples,
        pictures=_pictures(facts, data, int(record.config["image_size"]), mistakes, examples),
        served=calibration_text(facts.ended.test if test and facts.ended else None),
    )


def calibration_text(test: TestEvaluation | None) -> str:
    """Say what was done to the probabilities of the served model; nothing where none is known."""
    if test is None or not test.confidence:
        return ""
    fitted, tested = test.confidence, test.metrics
    smoothing = f", smoothing {fitted['smoothing']:.3g}" if fitted["smoothing"] else ""
    whose = "; a refit has those of its trial" if test.refit else ""
    raw, calibrated = tested["test_raw_calibration_error"], tested["test_calibration_error"]
    return (
        f"The model that is served has calibrated probabilities: temperature {fitted['temperature']:.3g}{smoothing}, "
        f"fitted on {fitted['images']:,.0f} validation answers{whose}. Their expected calibration error was "
        f"{percent(fitted['error_before'])} and is {percent(fitted['error_after'])}; on the test images it is "
        f"{percent(calibrated)} instead of {percent(raw)}."
    )


def why_no_answers(facts: Facts) -> str:
    """Say why ``answers_part`` returns None."""
    record = _shown_trial(facts)
    if record is None:
        return "No trial is complete, so there are no answers to look at."
    return f"The answers of trial {record.number} to the validation images are not kept (any more)."


def confusion_csv(answers: Answers) -> str:
    """Return the confusion matrix as CSV with the columns ``true``, ``answered`` and ``count``, without what is 0."""
    writer = csv.writer(written := io.StringIO(), lineterminator="\n")
    writer.writerow(["true", "answered", "count"])
    writer.writerows([answers.names[true], answers.names[said], count] for true, said, count in answers.cells)
    return written.getvalue()


def _shown_trial(facts: Facts) -> TrialRecord | None:
    """Return the winner, or the best complete trial where none may win."""
    complete = (row.trial for row in facts.board.rows if row.trial.status == "complete")
    return facts.board.best or next(complete, None)


def _look(facts: Facts, data: Dataset, record: TrialRecord, compute: Compute | None) -> str:
    """Have the nearest images looked for where they are not known; return why they are not."""
    if has_nearest(data, facts.stages, record):
        return ""
    if compute is None:
        return f"Only the network can tell: {command_text('resume', facts.name, out=facts.out)} has it look."
    took = facts.result.seconds if facts.result else sum(one.spent.seconds for one in facts.board.trials)
    try:
        compute(LOOK, record=record, seconds=min(MOST_SECONDS, SHARE_OF_TIME * took))
    except (TrialFailure, InputError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def _test_answers(facts: Facts, data: Dataset, record: TrialRecord) -> tuple[Answers | None, str]:
    """Return the answers of the sweep's test evaluation, and why there are none."""
    result, path = facts.result, facts.folder / TEST_PREDICTIONS
    if result is None or result.test is None or result.winner != record.number:
        return None, "The test images are answered once, by the winner, when the sweep is over."
    stored, told = stored_answers(path, data, data.splits.test), result.tested()
    if stored is None or told is None or abs(stored.accuracy - told) > _ROUNDING:
        return None, "The answers that gave the test score are not kept any more."
    return _answers_of("test", stored, path, data.classes), ""


def _answers_of(
    split: str, stored: StoredPredictions, path: Path, names: tuple[str, ...], mistakes: tuple[Mistake, ...] = ()
) -> Answers:
    labels, predicted, hits = stored.labels, stored.predicted, stored.hits
    cells, probabilities = count_answers(labels, predicted), read_probabilities(path, len(names))
    scores = [one for one in class_scores(cells, len(names)) if one.recall.images or one.precision.images]
    sure = None if probabilities is None else probabilities[np.arange(len(labels)), predicted]
    return Answers(
        split=split,
        names=names,
        accuracy=Proportion(int(hits.sum()), len(hits)),
        cells=cells,
        pairs=confused_pairs(cells, PAIRS),
        classes=tuple(sorted(scores, key=_hardness)),
        mistakes=mistakes,
        groups={what: group_scores(groups, labels, predicted) for what, groups in car_groups(names).items()},
        calibration=None if sure is None else calibration(sure, hits),
    )


def _hardness(score: ClassScore) -> tuple[float, int]:
    recall = score.recall.value
    return 2.0 if recall is None else recall, -score.recall.images


def _examples(data: Dataset, pairs: Sequence[ConfusedPair]) -> dict[int, tuple[int, ...]]:
    """Return rows of training images of each class in the pairs, spread over what it has."""
    train, found = data.splits.train, {}
    for label in {label for pair in pairs for label in (pair.first, pair.second)}:
        rows = train[data.labels[train] == label]
        found[label] = tuple(rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES].tolist())
    return found


def _pictures(
    facts: Facts, data: Dataset, size: int, mistakes: Sequence[Mistake], examples: Mapping[int, Sequence[int]]
) -> dict[int, str]:
    small = {row for rows in examples.values() for row in rows} | {near.row for one in mistakes for near in one.nearest}
    large = pictures_of(data, facts.stages, size, [one.row for one in mistakes], LARGER_PICTURE)
    return pictures_of(data, facts.stages, size, small, PICTURE) | large
