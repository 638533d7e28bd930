"""A model that is served: what it is called, and what it says to an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance
from carcls.errors import InputError
from carcls.export import Prediction, Predictor
from carcls.serving.saliency import saliency

MOST_K = 50


@dataclass(frozen=True)
class Served:
    """A loaded model and its name.

    Attributes:
        key: in addresses, such as ``carsweep-transfer/3``.
        title: for people, such as ``carsweep-transfer, version 3 (champion)``.
        predictor: the model.
        about: what else people may want to know of it: its scores.
    """

    key: str
    title: str
    predictor: Predictor
    about: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """Return what the page and programs need to know, as JSON can hold it."""
        gallery = self.predictor.gallery
        asked = None if gallery is None else {"k": gallery.config.k, "distance": gallery.config.distance}
        searches = None if gallery is None else {**(asked or {}), "images": len(gallery.images), "most_k": self.most_k}
        return {
            "model": self.key,
            "title": self.title,
            "classes": list(self.predictor.classes),
            "image_size": self.predictor.image_size,
            "search": searches,
            "about": dict(self.about),
        }

    @property
    def most_k(self) -> int:
        """How many neighbours may be asked for; 0 where the model has none."""
        gallery = self.predictor.gallery
        return 0 if gallery is None else min(MOST_K, len(gallery.images))

    def asked(self, k: int | None, distance: str | None) -> Predictor:
        """Return the model with another k or distance, as ``Predictor.asking``.

        Raises:
            InputError: it has no gallery, or they are out of range.
        """
        if k is None and distance is None:
            return self.predictor
        if not self.most_k:
            raise InputError(f"k and distance are of models with neighbours; {self.title} has none. Leave them out.")
        if k is not None and not 1 <= k <= self.most_k:
            raise InputError(f"k must be 1 to {self.most_k}, got {k}.")
        known = next((one for one in get_args(Distance) if one == distance), None)
        if distance is not None and known is None:
            raise InputError(f"distance must be {' or '.join(get_args(Distance))}, got {distance!r}.")
        return self.predictor.asking(k, known)

    def answer(
        self, predictor: Predictor, pixels: NDArray[np.uint8], *, top: int, least: float, looked: bool
    ) -> dict[str, Any]:
        """Return what the model says to an image, as JSON can hold it.

        Args:
            predictor: from ``asked``.
            pixels: RGB, uint8 [s, s, 3].
            top: how many classes are named.
            least: the confidence below which the label is ``unknown``.
            looked: whether to say where the network looked.
        """
        (prediction,) = predictor.explain(predictor.engine(pixels[None]), top, least)
        found = self._plain(prediction) | {"calibrated": bool(predictor.confidence.images)}
        if looked:
            label = predictor.classes.index(prediction.top[0][0])
            places = saliency(predictor, pixels, label)
            found["looked"] = None if places is None else places.round(3).tolist()
        return found

    def _plain(self, prediction: Prediction) -> dict[str, Any]:
        found: dict[str, Any] = {
            "label": prediction.label,
            "probability": prediction.probability,
            "top": [{"label": label, "probability": share} for label, share in prediction.top],
        }
        if self.predictor.gallery is not None:
            found["neighbours"] = [
                {
                    "image": one.image,
                    "label": one.label,
                    "distance": one.distance,
                    "thumbnail": f"/thumbnails/{self.key}/{one.place}",
                }
                for one in prediction.neighbours
            ]
        return found
