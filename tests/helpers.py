"""What several tests read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from carcls.stages import LOG, StageStore
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree


def events_of(store: StageStore) -> list[SimpleNamespace]:
    """Return the lines of a store's log, oldest first: ``kind``, ``digest``, ``event``, ``seconds``, ``pid``."""
    log = store.root / LOG
    return [SimpleNamespace(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def spec_of_yaml(text: str, source: str = "spec.yaml") -> SweepSpec:
    """Return the spec that ``SweepSpec.to_yaml`` wrote."""
    return SweepSpec.from_tree(read_tree(text, source))


def draw_pictures(root: Path, classes: int = 4, train: int = 10, test: int = 4) -> Path:
    """Draw class folders with a test split: every picture another one, 96 x 64 pixels."""
    for label in range(classes):
        for split, first, count in (("train", 0, train), ("test", 500, test)):
            folder = root / split / f"Make Model {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = np.random.default_rng(1000 * label + first + number).integers(0, 256, (6, 9, 3), np.uint8)
                picture = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
                picture.save(folder / f"{number:05d}.jpg")
    return root
