"""What a trial writes down after each epoch, so that it can go on from there to the same numbers.

Only what training has changed is written: the head and the stages that were ever unfrozen. The rest is the pretrained
backbone, which the stage's key names by digest. No random state is needed: every epoch draws from seeds of its own.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from carcls.disk import full_disk_named, replacing
from carcls.errors import DamagedCheckpoint
from carcls.models.classifier import Classifier

CHECKPOINT = "checkpoint.pt"
MODEL = "model.safetensors"
_PARTS = {"epochs", "opened", "history", "model", "optimizer"}


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training has come: stages that were ever unfrozen, and the metrics of each finished epoch."""

    unfrozen: int = 0
    history: tuple[dict[str, float], ...] = ()


def trained_state(classifier: Classifier, unfrozen: int) -> dict[str, Tensor]:
    """Return the head and the last ``unfrozen`` stages: parameters and buffers, by their names in the classifier."""
    modules = [classifier.head, *classifier.backbone.last_stages(unfrozen)]
    kept = {id(tensor) for module in modules for tensor in module.state_dict(keep_vars=True).values()}
    state = classifier.state_dict(keep_vars=True)
    return {name: tensor.detach() for name, tensor in state.items() if id(tensor) in kept}


def save_checkpoint(folder: Path, classifier: Classifier, optimizer: Optimizer, progress: TrainingProgress) -> None:
    """Write the checkpoint so that the file is always a whole one, the new or the one before.

    Raises:
        DiskFull: it does not fit on the disk; nothing is left of it.
    """
    content = {
        "epochs": len(progress.history),
        "opened": progress.unfrozen,
        "history": list(progress.history),
        "model": trained_state(classifier, progress.unfrozen),
        "optimizer": optimizer.state_dict(),
    }
    with full_disk_named(folder), replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(folder: Path, classifier: Classifier, optimizer: Optimizer) -> TrainingProgress:
    """Bring classifier and optimizer to the last checkpoint, if there is one, and return how far that is.

    The optimizer keeps its own learning rates: the checkpoint may be of a trial that differs in the backbone's.

    Raises:
        DamagedCheckpoint: it is not as it was written; classifier and optimizer are as they were.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return TrainingProgress()
    content = _read_whole(path)
    _load_partial(classifier, content["model"])
    # Parameters are numbered, those of the head first; those of frozen stages have no state.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": content["optimizer"]["state"]})
    return TrainingProgress(content["opened"], tuple(content["history"]))


def _read_whole(path: Path) -> dict[str, Any]:
    try:
        # Torch writes checksums into its archive, but does not look at them when it reads.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise DamagedCheckpoint(f"{path.name} has another content than was written")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if set(content) != _PARTS:
            raise DamagedCheckpoint(f"{path.name} has other parts than {', '.join(sorted(_PARTS))}")
    except (zipfile.BadZipFile, zlib.error, UnpicklingError, EOFError, RuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:100]
        raise DamagedCheckpoint(f"{path.name} cannot be read: {type(error).__name__}: {said}") from error
    return content


def save_model(folder: Path, classifier: Classifier, unfrozen: int) -> None:
    """Write what training changed as safetensors.

    Raises:
        DiskFull: it does not fit on the disk; nothing is left of it.
    """
    state = {name: tensor.contiguous().cpu() for name, tensor in trained_state(classifier, unfrozen).items()}
    with full_disk_named(folder), replacing(folder / MODEL) as temporary:
        save_file(state, temporary)


def load_model(folder: Path, classifier: Classifier) -> None:
    """Lay the trained tensors over a classifier that was built from the same config."""
    _load_partial(classifier, load_file(folder / MODEL))


def _load_partial(classifier: Classifier, state: dict[str, Tensor]) -> None:
    _, unexpected = classifier.load_state_dict(state, strict=False)
    assert not unexpected, f"the trained tensors belong to another backbone: {unexpected[:3]}"
