"""The folder that a trained model is served from: images in, class names and probabilities out.

``model.safetensors`` holds every tensor of the network, ``gallery.safetensors`` those of the gallery where the model
answers by its neighbours, and ``model.json`` the rest, checksums among it. Loading runs no code from the folder and
needs neither pretrained weights nor the internet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from carcls.config import TrialConfig
from carcls.disk import damage_of, describe, replacing
from carcls.errors import InputError
from carcls.export.gallery import GALLERY_NAME, GalleryIndex
from carcls.export.images import Preprocessing
from carcls.export.predictors import GalleryPredictor, Prediction, Predictor
from carcls.models.classifier import Classifier, build_network
from carcls.stages import write_json

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"

__all__ = ["GalleryIndex", "GalleryPredictor", "Prediction", "Predictor", "load_export", "write_export"]


def write_export(
    folder: Path,
    classifier: Classifier,
    config: TrialConfig,
    *,
    classes: Sequence[str],
    margin: float,
    details: Mapping[str, Any] | None = None,
    index: GalleryIndex | None = None,
) -> None:
    """Write ``classifier`` into ``folder``, which is made when missing; an older export there is replaced.

    Args:
        config: of the trial that trained it.
        classes: names in the order of the logits, [c].
        margin: around the box, as a fraction of its sides, in the crops it was trained on; for the reader's knowledge.
        details: anything JSON holds, such as the trial's settings and metrics.
        index: the gallery, where the model answers by its neighbours.
    """
    assert len(classes) == classifier.head.out_features
    folder.mkdir(parents=True, exist_ok=True)
    # The description comes last and goes first: a folder with one is whole.
    (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
    (folder / GALLERY_NAME).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary)
    gallery = {} if index is None else {"gallery": index.save(folder)}
    files = [WEIGHTS_NAME, *([GALLERY_NAME] if gallery else [])]
    write_json(
        folder / DESCRIPTION_NAME,
        {
            "format": FORMAT,
            "kind": "retrieval" if gallery else "classifier",
            "backbone": config.backbone,
            "architecture": config.architecture(),
            "classes": list(classes),
            "image_size": config.image_size,
            "mean": list(classifier.backbone.mean),
            "std": list(classifier.backbone.std),
            "preprocessing": "RGB, upright, squashed to image_size × image_size (bicubic), / 255, - mean, / std",
            "margin": margin,
            "details": dict(details or {}),
            "files": {name: describe(folder / name) for name in files},
            **gallery,
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
        size, classes = description["image_size"], tuple(description["classes"])
        # Descriptions that are older than scratch networks have no architecture.
        architecture = description.get("architecture", {})
        config = TrialConfig(backbone=description["backbone"], image_size=size, weights="random", **architecture)
        preprocessing = Preprocessing(size, description["mean"], description["std"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise _not_described(folder) from error
    classifier = Classifier(build_network(config), 0.0, len(classes))
    try:
        classifier.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{WEIGHTS_NAME} in {str(folder)!r} must hold the classifier's tensors. Export it again."
        ) from error
    index = None
    if description.get("kind") == "retrieval":
        width = classifier.backbone.embedding
        index = GalleryIndex.load(folder, description.get("gallery"), embedding=width, classes=len(classes))
    _require_sealed(folder, description)
    if index is None:
        return Predictor(classifier.eval(), classes, preprocessing)
    return GalleryPredictor(classifier.eval(), classes, preprocessing, index)


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
