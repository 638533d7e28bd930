"""What a sweep leaves behind and what it spent: one value, and the JSON object that scripts read (docs/json.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter
from pydantic_core import to_jsonable_python

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from carcls.errors import InputError
from carcls.evaluation.significance import PairedComparison
from carcls.stages import write_json
from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.fields import Prices
from sweeps.spec.objectives import Goals
from sweeps.text import command_text, duration, money_text, plural, rough_duration
from sweeps.trial import NOTHING, Spent, TrialRecord, record_from_json, to_json

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

RESULT = "result.json"
TEST_PREDICTIONS = "test-predictions.npz"
REGISTERED = "NAME/VERSION"
"""Stands in a model card for the registered model and its version, which are not known when it is written."""
# The budget that ends a sweep; empty while none does.
UsedUp = Literal["", "hours", "epochs", "cost"]
_OF_THE_BEST = ("number", "params", "metrics", "confirms")


@dataclass(frozen=True, slots=True)
class Compared:
    """The winner beside another trial, on the same validation images.

    Attributes:
        against: number of the other trial.
        difference: the winner's accuracy - the other's, in [-1, 1]; means over fresh seeds where they were confirmed.
        interval: of the difference, 95%, as in ``PairedComparison`` of carcls.evaluation.significance.
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
class TestEvaluation:
    """The winner on the test split.

    Attributes:
        metrics: ``test_accuracy`` and the others in [0, 1], losses in nats.
        interval: 95% interval of the accuracy, both ends in [0, 1].
        images: test images.
        evaluations: how often a test score of this sweep has been computed; 1 is what an honest sweep has.
        models: for how many models of this sweep.
        refit: whether the model was trained once more on training and validation images.
        confidence: how the model's answers become probabilities, fitted on the ``images`` of validation:
            ``temperature`` and ``smoothing``, with the expected calibration error there in [0, 1], ``error_before`` and
            ``error_after``; empty in results of older versions.
    """

    __test__ = False  # pytest: not a test class

    metrics: Mapping[str, Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]]
    interval: tuple[float, float]
    images: int
    evaluations: int = 1
    models: int = 1
    refit: bool = False
    confidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Champion:
    """The champion of a family when a version of its model was registered, on the champion's own test images.

    Attributes:
        version: of the registered model; that version itself, if it is the champion.
        accuracy: in [0, 1]; None where the registry does not say.
        interval: 95% interval of the accuracy; None where its answers are not kept.
        comparison: the version (first) with the champion (second) on the same test images; None where that cannot be.
        apart: why it cannot be; empty otherwise.
    """

    version: str
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    comparison: PairedComparison | None = None
    apart: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version in the model registry.

    Attributes:
        name, version: of the registered model.
        alias: ``challenger``, or empty when another version has it.
        uri: what ``mlflow.pyfunc.load_model`` takes.
        challenger: the version that has the alias; empty where none has it, and in results of older versions.
        note: what was found when it was to become challenger: that it is worse, or of other images; else empty.
        champion: beside it; None where the model has none, and in results of older versions.
    """

    name: str
    version: str
    alias: str
    uri: str
    champion: Champion | None = None
    challenger: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def standing(self) -> str:
        """Who is challenger, and what was found, for people: goes after the version."""
        other = f"version {self.challenger}" if self.challenger else "another version"
        held = f"alias {self.alias}" if self.alias else f"while {other} is the challenger"
        return f"{held}. {self.note}".strip()


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep, finished or interrupted; ``winner``, ``test`` and ``registered`` are None while there is no winner.

    Attributes:
        sweep, family: its name, and what it sweeps over.
        out: folder of all sweeps, absolute.
        data: what was trained, validated and tested on.
        board: its trials in their order, by the goals of the sweep.
        winner: number of the trial that won on the validation images; after ``--confirm`` it is the run with a fresh
            seed that stands for the winning settings.
        test, registered: of the winner.
        tracking_uri: where MLflow's runs are, without a password.
        seconds: of all sessions.
        interrupted: whether trials were left.
        comparison: the winner beside others.
        spent: as ``spent_dict`` returns it; empty in results of older versions.
        stage_hits, saved_seconds: as ``stage_use`` returns them.
        environment: versions, and the machine whose process ended it; empty in results of older versions.
    """

    sweep: str
    family: str
    out: str
    data: DataSummary
    board: Leaderboard
    winner: int | None
    test: TestEvaluation | None
    registered: Registered | None
    tracking_uri: str
    seconds: float
    interrupted: bool = False
    comparison: tuple[Compared, ...] = ()
    spent: Mapping[str, Any] = field(default_factory=dict)
    stage_hits: int = 0
    saved_seconds: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, by number."""
        return self.board.trials

    @property
    def best(self) -> TrialRecord | None:
        """The winner, or None."""
        return next((trial for trial in self.trials if trial.number == self.winner), None)

    def tested(self, metric: str = "test_accuracy") -> float | None:
        """Return a measure of the winner on the test images, or None where there is none."""
        value = math.nan if self.test is None else self.test.metrics.get(metric, math.nan)
        return None if math.isnan(value) else float(value)

    @property
    def status(self) -> Literal["interrupted", "complete", "failed"]:
        """``interrupted``, ``complete``, or ``failed`` when no trial won."""
        return "interrupted" if self.interrupted else "complete" if self.best else "failed"

    @property
    def model(self) -> str:
        """What won: a documented experiment, which a run with a fresh seed may repeat, ``search``, or ``none``."""
        best = self.best
        if best is None:
            return "none"
        number = best.number if best.confirms is None else best.confirms
        return next((trial.experiment for trial in self.trials if trial.number == number), None) or "search"

    @property
    def is_whole(self) -> bool:
        """Whether it has a registered model."""
        return self.registered is not None

    def has_all(self, trials: Iterable[TrialRecord]) -> bool:
        """Tell whether the sweep left all its trials ended, and ``trials`` has none that it did not know of."""
        then = {trial.number: trial.status for trial in self.trials}
        same = all(then.get(record.number) == record.status for record in trials if record.derived_from is None)
        return same and "running" not in then.values() and not self.interrupted

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a number that JSON has no word for (NaN, infinity) becomes null."""
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in ("board", "winner")}
        trials, goals = [to_json(trial) for trial in self.trials], self.board.goals
        winner = next((trial for trial in trials if trial["number"] == self.winner), None)
        own |= {"trials": trials, "best": None if winner is None else {name: winner[name] for name in _OF_THE_BEST}}
        own |= {"confirmed": self.board.confirmed, "pareto": self.board.pareto}
        own |= {
            "objectives": [goal.name for goal in goals.objectives],
            "constraints": list(map(str, goals.constraints)),
        }
        plain: dict[str, Any] = to_jsonable_python(own, inf_nan_mode="null")
        if plain["test"]:
            plain["test"]["readings"] = plain["test"]["evaluations"]  # the key of version 0.1
        return plain

    def save(self, path: Path) -> None:
        """Write the object to ``path``, whole or not at all."""
        write_json(path, self.as_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SweepResult:
        """Read back what ``as_dict`` wrote, also an older version's; null metrics of trials are NaN again.

        The settings of its leaderboard are told beside the defaults of the family.

        Raises:
            ValueError, LookupError, TypeError: it is no such object.
        """
        best, images = value["best"], value["data"]["splits"].get("validation", 0)
        trials = tuple(record_from_json(trial) for trial in value["trials"])
        base = TrialConfig.model_validate({"family": value["family"]}).model_dump()
        goals = Goals.parse(value.get("objectives", ("accuracy",)), value.get("constraints", ()))
        board = Leaderboard(trials, base, images, goals, by_seeds=bool(value.get("confirmed")))
        test = value["test"] and {"evaluations": value["test"].get("readings", 1), **value["test"]}
        own = {**value, "board": board, "winner": best["number"] if best else None, "test": test}
        return _reader().validate_python(own)


@cache
def _reader() -> TypeAdapter[SweepResult]:
    return TypeAdapter(SweepResult)


def read_result(folder: Path) -> SweepResult | None:
    """Return what the sweep in ``folder`` left, by the name that the folder has now; None before it left anything.

    Raises:
        InputError: ``result.json`` is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        return replace(SweepResult.from_dict(json.loads(path.read_text(encoding="utf-8"))), sweep=folder.name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{RESULT} must be one that this carsweep wrote, got {type(error).__name__}: {said}. "
            f"Move it away and run the sweep with --name {folder.name}: nothing is computed twice."
        ) from error


def spent_dict(records: Iterable[TrialRecord], prices: Prices | None) -> dict[str, Any]:
    """Return what a sweep took, for ``result.json``: ``seconds``, ``epochs``, ``cost`` (with its ``currency``) and the
    first three by status.

    The costs by status are of the trials' shares; an hourly price of the sweep is only in the whole.
    """

    def plain(spent: Spent) -> dict[str, Any]:
        cost = None if prices is None else round(prices.cost_of(spent), 6)
        return {"seconds": round(spent.seconds, 3), "epochs": spent.epochs, "cost": cost}

    by_status: dict[str, Spent] = {}
    for record in records:
        if record.derived_from is None:
            by_status[record.status] = by_status.get(record.status, NOTHING) + record.spent
    whole = plain(sum(by_status.values(), NOTHING)) | {"currency": prices and prices.currency}
    return whole | {"by_status": {name: plain(replace(by_status[name], wall=0.0)) for name in sorted(by_status)}}


def used_up_note(which: UsedUp, spec: SweepSpec, name: str, out: Path) -> str:
    """Return one sentence on the budget that ended a sweep, and one on how ``name`` in ``out`` goes on."""
    most = money_text(spec.max_cost or 0.0, (spec.prices or Prices()).currency)
    said, more = {
        "hours": ("The hours are over.", ()),
        "epochs": (f"The budget of {plural(spec.epochs_budget or 0, 'epoch')} is used up.", ("epochs_budget=N",)),
        "cost": (f"Another trial might cost more than is left of --max-cost ({most}).", ("max_cost=AMOUNT",)),
    }[which]
    return (
        f"{said} To run the other trials: {command_text('resume', name, *(['--set', *more] if more else []), out=out)}"
    )


def spent_text(spent: Mapping[str, Any]) -> str:
    """Return one sentence on what a sweep took and on what it went; ``spent`` as in ``result.json``.

    >>> ended = {"complete": {"seconds": 90.0}, "running": {"seconds": 30.0}}
    >>> spent_text({"seconds": 120.0, "epochs": 14, "cost": 0.08, "currency": "$", "by_status": ended})
    'Spent: 2 min of trials (75% complete, 25% unfinished), 14 epochs trained, $0.08.'
    """
    shares = {status: of["seconds"] / spent["seconds"] for status, of in spent["by_status"].items() if of["seconds"]}
    parts = [f"{share:.0%} {'unfinished' if status == 'running' else status}" for status, share in shares.items()]
    said = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    cost = [] if spent["cost"] is None else [money_text(spent["cost"], spent["currency"])]
    time, epochs = f"{rough_duration(spent['seconds'])} of trials{said}", f"{plural(spent['epochs'], 'epoch')} trained"
    return f"Spent: {', '.join([time, epochs, *cost])}."


def saved_text(stage_hits: int, saved_seconds: float) -> str:
    """Write what cached stages were worth to trials, as ``stage_use`` returns it; nothing where they saved nothing."""
    if not saved_seconds:
        return ""
    found = f" were found {plural(stage_hits, 'time')} and" if stage_hits else ""  # older results do not say
    return f"Cached stages{found} saved {duration(saved_seconds)} of computing."


def find_result(folder: Path) -> SweepResult | None:
    """Return what the sweep in ``folder`` left; a damaged file is none, for the next driver writes it anew."""
    try:
        return read_result(folder)
    except InputError:
        return None
