"""A trial on its way through the study: as it is handed out, and as long as it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from optuna.trial import Trial

from carcls.config import TrialConfig


class Asked(NamedTuple):
    """A trial to run; ``retry`` is what ``Study.hand_back`` was given of it."""

    number: int
    experiment: str | None
    settings: Mapping[str, Any]
    config: TrialConfig
    retry: Mapping[str, Any] = {}


@dataclass(slots=True)
class Live:
    """A trial that was handed out: its handle, and the last it said; ``stages`` are not in the journal yet."""

    trial: Trial
    documented: bool
    last_epoch: int
    confirms: bool = False
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stages: Mapping[str, float | None] = field(default_factory=dict)
    pruned: bool = False


def asked_value(
    experiment: str | None, settings: Mapping[str, Any], config: TrialConfig, twin: int | None, *, is_near: bool = False
) -> dict[str, Any]:
    """Return what is noted of a trial when it is asked.

    ``twin`` is the trial that it takes its result from; ``is_near`` says that the two are not quite equal.
    """
    asked = {
        "experiment": experiment,
        "settings": dict(settings),
        "config": config.model_dump(),
        "digest": config.digest,
    }
    if twin is None:
        return asked
    return {**asked, "duplicate_of": twin} | ({"near": True} if is_near else {})


def duplicate_reason(asked: Mapping[str, Any]) -> str:
    """Return why a trial was not computed."""
    return f"{'near-' if asked.get('near') else ''}duplicate of trial {asked['duplicate_of']}"


def last_of(live: Live) -> dict[str, Any]:
    """Return the last measurement as the outcome of a trial that did not finish."""
    return {"metrics": live.metrics, "epochs": live.epochs, "seconds": live.seconds}
