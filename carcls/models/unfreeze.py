"""Which parts of a classifier train: the modes of its modules and which parameters have gradients."""

from __future__ import annotations

from copy import deepcopy

import torch

from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier


def open_backbone(classifier: Classifier, count: int) -> None:
    """Let the last ``count`` stages of the backbone (from the head's side), the dropout and the head train.

    All other stages get no gradients and stay in evaluation mode, so that the running statistics of a frozen BatchNorm
    do not move. Call it again after an evaluation: ``eval()`` takes every module out of training mode.

    Args:
        count: from 0 (only the head trains) to the number of stages (everything trains).
    """
    stages = classifier.backbone.stage_modules
    assert 0 <= count <= len(stages)
    classifier.train()
    classifier.backbone.eval()
    classifier.backbone.requires_grad_(False)
    for _, modules in stages[len(stages) - count :]:
        for module in modules:
            module.train()
            module.requires_grad_(True)
    classifier.head.requires_grad_(True)


def trains_on_one_image(backbone: Backbone, side: int) -> bool:
    """Tell whether the backbone, its modules in the modes they are in, can train on one image of ``side`` pixels.

    A BatchNorm that trains takes the variance of each channel over images and places. One image has one value a channel
    where the maps have shrunk to a single place, which PyTorch refuses. A copy without memory is asked.
    """
    copy = deepcopy(backbone).to("meta")
    try:
        with torch.inference_mode():
            copy(next(copy.parameters()).new_zeros((1, 3, side, side)))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True
