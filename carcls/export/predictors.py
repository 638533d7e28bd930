"""Loaded models: image in, classes with probabilities out, and the nearest training images where neighbours vote.

Letters: b images, c classes, d embedding, s side in pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carcls.config import Distance
from carcls.errors import InputError, UnreadableImage
from carcls.evaluation.confidence import Confidence
from carcls.export.inputs import EVERY_FILE, Files, ImageLike, read_pixels
from carcls.export.thumbnails import read_thumbnail
from carcls.machine import usable_cores
from carcls.neighbours.gallery import Gallery

Images = Iterable[ImageLike] | ImageLike
TOP = 5
UNKNOWN = "unknown"
AHEAD = 3
"""Batches of images that are decoded before the network asks for them."""
_LONGEST_NAME = 500


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One image of the gallery.

    Attributes:
        image: its path, relative to the folder of the data set.
        label: its class.
        distance: from the image that was asked about.
        place: its position in the gallery.
    """

    image: str
    label: str
    distance: float
    place: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        label: the likeliest class, or ``UNKNOWN`` where the model was told to abstain and is not sure enough.
        probability: of the likeliest class, in [0, 1].
        top: the likeliest classes with their probabilities, best first; ``label`` is the first, unless it is
            ``UNKNOWN``.
        neighbours: the images that voted, nearest first; none for a classifier.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...] = ()


class Engine(Protocol):
    """What computes a model's network."""

    @property
    def batch(self) -> int:
        """How many images it answers best at a time."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [b, c], or embeddings [b, d] where there is a gallery, of RGB images uint8 [b, s, s, 3]."""


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    Attributes:
        engine: its network, in float32.
        classes: names in the order of the logits and labels.
        image_size: s.
        gallery: the images whose votes answer; None for a classifier.
        confidence: how its answers become probabilities.
        folder: of the export.
    """

    engine: Engine
    classes: tuple[str, ...]
    image_size: int
    gallery: Gallery | None = None
    confidence: Confidence = field(default_factory=Confidence)
    folder: Path | None = None

    def predict(self, images: Images, *, top: int = TOP) -> list[Prediction]:
        """Return one prediction an image, in order; with a gallery, with the images of it that voted, nearest first.

        Args:
            images: of any kind that ``carcls.export.inputs.read_pixels`` reads, or one of them; one array [b, h, w, 3]
                is b images. Nothing is cropped: give what training saw, which is the car's box where the data set had
                boxes.
            top: how many of the likeliest classes are named, at least 1.

        Raises:
            InputError: an image cannot be read; names which.
        """
        found: list[Prediction] = []
        given = list(_one_by_one(images))
        for position, (image, answer) in enumerate(zip(given, self.answers(given, top=top), strict=True)):
            if isinstance(answer, UnreadableImage):
                raise _refused(position, image, answer)
            found.append(answer)
        return found

    def answers(
        self, images: Iterable[ImageLike], *, top: int = TOP, files: Files = EVERY_FILE, abstain: float | None = None
    ) -> Iterator[Prediction | UnreadableImage]:
        """Yield, image by image in order, what ``predict`` returns; for one that cannot be read, why.

        Images are asked for as they are needed and decoded by threads while the network answers those before them.

        Args:
            images: one by one; may be endless.
            top: as in ``predict``.
            files: which paths may be read.
            abstain: a precision in (0, 1]: answers are ``UNKNOWN`` below the confidence that had it on the validation
                images; None answers always.

        Raises:
            InputError: that precision was not reached on the validation images.
        """
        least = 0.0 if abstain is None else self.threshold(abstain)
        squares = _ahead(partial(read_pixels, size=self.image_size, files=files), images, AHEAD * self.engine.batch)
        while part := list(islice(squares, self.engine.batch)):
            readable = [square for square in part if not isinstance(square, UnreadableImage)]
            said = iter(self.explain(self.engine(np.stack(readable)), top, least) if readable else [])
            yield from (each if isinstance(each, UnreadableImage) else next(said) for each in part)

    def asking(self, k: int | None = None, distance: Distance | None = None) -> Predictor:
        """Return the model with another k or distance of its neighbours; None leaves one as it is.

        The probabilities of another choice than the model's own are shares of votes: what was fitted on the validation
        answers says nothing of them.

        Args:
            k: 1 to the number of images in the gallery, which the model must have.
            distance: by which they are the nearest.
        """
        gallery = self.gallery
        assert gallery is not None
        changes = {"k": k or gallery.config.k, "distance": distance or gallery.config.distance}
        config = gallery.config.model_copy(update=changes)
        if config == gallery.config:
            return self
        return replace(self, gallery=replace(gallery, config=config), confidence=Confidence())

    def threshold(self, precision: float) -> float:
        """Return the confidence, in [0, 1], at which that share of the validation answers was right.

        Raises:
            InputError: ``precision`` is not in (0, 1], or was not reached, or the model has no validation answers.
        """
        if not 0 < precision <= 1:
            raise InputError(f"abstain must be a precision above 0 and at most 1, got {precision}. Take 0.9.")
        found, reached = self.confidence.threshold(precision), self.confidence.reached
        if found is None and not reached:
            raise InputError(
                "abstain needs a model with its validation answers, which this one lacks. Export it again."
            )
        if found is None:
            raise InputError(
                f"abstain must be a precision that was reached on the validation images, at most {reached:.3f}, got "
                f"{precision}. Ask for less."
            )
        return found

    def explain(self, computed: NDArray[np.float32], top: int = TOP, least: float = 0.0) -> list[Prediction]:
        """Return the predictions for what the engine has computed, logits [b, c] or embeddings [b, d].

        Args:
            computed: by the engine.
            top: as in ``predict``.
            least: the confidence below which the label is ``UNKNOWN``.
        """
        gallery, names = self.gallery, self.classes
        if gallery is None:
            rows, first = self.confidence.of_logits(computed), computed.argmax(axis=1)
            return [_named(row, int(win), names, top, least) for row, win in zip(rows, first, strict=True)]
        found, winners, votes = gallery.answer(computed, len(names))
        shares = self.confidence.of_votes(votes)
        voted = [
            tuple(
                Neighbour(gallery.images[place], names[gallery.labels[place]], float(distance), int(place))
                for place, distance in zip(places, distances, strict=True)
            )
            for places, distances in zip(found.indices, found.distances, strict=True)
        ]
        answers = zip(shares, winners, voted, strict=True)
        return [_named(row, int(win), names, top, least, near) for row, win, near in answers]

    def thumbnail(self, place: int) -> bytes | None:
        """Return a small JPEG of the image at this place of the gallery; None where the model carries none of it."""
        return None if self.folder is None else read_thumbnail(self.folder, place)

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return a classifier's probabilities float32 [b, c] of the classes; images and errors as ``predict``."""
        return self.confidence.of_logits(self.compute(images))

    def compute(self, images: Images) -> NDArray[np.float32]:
        """Return logits [b, c], or embeddings [b, d] where there is a gallery; images and errors as ``predict``."""
        given = list(_one_by_one(images))
        squares, rows = _ahead(partial(read_pixels, size=self.image_size), given, AHEAD * self.engine.batch), []
        for first in range(0, len(given), self.engine.batch):
            part = []
            for position, square in enumerate(islice(squares, self.engine.batch), first):
                if isinstance(square, UnreadableImage):
                    raise _refused(position, given[position], square)
                part.append(square)
            rows.append(self.engine(np.stack(part)))
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)


