"""How tests of the report make a data set of noise, and answers to its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.stages import StageStore

HOSTILE = '<img src=x onerror=alert(1)> "&", Coupe 2012'
NAMES = sorted(["Aston Martin V8 Coupe 2012", "BMW M3 Coupe 2012", "BMW M5 Sedan 2010", HOSTILE])
SIZE = 32


def noisy_cars(root: Path) -> tuple[Dataset, StageStore]:
    """Return cars of noise in four classes, packed in ``root/out/stages``."""
    random = np.random.default_rng(0)
    for name in NAMES:
        for number in range(20):
            path = root / "cars" / ("train" if number < 15 else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    stages = StageStore(root / "out" / "stages")
    config = DataConfig(path=str(root / "cars"), validation_fraction=0.4)
    return prepare_dataset(config, stages, SIZE), stages


def write_answers(path: Path, data: Dataset, rows: np.ndarray, *, seed: int = 0, shares: bool = True) -> dict[str, Any]:
    """Write answers to these rows, a good half of them right; return what was written."""
    rng, labels = np.random.default_rng(seed), data.labels[rows]
    logits = rng.normal(size=(len(rows), len(data.classes)))
    logits[np.arange(len(rows)), labels] += 1.0
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    arrays = {"rows": rows, "labels": labels, "predicted": probabilities.argmax(axis=1)}
    arrays |= {"probabilities": probabilities} if shares else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays
