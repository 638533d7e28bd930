"""A loaded model as one network, from normalised images to its answers: what other runtimes are given.

Letters: b images, c classes, d embedding as the network gives it, m as it is compared, g gallery, k neighbours,
n candidates, s side in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from carcls.models.folding import folded

if TYPE_CHECKING:
    from carcls.evaluation.confidence import Confidence
    from carcls.export.predictors import Predictor
    from carcls.models.classifier import Classifier
    from carcls.neighbours.gallery import Gallery

MARGIN = 48
_TINY = 1e-30


def graph_of(predictor: Predictor, network: Classifier) -> nn.Module:
    """Return the whole model in evaluation mode, on the CPU, whatever mode the network was in.

    Args:
        predictor: whose answers are meant.
        network: of its engine.
    """
    if predictor.gallery is None:
        made: nn.Module = LogitsGraph(network, predictor.image_size, predictor.confidence)
    else:
        made = VotesGraph(
            network, predictor.image_size, predictor.confidence, predictor.gallery, len(predictor.classes)
        )
    return made.cpu().eval().requires_grad_(False)


class LogitsGraph(nn.Module):
    """Normalised images float32 [b, 3, s, s] to what a classifier says.

    Probabilities float32 [b, c], the likeliest class int64 [b], and logits float32 [b, c].
    """

    def __init__(self, network: Classifier, size: int, confidence: Confidence) -> None:
        super().__init__()
        self.backbone, self.head = folded(network.backbone, size), network.head
        self.temperature = confidence.temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return all three."""
        logits = self.head(self.backbone(images))
        return torch.softmax(logits / self.temperature, dim=1), logits.argmax(dim=1), logits


class VotesGraph(nn.Module):
    """Normalised images float32 [b, 3, s, s] to what their neighbours say.

    Probabilities float32 [b, c], the class int64 [b], positions in the gallery int64 [b, k], nearest first, distances
    float32 [b, k], and embeddings float32 [b, d]. As ``find_neighbours`` and ``count_votes``, in float32: a product
    proposes k + 48 candidates, and their distances are computed one by one.
    """

    gallery: Tensor
    labels: Tensor
    centre: Tensor
    centred: Tensor
    offsets: Tensor
    mean: Tensor | None
    matrix: Tensor | None

    def __init__(self, network: Classifier, size: int, confidence: Confidence, gallery: Gallery, classes: int) -> None:
        super().__init__()
        self.backbone, self.config, self.classes = folded(network.backbone, size), gallery.config, classes
        self.confidence, self.l2_normalize = confidence, gallery.projection.l2_normalize
        held = torch.from_numpy(np.array(gallery.embeddings))
        self.register_buffer("gallery", _unit(held) if self.config.distance == "cosine" else held)
        self.register_buffer("centre", self.gallery.mean(dim=0))
        self.register_buffer("centred", self.gallery - self.centre)
        # |q - g|² is |q|² - 2 (q·g - |g|²/2), whatever centre both are seen from.
        self.register_buffer("offsets", (self.centred**2).sum(dim=1) / 2)
        self.register_buffer("labels", torch.from_numpy(np.array(gallery.labels)))
        for name, array in (("mean", gallery.projection.mean), ("matrix", gallery.projection.matrix)):
            self.register_buffer(name, None if array is None else torch.from_numpy(np.array(array)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return all five."""
        embeddings = self.backbone.every_pooling(images)[self.config.pooling]
        places, distances = self._nearest(self._compared(embeddings))
        weights, voters = self._weights(distances), self.labels[places]  # [b, k]
        named = functional.one_hot(voters, self.classes).float()  # [b, k, c]
        totals = (named * weights[:, :, None]).sum(dim=1)  # [b, c]
        # Of classes with equal votes the one whose first neighbour is nearest.
        ranks = torch.arange(self.config.k, 0, -1, device=named.device)
        first = (named * ranks[:, None]).amax(dim=1)  # [b, c], the higher the nearer
        best = totals >= totals.amax(dim=1, keepdim=True)
        label = torch.where(best, first, torch.zeros_like(first)).argmax(dim=1)
        shares = totals / totals.sum(dim=1, keepdim=True) + self.confidence.smoothing
        powers = shares ** (1 / self.confidence.temperature)
        return powers / powers.sum(dim=1, keepdim=True), label, places, distances, embeddings

    def _compared(self, found: Tensor) -> Tensor:
        """Return embeddings [b, d] as they are compared, [b, m]."""
        found = found if self.mean is None else found - self.mean
        found = found if self.matrix is None else found @ self.matrix
        return _unit(found) if self.l2_normalize or self.config.distance == "cosine" else found

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        scores = (queries - self.centre) @ self.centred.T - self.offsets  # [b, g]
        count = min(len(self.gallery), self.config.k + MARGIN)
        candidates = scores.topk(count, dim=1).indices.sort(dim=1).values  # [b, n], in the gallery's order
        vectors = self.gallery[candidates]  # [b, n, m]
        squares = ((vectors - queries[:, None]) ** 2).sum(dim=2)  # [b, n]
        if self.config.distance == "cosine":
            # Of vectors of length 1 half of it is 1 - q·g, and loses no digits; a zero is 1 away from all.
            zeros = self._is_zero(vectors) + self._is_zero(queries)[:, None]
            distances = (squares + zeros) / 2
        else:
            distances = squares.sqrt()
        # How many come before each, of equally near ones those of lower places: no runtime has a say in ties.
        ours, theirs = distances[:, :, None], distances[:, None, :]
        earlier = torch.ones(count, count, dtype=torch.bool, device=queries.device).tril(-1)
        before = ((theirs < ours) | ((theirs == ours) & earlier)).float().sum(dim=2)  # [b, n]
        order = before.topk(self.config.k, dim=1, largest=False).indices
        return candidates.gather(1, order), distances.gather(1, order)

    @staticmethod
    def _is_zero(vectors: Tensor) -> Tensor:
        """Return 1 for each vector [..., m] that is zero, else 0."""
        return (vectors.abs().amax(dim=-1) == 0).float()

    def _weights(self, distances: Tensor) -> Tensor:
        """Return how much each vote weighs, [b, k], as ``carcls.neighbours.votes.weights_of``."""
        if self.config.vote == "uniform":
            return torch.ones_like(distances)
        if self.config.vote == "softmax":
            return torch.exp(-(distances - distances[:, :1]) / self.config.temperature)
        touching = (distances == 0).float()
        return torch.where(touching.amax(dim=1, keepdim=True) > 0, touching, 1 / distances.clamp(min=_TINY))


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors [n, m] of length 1; a zero stays zero."""
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=_TINY)
    return unit


def answers_of(predictor: Predictor, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what the model itself says of squares uint8 [b, s, s, 3]: probabilities [b, c], and classes [b]."""
    computed, confidence = predictor.engine(pixels), predictor.confidence
    if predictor.gallery is None:
        return confidence.of_logits(computed), computed.argmax(axis=1)
    _, said, votes = predictor.gallery.answer(computed, len(predictor.classes))
    return confidence.of_votes(votes), said
