"""Heads on a closed backbone as stages, one for each epoch: trials that open the backbone later share them until then.

What a head is after n epochs depends neither on when the backbone opens nor on its learning rate. Nobody is reported to
while a stage is made, so that a trial that is stopped there keeps no other waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from carcls.models.classifier import Classifier
from carcls.stages import StageStore
from carcls.training.checkpoint import Progress, load_checkpoint, save_checkpoint

KIND = "heads"
VERSION = 3


@dataclass(frozen=True)
class SharedHeads:
    """Heads of one trial's settings.

    Attributes:
        stages: the store.
        key: what a head depends on, besides the number of epochs.
    """

    stages: StageStore
    key: dict[str, Any]

    def has(self, epochs: int) -> bool:
        """Tell whether the head of so many epochs is trained."""
        return self.stages.has(KIND, self._key(epochs))

    def get_or_train(
        self, epochs: int, classifier: Classifier, optimizer: Optimizer, train: Callable[[], Progress]
    ) -> tuple[Progress, bool]:
        """Bring the head and its part of the optimizer's state to where they are after so many epochs.

        Args:
            epochs: finished ones, at least 1.
            classifier, optimizer: as they are one epoch earlier.
            train: trains that epoch, and returns where it stands.

        Returns:
            Where it stands, and whether ``train`` was called for it.
        """
        made: list[Progress] = []

        def make(folder: Path) -> None:
            made.append(train())
            save_checkpoint(folder, classifier, optimizer, made[0])

        folder = self.stages.get_or_make(KIND, self._key(epochs), make)
        return (made[0], True) if made else (load_checkpoint(folder, classifier, optimizer), False)

    def _key(self, epochs: int) -> dict[str, Any]:
        return {**self.key, "epochs": epochs, "version": VERSION}
