"""Labels that are probably wrong, by linear heads on a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.data.audit import groups_of
from carcls.data.dataset import Dataset
from carcls.evaluation.held_out import HeldOutHeads
from carcls.evaluation.labels import LabelIssue, suspicious_labels
from carcls.stages import StageStore


@dataclass(frozen=True, slots=True)
class LabelAudit:
    """What was asked about the labels of a data set.

    Attributes:
        backbone: whose features the head is on.
        image_size: of its images, in pixels.
        images: how many were asked about, of all splits.
        alone: how many were not, since no picture but copies of them is in their class.
        accuracy: of the head on them, in [0, 1], by the labels as they are.
        issues: the most suspicious first, as many as are worth a look; ``image`` is a row of the data set.
    """

    backbone: str
    image_size: int
    images: int
    alone: int
    accuracy: float
    issues: tuple[LabelIssue, ...]


def audit_labels(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LabelAudit:
    """Look for wrong labels among the readable images of all splits; each image is answered by a head it did not train.

    The features are the stages that trials with a frozen backbone share.

    Args:
        config: whose backbone, weights and image size are used.
        data, stages: of a sweep.
        progress: called with images embedded and images in all while they are.

    Raises:
        WeightsError: the weights cannot be had.
    """
    from carcls.training.trained import TrainedClassifier

    trained = TrainedClassifier(config.model_copy(update={"unfreezing": "frozen"}), data, stages)
    splits = [rows for rows in (data.splits.train, data.splits.validation, data.splits.test) if len(rows)]
    rows, features, done = np.concatenate(splits), list[NDArray[np.float32]](), 0

    def embedded(more: int) -> None:
        nonlocal done
        done += more
        progress(done, len(rows))

    for split in splits:
        features.append(trained.frozen_features(split, embedded))
        done = sum(map(len, features))  # some may have been there
    labels = data.labels[rows]
    heads = HeldOutHeads.fitted(features, labels, len(data.classes), groups_of(data, stages)[rows])
    issues, accuracy, asked = suspicious_labels(labels, heads.answers())
    found = tuple(replace(one, image=int(rows[one.image])) for one in issues)
    return LabelAudit(config.backbone, config.image_size, asked, len(rows) - asked, accuracy, found)