def _named(
    row: NDArray[np.float32],
    winner: int,
    classes: Sequence[str],
    top: int,
    least: float,
    neighbours: tuple[Neighbour, ...] = (),
) -> Prediction:
    """Name the likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    best = sorted(range(len(row)), key=lambda place: (place != winner, -row[place]))[:top]
    likeliest = tuple((classes[place], float(row[place])) for place in best)
    label, probability = likeliest[0]
    return Prediction(label if probability >= least else UNKNOWN, probability, likeliest, neighbours)


def _ahead(
    read: partial[NDArray[np.uint8]], images: Iterable[ImageLike], most: int
) -> Iterator[NDArray[np.uint8] | UnreadableImage]:
    """Yield what is read of each image, by threads that are up to ``most`` images ahead."""
    waiting: deque[Future[NDArray[np.uint8] | UnreadableImage]] = deque()
    pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
    try:
        for image in images:
            waiting.append(pool.submit(_attempt, read, image))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(read: partial[NDArray[np.uint8]], image: ImageLike) -> NDArray[np.uint8] | UnreadableImage:
    try:
        return read(image)
    except UnreadableImage as why:
        return why


def _refused(position: int, image: ImageLike, why: UnreadableImage) -> InputError:
    if isinstance(image, str | Path) and len(str(image)) < _LONGEST_NAME:
        return InputError(f"image must be readable, got {str(image)!r}: {why}. Check the path and file.")
    return InputError(f"image {position} must be readable: {why}. Convert it, or check its file.")


def _one_by_one(images: Images) -> Iterable[Any]:
    if isinstance(images, np.ndarray):
        return images if images.ndim == 4 else [images]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if not isinstance(images, Iterable):
        raise InputError(f"images must be a list of paths, images or arrays, got {type(images).__name__}. Give a list.")
    return images
