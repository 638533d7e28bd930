"""What a sweep leaves behind: one value, and the JSON object that scripts read (docs/json.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from carcls.stages import write_json
from sweeps.goals import Goals
from sweeps.record import TrialRecord, record_from_json, to_json

_OF_THE_BEST = ("number", "params", "metrics", "confirms")


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The data set of a sweep.

    Attributes:
        name: what tables call it.
        digest: of what the trials saw; the same digest means the same images, crops and splits.
        images: readable images in all splits together.
        classes: how many.
        splits: images of ``train``, ``validation`` and ``test``.
    """

    name: str
    digest: str
    images: int
    classes: int
    splits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A trial that was repeated with fresh seeds (``--confirm``); accuracies on the validation images, in [0, 1].

    Attributes:
        number: of the trial.
        asked: how many runs with fresh seeds it has, failed ones and unfinished ones included.
        runs: numbers of those that are complete.
        search: its accuracy in the search, by which it was chosen.
        mean: of the complete runs; None without any.
        spread: their standard deviation (with n - 1); None with fewer than two.
        shrinkage: mean - search; below 0 as a rule, since what is chosen for its score was lucky.
    """

    number: int
    asked: int
    runs: tuple[int, ...]
    search: float
    mean: float | None
    spread: float | None
    shrinkage: float | None

    @property
    def is_whole(self) -> bool:
        """Whether every run is complete."""
        return bool(self.runs) and len(self.runs) == self.asked


@dataclass(frozen=True, slots=True)
class Compared:
    """The winner beside another trial, on the same validation images.

    Attributes:
        against: number of the other trial.
        difference: the winner's accuracy - the other's, in [-1, 1]; means over fresh seeds where they were confirmed.
        interval: of the difference, 95%, by paired bootstrap over images, and over seeds where there are several.
        p: two-sided, exact (McNemar's test; over several seeds its generalization), by Holm where there are several
            others; in [0, 1].
        shown: whether a difference is shown: p is at most 5% and the interval leaves 0 out.
    """

    against: int
    difference: float
    interval: tuple[float, float]
    p: float
    shown: bool


@dataclass(frozen=True, slots=True)
class TestReading:
    """The winner on the test split.

    Attributes:
        metrics: ``test_accuracy`` and the others in [0, 1], losses in nats.
        interval: 95% interval of the accuracy, both ends in [0, 1].
        images: test images.
        readings: how often a test score of this sweep has been computed; 1 is what an honest sweep has.
        models: for how many models of this sweep.
        refit: whether the model was trained once more on training and validation images.
    """

    __test__ = False  # pytest: not a test class

    metrics: Mapping[str, float]
    interval: tuple[float, float]
    images: int
    readings: int = 1
    models: int = 1
    refit: bool = False


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """Where the model registry has the winner."""

    name: str
    version: str
    alias: str
    uri: str


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep, finished or interrupted; ``winner``, ``test`` and ``registered`` are None while there is no winner.

    ``winner`` is the number of the trial that won on the validation images; after ``--confirm`` it is the run with a
    fresh seed that stands for the winning settings.

    ``confirmed`` are the trials that were repeated with fresh seeds, best first; ``comparison`` is the winner beside
    others; ``spent`` is what ``sweeps.spending.spent_dict`` returns, empty in results of older versions. ``objectives``
    and ``constraints`` are those of the spec; ``pareto`` has the numbers of the trials on the front of several
    objectives, ascending. ``saved_seconds`` is what the stages took to make that trials found made.
    """

    sweep: str
    family: str
    out: str
    data: DataSummary
    trials: tuple[TrialRecord, ...]
    winner: int | None
    test: TestReading | None
    registered: RegisteredModel | None
    tracking_uri: str
    seconds: float
    interrupted: bool = False
    confirmed: tuple[Confirmed, ...] = ()
    comparison: tuple[Compared, ...] = ()
    spent: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = ("accuracy",)
    constraints: tuple[str, ...] = ()
    pareto: tuple[int, ...] = ()
    saved_seconds: float = 0.0

    @property
    def best(self) -> TrialRecord | None:
        """The winner, or None."""
        return next((trial for trial in self.trials if trial.number == self.winner), None)

    @property
    def goals(self) -> Goals:
        """What decided the winner."""
        return Goals.parse(self.objectives, self.constraints)

    @property
    def is_whole(self) -> bool:
        """Whether it has a registered model."""
        return self.registered is not None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a number that JSON has no word for (NaN, infinity) becomes null."""
        told = asdict(replace(self, trials=()))  # a record's history would be read for nothing
        trials = {trial.number: to_json(trial) for trial in self.trials}
        winner = trials.get(told.pop("winner"))
        best = None if winner is None else {name: winner[name] for name in _OF_THE_BEST}
        plain: dict[str, Any] = _plain({**told, "trials": list(trials.values()), "best": best})
        return plain

    def as_json(self) -> str:
        """Return the object that ``--json`` writes to stdout."""
        return json.dumps(self.as_dict(), indent=1)

    def save(self, path: Path) -> None:
        """Write the object to ``path``, whole or not at all."""
        write_json(path, self.as_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SweepResult:
        """Read back what ``as_dict`` wrote; null metrics are NaN again."""
        best, test, registered = value["best"], value["test"], value["registered"]
        return cls(
            sweep=value["sweep"],
            family=value["family"],
            out=value["out"],
            data=DataSummary(**value["data"]),
            trials=tuple(record_from_json(trial) for trial in value["trials"]),
            winner=best["number"] if best else None,
            test=TestReading(**{**test, "interval": tuple(test["interval"])}) if test else None,
            registered=RegisteredModel(**registered) if registered else None,
            tracking_uri=value["tracking_uri"],
            seconds=value["seconds"],
            interrupted=value["interrupted"],
            confirmed=tuple(Confirmed(**{**c, "runs": tuple(c["runs"])}) for c in value.get("confirmed", ())),
            comparison=tuple(Compared(**{**c, "interval": tuple(c["interval"])}) for c in value.get("comparison", ())),
            spent=value.get("spent", {}),
            objectives=tuple(value.get("objectives", ("accuracy",))),
            constraints=tuple(value.get("constraints", ())),
            pareto=tuple(value.get("pareto", ())),
            saved_seconds=value.get("saved_seconds", 0.0),
        )

    @classmethod
    def load(cls, path: Path) -> SweepResult:
        """Read what ``save`` wrote."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
