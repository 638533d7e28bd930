"""Where a network looked: the places of an image whose features speak for its answer (Selvaraju et al. 2017, Grad-CAM).

Letters: s side of the image in pixels; d, h, w the last feature maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.export import Predictor


def saliency(predictor: Predictor, pixels: NDArray[np.uint8], label: int) -> NDArray[np.float32] | None:
    """Return how much each place speaks for the answer, float32 [h, w] in 0..1; None where it cannot be said.

    Of a classifier: the gradient of the class's logit, above the mean of all, by the last feature maps, averaged over
    places, times the maps. (Features that speak for every class alike would drown the others.) Where neighbours answer,
    the embedding takes the gradient's place: what makes up the embedding, whatever the class.

    Args:
        predictor: of one that PyTorch does not compute, and of a network without maps, it cannot be said.
        pixels: RGB, uint8 [s, s, 3].
        label: the class, a position in the predictor's classes.
    """
    network: Any = getattr(predictor.engine, "network", None)
    if network is None or not network.backbone.has_maps:
        return None
    import torch  # which a model as ONNX does without

    backbone, parameter = network.backbone, next(network.parameters())
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (backbone.mean, backbone.std))
    image = (torch.from_numpy(pixels[None].copy()).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        maps = backbone.body.forward_features(image.to(parameter.device))
    if maps.ndim != 4:
        return None
    with torch.enable_grad():
        maps.requires_grad_()
        embedding = backbone.body.forward_head(maps, pre_logits=True)
        if predictor.gallery:
            spoken = embedding.square().sum() / 2
        else:
            logits = network.head(embedding)[0]
            spoken = logits[label] - logits.mean()
        (gradient,) = torch.autograd.grad(spoken, maps)
    found = (gradient.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1)[0].clamp(min=0)
    scaled: NDArray[np.float32] = (found / found.max().clamp(min=1e-12)).cpu().numpy()
    return scaled
