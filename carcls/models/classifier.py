"""A backbone, dropout, and a linear head."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.models.backbones import Backbone, backbone_later, build_backbone
from carcls.models.folding import folded
from carcls.models.scratch import build_scratch, he_initialise
from carcls.models.state import load_weights
from carcls.models.weights import WeightsSource, resolve_weights
from carcls.seeding import derived_seed


class Dropout(nn.Dropout):
    """Dropout whose mask, on a CPU, comes from uniform numbers: torch's own draws it three times as slowly there."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, while training with a share ``p`` of them at 0 and the others divided by 1 - p."""
        if not self.training or not self.p or values.device.type != "cpu":
            return super().forward(values)
        return values * torch.rand_like(values).ge_(self.p).div_(1 - self.p)


class Classifier(nn.Module):
    """Images float [b, 3, h, w], normalised as ``backbone.mean`` and ``backbone.std`` say, to logits [b, c].

    Args:
        backbone: gives embeddings [b, d].
        dropout: probability in [0, 1) before the head.
        classes: c.
    """

    def __init__(self, backbone: Backbone, dropout: float, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(backbone.embedding, classes)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings [b, d]."""
        embeddings: torch.Tensor = self.backbone(images)
        return embeddings

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return logits [b, c] of embeddings [b, d]: dropout, then the head."""
        logits: torch.Tensor = self.head(self.dropout(embeddings))
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [b, c]."""
        return self.classify(self.embed(images))


def build_classifier(config: TrialConfig, classes: int, *, later: bool = False) -> Classifier:
    """Build the classifier of a trial with its weights loaded; the head and random weights depend on the seed alone.

    Args:
        config: the trial.
        classes: c.
        later: build and load the backbone when the first images come, if its width is known without. It then has no
            stages that could open.

    Raises:
        InputError: the backbone is unknown to timm, or takes images of another size only.
        WeightsError: the weights cannot be had, or do not fit.
    """
    build = partial(build_backbone_of, config)
    waiting = backbone_later(config.backbone, lambda: folded(build(), config.image_size)) if later else None
    backbone = waiting or build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "head"))
        classifier = Classifier(backbone, config.dropout, classes)
        if config.backbone == SCRATCH:
            he_initialise(classifier.head)
        return classifier


def build_backbone_of(config: TrialConfig, weights: WeightsSource | None = None) -> Backbone:
    """Build a trial's backbone with weights that were found; None finds them.

    Raises:
        InputError, WeightsError: as ``build_classifier``.
    """
    backbone = build_network(config)
    if backbone.fixed_size not in (None, config.image_size):
        raise InputError(
            f"image_size must be {backbone.fixed_size} for {config.backbone}, got {config.image_size!r}. "
            f"Use --set image_size={backbone.fixed_size}, or another backbone."
        )
    load_weights(backbone, (weights or resolve_weights(config.backbone, config.weights)).path)
    return backbone


def build_network(config: TrialConfig) -> Backbone:
    """Build the trial's backbone with random weights that depend on the seed alone.

    Raises:
        InputError: it is unknown to timm, or (``scratch``) halves its images away.
    """
    return build_scratch(config) if config.backbone == SCRATCH else build_backbone(config.backbone, config.seed)
