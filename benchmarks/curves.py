"""Learning curves that cost nothing: an accuracy for every setting and epoch of a small mixed search space.

All shapes share the accuracies that trials end with; only the way there differs. That way is what early stopping sees.
The forms are ours, made after what real runs show: a head on frozen features is done after few epochs, a network that
is opened drops behind and overtakes, a large learning rate starts fast and ends low, a one-cycle schedule gains most
while its rate falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.spec.space import Choice, Domain, Range

Settings = Mapping[str, Any]

SPACE: dict[str, Domain] = {
    "head_lr": Range(1e-4, 1e-2, log=True),
    "backbone_lr": Range(1e-5, 3e-3, log=True),
    "dropout": Range(0.0, 0.7),
    "unfreezing": Choice(("frozen", "progressive", "full")),
    "optimizer": Choice(("adam", "adamw")),
}
SHAPES = ("steady", "noisy", "fast but poor", "slow but good", "crossing", "unfreezing", "mixture")

_CEILING = {"frozen": 0.52, "progressive": 0.86, "full": 0.88}
# Standard deviation of a share of 1,222 validation images, at 85%: sqrt(0.85 * 0.15 / 1222).
_NOISE = 0.01


def final_accuracy(settings: Settings) -> float:
    """Return the true accuracy after the last epoch, in (0, 1)."""
    head = _bump(math.log10(settings["head_lr"]), -2.7, 0.6)
    frozen = settings["unfreezing"] == "frozen"
    backbone = 1.0 if frozen else _bump(math.log10(settings["backbone_lr"]), -3.6, 0.5)
    dropout = 1.0 - 0.1 * ((settings["dropout"] - 0.35) / 0.35) ** 2
    optimizer = 1.0 if settings["optimizer"] == "adamw" else 0.985
    return _CEILING[settings["unfreezing"]] * (0.5 + 0.5 * head * backbone) * dropout * optimizer


def true_accuracy(shape: str, settings: Settings, epoch: int, epochs: int) -> float:
    """Return what the trial would score on endless data after ``epoch`` (from 1) of ``epochs``."""
    return final_accuracy(settings) * _progress(shape, settings, epoch / epochs)


def measured_accuracy(shape: str, settings: Settings, epoch: int, epochs: int, seed: tuple[int, int]) -> float:
    """Return what a validation measures; ``seed`` (of the run, of the trial) decides on its luck."""
    spread = 3 * _NOISE if shape == "noisy" else _NOISE
    luck = float(np.random.default_rng([*seed, epoch]).normal(0.0, spread))
    return min(1.0, max(0.0, true_accuracy(shape, settings, epoch, epochs) + luck))


def best_accuracy() -> float:
    """Return the best true accuracy that the space holds: at the peak of every factor."""
    peak = {"head_lr": 10**-2.7, "backbone_lr": 10**-3.6, "dropout": 0.35, "unfreezing": "full", "optimizer": "adamw"}
    return final_accuracy(peak)


def _progress(shape: str, settings: Settings, t: float) -> float:
    """Return the share of the final accuracy that is reached at ``t`` in (0, 1]; 1 at the end."""
    if shape == "fast but poor":
        return _saturating(t, _pace_of_rates(settings))
    if shape == "slow but good":
        return _saturating(t, 0.05 + 0.9 * (final_accuracy(settings) / best_accuracy()) ** 2)
    if shape == "crossing":
        return _rising(t, 0.15 + 0.5 * settings["dropout"] / 0.7)
    if shape == "unfreezing":
        return _by_schedule(settings, t, 0.25)
    if shape == "mixture":
        late = settings["optimizer"] == "adamw" and settings["unfreezing"] != "frozen"
        return _rising(t, 0.45) if late else _by_schedule(settings, t, _pace_of_rates(settings))
    return _saturating(t, 0.25)


def _by_schedule(settings: Settings, t: float, pace: float) -> float:
    kind = settings["unfreezing"]
    if kind == "frozen":
        return _saturating(t, 0.08)
    if kind == "full":
        return 0.1 + 0.9 * _saturating(t, 1.5 * pace)
    closed = 0.5 * _saturating(min(t, 0.3) / 0.3, 0.3)  # as a frozen one, until the backbone opens
    return closed if t <= 0.3 else closed + (1 - closed) * _saturating((t - 0.3) / 0.7, 1.5 * pace)


def _pace_of_rates(settings: Settings) -> float:
    """Return a time constant between 0.06 (both rates at their largest) and 0.8."""
    head = (math.log10(settings["head_lr"]) + 4) / 2
    backbone = (math.log10(settings["backbone_lr"]) + 5) / 2.5
    mean = head if settings["unfreezing"] == "frozen" else (head + backbone) / 2
    return float(0.8 * (0.06 / 0.8) ** mean)


def _saturating(t: float, pace: float) -> float:
    return (1 - math.exp(-t / pace)) / (1 - math.exp(-1 / pace))


def _rising(t: float, middle: float) -> float:
    """Return an S that begins at 0.1, is steepest at ``middle`` and ends at 1."""
    low, here, high = (1 / (1 + math.exp(-10 * (x - middle))) for x in (0.0, t, 1.0))
    return 0.1 + 0.9 * (here - low) / (high - low)


def _bump(x: float, centre: float, width: float) -> float:
    return math.exp(-0.5 * ((x - centre) / width) ** 2)
