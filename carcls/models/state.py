"""State dicts into backbones, tensor by tensor, every shape checked. Nothing is unpickled but tensors."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor
from torch.nn import Module

from carcls.errors import WeightsError
from carcls.models.backbones import Backbone

_PREFIX = re.compile(r"^(module|backbone|body)\.")
_HEADS = ("fc.", "_fc.", "classifier.", "head.", "last_linear.")
_COUNTER = "num_batches_tracked"
_PACKAGED_MARK = "_conv_stem.weight"
# torchvision's densenet files were written when module names could hold dots (norm.1 is norm1 now).
_DOTTED = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$")


def load_weights(backbone: Backbone, path: Path | None) -> None:
    """Load the state dict that was found into ``backbone``, in place; None leaves the weights it was built with.

    A classification head in the file is left out; ``module.`` and ``backbone.`` before the names are taken off.

    Raises:
        WeightsError: the file cannot be read, or a tensor is missing, of another shape, or not the backbone's: what is
            left over counts too, since a deeper network of the same make holds all tensors of a shallower one.
    """
    if path is None:
        return
    body: Any = backbone.body
    expected, given = body.state_dict(), _read_state(path)
    if _PACKAGED_MARK in given:
        given = _renamed_in_order(expected, given)
    given = {_clean(name, expected): tensor for name, tensor in given.items()}
    given = {name: tensor for name, tensor in given.items() if name in expected or not name.startswith(_HEADS)}
    try:
        body.load_state_dict(given)
    except RuntimeError as error:
        if not _loads_as_timm_converts(body, given):
            said = shorten(str(error).partition(":")[2], 300, placeholder=" and more")
            raise WeightsError(
                f"weights must fit {backbone.name}, got {str(path)!r}: {said.rstrip('.')}. "
                "Name the file of this backbone, or use --weights random."
            ) from None


def _read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a file that torch.save wrote, by name.

    Raises:
        WeightsError: the file is no such file, or holds more than tensors.
    """
    from timm.models import load_state_dict

    try:
        # Takes a state dict out of the checkpoint around it, the averaged weights first.
        content = load_state_dict(str(path), weights_only=True)
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if not tensors:
            raise ValueError("it holds no tensors")
    except Exception as error:  # each format and each way of being broken has its own
        raise WeightsError(
            "weights must be a state dict of tensors (.safetensors, or .pth loadable with weights_only), got "
            f"{str(path)!r}. Save model.state_dict() instead of the whole model, or name another file."
        ) from error
    return tensors


def _renamed_in_order(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of the packaged efficientnet_lite0 timm's names: the two agree in order, counters aside.

    A tensor keeps its own name, and so is refused later, where the kinds (weight, bias, …) of the two do not agree.
    """
    ours = [name for name in expected if not name.endswith(_COUNTER)]
    theirs = [name for name in given if not name.endswith(_COUNTER)]
    pairs = zip(theirs, ours, strict=False)
    names = {a: b for a, b in pairs if a.rpartition(".")[2] == b.rpartition(".")[2]}
    return {names.get(name, name): given[name] for name in theirs}


def _clean(name: str, expected: Mapping[str, Tensor]) -> str:
    name = _DOTTED.sub(r"\1\2", name)
    while name not in expected and _PREFIX.match(name):
        name = _PREFIX.sub("", name)
    return name


def _loads_as_timm_converts(body: Module, given: dict[str, Tensor]) -> bool:
    """Load what is in its authors' layout or for another resolution, if timm keeps a converter for the architecture."""
    convert = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    try:
        body.load_state_dict(convert(given, body) if convert else given)
    except Exception:  # whatever a converter meets in a foreign file, the faults of the file itself say what is wrong
        return False
    return True
