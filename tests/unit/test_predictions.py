"""Stored answers to the test images, read back from files that may come from a server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carcls.errors import InputError
from carcls.evaluation.metrics import softmax
from carcls.evaluation.predictions import read_predictions
from carcls.training.trained import save_predictions


def test_what_a_trial_writes_is_read_back(tmp_path: Path) -> None:
    """Rows, labels and the likeliest class of each row of logits come back, with their accuracy."""
    logits = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    rows, labels = np.arange(20, 29), np.arange(9) % 4
    save_predictions(tmp_path / "p.npz", rows, labels, logits.argmax(axis=1), softmax(logits))
    stored = read_predictions(tmp_path / "p.npz")
    assert stored.rows.tolist() == rows.tolist()
    assert stored.labels.tolist() == labels.tolist()
    assert stored.predicted.tolist() == [int(np.argmax(row)) for row in logits]
    assert stored.accuracy == np.mean([int(np.argmax(row)) == label for row, label in zip(logits, labels, strict=True)])


N = np.arange(3)


def _stored(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _one_array() -> bytes:
    file = io.BytesIO()
    np.save(file, N)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _stored(rows=N, labels=N),
        _stored(rows=N, labels=N[:2], predicted=N),
        _stored(rows=N[:0], labels=N[:0], predicted=N[:0]),
        _stored(rows=N, labels=N, predicted=N / 2),
        _stored(rows=N, labels=N, predicted=np.array([{}, {}, {}], dtype=object)),
        _stored(rows=N[:, None], labels=N[:, None], predicted=N[:, None]),
        b"",
        b"text",
        b"PK\x03\x04 not a zip",
        _stored(rows=np.arange(999), labels=np.arange(999), predicted=np.arange(999))[:900],
        _one_array(),
    ],
    ids=[
        "missing",
        "lengths",
        "empty",
        "floating",
        "pickled",
        "shape",
        "nothing",
        "text",
        "no zip",
        "cut",
        "one array",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """Other arrays, what is no .npz, and only the beginning of one are one kind of error."""
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.npz must hold rows, labels and predicted as whole numbers") as caught:
        read_predictions(tmp_path / "p.npz")
    assert "\n" not in str(caught.value)
