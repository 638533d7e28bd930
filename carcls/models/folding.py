"""BatchNorm folded into the convolution before it: the same embeddings sooner, where a network only answers.

In evaluation mode BatchNorm multiplies each channel and adds to it, which the convolution's weights and bias can do.
Measured on two cores: 1.2 to 1.4 times the images a second of efficientnet_lite0, 1.1 of ResNet-50.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from carcls.models.backbones import Backbone

TOLERANCE = 1e-3
"""Of the largest number of an embedding, by which folding may change the others; rounding makes about 10⁻⁵."""


def folded(backbone: Backbone, image_size: int) -> Backbone:
    """Return a copy in evaluation mode that gives the same embeddings, up to rounding, with fewer passes over memory.

    Which BatchNorm follows which convolution is seen in one image's way through the network. Where the copy then
    answers that image otherwise than the original, because something else uses a convolution's result as well, it is
    not taken.

    Args:
        backbone: is put into evaluation mode, and else stays as it is.
        image_size: side in pixels of the images that it takes.

    Returns:
        The copy; ``backbone`` itself where nothing can be folded.
    """
    backbone.eval()
    if not any(_remainder(module) for module in backbone.modules()):
        return backbone
    parameter = next(backbone.parameters())
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    image = noise.to(parameter.device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        pairs, expected = _watch(backbone, image)
    copy = deepcopy(backbone).requires_grad_(False)
    for convolution, norm in pairs:
        before, after = cast("nn.Conv2d", copy.get_submodule(convolution)), copy.get_submodule(norm)
        copy.set_submodule(convolution, fuse_conv_bn_eval(before, cast("nn.BatchNorm2d", after)))
        copy.set_submodule(norm, cast("nn.Module", _remainder(after)))
    copy.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        off = (copy(image) - expected).abs().max()
    # False where one is not finite.
    return copy if bool(off <= TOLERANCE * expected.abs().max()) else backbone


def _watch(backbone: Backbone, image: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the paths of each convolution and the BatchNorm that gets its result, and the image's embedding."""
    convolved: dict[int, str] = {}
    kept: list[Tensor] = []  # as long as they live, no other tensor has their identity
    pairs: list[tuple[str, str]] = []

    def note(path: str, module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            convolved[id(result)] = path
            kept.append(result)
        elif _remainder(module) and id(inputs[0]) in convolved:
            pairs.append((convolved[id(inputs[0])], path))

    hooks = [module.register_forward_hook(partial(note, path)) for path, module in backbone.named_modules()]
    try:
        embedding = backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
    # A module that is used twice has two results, or two inputs.
    once = Counter(path for pair in pairs for path in pair)
    return [pair for pair in pairs if all(once[path] == 1 for path in pair)], embedding


def _remainder(module: nn.Module) -> nn.Module | None:
    """Return what a BatchNorm does besides normalising; None if that is unknown, or if it is no BatchNorm."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return nn.Identity()
    if type(module).__name__ == "BatchNormAct2d":  # timm's, of which only the first part is folded
        return nn.Sequential(module.get_submodule("drop"), module.get_submodule("act"))
    return None
