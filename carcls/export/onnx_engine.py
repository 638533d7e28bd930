"""The network of an exported ONNX model, computed by onnxruntime on the CPU, without PyTorch.

Letters: b images, c classes, d embedding, s side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carcls.errors import InputError
from carcls.machine import usable_cores

ONNX_NAME = "model.onnx"
INPUT, OUTPUTS, NEAR_OUTPUTS = "images", ("probabilities", "label"), ("neighbours", "distances")
LOGITS, EMBEDDINGS = "logits", "embeddings"
"""The last output of a classifier's graph, and of one whose neighbours answer."""
_PIXELS = 8 * 224**2
"""That a core answers at a time."""


class OnnxEngine:
    """Computes logits, or the embeddings by which neighbours are found.

    Args:
        file: an ONNX file that ``carcls.export.formats`` wrote.
        image_size: s.
        mean, std: of the colours, in units of [0, 1] pixels.
        output: ``LOGITS`` or ``EMBEDDINGS``.

    Raises:
        InputError: onnxruntime is not installed.
        ValueError: the file is none, or of another model, or these are no three colours.
    """

    def __init__(self, file: Path, image_size: int, mean: Sequence[float], std: Sequence[float], output: str) -> None:
        self._session, self._size, self._output = open_session(file), image_size, output
        self._mean, self._std = (np.asarray(colours, np.float32).reshape(3) for colours in (mean, std))
        widths = {each.name: each.shape[1:] for each in self._session.get_outputs()}
        if self._session.get_inputs()[0].shape[1:] != [3, image_size, image_size] or output not in widths:
            raise ValueError("a graph of another model")
        (self.width,) = widths[output]

    @property
    def batch(self) -> int:
        """How many images it answers best at a time."""
        return max(1, usable_cores() * _PIXELS // self._size**2)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [b, c] or embeddings [b, d] of RGB images uint8 [b, s, s, 3]."""
        found: NDArray[np.float32]
        (found,) = self._session.run([self._output], {INPUT: normalised(pixels, self._mean, self._std)})
        return found


def open_session(file: Path) -> Any:
    """Return onnxruntime's session of a file, on all cores that this process may use; errors as ``OnnxEngine``."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{file.name} needs onnxruntime. Run: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = usable_cores(), 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds have no other base
        raise ValueError(str(error)) from error


def normalised(pixels: NDArray[np.uint8], mean: ArrayLike, std: ArrayLike) -> NDArray[np.float32]:
    """Return RGB images uint8 [b, s, s, 3] as networks take them, float32 [b, 3, s, s]."""
    wide = (pixels / np.float32(255) - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(wide.transpose(0, 3, 1, 2))
