"""The backbones: an image in, one pooled embedding out, and the stages that an unfreezing schedule unfreezes.

timm builds them; here their heads are taken off and their modules are grouped into stages. timm loads for seconds, most
of it PyTorch's compiler, and many trials need no network: it is imported where one is built.

Letters: b batch, d embedding, h, w places of a feature map.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from carcls.catalog import IMAGENET_MEAN, IMAGENET_STD, TIMM_PREFIX, Colour, find_backbone
from carcls.config import Pooling
from carcls.errors import InputError
from carcls.seeding import drawing

StagePaths = tuple[tuple[str, tuple[str, ...]], ...]

GEM_POWER = 3.0
_GEM_FLOOR = 1e-6
_CONTAINERS = ("blocks", "stages", "layers", "features")


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
        has_maps: whether the body is timm's ``forward_features``, to feature maps, and then ``forward_head``.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        embedding: int,
        stage_paths: StagePaths,
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
        fixed_size: int | None = None,
        has_maps: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.embedding = embedding
        self.stage_paths = stage_paths
        self.mean = mean
        self.std = std
        self.fixed_size = fixed_size
        self.has_maps = has_maps

    def last_stages(self, count: int) -> list[nn.Module]:
        """Return the modules of the last ``count`` stages, in the order of the computation.

        All stages together hold every parameter and every BatchNorm exactly once.
        """
        own = dict(self.body.named_parameters(recurse=False))
        paths = [path for _, paths in self.stage_paths[len(self.stage_paths) - count :] for path in paths]
        return [nn.ParameterList([own[path]]) if path in own else self.body.get_submodule(path) for path in paths]

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [b, d], globally pooled, of normalised images float [b, 3, h, w]."""
        embeddings: Tensor = self.body(images)
        return embeddings

    def every_pooling(self, images: Tensor) -> dict[Pooling, Tensor]:
        """Return embeddings float32 [b, d] of normalised images [b, 3, h, w] by every pooling, from one forward pass.

        ``average`` is the network's own embedding, whatever the network does to get it; it is the only one where the
        network has no feature maps of its embedding's width.
        """
        if not self.has_maps:
            return {"average": self(images).float()}
        body: Any = self.body
        maps: Tensor = body.forward_features(images)  # [b, d, h, w]
        embeddings: dict[Pooling, Tensor] = {"average": body.forward_head(maps, pre_logits=True).float()}
        if maps.ndim == 4 and maps.shape[1] == self.embedding:
            wide = maps.float()
            embeddings |= {"max": wide.amax(dim=(2, 3)), "gem": generalized_mean(wide)}
        return embeddings


def generalized_mean(maps: Tensor) -> Tensor:
    """Return (mean of x³)^(1/3) over all places, [b, d], of maps [b, d, h, w] cut off at 10⁻⁶ (Radenović et al. 2018).

    It lies between the average and the maximum.
    """
    return maps.clamp(min=_GEM_FLOOR).pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)


def build_backbone(name: str, seed: int = 0) -> Backbone:
    """Build a backbone with random weights that depend on ``seed`` alone; the global random state is left as it was.

    Raises:
        InputError: the name is unknown, to us or to timm; the message names the nearest.
    """
    record = find_backbone(name)
    check_timm_name(record.model)
    import timm.data

    with drawing(seed, "backbone"):
        body, takes_any_size = _build_body(record.model, record.options)
    settings = timm.data.resolve_model_data_config(body)
    return Backbone(
        name,
        body,
        embedding=int(getattr(body, "head_hidden_size", None) or body.num_features),
        stage_paths=_stage_paths(body, record.stages),
        mean=settings["mean"],
        std=settings["std"],
        fixed_size=None if takes_any_size else settings["input_size"][-1],
        # Only convolutional models keep their feature maps in this form up to the pooling.
        has_maps=bool(body.pretrained_cfg.get("pool_size")) and hasattr(body, "forward_head"),
    )


def _build_body(model: str, options: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return a model without its head, and whether it takes images of other sizes than its weights were trained on.

    Transformers whose positions are made for one size can have them resized for each batch, if they are built so.
    """
    import timm

    if timm.get_pretrained_cfg(model).fixed_input_size:
        with suppress(TypeError):  # no such option
            return timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True), True
    body: Any = timm.create_model(model, pretrained=False, **{"num_classes": 0, **options})
    if "num_classes" in options:
        body.reset_classifier(0)
    return body, not body.pretrained_cfg.get("fixed_input_size")


def check_timm_name(model: str) -> None:
    """Raise InputError, naming the nearest models, unless timm has ``model`` (``resnet18`` or ``resnet18.a1_in1k``)."""
    import timm

    named, _, tag = model.partition(".")
    if timm.is_model(named):
        known = timm.list_pretrained(f"{named}.*")
        if not tag or model in known:
            return
        named = model
    else:
        known = timm.list_models()
    close = difflib.get_close_matches(named, known, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(TIMM_PREFIX + near for near in close)}?" if close else ""
    raise InputError(
        f"backbone must name a model that timm has, got {TIMM_PREFIX + named!r}.{hint} "
        "timm.list_models() lists them all."
    )


def _stage_paths(body: nn.Module, known: Sequence[str]) -> StagePaths:
    """Group the children of a timm model: what holds parameters in grandchildren is a stage.

    Small modules before the first stage are the ``stem``, those after the last are the ``top``, others belong to the
    stage before them. Containers of blocks are taken apart. Parameters of the model itself belong to the first stage.

    Args:
        body: the model.
        known: names of the stages where the catalog has them: stages are what is called so, and nothing else is.
    """
    units = list(_units(body))
    called = [path.removeprefix("features.") if known else path for path, _ in units]
    starts = [i for i, (_, module) in enumerate(units) if called[i] in known or (not known and _is_stage(module))]
    names = ["top" if called[i] == "head" else called[i] for i in starts]
    if 0 not in starts:
        starts, names = [0, *starts], ["stem", *names]
    after = starts[-1] + 1
    if len(starts) > 1 and (not known or "top" in known) and any(_has_parameters(unit) for _, unit in units[after:]):
        starts, names = [*starts, after], [*names, "top"]
    pieces = [[path for path, _ in units[start:end]] for start, end in pairwise([*starts, len(units)])]
    pieces[0][:0] = [name for name, _ in body.named_parameters(recurse=False)]
    return tuple((name, tuple(piece)) for name, piece in zip(names, pieces, strict=True))


def _units(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in body.named_children():
        if name in _CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in child.named_children())
        else:
            yield name, child


def _is_stage(module: nn.Module) -> bool:
    return any(_has_parameters(child) for child in module.children())


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
