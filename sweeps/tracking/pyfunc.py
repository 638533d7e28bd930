"""An export as a model of MLflow: its code, what it needs, what it answers, and an example of what it takes."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from PIL import Image

import carcls
from carcls.catalog import FAMILIES

ARCHIVE, CODE = "carcls.zip", "model_code.py"
"""A model's own copy of carcls, in its folder ``code``, and the file that MLflow runs to load it."""
# What carcls needs to serve a model; MLflow's own inference would load the model in another process to find out.
_NEEDED = ("mlflow", "safetensors", "numpy", "pandas", "pillow", "pydantic", "filelock")
_RUNTIMES = {"torch": ("torch", "torchvision", "timm"), "onnx": ("onnxruntime",)}
_EXAMPLE_SIDE = 64


def pack_code(folder: Path) -> Path:
    """Write carcls as one file that Python imports from; a server would get a request for each file of a folder."""
    package, archive = Path(carcls.__file__).parent, folder / ARCHIVE
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, file.relative_to(package.parent))
    return archive


def save_model(
    path: str | Path,
    mlflow_model: Model | None = None,
    *,
    export: Path | None = None,
    archive: Path,
    signature: ModelSignature,
    accepts: str,
    runtime: str = "torch",
    **_: Any,
) -> None:
    """Write a model of code and tensors, with no pickle; so this module is a flavor that ``Model.log`` takes.

    With ``validate_serving_input=False``, which other flavors of MLflow ask of it too: to try the example, it would
    load the model into this process, with PyTorch.

    Args:
        path: the folder, which is made.
        mlflow_model: what MLflow knows already.
        export: the folder of the export, which is copied; None where it will lie beside the model's files.
        archive: from ``pack_code``.
        signature: from ``signature_of``.
        accepts: from ``description_of``.
        runtime: ``torch`` or ``onnx``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the example's texts are no numbers
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=mlflow_model or Model(),
            python_model=str(Path(__file__).with_name(CODE)),
            artifacts={"export": str(export)} if export else None,
            code_paths=[str(archive)],
            pip_requirements=requirements(runtime),
            signature=signature,
            input_example=input_example(),
            metadata={"accepts": accepts},
        )


def save_beside(folder: Path, family: str) -> None:
    """Make an ONNX export a model of MLflow where it lies, which needs no PyTorch.

    Args:
        folder: of the export.
        family: one whose models answer with the same columns.
    """
    with tempfile.TemporaryDirectory(dir=folder) as passing:
        made = Path(passing) / "model"
        asked: dict[str, Any] = {"signature": signature_of(family), "accepts": description_of(family)}
        save_model(made, archive=pack_code(Path(passing)), runtime="onnx", **asked)
        for file in made.iterdir():
            file.replace(folder / file.name)


def input_example() -> pd.DataFrame:
    """Return what a model can be asked, as a client sends it: a drawn picture as base64, nobody's photograph."""
    file, side = io.BytesIO(), _EXAMPLE_SIDE
    colours = [Image.linear_gradient("L").rotate(turn).resize((side, side)) for turn in (0, 90, 180)]
    Image.merge("RGB", colours).save(file, "JPEG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


def signature_of(family: str) -> ModelSignature:
    """Return what a family's models answer.

    It has no inputs on purpose: every input schema that takes paths refuses arrays, and the other way round.
    """
    texts, numbers = Array(DataType.string), Array(DataType.double)
    columns: dict[str, DataType | Array] = {"label": DataType.string, "probability": DataType.double}
    columns |= {"top_labels": texts, "top_probabilities": numbers}
    if FAMILIES[family].neighbours:
        columns |= {"neighbour_images": texts, "neighbour_labels": texts, "neighbour_distances": numbers}
    columns["error"] = DataType.string
    return ModelSignature(inputs=None, outputs=Schema([ColSpec(kind, name) for name, kind in columns.items()]))


def description_of(family: str) -> str:
    """Return what a family's models accept and answer, for people."""
    return (
        "Accepts image paths, bytes of files, base64 of them, data URLs, arrays and nested lists of pixels [h, w, 3]; "
        "one, a list, or a DataFrame with the column `image`. Behind a scoring server paths are read only in a folder "
        "that CARSWEEP_READ_FOLDER names. Give the car's box cut out where the training data had boxes. "
        f"Returns one row an image: {', '.join(signature_of(family).outputs.input_names())}."
    )


def requirements(runtime: str = "torch") -> list[str]:
    """Pin what is installed, without the part after ``+``, which names a build that package indexes do not have."""
    needed = (*_NEEDED, *_RUNTIMES[runtime])
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in needed]
