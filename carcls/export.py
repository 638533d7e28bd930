"""The folder that a trained model is served from: images in, class names and probabilities out.

``model.safetensors`` holds every tensor, ``model.json`` the rest, the tensors' checksums among it. Loading runs no code
from the folder and needs neither pretrained weights nor the internet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from carcls.config import TrialConfig
from carcls.disk import damage_of, describe, replacing
from carcls.errors import InputError
from carcls.export_answers import Prediction, named_prediction, require_top
from carcls.export_gallery import GALLERY_NAME, GalleryIndex, GalleryPredictor
from carcls.export_images import Images, Preprocessing
from carcls.models.classifier import Classifier, build_network
from carcls.stages import write_json

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"

__all__ = ["GalleryPredictor", "Prediction", "Predictor", "load_export", "write_export"]


class Predictor:
    """A loaded classifier with the preprocessing it was trained with.

    Args:
        classifier: in any mode; it is put into evaluation mode.
        classes: names in the order of the logits.
        preprocessing: what it was trained with.
        description: all of ``model.json``.
    """

    def __init__(
        self,
        classifier: Classifier,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        description: Mapping[str, Any],
    ) -> None:
        self.classifier = classifier.eval()
        self.classes = classes
        self.image_size = preprocessing.image_size
        self.description = description
        self._preprocessing = preprocessing

    def predict(self, images: Images, *, top: int = 5, batch_size: int = 64) -> list[Prediction]:
        """Return one prediction an image, in order.

        Args:
            images: paths, PIL images or arrays, or one of them. An array is RGB [h, w, 3] or gray [h, w], uint8 in
                0..255 or floating in 0..1; one array [b, h, w, 3] is b images. Nothing is cropped: give what training
                saw, which is the car's box where the data set had boxes.
            top: how many classes to name, at most all.
            batch_size: images at a time; memory only.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        require_top(top)
        rows = self.probabilities(images, batch_size=batch_size)
        return [named_prediction(row, self.classes, top, int(row.argmax())) for row in rows]

    @torch.inference_mode()
    def probabilities(self, images: Images, *, batch_size: int = 64) -> NDArray[np.float32]:
        """Return probabilities float32 [b, c] of the classes in their order; arguments and errors as ``predict``."""
        rows = [
            self.classifier(batch).float().softmax(dim=1).numpy()
            for batch in self._preprocessing.batches(images, batch_size)
        ]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)


def write_export(
    folder: Path,
    classifier: Classifier,
    *,
    classes: Sequence[str],
    image_size: int,
    backbone: str,
    margin: float,
    details: Mapping[str, Any],
    architecture: Mapping[str, Any] | None = None,
    index: GalleryIndex | None = None,
) -> None:
    """Write ``classifier`` into ``folder``, which is made when missing; an older export there is replaced.

    Args:
        classes: names in the order of the logits, [c].
        image_size: side in pixels of the training images.
        backbone: the name that the config gave it.
        margin: around the box, as a fraction of its sides, in the crops it was trained on; for the reader's knowledge.
        details: anything JSON holds, such as the trial's settings and metrics.
        architecture: settings that describe the backbone where its name does not (``scratch``).
        index: the gallery, where the model answers by its neighbours.
    """
    assert len(classes) == classifier.head.out_features
    folder.mkdir(parents=True, exist_ok=True)
    # The description comes last and goes first: a folder with one is whole.
    (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary)
    if index is None:
        (folder / GALLERY_NAME).unlink(missing_ok=True)
    else:
        index.save(folder)
    files = [WEIGHTS_NAME] if index is None else [WEIGHTS_NAME, GALLERY_NAME]
    write_json(
        folder / DESCRIPTION_NAME,
        {
            "format": FORMAT,
            "kind": "classifier" if index is None else "retrieval",
            "backbone": backbone,
            "architecture": dict(architecture or {}),
            "classes": list(classes),
            "image_size": image_size,
            "mean": list(classifier.backbone.mean),
            "std": list(classifier.backbone.std),
            "preprocessing": "RGB, upright, squashed to image_size × image_size (bicubic), / 255, - mean, / std",
            "margin": margin,
            "details": dict(details),
            "files": {name: describe(folder / name) for name in files},
            **({} if index is None else {"gallery": index.description()}),
        },
    )


def load_export(folder: str | Path) -> Predictor | GalleryPredictor:
    """Load what ``write_export`` wrote, on the CPU. Either kind answers ``predict`` with Predictions.

    Raises:
        InputError: the folder is no export, or one of another format, or damaged.
    """
    folder = Path(folder)
    description = _read_description(folder)
    try:
        classes, network, preprocessing = _described(description)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise _not_described(folder) from error
    classifier = Classifier(build_network(network), 0.0, len(classes))
    try:
        classifier.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{WEIGHTS_NAME} in {str(folder)!r} must hold the classifier's tensors. Export it again."
        ) from error
    if description.get("kind") != "retrieval":
        _require_sealed(folder, description)
        return Predictor(classifier, classes, preprocessing, description)
    width = classifier.backbone.embedding
    index = GalleryIndex.load(folder, description.get("gallery"), embedding=width, classes=len(classes))
    _require_sealed(folder, description)
    return GalleryPredictor(classifier, classes, preprocessing, index, description)


def _require_sealed(folder: Path, description: Mapping[str, Any]) -> None:
    """Check that the tensors are those that were exported; descriptions older than checksums have none to check."""
    try:
        damages = {name: damage_of(folder / name, known) for name, known in description.get("files", {}).items()}
    except (AttributeError, LookupError, TypeError) as error:
        raise _not_described(folder) from error
    for name, damage in damages.items():
        if damage:
            raise InputError(
                f"{name} must be as it was exported, but it {damage}, in {str(folder)!r}. Export it again."
            )


def _not_described(folder: Path) -> InputError:
    return InputError(f"{DESCRIPTION_NAME} in {str(folder)!r} must describe the whole model. Export it again.")


def _described(description: Mapping[str, Any]) -> tuple[tuple[str, ...], TrialConfig, Preprocessing]:
    """Return the classes, a config that builds the network, and the preprocessing."""
    size = description["image_size"]
    # Descriptions that are older than scratch networks have no architecture.
    architecture = description.get("architecture", {})
    network = TrialConfig(backbone=description["backbone"], image_size=size, weights="random", **architecture)
    preprocessing = Preprocessing(size, description["mean"], description["std"])
    return tuple(description["classes"]), network, preprocessing


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"folder must hold {DESCRIPTION_NAME} and {WEIGHTS_NAME}, got {str(folder)!r}. "
            "Name the model folder of a sweep."
        ) from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise InputError(
            f"format in {DESCRIPTION_NAME} must be {FORMAT}, got {found!r}. Install the carsweep that wrote it."
        )
    return dict(description)
