"""The folder that a trained classifier is served from: images in, class names and probabilities out.

``model.safetensors`` holds every tensor, ``model.json`` the rest. Loading runs no code from the folder and needs
neither pretrained weights nor the internet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from carcls.data.decode import Decoded, UnreadableImage, as_rgb, read_square
from carcls.errors import InputError
from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier
from carcls.stages import write_json

FORMAT = 1
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"

ImageLike = str | Path | Image.Image | np.ndarray
Images = Sequence[ImageLike] | ImageLike


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says about one image.

    Attributes:
        label: the likeliest class.
        probability: of ``label``, in [0, 1].
        top: the likeliest classes with their probabilities, best first; ``label`` is the first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """A loaded classifier with the preprocessing it was trained with.

    Args:
        classifier: in any mode; it is put into evaluation mode.
        classes: names in the order of the logits.
        image_size: side in pixels of the square that images are squashed to.
        mean, std: per channel, of images in [0, 1].
        description: all of ``model.json``.
    """

    def __init__(
        self,
        classifier: Classifier,
        classes: tuple[str, ...],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        description: Mapping[str, Any],
    ) -> None:
        self.classifier = classifier.eval()
        self.classes = classes
        self.image_size = image_size
        self.description = description
        self._mean = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1)

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
        if top < 1:
            raise InputError(f"top must be at least 1, got {top!r}. Give how many classes to name.")
        return [self._prediction(row, top) for row in self.probabilities(images, batch_size=batch_size)]

    def probabilities(self, images: Images, *, batch_size: int = 64) -> NDArray[np.float32]:
        """Return probabilities float32 [b, c] of the classes in their order; arguments and errors as ``predict``."""
        if batch_size < 1:
            raise InputError(
                f"batch_size must be at least 1, got {batch_size!r}. Give how many images to take at a time."
            )
        squares = (self._square(position, image) for position, image in enumerate(_one_by_one(images)))
        rows = []
        while batch := list(islice(squares, batch_size)):
            rows.append(self._forward(np.stack(batch)))
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    @torch.inference_mode()
    def _forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # [b, s, s, 3] -> [b, 3, s, s] in 0..1
        logits = self.classifier((images - self._mean) / self._std)
        result: NDArray[np.float32] = logits.float().softmax(dim=1).numpy()
        return result

    def _square(self, position: int, image: ImageLike) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            try:
                return read_square(Path(image), self.image_size)
            except UnreadableImage as error:
                raise InputError(
                    f"image must be readable, got {str(image)!r}: {error}. Check the path and file."
                ) from error
        picture = Image.fromarray(_as_bytes(position, image)) if isinstance(image, np.ndarray) else image
        if not isinstance(picture, Image.Image):
            raise InputError(
                f"image {position} must be a path, a PIL image or an array, got {type(image).__name__}. Convert it."
            )
        return _squash(position, picture, self.image_size)

    def _prediction(self, row: NDArray[np.float32], top: int) -> Prediction:
        best = np.argsort(-row, kind="stable")[:top]
        named = tuple((self.classes[index], float(row[index])) for index in best)
        return Prediction(label=named[0][0], probability=named[0][1], top=named)


def write_export(
    folder: Path,
    classifier: Classifier,
    *,
    classes: Sequence[str],
    image_size: int,
    backbone: str,
    margin: float,
    details: Mapping[str, Any],
) -> None:
    """Write ``classifier`` into ``folder``, which is made when missing; an older export there is replaced.

    Args:
        classes: names in the order of the logits, [c].
        image_size: side in pixels of the training images.
        backbone: the name that the config gave it.
        margin: around the box, as a fraction of its sides, in the crops it was trained on; for the reader's knowledge.
        details: anything JSON holds, such as the trial's settings and metrics.
    """
    assert len(classes) == classifier.head.out_features
    folder.mkdir(parents=True, exist_ok=True)
    # The description comes last and goes first: a folder with one is whole.
    (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
    temporary = folder / f".{WEIGHTS_NAME}.{os.getpid()}.tmp"
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.state_dict().items()},
        temporary,
    )
    temporary.replace(folder / WEIGHTS_NAME)
    write_json(
        folder / DESCRIPTION_NAME,
        {
            "format": FORMAT,
            "backbone": backbone,
            "classes": list(classes),
            "image_size": image_size,
            "mean": list(classifier.backbone.mean),
            "std": list(classifier.backbone.std),
            "preprocessing": "RGB, upright, squashed to image_size × image_size (bicubic), / 255, - mean, / std",
            "margin": margin,
            "details": dict(details),
        },
    )


def load_export(folder: str | Path) -> Predictor:
    """Load what ``write_export`` wrote, on the CPU.

    Raises:
        InputError: the folder is no export, or one of another format, or damaged.
    """
    description = _read_description(Path(folder))
    classes = tuple(description["classes"])
    classifier = Classifier(build_backbone(description["backbone"]), 0.0, len(classes))
    try:
        classifier.load_state_dict(load_file(Path(folder) / WEIGHTS_NAME))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{WEIGHTS_NAME} in {str(folder)!r} must hold the classifier's tensors. Export it again."
        ) from error
    return Predictor(
        classifier, classes, description["image_size"], description["mean"], description["std"], description
    )


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


def _one_by_one(images: Images) -> Iterator[ImageLike]:
    if isinstance(images, np.ndarray):
        return iter(images) if images.ndim == 4 else iter([images])
    if isinstance(images, str | Path | Image.Image):
        return iter([images])
    if not isinstance(images, Iterable):
        raise InputError(
            f"images must be paths, PIL images or arrays, got {type(images).__name__}. Give a list of them."
        )
    return iter(images)


def _as_bytes(position: int, array: np.ndarray) -> NDArray[np.uint8]:
    """Return uint8 [h, w, 3] or [h, w] of uint8 or of floating numbers in 0..1."""
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not shaped or array.size == 0:
        raise InputError(f"image {position} must be an array [h, w, 3] or [h, w], got shape {array.shape}. Reshape it.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise InputError(f"image {position} must be uint8 or floating, got {array.dtype}. Convert it.")
    # Written so that NaN is refused as well.
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"image {position} must hold floating numbers in 0..1, got {array.min()}..{array.max()}. Scale it."
        )
    return np.round(array * 255).astype(np.uint8)


def _squash(position: int, picture: Image.Image, size: int) -> NDArray[np.uint8]:
    try:
        upright = as_rgb(ImageOps.exif_transpose(picture))
        whole = (0.0, 0.0, float(upright.width), float(upright.height))
        return np.asarray(Decoded(upright, whole, None, 1).square(size))
    except (OSError, ValueError) as error:
        raise InputError(
            f"image {position} must be readable, got a PIL image that is not: {error}. Check its file."
        ) from error
