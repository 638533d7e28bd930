"""A backbone, dropout, and a linear head: how they are built, and which parts of them train."""

from __future__ import annotations

import torch
from torch import nn

from carcls.catalog import find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.models.backbones import Backbone, build_backbone
from carcls.models.scratch import build_scratch, he_initialise
from carcls.models.state import load_weights
from carcls.models.weights import WeightsSource, resolve_weights
from carcls.seeding import drawing


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

    def answer(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return logits [b, c] of embeddings float32 [b, d] in evaluation mode, in which everything is left."""
        self.eval()
        with torch.inference_mode():
            return self.classify(embeddings)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [b, c]."""
        return self.classify(self.embed(images))

    def unfreeze(self, count: int) -> None:
        """Let the last ``count`` stages of the backbone (from the head's side), the dropout and the head train.

        All other stages get no gradients and stay in evaluation mode, so that the running statistics of a frozen
        BatchNorm do not move. Call it again after an evaluation: ``eval()`` takes every module out of training mode.

        Args:
            count: from 0 (only the head trains) to the number of stages (everything trains).
        """
        assert 0 <= count <= len(self.backbone.stage_paths)
        self.train()
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        for module in self.backbone.last_stages(count):
            module.train()
            module.requires_grad_(True)
        self.head.requires_grad_(True)


def build_classifier(config: TrialConfig, classes: int, backbone: Backbone | None = None) -> Classifier:
    """Build the classifier of a trial with its weights loaded; the head and random weights depend on the seed alone.

    Args:
        config: the trial.
        classes: c.
        backbone: goes under the head as it is; None builds the trial's.

    Raises:
        InputError: the backbone is unknown to timm, or takes images of another size only.
        WeightsError: the weights cannot be had, or do not fit.
    """
    backbone = backbone or build_backbone_of(config)
    with drawing(config.seed, "head"):
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


def stand_in(name: str) -> Backbone | None:
    """Return what has a backbone's width and colours and nothing else, for trials whose images were all embedded.

    None where only building it tells how wide it is.
    """
    record = find_backbone(name)
    if not record.embedding:
        return None
    return Backbone(name, nn.Identity(), record.embedding, (), record.mean, record.std)
