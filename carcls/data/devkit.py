"""The devkit of Stanford Cars, written: its annotations are MATLAB files.

MATLAB counts pixels from 1 and both corners of a box belong to it; here they count from 0 and the far corner does not,
so x1 and y1 lose one and x2 and y2 stay. Classes count from 1 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carcls.data.manifest import ImageRecord

TRAIN_ANNOTATIONS = "cars_train_annos.mat"
TEST_ANNOTATIONS = "cars_test_annos_withlabels.mat"
CLASS_NAMES = "cars_meta.mat"
NUMBERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")
"""Fields of an annotation."""


def write_devkit(root: Path, classes: Sequence[str], images: Sequence[ImageRecord]) -> None:
    """Write the annotations of images that lie in ``root`` into ``root/devkit``, those of test last.

    Args:
        root: a folder with ``cars_train/`` and ``cars_test/``.
        classes: names; an image's label is a position in them.
        images: with boxes, in ``cars_train/`` and ``cars_test/`` by their split.
    """
    from scipy.io import savemat  # here because it takes a tenth of a second to import

    devkit = root / "devkit"
    devkit.mkdir()
    savemat(devkit / CLASS_NAMES, {"class_names": np.array([list(classes)], dtype=object)}, do_compression=True)
    for split, file in (("train", TRAIN_ANNOTATIONS), ("test", TEST_ANNOTATIONS)):
        rows = []
        for image in images:
            if image.split == split:
                assert image.box is not None
                x1, y1, x2, y2 = image.box
                rows.append((x1 + 1, y1 + 1, x2, y2, image.label + 1, Path(image.path).name))
        fields = [(name, object) for name in (*NUMBERS, "fname")]
        savemat(devkit / file, {"annotations": np.array([rows], dtype=fields)}, do_compression=True)
