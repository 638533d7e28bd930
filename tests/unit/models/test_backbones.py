"""Backbones: widths, stages, random weights, and embeddings by every pooling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from carcls.catalog import BACKBONES, find_backbone
from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.families import preflight
from carcls.models.backbones import Backbone, build_backbone, generalized_mean
from carcls.models.classifier import build_network, stand_in
from carcls.seeding import derived_seed

CATALOG = [record.name for record in BACKBONES.values() if record.source != "scratch"]
# One of each build: plain residual, tokens with parameters of their own, stages in a container, a head that stays.
TIMM = ["timm:resnet18", "timm:vit_tiny_patch16_224", "timm:convnext_atto", "timm:mobilenetv3_small_050"]
NAMES = [*CATALOG, *TIMM]

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


@pytest.fixture(scope="module", params=[*NAMES, "scratch"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each backbone of the catalog, some of timm's, and a scratch network."""
    config = TrialConfig(backbone=request.param, image_size=64, depth=3, stem="resnet", batch_norm=True)
    return build_network(config).eval()


def _norms(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_takes_other_sizes_than_it_was_trained_on(name: str) -> None:
    """Its positions are resized for them; at its own size it answers bit for bit as the network that takes no other."""
    backbone, fixed = build_backbone(f"timm:{name}").eval(), timm.create_model(name, num_classes=0).eval()
    fixed.load_state_dict(backbone.body.state_dict())
    assert backbone.fixed_size is None
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 96, 96)).isfinite().all()
        images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        assert torch.equal(backbone(images), fixed(images))


def test_stages_hold_everything_once_and_follow_the_way_of_the_image(backbone: Backbone) -> None:
    """They hold every parameter and every BatchNorm once, have names of their own, and are run in their order.

    What comes out is one finite embedding [d] an image, with d as the backbone announces.
    """
    modules = backbone.last_stages(len(backbone.stage_paths))
    for found in (lambda module: [*module.parameters()], _norms):
        held = [id(part) for module in modules for part in found(module)]
        assert sorted(held) == sorted(id(part) for part in found(backbone))
    order, names = list[str](), [name for name, _ in backbone.stage_paths]
    for name, paths in backbone.stage_paths:
        backbone.body.get_submodule(paths[-1]).register_forward_hook(lambda *_, name=name: order.append(name))
    side = backbone.fixed_size or 64
    with torch.no_grad():
        embeddings = backbone(torch.randn(2, 3, side, side))
    assert embeddings.shape == (2, backbone.embedding)
    assert embeddings.isfinite().all()
    assert len(set(names)) == len(names)
    assert order == names


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_tells_the_truth(name: str) -> None:
    """What the catalog says of a backbone is what building it gives; so is what stands in for one nobody needs."""
    record, backbone, bare = find_backbone(name), build_backbone(name), stand_in(name)
    assert tuple(stage for stage, _ in backbone.stage_paths) == record.stages
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(record.parameters, abs=0.06)
    assert bare is not None
    assert (bare.embedding, bare.mean, bare.std) == (backbone.embedding, backbone.mean, backbone.std)


@pytest.mark.parametrize("name", CATALOG)
def test_random_weights_are_a_function_of_the_seed(name: str) -> None:
    """Equal seeds give equal weights, another seed gives others; nothing is drawn from the global generator."""
    state = torch.random.get_rng_state()
    first, again, other = (dict(build_backbone(name, seed).named_parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_torchvisions_networks_are_torchvisions(name: str) -> None:
    """timm's have the same tensors under the same names, and random weights and embeddings to the last bit."""
    ours = build_backbone(name, 3).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(3, "backbone"))
        theirs = torchvision.models.get_model(name, weights=None).eval()
    theirs.register_module("fc" if name == "resnet50" else "classifier", nn.Identity())
    state = ours.body.state_dict()
    assert list(state) == list(theirs.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in theirs.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_families_load_without_the_libraries_that_build_networks() -> None:
    """Both take seconds, in the driver and again in each process."""
    code = "import sys, carcls.families.classifying, carcls.families.retrieval\n"
    code += "print({'timm', 'torchvision'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("timm:resnet19", "timm:resnet18"),
        ("timm:resnet18.a1_in1", "timm:resnet18.a1_in1k"),
        ("resnet5", "resnet50"),
    ],
)
def test_an_unknown_backbone_names_the_nearest(name: str, hint: str) -> None:
    """A mistyped backbone is refused in one line that names the nearest known one."""
    with pytest.raises(InputError, match="Did you mean") as caught:
        build_backbone(name)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_generalized_mean_is_its_formula() -> None:
    """On maps with negative numbers it is (mean of max(x, 1e-6)³)^(1/3), place by place."""
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = [
        [np.mean(np.maximum(m, 1e-6).ravel() ** 3) ** (1 / 3) for m in image] for image in maps.double().numpy()
    ]
    np.testing.assert_allclose(generalized_mean(maps).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", LAST)
def test_every_pooling_is_of_the_maps_that_the_network_pools(name: str) -> None:
    """One pass gives the network's own embedding, and the maximum and the generalized mean of its last feature maps."""
    backbone, images, seen = build_backbone(name).eval(), torch.randn(2, 3, 64, 64), list[Tensor]()
    with torch.inference_mode():
        own = backbone(images)
        last = backbone.body.get_submodule(LAST[name])
        last.register_forward_hook(lambda _module, _given, output: seen.append(output))
        pooled = backbone.every_pooling(images)
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
        pooled = backbone.every_pooling(images)
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
