"""Loaded models: image in, classes with probabilities out, and the nearest training images where neighbours vote.

Letters: b images, c classes, d embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from carcls.config import Pooling
from carcls.data.decode import as_rgb, read_square
from carcls.errors import InputError, UnreadableImage
from carcls.models.classifier import Classifier
from carcls.neighbours.gallery import Gallery

ImageLike = str | Path | Image.Image | np.ndarray
Images = Sequence[ImageLike] | ImageLike
BATCH = 64
TOP = 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One image of the gallery.

    Attributes:
        image: its path, relative to the folder of the data set.
        label: its class.
        distance: from the image that was asked about.
    """

    image: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        label: the likeliest class.
        probability: of ``label``, in [0, 1]; where neighbours vote, its share of the votes.
        top: the five likeliest classes with their probabilities, best first; ``label`` is the first.
        neighbours: the images that voted, nearest first; none for a classifier.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    Attributes:
        network: in evaluation mode. Its head is not used where there is a gallery.
        classes: names in the order of the logits and labels.
        preprocessing: what the network was trained with.
        gallery: the images whose votes answer; None for a classifier.
    """

    network: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    gallery: Gallery | None = None

    def predict(self, images: Images) -> list[Prediction]:
        """Return one prediction an image, in order; with a gallery, with the images of it that voted, nearest first.

        Args:
            images: paths, PIL images or arrays, or one of them. An array is RGB [h, w, 3] or gray [h, w], uint8 in
                0..255 or floating in 0..1; one array [b, h, w, 3] is b images. Nothing is cropped: give what training
                saw, which is the car's box where the data set had boxes.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        gallery, names = self.gallery, self.classes
        if gallery is None:
            return [_named(row, int(row.argmax()), names) for row in self.probabilities(images)]
        found, winners, shares = gallery.answer(self.embed(images, gallery.config.pooling), len(names))
        voted = [
            tuple(
                Neighbour(gallery.images[place], names[gallery.labels[place]], float(distance))
                for place, distance in zip(places, distances, strict=True)
            )
            for places, distances in zip(found.indices, found.distances, strict=True)
        ]
        return [_named(row, int(win), names, near) for row, win, near in zip(shares, winners, voted, strict=True)]

    @torch.inference_mode()
    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return a classifier's probabilities float32 [b, c] of the classes; images and errors as ``predict``."""
        rows = [self.network(batch).float().softmax(dim=1).numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows])

    @torch.inference_mode()
    def embed(self, images: Images, pooling: Pooling) -> NDArray[np.float32]:
        """Return embeddings float32 [b, d]; images and errors as ``predict``."""
        backbone = self.network.backbone
        rows = [backbone.every_pooling(batch)[pooling].numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, backbone.embedding), np.float32), *rows])


def _named(
    row: NDArray[np.float32], winner: int, classes: Sequence[str], neighbours: tuple[Neighbour, ...] = ()
) -> Prediction:
    """Name the likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    best = sorted(range(len(row)), key=lambda place: (place != winner, -row[place]))[:TOP]
    top = tuple((classes[place], float(row[place])) for place in best)
    return Prediction(*top[0], top, neighbours)


class Preprocessing:
    """What a network sees of an image.

    Args:
        image_size: side in pixels of the square that images are squashed to.
        mean, std: per channel, of images in [0, 1].
    """

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self._size = image_size
        self._mean, self._std = (torch.tensor(each, dtype=torch.float32).view(1, 3, 1, 1) for each in (mean, std))

    def batches(self, images: Images) -> Iterator[torch.Tensor]:
        """Yield normalised batches float32 [b, 3, s, s] of whatever ``Predictor.predict`` accepts.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        squares = (_square(position, image, self._size) for position, image in enumerate(_one_by_one(images)))
        while batch := list(islice(squares, BATCH)):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255  # [b, 3, s, s] in 0..1
            yield (pixels - self._mean) / self._std


def _square(position: int, image: ImageLike, size: int) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        try:
            return read_square(Path(image), size)
        except UnreadableImage as error:
            raise InputError(
                f"image must be readable, got {str(image)!r}: {error}. Check the path and file."
            ) from error
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_as_bytes(position, image))
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image {position} must be a path, a PIL image or an array, got {type(image).__name__}. Convert it."
        )
    try:
        upright = as_rgb(ImageOps.exif_transpose(image))
        return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))
    except (OSError, ValueError) as error:
        raise InputError(
            f"image {position} must be readable, got a PIL image that is not: {error}. Check its file."
        ) from error


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
