"""What a sweep was made with: versions of the code and of the libraries, and the images; once for each sweep."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import carcls

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from carcls.data.config import DataSummary
    from sweeps.tracking.views import SavedView

PACKAGES = "packages.txt"
_ROOT = Path(carcls.__file__).parents[1]
_DIGEST = 36  # characters that MLflow has for one


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is said of a sweep once, beside its own run: how its page opens, and its images in the folder ``path``."""

    view: SavedView
    data: DataSummary
    path: str | None


def code_tags() -> dict[str, str]:
    """Return versions of carsweep, its Git commit and the digest of ``requirements.lock``, as far as they are known."""
    tags = {"carsweep.version": version("carsweep"), "mlflow.source.type": "LOCAL"}
    with suppress(OSError):
        lock = (_ROOT / "requirements.lock").read_bytes()
        tags["carsweep.lock"] = hashlib.blake2s(lock, digest_size=8).hexdigest()
    if (_ROOT / ".git").exists():
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
            told = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
            tags["mlflow.source.git.commit"] = told.stdout.strip()
    return tags


def packages() -> str:
    """Return what is installed, a line each, by the names of the folders that say so: reading them all takes longer."""
    found = {path.stem for place in sys.path for path in Path(place).glob("*.dist-info")}
    return "".join(f"{name.replace('-', '==', 1)}\n" for name in sorted(found, key=str.lower))


def dataset_input(data: DataSummary, path: str | None) -> DatasetInput:
    """Return what MLflow is to say of the images that a sweep uses; ``path`` is their folder, None the drawn ones."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"images": data.images, "classes": data.classes, **data.splits}
    source = json.dumps({"uri": path or "drawn by carsweep"})
    images = Dataset(data.name, data.digest[:_DIGEST], "local", source, profile=json.dumps(profile))
    return DatasetInput(images, [InputTag("mlflow.data.context", "training")])
