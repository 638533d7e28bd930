"""The network of a loaded model, computed by PyTorch: in float32, whatever it was trained in.

Letters: b images, c classes, d embedding, s side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from carcls.config import Pooling, TrialConfig
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier, build_network
from carcls.models.folding import folded
from carcls.seeding import make_deterministic
from carcls.training.images import ImageSource, answering_batch, fetched, pick_device


class TorchEngine:
    """Computes logits, or embeddings where a pooling is given.

    Args:
        network: is put into evaluation mode and on the device. Its head is not used where embeddings are wanted.
        image_size: s.
        pooling: of the embeddings; None for logits.
        device: where it computes.
    """

    def __init__(
        self, network: Classifier, image_size: int, pooling: Pooling | None, device: torch.device | None = None
    ) -> None:
        self.device, self._pooling = device or torch.device("cpu"), pooling
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self._size = network.eval(), image_size

    @property
    def width(self) -> int:
        """d or c, as wide as its answers are."""
        return int(self.network.head.out_features if self._pooling is None else self.network.backbone.embedding)

    @property
    def batch(self) -> int:
        """How many images it answers best at a time."""
        return answering_batch(self.device, self._size)

    @cached_property
    def _backbone(self) -> Backbone:
        make_deterministic()
        return folded(self.network.backbone, self._size)

    def _compute(self, images: torch.Tensor) -> torch.Tensor:
        if self._pooling is not None:
            return self._backbone.every_pooling(images)[self._pooling]
        embeddings: torch.Tensor = self._backbone(images)
        return self.network.answer(embeddings)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [b, c] or embeddings [b, d] of RGB images uint8 [b, s, s, 3]."""
        backbone, rows = self.network.backbone, np.arange(len(pixels))
        source = ImageSource(pixels, backbone.mean, backbone.std, self.device)
        with closing(source.through(self._compute, rows, "fp32")) as parts:
            return fetched({"found": part} for part in parts)["found"]


def load_engine(
    file: Path, description: Mapping[str, Any], pooling: Pooling | None, device: torch.device | Literal["best"] | None
) -> TorchEngine:
    """Build the network that an export's description names, with the tensors of ``file``; errors are those of parts.

    Args:
        file: of the tensors.
        description: of the export.
        pooling: as of ``TorchEngine``.
        device: where it computes; ``best`` is a GPU where there is one, None the CPU.
    """
    # Descriptions that are older than scratch networks have no architecture.
    size, architecture = description["image_size"], description.get("architecture", {})
    config = TrialConfig(backbone=description["backbone"], image_size=size, weights="random", **architecture)
    classifier = Classifier(build_network(config), 0.0, len(description["classes"])).eval()
    classifier.load_state_dict(load_file(file))
    classifier.backbone.mean, classifier.backbone.std = _colour(description["mean"]), _colour(description["std"])
    return TorchEngine(classifier, size, pooling, pick_device() if device == "best" else device)


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
