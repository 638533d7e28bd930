"""Embeddings by every pooling, from one forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.families import preflight
from carcls.models.backbones import Backbone, build_backbone
from carcls.models.pooling import generalized_mean, pooled_embeddings

# The module whose output, after a ReLU where it has none of its own, is what the network pools.
LAST = {
    "resnet50": "layer4",
    "densenet121": "features",
    "efficientnet_lite0": "bn2",
    "timm:resnet10t": "layer4",
    "timm:convnext_atto": "stages",
}
# Tokens instead of maps; maps that are widened only after the pooling.
WITHOUT_MAPS = ["timm:vit_tiny_patch16_224", "timm:mobilenetv3_small_050"]


@pytest.fixture
def images() -> Tensor:
    """Two random images, float [2, 3, 64, 64]."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _maps_and_passes(backbone: Backbone, path: str) -> list[Tensor]:
    """Return a list that receives the output of a module at each forward pass."""
    seen: list[Tensor] = []
    backbone.body.get_submodule(path).register_forward_hook(lambda _module, _given, output: seen.append(output))
    return seen


def test_generalized_mean_is_its_formula() -> None:
    """On maps with negative numbers it is (mean of max(x, 1e-6)³)^(1/3), place by place."""
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = [
        [np.mean(np.maximum(m, 1e-6).ravel() ** 3) ** (1 / 3) for m in image] for image in maps.double().numpy()
    ]
    np.testing.assert_allclose(generalized_mean(maps).numpy(), expected, rtol=1e-5)


def test_generalized_mean_lies_between_average_and_maximum() -> None:
    """Of maps that are nowhere negative it is at least the average and at most the maximum; of equal ones, both."""
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    mean = generalized_mean(maps)
    assert (mean > maps.mean(dim=(2, 3))).all()
    assert (mean < maps.amax(dim=(2, 3))).all()
    assert torch.allclose(generalized_mean(torch.full((1, 1, 3, 3), 0.7)), torch.tensor(0.7))


@pytest.mark.parametrize("name", LAST)
def test_every_pooling_is_of_the_maps_that_the_network_pools(name: str, images: Tensor) -> None:
    """One pass gives the network's own embedding, and the maximum and the generalized mean of its last feature maps."""
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        own = backbone(images)
        seen = _maps_and_passes(backbone, LAST[name])
        pooled = pooled_embeddings(backbone, images)
    assert len(seen) == 1
    maps = functional.relu(seen[0]) if name == "densenet121" else seen[0]
    assert set(pooled) == {"average", "max", "gem"}
    assert all(part.shape == (2, backbone.embedding) and part.dtype == torch.float32 for part in pooled.values())
    assert torch.equal(pooled["average"], own)
    assert torch.equal(pooled["max"], maps.flatten(2).max(dim=2).values)
    assert torch.equal(pooled["gem"], generalized_mean(maps))


@pytest.mark.parametrize("name", WITHOUT_MAPS)
def test_other_networks_have_their_own_embedding_only(name: str) -> None:
    """Tokens, and maps that are not as wide as the embedding, are pooled as the network does and in no other way."""
    backbone = build_backbone(name).eval()
    side = backbone.fixed_size or 64
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled = pooled_embeddings(backbone, images)
        assert set(pooled) == {"average"}
        assert torch.equal(pooled["average"], backbone(images))


@pytest.mark.parametrize("pooling", ["max", "gem"])
def test_a_pooling_that_the_backbone_lacks_is_refused(pooling: str, tmp_path: Path) -> None:
    """A backbone without maps takes average only, and says so in one line with the remedy; one with maps takes all."""
    backbone = "timm:vit_tiny_patch16_224"
    vit = TrialConfig(family="retrieval", backbone=backbone, weights="random", pooling=pooling)
    message = rf"pooling must be average for timm:vit_tiny.*got '{pooling}'.*--set pooling=average"
    with pytest.raises(InputError, match=message) as caught:
        preflight([vit], tmp_path)
    assert "\n" not in str(caught.value)
    preflight([vit.model_copy(update={"pooling": "average"})], tmp_path)
    preflight([vit.model_copy(update={"backbone": "timm:resnet10t", "image_size": 64})], tmp_path)


def test_feature_maps_hold_no_parameters_of_their_own() -> None:
    """A backbone's state dict has the tensors of its body and nothing twice, though its maps run the same modules."""
    backbone = build_backbone("resnet50")
    assert all(name.startswith("body.") for name in backbone.state_dict())
    assert len(list(backbone.parameters())) == len(list(backbone.body.parameters()))
