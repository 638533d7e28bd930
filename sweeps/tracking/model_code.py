"""The registered model's own code: MLflow copies this file and carcls.zip beside the weights, and runs it to load them.

It imports nothing of sweeps, which need not be installed where the model is loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

_CODE = Path(__file__).parent / "code" / "carcls.zip"
if _CODE.is_file():
    sys.path.insert(0, str(_CODE))

from carcls.errors import InputError  # noqa: E402 - from the archive


class CarClassifier(PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Image in, label out; with a gallery, the nearest images of the gallery too.

    Accepts, as ``model_input``: paths (one, a list, a Series), arrays (uint8 [h, w, 3] or [b, h, w, 3], or a list of
    [h, w, 3]; floating ones in 0..1), a mix of both, or a DataFrame or mapping with the column ``image`` of either.
    Arrays may also come as nested lists, as they do over HTTP.

    Returns:
        One row an image, in order: ``label``, ``probability`` in [0, 1], and the five likeliest classes, best first,
        in ``top_labels`` and ``top_probabilities``. A retrieval model adds the images that voted, nearest first, in
        ``neighbour_images`` (paths in the data set), ``neighbour_labels`` and ``neighbour_distances``.
    """

    def load_context(self, context: Any) -> None:
        """Load the export that lies beside this file."""
        # Here, since MLflow runs this file to log a model too, which needs no PyTorch.
        from carcls.export import load_export

        self._predictor = load_export(context.artifacts["export"])
        self._has_gallery = self._predictor.gallery is not None

    # The hint is one that MLflow leaves alone: it warns of none or of Any, and enforces the others.
    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Return one row an image; takes more than DataFrames, see the class."""
        predictions = self._predictor.predict(images_of(model_input))
        columns: dict[str, list[Any]] = {
            "label": [one.label for one in predictions],
            "probability": [one.probability for one in predictions],
            "top_labels": [[label for label, _ in one.top] for one in predictions],
            "top_probabilities": [[value for _, value in one.top] for one in predictions],
        }
        if self._has_gallery:
            for column, name in (("images", "image"), ("labels", "label"), ("distances", "distance")):
                columns[f"neighbour_{column}"] = [[getattr(n, name) for n in one.neighbours] for one in predictions]
        return pd.DataFrame(columns)


def images_of(model_input: Any) -> list[Any]:
    """Return the images of any accepted input, one by one.

    Raises:
        InputError: it has no ``image``.

    >>> images_of({"image": ["a.jpg", "b.jpg"]})
    ['a.jpg', 'b.jpg']
    """
    if isinstance(model_input, pd.DataFrame):
        columns = list(model_input.columns)
        if "image" not in columns and len(columns) != 1:
            raise InputError(f"input must have the column 'image', got {columns}. Rename it.")
        return images_of(model_input["image" if "image" in columns else columns[0]])
    if isinstance(model_input, dict):
        if "image" not in model_input:
            raise InputError(f"input must have the key 'image', got {sorted(map(str, model_input))}. Rename it.")
        return images_of(model_input["image"])
    if isinstance(model_input, np.ndarray) and model_input.dtype.kind not in "OSU":
        return list(model_input) if model_input.ndim == 4 else [model_input]
    if isinstance(model_input, pd.Series | np.ndarray | list | tuple):
        flat = model_input.ravel() if isinstance(model_input, np.ndarray) else model_input
        return [_image_of(element) for element in flat]
    return [model_input]


def _image_of(element: Any) -> Any:
    if isinstance(element, dict):
        (image,) = images_of(element)
        return _image_of(image)
    if isinstance(element, list | tuple):
        array = np.asarray(element)
        return array.astype(np.uint8) if array.dtype.kind in "iu" and 0 <= array.min() <= array.max() <= 255 else array
    return element


mlflow.models.set_model(CarClassifier())
