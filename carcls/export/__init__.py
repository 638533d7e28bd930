"""The folder that a trained model is served from: images in, class names and probabilities out.

``model.safetensors`` holds every tensor of the network, ``gallery.safetensors`` those of the gallery where the model
answers by its neighbours, ``thumbnails.safetensors`` small pictures of it, and ``model.json`` the rest, checksums among
it. Loading runs no code from the folder and needs neither pretrained weights nor the internet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from carcls.config import TrialConfig
from carcls.disk import damage_of, describe, replacing
from carcls.errors import InputError
from carcls.evaluation.confidence import Confidence, confidence_from
from carcls.export.engines import TorchEngine
from carcls.export.inputs import read_pixels
from carcls.export.predictors import Prediction, Predictor
from carcls.export.thumbnails import THUMBNAILS_NAME, write_thumbnails
from carcls.models.classifier import Classifier, build_network
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.whitening import Projection
from carcls.stages import write_json
from carcls.training.images import pick_device

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
GALLERY_NAME = "gallery.safetensors"
DESCRIPTION_NAME = "model.json"
# How a gallery is asked: settings of a trial.
_ASKED = ("pooling", "k", "distance", "vote", "temperature")

__all__ = ["Prediction", "Predictor", "load_export", "pick_device", "read_pixels", "write_export"]


def write_export(
    folder: Path,
    classifier: Classifier,
    config: TrialConfig,
    *,
    classes: Sequence[str],
    margin: float,
    details: Mapping[str, Any] | None = None,
    gallery: Gallery | None = None,
    confidence: Confidence | None = None,
    thumbnails: Sequence[bytes] = (),
) -> None:
    """Write ``classifier`` into ``folder``, which is made when missing but for its parent; an older export is replaced.

    Args:
        config: of the trial that trained it.
        classes: names in the order of the logits, [c].
        margin: around the box, as a fraction of its sides, in the crops it was trained on; for the reader's knowledge.
        details: anything JSON holds, such as the trial's settings and metrics.
        gallery: with its images, where the model answers by its neighbours.
        confidence: how its answers become probabilities; None where that is not known.
        thumbnails: JPEGs of these images, [g]; none where nobody is to see them.
    """
    assert len(classes) == classifier.head.out_features
    folder.mkdir(exist_ok=True)  # a sweep's folder that vanished is not to come back with a model alone
    # The description comes last and goes first: a folder with one is whole.
    for name in (DESCRIPTION_NAME, GALLERY_NAME, THUMBNAILS_NAME):
        (folder / name).unlink(missing_ok=True)
    files, how_asked = {WEIGHTS_NAME: dict(classifier.state_dict())}, {}
    if gallery is not None:
        projection = gallery.projection
        arrays = {"embeddings": gallery.embeddings, "labels": gallery.labels}
        arrays |= {"mean": projection.mean, "matrix": projection.matrix}
        files[GALLERY_NAME] = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        settings = {name: getattr(gallery.config, name) for name in _ASKED}
        how_asked["gallery"] = {**settings, "l2_normalize": projection.l2_normalize, "images": list(gallery.images)}
    for name, tensors in files.items():
        with replacing(folder / name) as temporary:
            save_file({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}, temporary)
    written = [*files]
    if thumbnails:
        assert gallery is not None
        assert len(thumbnails) == len(gallery.images)
        write_thumbnails(folder, thumbnails)
        written.append(THUMBNAILS_NAME)
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
            **({"confidence": confidence.as_dict()} if confidence else {}),
            "files": {name: describe(folder / name) for name in written},
            **how_asked,
        },
    )


def load_export(folder: str | Path, device: torch.device | None = None) -> Predictor:
    """Load what ``write_export`` wrote, on the device; None is the CPU.

    Raises:
        InputError: the folder is no export, or one of another format, or damaged.
    """
    folder = Path(folder)
    description = _read_description(folder)
    try:
        _require_sealed(folder, description.get("files", {}))
        # Descriptions that are older than scratch networks have no architecture, and those of classifiers no kind.
        size, architecture = description["image_size"], description.get("architecture", {})
        config = TrialConfig(backbone=description["backbone"], image_size=size, weights="random", **architecture)
        classes = tuple(description["classes"])
        classifier = Classifier(build_network(config), 0.0, len(classes)).eval()
        classifier.load_state_dict(load_file(folder / WEIGHTS_NAME))
        classifier.backbone.mean, classifier.backbone.std = _colour(description["mean"]), _colour(description["std"])
        gallery = None
        if description.get("kind") == "retrieval":
            gallery = _read_gallery(folder / GALLERY_NAME, description["gallery"])
            gallery.require_whole(classifier.backbone.embedding, len(classes))
        pooling = gallery.config.pooling if gallery else None
        confidence = confidence_from(description.get("confidence"))
        engine = TorchEngine(classifier, size, pooling, device)
        return Predictor(engine, classes, size, gallery, confidence, folder)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise InputError(
            f"{str(folder)!r} must hold the whole model that its {DESCRIPTION_NAME} describes. Export it again."
        ) from error


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


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


def _require_sealed(folder: Path, files: Mapping[str, Any]) -> None:
    """Check that the tensors are those that were exported; descriptions older than checksums have none to check."""
    for name, known in files.items():
        damage = damage_of(folder / name, known)
        if damage:
            raise InputError(
                f"{name} must be as it was exported, but it {damage}, in {str(folder)!r}. Export it again."
            )


def _read_gallery(file: Path, description: Mapping[str, Any]) -> Gallery:
    arrays = {name: tensor.numpy() for name, tensor in load_file(file).items()}
    projection = Projection(arrays.get("mean"), arrays.get("matrix"), bool(description["l2_normalize"]))
    config = TrialConfig(family="retrieval", **{name: description[name] for name in _ASKED})
    return Gallery(arrays["embeddings"], arrays["labels"], projection, config, tuple(description["images"]))


FACE = {
    "formats": (
        "FORMATS",
        "INT8_NAME",
        "PREPROCESS_NAME",
        "Runtime",
        "TOLERANCE",
        "compare_answers",
        "count_hits",
        "require_format",
        "write_format",
        "write_int8",
        "write_preprocess",
    ),
    "inputs": ("Files",),
}
"""What other rooms may import, by module."""
