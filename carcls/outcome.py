"""What a trial says: a measurement after each epoch, an outcome at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """One report of a running trial.

    Attributes:
        epoch: epochs finished so far, from 1.
        metrics: ``train_loss``, ``val_loss`` (nats), ``val_accuracy``, ``val_top5``, ``val_precision``, ``val_recall``,
            ``val_f1`` (support-weighted, as documented) and ``val_…_macro``, all in [0, 1]; ``seconds`` of this epoch.
        trained: whether the epoch was trained just now; not told again from the store or a checkpoint.
        stages: names of the cached stages that the trial used first since the measurement before, each with the
            seconds of making that finding it saved; None for one that it made. The trial's process fills them in.
    """

    epoch: int
    metrics: Mapping[str, float]
    trained: bool = True
    stages: Mapping[str, float | None] = field(default_factory=dict)


Report = Callable[[Measurement], None]


@dataclass(frozen=True, slots=True)
class DerivedTrial:
    """Settings answered for free on the way of another trial: what differs from its config, and the metrics."""

    settings: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished trial leaves.

    Attributes:
        metrics: the measurement of the last epoch (keys as in ``Measurement.metrics``), and what an answer costs:
            ``predict_ms`` (milliseconds per image from pixels, which varies from run to run) and ``parameters``.
        epochs: epochs trained.
        seconds: wall time of this call, stages that were waited for included.
        reused: True when the whole trial was answered from the stage store and nothing was trained.
        model: folder of the trained-model stage, relative to the store's root.
        predictions: file with the per-image validation predictions (``rows``, ``labels``, ``predicted``,
            ``probabilities`` float32 [n, c]) as .npz, relative to the store's root.
        derived: trials that are answered with this one
        precision: of the backbone's arithmetic, ``fp32`` or ``bf16``, whatever the trial asked for.
    """

    metrics: Mapping[str, float]
    epochs: int
    seconds: float
    reused: bool
    model: str
    predictions: str
    derived: tuple[DerivedTrial, ...] = field(default=())
    precision: str = ""
