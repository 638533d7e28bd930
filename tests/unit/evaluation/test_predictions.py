"""Stored answers to the test images, read back from files that may come from a server."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    "arrays",
    [
        {"rows": np.arange(3), "labels": np.arange(3)},
        {"rows": np.arange(3), "labels": np.arange(2), "predicted": np.arange(3)},
        {"rows": np.arange(0), "labels": np.arange(0), "predicted": np.arange(0)},
        {"rows": np.arange(3), "labels": np.arange(3), "predicted": np.arange(3) / 2},
        {"rows": np.arange(3), "labels": np.arange(3), "predicted": np.array([{}, {}, {}], dtype=object)},
        {"rows": np.zeros((3, 1), int), "labels": np.zeros((3, 1), int), "predicted": np.zeros((3, 1), int)},
    ],
    ids=["missing", "lengths", "empty", "floating", "pickled", "shape"],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    """Missing, unequal, empty, floating, pickled and two-dimensional arrays are one kind of error."""
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=r"p\.npz must hold rows, labels and predicted as whole numbers"):
        read_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize("damage", [b"", b"text", b"PK\x03\x04 not a zip", "cut", "array"])
def test_damaged_files_are_refused(tmp_path: Path, damage: bytes | str) -> None:
    """What is no .npz, or only the beginning of one, is the same error."""
    file = tmp_path / "p.npz"
    np.savez_compressed(file, rows=np.arange(999), labels=np.arange(999), predicted=np.arange(999))
    if damage == "array":
        np.save(tmp_path / "p.npy", np.arange(3))
        (tmp_path / "p.npy").rename(file)
    else:
        file.write_bytes(file.read_bytes()[:900] if damage == "cut" else damage)  # type: ignore[arg-type]  # not "cut"
    with pytest.raises(InputError, match=r"p\.npz must hold rows, labels and predicted"):
        read_predictions(file)
