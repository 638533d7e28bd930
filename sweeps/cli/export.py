"""A registered model as files for other runtimes, checked against what it answers itself."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from carcls.catalog import FAMILIES
from carcls.errors import CarsweepError, InputError, UnreadableImage
from sweeps.cli.answers import named
from sweeps.cli.exits import DONE
from sweeps.cli.options import options
from sweeps.cli.output import Streams, answering
from sweeps.cli.store import model_named
from sweeps.text import percent, plural, points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carcls.data.dataset import Dataset
    from carcls.export import Predictor
    from carcls.export.formats import Runtime
    from carcls.stages import StageStore
    from sweeps.tracking.found import FoundModel

_CALIBRATED = 256
"""Training images by which the ranges of 8 bits are chosen."""


@click.command("export")
@click.argument("family", metavar="[FAMILY]", required=False)
@click.argument("folder", metavar="FOLDER", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    type=click.Choice(["onnx", "pt2", "safetensors"]),
    required=True,
    help="ONNX, PyTorch's exported program, or the tensors as carsweep has them.",
)
@options("model")
@click.option("--int8", is_flag=True, help="Also in 8 bits, and what that loses; with --to onnx.")
@options("out", "tracking-uri")
@answering
def export(
    streams: Streams,
    family: str | None,
    folder: Path | None,
    kind: str,
    model: str | None,
    int8: bool,
    out: Path,
    tracking_uri: str | None,
) -> int:
    """Write FAMILY's model into FOLDER, for another runtime.

    FAMILY's champion, else its challenger; without FAMILY the best of the families, or --model. Beside the model are
    preprocess.json, which says what it takes and answers, and for ONNX an example, and what MLflow needs to serve it
    without PyTorch. The test images are answered by both and must have the same classes, and probabilities within
    0.001.
    """
    from carcls.export.formats import FORMATS, PREPROCESS_NAME, require_format, write_format, write_preprocess
    from sweeps.tracking.pyfunc import save_beside
    from sweeps.waits import Waiting

    family, folder = _parted(family, folder, model)
    require_format(kind, int8=int8)
    _require_free(folder, PREPROCESS_NAME)
    found = model_named(streams, model or family, out, tracking_uri)
    streams.notify(f"{found.why} {found} is exported.".strip())
    if (found.folder / FORMATS["onnx"]).is_file():
        raise InputError(f"--model must be no ONNX export, got {str(found.folder)!r}. Name the model that it is of.")
    import torch

    predictor = found.load(torch.device("cpu"))
    images = _images_of(found, predictor.image_size, out)
    if int8 and images is None:
        raise InputError("--int8 needs the sweep's training images, which are not here. Name its folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as passing, Waiting(streams.notify, "writing and checking …"):
        made = Path(passing)
        runtime = write_format(predictor, kind, made)
        if kind == "onnx":
            save_beside(made, next(name for name, one in FAMILIES.items() if one.neighbours == bool(predictor.gallery)))
        checked = _checked(predictor, runtime, images)
        if int8 and images:
            checked["int8"] = _in_8_bits(made, predictor, images)
        write_preprocess(made, predictor, checked)
        _move(made, folder)
    value = {"model": named(found), "folder": str(folder.absolute()), "file": FORMATS[kind], "checked": checked}
    streams.answer(value, *_lines(folder, kind, checked))
    return DONE


def _parted(family: str | None, folder: Path | None, model: str | None) -> tuple[str | None, Path]:
    """Return the family and the folder that are meant; a single word is the folder."""
    if family is None:
        raise click.UsageError("Missing FOLDER, which gets the files.")
    if folder is None:
        if family in FAMILIES:
            raise click.UsageError(f"Missing FOLDER after the family {family!r}. A folder of that name is ./{family}.")
        return None, Path(family)
    if model:
        raise click.UsageError(f"Give FAMILY or --model, not both, got {family!r} and {model!r}.")
    return family, folder


def _require_free(folder: Path, last: str) -> None:
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / last).is_file())):
        raise InputError(f"FOLDER must be new, empty or an earlier export, got {str(folder)!r}. Name another.")


@dataclass(frozen=True)
class _Images:
    """The images of a model's sweep, as its network takes them."""

    data: Dataset
    stages: StageStore
    size: int

    def squares(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return uint8 [n, s, s, 3]."""
        return np.asarray(self.data.pixels(self.stages, self.size)[rows])


def _images_of(found: FoundModel, size: int, out: Path) -> _Images | None:
    """Return the images of the model's sweep; None where they are not here any more."""
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore

    sweep, stages = found.tags.get("sweep"), StageStore(out.absolute() / "stages")
    if not sweep:
        return None
    try:
        data = Dataset.load(out / sweep / "dataset.json")
        data.square(stages, int(data.splits.test[0]), size)  # a pack of images that are gone would be made of zeros
    except (CarsweepError, UnreadableImage, OSError, IndexError):
        return None
    return _Images(data, stages, size)


def _checked(predictor: Predictor, runtime: Runtime, images: _Images | None) -> dict[str, Any]:
    """Return how the written file answers beside the model.

    Raises:
        InputError: otherwise than it may.
    """
    from carcls.export.formats import TOLERANCE, compare_answers

    pixels = images.squares(images.data.splits.test) if images else None
    agreement = compare_answers(predictor, runtime, pixels)
    if agreement.same < agreement.images or not agreement.difference <= TOLERANCE:
        raise InputError(
            f"the written file must answer as the model does, but {agreement.images - agreement.same} of "
            f"{agreement.images} classes differ, and probabilities by up to {agreement.difference:.2g}. "
            "Use --to safetensors."
        )
    return {"on": "test images" if images else "drawn patterns", **asdict(agreement)}


def _in_8_bits(folder: Path, predictor: Predictor, images: _Images) -> dict[str, Any]:
    """Write the model in 8 bits; return how it answers beside the model on test images, and both on validation's."""
    from carcls.export.formats import INT8_NAME, compare_answers, count_hits, write_int8

    data, splits = images.data, images.data.splits
    chosen = np.random.default_rng(0).permutation(splits.train)[:_CALIBRATED]
    runtime = write_int8(folder, predictor, images.squares(np.sort(chosen)))
    agreement = compare_answers(predictor, runtime, images.squares(splits.test))
    rows = splits.validation
    ours, theirs = count_hits(predictor, runtime, images.squares(rows), data.labels[rows])
    scores = {"validation_images": len(rows), "accuracy": ours / len(rows), "int8_accuracy": theirs / len(rows)}
    return {"file": INT8_NAME, "calibrated_on": len(chosen), **asdict(agreement), **scores}


def _move(made: Path, folder: Path) -> None:
    """Move what was made into the folder; a description comes last and goes first, so a folder with one is whole."""
    from carcls.export.formats import DESCRIPTION_NAME, PREPROCESS_NAME

    if (made / DESCRIPTION_NAME).is_file():  # parts of an earlier export may be of another model
        for old in (DESCRIPTION_NAME, "MLmodel", "gallery.safetensors", "thumbnails.safetensors"):
            (folder / old).unlink(missing_ok=True)
    last = ("MLmodel", DESCRIPTION_NAME, PREPROCESS_NAME)
    for part in sorted(made.iterdir(), key=lambda part: last.index(part.name) if part.name in last else -1):
        for one in (part, *part.rglob("*")):
            one.chmod(0o755 if one.is_dir() else 0o644)
        if part.is_dir():
            shutil.rmtree(folder / part.name, ignore_errors=True)
        part.replace(folder / part.name)


def _lines(folder: Path, kind: str, checked: dict[str, Any]) -> Iterator[str]:
    from carcls.export.formats import EXAMPLE_NAME, FORMATS, INT8_NAME, PREPROCESS_NAME

    shown = (FORMATS[kind], INT8_NAME, PREPROCESS_NAME, EXAMPLE_NAME)
    yield f"Written to {folder}: {', '.join(name for name in shown if (folder / name).is_file())}."
    if kind == "onnx":
        yield f"It answers without PyTorch: mlflow models serve -m {shlex.quote(str(folder))} --env-manager local"
    yield (
        f"{FORMATS[kind]} has the model's class for {checked['same']:,} of {plural(checked['images'], 'image')} "
        f"({checked['on']}); probabilities differ by at most {checked['difference']:.1g}."
    )
    if checked["on"] != "test images":
        yield "The test images are not here; patterns were drawn instead."
    if eight := checked.get("int8"):
        yield (
            f"{eight['file']} has it for {eight['same']:,} of {plural(eight['images'], 'test image')}; on "
            f"{plural(eight['validation_images'], 'validation image')} {percent(eight['int8_accuracy'])} are right, "
            f"against {percent(eight['accuracy'])} "
            f"({points(eight['int8_accuracy'] - eight['accuracy'])} points)."
        )
