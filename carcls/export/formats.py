"""A model in the formats of other runtimes: ONNX, PyTorch's exported program, and its own tensors.

Letters: b images, c classes, s side in pixels.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.data.decode import LEAST_PIXELS
from carcls.disk import describe, replacing
from carcls.errors import InputError
from carcls.export.engines import TorchEngine
from carcls.export.graph import answers_of, graph_of
from carcls.export.onnx_engine import (
    EMBEDDINGS,
    INPUT,
    LOGITS,
    NEAR_OUTPUTS,
    ONNX_NAME,
    OUTPUTS,
    normalised,
    open_session,
)
from carcls.export.predictors import Predictor
from carcls.export.thumbnails import THUMBNAILS_NAME
from carcls.stages import write_json

FORMATS = {"onnx": ONNX_NAME, "pt2": "model.pt2", "safetensors": "model.safetensors"}
INT8_NAME, PREPROCESS_NAME, EXAMPLE_NAME = "model-int8.onnx", "preprocess.json", "example.py"
DESCRIPTION_NAME = "model.json"
TOLERANCE = 1e-3
"""By which probabilities of another runtime may differ."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_AT_ONCE, _DRAWN = 32, 64
Answers = tuple[NDArray[np.float32], NDArray[np.int64]]
Runtime = Callable[[NDArray[np.uint8]], Answers]
"""Squares uint8 [b, s, s, 3] to probabilities [b, c] and classes [b]."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A written file beside the model that it was made of.

    Attributes:
        images: that both answered.
        same: of how many of them the class is the same.
        difference: the largest between two probabilities of a class.
    """

    images: int
    same: int
    difference: float


def require_format(kind: str, *, int8: bool) -> None:
    """Check that a format can be written here.

    Raises:
        InputError: packages are missing, or it has no int8.
    """
    if int8 and kind != "onnx":
        raise InputError(f"--int8 must go with --to onnx, got --to {kind}. Leave it out, or use --to onnx.")
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if kind == "onnx" and missing:
        raise InputError(f"--to onnx needs {', '.join(missing)}. Run: pip install 'carsweep[onnx]'")


def write_format(predictor: Predictor, kind: str, folder: Path) -> Runtime:
    """Write a loaded model into a folder that exists, and return what answers by the written file.

    Args:
        predictor: from ``load_export``.
        kind: of ``FORMATS``.
        folder: gets the file, and an example where it is ONNX. As ONNX, and as its own tensors, it is an export that
            ``load_export`` opens.

    Raises:
        InputError: the model is ONNX already.
    """
    assert predictor.folder is not None
    if not isinstance(predictor.engine, TorchEngine):
        raise InputError(
            f"the model must have its tensors, and {str(predictor.folder)!r} is ONNX. Name the registered model."
        )
    if kind == "safetensors":
        from carcls.export import load_export

        for file in predictor.folder.glob("*.safetensors"):
            shutil.copyfile(file, folder / file.name)
        shutil.copyfile(predictor.folder / DESCRIPTION_NAME, folder / DESCRIPTION_NAME)
        return partial(answers_of, load_export(folder))
    graph, file = graph_of(predictor, predictor.engine.network), folder / FORMATS[kind]
    # Two images: of one, the exporter would take it that there is always one.
    example = torch.zeros(2, 3, predictor.image_size, predictor.image_size)
    with _quiet():
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
        if kind == "pt2":
            torch.export.save(program, file)
            module = torch.export.load(file).module()
            return lambda squares: _arrays(module(torch.from_numpy(_normalised(predictor, squares))))
        made = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=list(_outputs(predictor)))
        assert made is not None
        with replacing(file) as temporary:
            made.save(temporary, external_data=False)
    shutil.copyfile(Path(__file__).with_name(EXAMPLE_NAME), folder / EXAMPLE_NAME)
    _describe_onnx(predictor.folder, folder)
    return onnx_runtime(predictor, file)


def _describe_onnx(source: Path, folder: Path) -> None:
    """Make of a folder with an ONNX file an export that ``load_export`` opens, of the same model as ``source``."""
    carried = [name for name in ("gallery.safetensors", THUMBNAILS_NAME) if (source / name).is_file()]
    for name in carried:
        shutil.copyfile(source / name, folder / name)
    files = {name: describe(folder / name) for name in (ONNX_NAME, *carried)}
    description = json.loads((source / DESCRIPTION_NAME).read_text(encoding="utf-8"))
    write_json(folder / DESCRIPTION_NAME, description | {"files": files})


def onnx_runtime(predictor: Predictor, file: Path) -> Runtime:
    """Return what answers by an ONNX file, on the CPU."""
    session = open_session(file)

    def answer(squares: NDArray[np.uint8]) -> Answers:
        probabilities, labels = session.run(list(OUTPUTS), {INPUT: _normalised(predictor, squares)})
        return probabilities, labels

    return answer


