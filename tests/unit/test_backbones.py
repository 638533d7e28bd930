"""Backbones: widths, stages and random weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from carcls.catalog import BACKBONES, find_backbone
from carcls.errors import InputError
from carcls.models.backbones import Backbone, backbone_later, build_backbone

CATALOG = [record.name for record in BACKBONES if record.source != "scratch"]
# One of each build: plain residual, tokens with parameters of their own, stages in a container, a head that stays.
TIMM = ["timm:resnet18", "timm:vit_tiny_patch16_224", "timm:convnext_atto", "timm:mobilenetv3_small_050"]
NAMES = [*CATALOG, *TIMM]


@pytest.fixture(scope="module", params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each backbone of the catalog, and some of timm's."""
    return build_backbone(request.param).eval()


def _norms(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]


def test_embeddings_have_the_announced_width(backbone: Backbone) -> None:
    """A backbone gives one finite embedding [d] an image, with d as it announces."""
    side = backbone.fixed_size or 64
    with torch.no_grad():
        embeddings = backbone(torch.randn(2, 3, side, side))
    assert embeddings.shape == (2, backbone.embedding)
    assert embeddings.isfinite().all()


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


def test_pooling_the_feature_maps_gives_the_embedding(backbone: Backbone) -> None:
    """Where a backbone has feature maps, pooling them is bit for bit what the whole network gives."""
    side = backbone.fixed_size or 64
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert (backbone.maps is None) == (backbone.name == "timm:vit_tiny_patch16_224")
    if backbone.maps is not None:
        with torch.no_grad():
            assert torch.equal(backbone.pooled(backbone.maps(images)), backbone(images))


def test_stages_hold_every_parameter_once(backbone: Backbone) -> None:
    """The stages together hold every parameter of the backbone exactly once."""
    held = [id(p) for _, modules in backbone.stage_modules for module in modules for p in module.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in backbone.parameters()}


def test_stages_hold_every_batchnorm_once(backbone: Backbone) -> None:
    """The stages together hold every BatchNorm of the backbone exactly once."""
    held = [id(norm) for _, modules in backbone.stage_modules for module in modules for norm in _norms(module)]
    assert sorted(held) == sorted(id(norm) for norm in _norms(backbone))


def test_stages_follow_the_way_of_the_image(backbone: Backbone) -> None:
    """The stages are named once each and are run from the first to the last."""
    order: list[str] = []
    hooks = [
        modules[-1].register_forward_hook(lambda *_, name=name: order.append(name))
        for name, modules in backbone.stage_modules
        if not isinstance(modules[-1], nn.ParameterList)
    ]
    side = backbone.fixed_size or 64
    with torch.no_grad():
        backbone(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    names = [name for name, _ in backbone.stage_modules]
    assert len(set(names)) == len(names)
    assert order == names


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_tells_the_truth(name: str) -> None:
    """What the catalog says of a backbone is what building it gives."""
    record, backbone = find_backbone(name), build_backbone(name)
    assert backbone.embedding == record.embedding
    assert tuple(stage for stage, _ in backbone.stage_modules) == record.stages
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(record.parameters, abs=0.06)


@pytest.mark.parametrize("name", CATALOG)
def test_random_weights_are_a_function_of_the_seed(name: str) -> None:
    """Equal seeds give equal weights, another seed gives others."""
    first, again, other = (dict(build_backbone(name, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", CATALOG)
def test_a_backbone_for_later_is_the_one_that_is_built(name: str) -> None:
    """Whoever finds all embeddings in the store builds no network; what it needs to know of one is the same."""
    later, built = backbone_later(name, lambda: build_backbone(name)), build_backbone(name)
    assert later is not None
    assert (later.embedding, later.mean, later.std) == (built.embedding, built.mean, built.std)


def test_families_load_without_the_libraries_that_build_networks() -> None:
    """Both take seconds, in the driver and again in each process."""
    code = "import sys, carcls.families.classifying, carcls.families.retrieval\n"
    code += "print({'timm', 'torchvision'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_building_leaves_the_random_state_alone() -> None:
    """Building a backbone draws nothing from the global generator."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_backbone("efficientnet_lite0")
    assert torch.equal(torch.rand(3), expected)


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
