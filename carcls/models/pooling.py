"""From the feature maps of a backbone to embeddings, in every way that there is.

Letters: b batch, d embedding, h, w places of a feature map.
"""

from __future__ import annotations

from torch import Tensor

from carcls.config import Pooling
from carcls.models.backbones import Backbone

GEM_POWER = 3.0
_GEM_FLOOR = 1e-6


def generalized_mean(maps: Tensor) -> Tensor:
    """Return (mean of x³)^(1/3) over all places, [b, d], of maps [b, d, h, w] cut off at 10⁻⁶ (Radenović et al. 2018).

    It lies between the average and the maximum.
    """
    return maps.clamp(min=_GEM_FLOOR).pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)


def pooled_embeddings(backbone: Backbone, images: Tensor) -> dict[Pooling, Tensor]:
    """Return embeddings float32 [b, d] of normalised images [b, 3, h, w] by every pooling, from one forward pass.

    ``average`` is the network's own embedding, whatever the network does to get it; it is the only one where the
    network has no feature maps of its embedding's width.
    """
    if backbone.maps is None:
        return {"average": backbone(images).float()}
    maps = backbone.maps(images)  # [b, d, h, w]
    embeddings: dict[Pooling, Tensor] = {"average": backbone.pooled(maps).float()}
    if maps.ndim == 4 and maps.shape[1] == backbone.embedding:
        wide = maps.float()
        embeddings |= {"max": wide.amax(dim=(2, 3)), "gem": generalized_mean(wide)}
    return embeddings