def write_int8(folder: Path, predictor: Predictor, training: NDArray[np.uint8]) -> Runtime:
    """Write ``model-int8.onnx`` beside ``model.onnx``: convolutions and head in 8 bits, all but the first convolution.

    Args:
        folder: with the other file.
        predictor: the model.
        training: squares uint8 [n, s, s, 3] of training images, by which ranges are chosen; never test images.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Squares(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._parts = _parts(training)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self._parts, None)
            return None if part is None else {INPUT: _normalised(predictor, part)}

    with _quiet(), replacing(folder / INT8_NAME) as temporary:
        prepared = temporary.with_suffix(".prepared")
        try:
            quant_pre_process(str(folder / FORMATS["onnx"]), str(prepared), skip_symbolic_shape=True)
            nodes = onnx.load(str(prepared)).graph.node
            quantize_static(
                str(prepared),
                str(temporary),
                Squares(),
                nodes_to_exclude=[node.name for node in nodes if node.op_type == "Conv"][:1],
                op_types_to_quantize=["Conv", "Gemm"],
                per_channel=True,
                reduce_range=True,  # without it processors that have no VNNI overflow
                weight_type=QuantType.QInt8,
                extra_options={"CalibMovingAverage": True},
            )
        finally:
            prepared.unlink(missing_ok=True)
    return onnx_runtime(predictor, folder / INT8_NAME)


def compare_answers(predictor: Predictor, runtime: Runtime, pixels: NDArray[np.uint8] | None) -> Agreement:
    """Return how a written file answers beside the model, on squares uint8 [b, s, s, 3]; None draws patterns."""
    pixels = _draw(predictor.image_size) if pixels is None else pixels
    same, most = 0, 0.0
    for squares in _parts(pixels):
        (wanted, classes), (given, said) = answers_of(predictor, squares), runtime(squares)
        same, most = same + int((classes == said).sum()), max(most, float(np.abs(wanted - given).max()))
    return Agreement(len(pixels), same, most)


def count_hits(
    predictor: Predictor, runtime: Runtime, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[int, int]:
    """Return how many of these images the model, and a written file, have right."""
    parts = [(answers_of(predictor, squares)[1], runtime(squares)[1]) for squares in _parts(pixels)]
    ours, theirs = (np.concatenate(each) for each in zip(*parts, strict=True))
    return int((ours == labels).sum()), int((theirs == labels).sum())


def write_preprocess(folder: Path, predictor: Predictor, checked: dict[str, Any]) -> None:
    """Write ``preprocess.json``: what the network takes, what it answers, and how it was checked; the last file."""
    network = _network(predictor)
    write_json(
        folder / PREPROCESS_NAME,
        {
            "steps": [
                "decode; a JPEG may be decoded smaller, but with no side under least_pixels",
                "turn upright by its EXIF orientation; transparency over white; RGB",
                "squash to image_size × image_size, the sides' ratio is not kept: Pillow's BICUBIC, reducing_gap=3",
                "divide by 255, subtract mean, divide by std, a number a channel; channels first",
            ],
            "image_size": predictor.image_size,
            "least_pixels": max(LEAST_PIXELS, 2 * predictor.image_size),
            "mean": list(network.backbone.mean),
            "std": list(network.backbone.std),
            "input": {"images": "float32 [b, 3, image_size, image_size], any b"},
            "outputs": _outputs(predictor),
            "temperature": predictor.confidence.temperature,
            "classes": list(predictor.classes),
            **({"gallery": list(predictor.gallery.images)} if predictor.gallery else {}),
            "checked": checked,
        },
    )


def _outputs(predictor: Predictor) -> dict[str, str]:
    """Return the names of a graph's outputs, in order, with what they are."""
    texts = ["float32 [b, c], calibrated", "int64 [b], a position in classes"]
    if predictor.gallery is None:
        return dict(zip((*OUTPUTS, LOGITS), [*texts, "float32 [b, c], not calibrated"], strict=True))
    texts += ["int64 [b, k], positions in gallery, nearest first", "float32 [b, k]"]
    texts += ["float32 [b, d], as the network gives them, before any whitening"]
    return dict(zip((*OUTPUTS, *NEAR_OUTPUTS, EMBEDDINGS), texts, strict=True))


def _network(predictor: Predictor) -> Any:
    assert isinstance(predictor.engine, TorchEngine)
    return predictor.engine.network


def _parts(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for first in range(0, len(pixels), _AT_ONCE):
        yield np.asarray(pixels[first : first + _AT_ONCE])


def _normalised(predictor: Predictor, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return squares as the network takes them, float32 [b, 3, s, s]."""
    backbone = _network(predictor).backbone
    return normalised(squares, backbone.mean, backbone.std)


def _arrays(found: tuple[torch.Tensor, ...]) -> Answers:
    return found[0].numpy(), found[1].numpy()


def _draw(size: int) -> NDArray[np.uint8]:
    """Return coarse patterns uint8 [64, s, s, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (_DRAWN, 8, 8, 3), dtype=np.uint8)
    places = np.arange(size) * 8 // size
    return coarse[:, places][:, :, places]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and advice from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
