"""What a step of training minimises, and how far it goes: losses, optimizers and lr schedules, from flat settings.

Letters: b batch, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from carcls.config import TrialConfig
from carcls.models.classifier import Classifier

CROSS_ENTROPY_SHARE = 0.1
# Shorter logits are taken to be this long: at zero the gradient of the cosine would have no bound.
LEAST_LENGTH = 1e-3
ONECYCLE_RISE = 0.3
ONECYCLE_START = 1 / 25
ONECYCLE_END = ONECYCLE_START / 1e4

# What PyTorch wraps, so that its compiler looks away from it.
_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")


def training_loss(logits: Tensor, labels: Tensor, config: TrialConfig) -> Tensor:
    """Return the mean loss of a batch, a scalar.

    ``cross_entropy``: in nats, with label smoothing. ``cosine``: 1 - z[y] / ‖z‖, the cosine distance between the
    logits z and the one-hot vector of the label y, plus 0.1 × the cross entropy of z. Barz and Denzler 2020 ("Deep
    Learning on Small Datasets without Pre-Training using Cosine Loss") take the cross entropy of a further linear
    layer; here both parts read the same logits, so that a trained model has one head whatever its loss was.

    Args:
        logits: float [b, c].
        labels: int64 [b], in [0, c).
        config: of the trial; ``loss`` and ``label_smoothing`` count.
    """
    entropy = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    if config.loss == "cross_entropy":
        return entropy
    directions = functional.normalize(logits, dim=1, eps=LEAST_LENGTH)  # [b, c]
    cosine = directions.gather(1, labels[:, None]).squeeze(1)  # [b]
    return (1 - cosine).mean() + CROSS_ENTROPY_SHARE * entropy


def _uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return the optimizer without wrappers that load PyTorch's compiler, for more than a second, to tell it nothing.

    The numbers are the same: ``step`` alone does more there, which is to switch gradients off.
    """
    own: dict[str, Any] = {name: unwrap(getattr(kind, name)) for name in _WRAPPED}
    return type(kind.__name__, (kind,), {**own, "step": torch.no_grad()(own["step"])})


_ADAM, _ADAMW, _SGD = _uncompiled(Adam), _uncompiled(AdamW), _uncompiled(SGD)


def build_optimizer(classifier: Classifier, config: TrialConfig) -> Optimizer:
    """Return the trial's optimizer over head and backbone, each with its own peak learning rate.

    Biases and normalisation parameters (one dimension) are not decayed. Parameters of stages that are still frozen are
    in it from the start: without a gradient they are left alone. Adam's step is one pass over each tensor (``fused``):
    it takes a fifth of the time where most moments are zero, as those of a head on a ReLU's features are.
    """
    groups = [
        *_groups(classifier.head.parameters(), config.head_lr, config.weight_decay),
        *_groups(classifier.backbone.parameters(), config.backbone_lr, config.weight_decay),
    ]
    if config.optimizer == "adam":
        return _ADAM(groups, fused=True)
    if config.optimizer == "adamw":
        return _ADAMW(groups, fused=True)
    return _SGD(groups, momentum=config.momentum)


def _groups(parameters: Iterable[nn.Parameter], lr: float, decay: float) -> list[dict[str, object]]:
    all_of_them = list(parameters)
    matrices = [p for p in all_of_them if p.ndim > 1]
    vectors = [p for p in all_of_them if p.ndim <= 1]
    split = [(matrices, decay), (vectors, 0.0)]
    return [{"params": p, "lr": lr, "peak_lr": lr, "weight_decay": d} for p, d in split if p]


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's rate to its peak times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def lr_factor(config: TrialConfig, step: int, steps_per_epoch: int) -> float:
    """Return what the peak learning rates are multiplied by at an optimizer step (from 0), in [0, 1].

    ``step`` is StepLR (documented: 0.1 every 7 epochs), changing between epochs; ``cosine`` and ``onecycle`` change at
    every step. One-cycle is torch's OneCycleLR with its defaults: cosine from 1/25 to 1 over the first 30% of the
    steps, then cosine to 4e-6 (Smith 2018); momentum is left alone.
    """
    total = config.epochs * steps_per_epoch
    if config.lr_schedule == "constant":
        return 1.0
    if config.lr_schedule == "step":
        return config.step_gamma ** ((step // steps_per_epoch) // config.step_epochs)
    if config.lr_schedule == "cosine":
        warm = config.warmup_epochs * steps_per_epoch
        return (step + 1) / warm if step < warm else _cosine(1.0, 0.0, (step - warm) / max(1, total - warm))
    rise = max(1.0, ONECYCLE_RISE * total - 1)
    if step <= rise:
        return _cosine(ONECYCLE_START, 1.0, step / rise)
    return _cosine(1.0, ONECYCLE_END, (step - rise) / (total - 1 - rise))


def _cosine(start: float, end: float, share: float) -> float:
    """Return the number that lies, by half a cosine, a share in [0, 1] of the way from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
