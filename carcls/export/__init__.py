"""The folder that a trained model is served from: images in, class names and probabilities out.

``model.safetensors`` holds every tensor of the network, or ``model.onnx`` the network itself; ``gallery.safetensors``
has the gallery where the model answers by its neighbours, ``thumbnails.safetensors`` small pictures of it, and
``model.json`` the rest, checksums among it. Loading runs no code from the folder and needs neither pretrained weights
nor the internet. Nothing here imports PyTorch before a folder needs it; that of an ONNX model never does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from carcls.config import TrialConfig
from carcls.disk import damage_of, describe, replacing
from carcls.errors import InputError
from carcls.evaluation.confidence import Confidence, confidence_from
from carcls.export.inputs import read_pixels
from carcls.export.onnx_engine import EMBEDDINGS, LOGITS, ONNX_NAME, OnnxEngine
from carcls.export.predictors import Prediction, Predictor
from carcls.export.thumbnails import THUMBNAILS_NAME, write_thumbnails
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.whitening import Projection
from carcls.stages import write_json

if TYPE_CHECKING:
    import torch

    from carcls.export.engines import TorchEngine
    from carcls.models.classifier import Classifier

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
GALLERY_NAME = "gallery.safetensors"
DESCRIPTION_NAME = "model.json"
# How a gallery is asked: settings of a trial.
_ASKED = ("pooling", "k", "distance", "vote", "temperature")

__all__ = ["Prediction", "Predictor", "load_export", "read_pixels", "write_export"]


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
    state = classifier.state_dict().items()
    files = {WEIGHTS_NAME: {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state}}
    how_asked = {}
    if gallery is not None:
        projection = gallery.projection
        arrays = {"embeddings": gallery.embeddings, "labels": gallery.labels}
        arrays |= {"mean": projection.mean, "matrix": projection.matrix}
        files[GALLERY_NAME] = {name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None}
        settings = {name: getattr(gallery.config, name) for name in _ASKED}
        how_asked["gallery"] = {**settings, "l2_normalize": projection.l2_normalize, "images": list(gallery.images)}
    for name, tensors in files.items():
        with replacing(folder / name) as temporary:
            save_file(tensors, temporary)
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


def load_export(folder: str | Path, device: torch.device | Literal["best"] | None = None) -> Predictor:
    """Load what ``write_export`` wrote, or ``carcls.export.formats`` as ONNX, which needs no PyTorch.

    Args:
        folder: of the export.
        device: where PyTorch computes; ``best`` is a GPU where there is one, and None the CPU, as it always is of ONNX.

    Raises:
        InputError: the folder is no export, or one of another format, or damaged, or needs what is not installed.
    """
    folder = Path(folder)
    description = _read_description(folder)
    try:
        files = description.get("files", {})
        _require_sealed(folder, files)
        size, classes, gallery = description["image_size"], tuple(description["classes"]), None
        if description.get("kind") == "retrieval":  # descriptions of older classifiers have no kind
            gallery = _read_gallery(folder / GALLERY_NAME, description["gallery"])
        engine = _open_engine(folder, description, gallery, device)
        if gallery is not None:
            gallery.require_whole(engine.width, len(classes))
        elif engine.width != len(classes):
            raise ValueError("classes")
        return Predictor(engine, classes, size, gallery, confidence_from(description.get("confidence")), folder)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise InputError(
            f"{str(folder)!r} must hold the whole model that its {DESCRIPTION_NAME} describes. Export it again."
        ) from error


def _open_engine(
    folder: Path,
    description: Mapping[str, Any],
    gallery: Gallery | None,
    device: torch.device | Literal["best"] | None,
) -> OnnxEngine | TorchEngine:
    size, mean, std = (description[name] for name in ("image_size", "mean", "std"))
    if ONNX_NAME in description.get("files", {}):
        return OnnxEngine(folder / ONNX_NAME, size, mean, std, EMBEDDINGS if gallery else LOGITS)
    try:
        from carcls.export.engines import load_engine
    except ModuleNotFoundError as error:
        raise InputError(
            f"{str(folder)!r} needs {error.name}, which is not installed. Install it, or ask an export to ONNX "
            "(carsweep export --to onnx)."
        ) from error
    return load_engine(folder / WEIGHTS_NAME, description, gallery.config.pooling if gallery else None, device)


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
    arrays = load_file(file)
    projection = Projection(arrays.get("mean"), arrays.get("matrix"), bool(description["l2_normalize"]))
    config = TrialConfig(family="retrieval", **{name: description[name] for name in _ASKED})
    return Gallery(arrays["embeddings"], arrays["labels"], projection, config, tuple(description["images"]))


FACE = {
    "formats": (
        "DESCRIPTION_NAME",
        "EXAMPLE_NAME",
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
