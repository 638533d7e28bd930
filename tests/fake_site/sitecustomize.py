"""Has the real trials of a command compute on the CPU, while their processes hold a fake card (see ``fake_card``).

Python imports this module first, in every process that has its folder in PYTHONPATH.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

MIB_OF_A_TEST = "FAKE_TEST_MIB"
"""Names what a test evaluation takes of the card in the environment."""


def _compute_on_cpu(images: Any) -> None:
    """Have ``pick_device`` do all it does, and return the CPU."""
    import torch
    from fake_cuda import attach, meant_by_torch

    pick = images.pick_device
    attach().note("loaded", " ".join(sys.orig_argv))

    def pick_device() -> torch.device:
        with meant_by_torch() as cuda:
            cuda.note("picked", pick().type)
        return torch.device("cpu")

    images.pick_device = pick_device


def _take_memory(families: Any) -> None:
    """Have a test evaluation take memory of the card."""
    from fake_cuda import attach

    evaluate = families.evaluate_on_test

    def evaluate_on_test(*given: Any) -> Any:
        attach().allocate(int(os.environ[MIB_OF_A_TEST]))
        return evaluate(*given)

    families.evaluate_on_test = evaluate_on_test


_CHANGES: dict[str, Callable[[Any], None]] = {
    "carcls.training.images": _compute_on_cpu,
    "carcls.families": _take_memory,
}


class _Changer:
    """Changes modules once they are loaded."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Return where a module that is to be changed is; None for others."""
        change = _CHANGES.pop(name, None)
        spec = importlib.util.find_spec(name) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: Any) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Changer())  # type: ignore[arg-type]
