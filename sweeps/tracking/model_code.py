"""A model's own code in MLflow: the file is copied with carcls.zip beside the weights, and run to load them.

It imports nothing of sweeps, which need not be installed where the model is loaded.
"""

from __future__ import annotations

import os
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

from carcls.errors import InputError, UnreadableImage  # noqa: E402 - from the archive

# Variables that scoring servers (MLflow's own, and MLServer) give to the processes that load a model.
_SERVERS = (
    "__pyfunc_model_path__",
    "_MLFLOW_IS_IN_SERVING_ENVIRONMENT",
    "MLSERVER_MODEL_URI",
    "MLSERVER_MODEL_IMPLEMENTATION",
)
# A folder whose files clients of a server may name.
READ_FOLDER = "CARSWEEP_READ_FOLDER"


class CarClassifier(PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Image in, label out; with a gallery, the nearest images of the gallery too.

    Accepts, as ``model_input``: paths, the bytes of files, base64 of them, data URLs, arrays ([h, w], [h, w, 3] or
    [h, w, 4], or [b, h, w, 3]; whole numbers in 0..255 or others in 0..1) and nested lists of them; one, a list, a
    Series, a mix, or a DataFrame or mapping with the column ``image`` of any. Behind a scoring server paths are read
    only in the folder that CARSWEEP_READ_FOLDER names, if any.

    Returns:
        One row an image, in order: ``label``, ``probability`` in [0, 1], the five likeliest classes, best first,
        in ``top_labels`` and ``top_probabilities``, and ``error``, which is empty; of an image that cannot be read it
        says why, and the others are empty. A retrieval model adds the images that voted, nearest first, in
        ``neighbour_images`` (paths in the data set), ``neighbour_labels`` and ``neighbour_distances``.
    """

    def load_context(self, context: Any) -> None:
        """Load the export: the artifact of a registered model, or of an ONNX export the folder of this file."""
        from carcls.export import load_export

        self._predictor = load_export((context.artifacts or {}).get("export", Path(__file__).parent))

    # The hint is one that MLflow leaves alone: it warns of none or of Any, and enforces the others.
    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Return one row an image; takes more than DataFrames, see the class."""
        answers = self._predictor.answers(images_of(model_input), files=files_here())
        return pd.DataFrame([_row(one) for one in answers], columns=columns_of(self._predictor.gallery is not None))


_NEAR = {"neighbour_images": "image", "neighbour_labels": "label", "neighbour_distances": "distance"}


def columns_of(has_gallery: bool) -> list[str]:
    """Return the names of the columns."""
    return ["label", "probability", "top_labels", "top_probabilities", *(_NEAR if has_gallery else ()), "error"]


def _row(answer: Any) -> dict[str, Any]:
    if isinstance(answer, UnreadableImage):
        nothing: dict[str, list[Any]] = {name: [] for name in ("top_labels", "top_probabilities", *_NEAR)}
        return {"label": "", "probability": 0.0, **nothing, "error": str(answer)}
    near = {column: [getattr(one, name) for one in answer.neighbours] for column, name in _NEAR.items()}
    labels, shares = ([each[place] for each in answer.top] for place in (0, 1))
    head = {"label": answer.label, "probability": answer.probability}
    return {**head, "top_labels": labels, "top_probabilities": shares, **near, "error": ""}


def files_here() -> Any:
    """Return which files may be read: all in one's own process, those of a named folder or none behind a server."""
    from carcls.export.inputs import Files

    if not any(name in os.environ for name in _SERVERS):
        return Files()
    folder = os.environ.get(READ_FOLDER)
    return Files(folder=Path(folder)) if folder else Files(forbidden=True)


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
        is_one = model_input.ndim <= 2 or (model_input.ndim == 3 and model_input.shape[2] in (1, 3, 4))
        return [model_input] if is_one else list(model_input)
    if isinstance(model_input, pd.Series | np.ndarray | list | tuple):
        flat = model_input.ravel() if isinstance(model_input, np.ndarray) else model_input
        return [_image_of(element) for element in flat]
    return [model_input]


def _image_of(element: Any) -> Any:
    if isinstance(element, dict):
        (image,) = images_of(element)
        return _image_of(image)
    return element


mlflow.models.set_model(CarClassifier())
