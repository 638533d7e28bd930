"""How often the host waits for a GPU while it trains: not once a step. ``tests/gpu`` asks a card; here is none.

Tensors of the CPU count as a GPU's (``PretendedCard``) by what PyTorch documents of copies (CUDA semantics,
"Asynchronous execution" and "Use pinned memory buffers"). Waits that its own operations make inside are not seen.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from traceback import extract_stack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from carcls.config import TrialConfig
from carcls.data.augment import augmentation_of
from carcls.models.classifier import build_classifier
from carcls.seeding import make_deterministic, seed_epoch
from carcls.training import images, loop
from carcls.training.images import ImageSource, View
from carcls.training.loop import Trainer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SIDE, BATCH, CLASSES, HELD_OUT = 32, 4, 3, 11
CONFIG = TrialConfig(
    family="scratch", backbone="scratch", depth=2, width=4, image_size=SIDE, batch_size=BATCH, precision="fp32",
    unfreezing="full", clip_norm=1.0, dropout=0.0, crop="resized", flip=True, rotation=15, jitter=0.2, loss="cosine",
)  # fmt: skip
# Of a tensor on a GPU, what only the host can answer.
_ASKED = {"item", "tolist", "numpy", "nonzero", "masked_select", "unique", "__bool__", "__float__", "__int__"}
_FROM_VALUES = {"tensor", "as_tensor", "new_tensor"}


class PretendedCard(TorchFunctionMode):
    """Tensors made on "cuda", or from such, say that they are there; ``waits`` are the lines at which the host waits.

    Raises:
        RuntimeError: an operation mixes tensors of the card and of the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._here, self._pinned = WeakIdKeyDictionary(), WeakIdKeyDictionary()

    def take(self, module: torch.nn.Module) -> None:
        """Have what it holds on the card from the start."""
        for tensor in module.state_dict(keep_vars=True).values():
            self._here[tensor] = True

    def wait(self) -> None:
        """Note which line of ours waits."""
        ours = [frame for frame in extract_stack() if "carcls" in Path(frame.filename).parts]
        self.waits[f"{Path(ours[-1].filename).name}: {ours[-1].line}"] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it on the CPU, and mark what it makes."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        here = any(tensor in self._here for tensor in tensors)
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if here else CPU
        asked = {leaf for leaf in leaves if isinstance(leaf, torch.device)}
        if name == "cpu" or (name == "to" and asked):
            return self._copy(args[0], to_card=CUDA in asked, non_blocking=kwargs.get("non_blocking", False))
        on_card = here or CUDA in asked
        if (here and name in _ASKED) or (on_card and name in _FROM_VALUES):
            self.wait()
        if name in ("__getitem__", "__setitem__"):
            others = [leaf for leaf in leaves if isinstance(leaf, Tensor | np.ndarray)]
            if here and any(other not in self._here or other.dtype == torch.bool for other in others):
                self.wait()
        elif here and any(tensor not in self._here and tensor.ndim for tensor in tensors):
            raise RuntimeError(f"{name} of tensors on two devices")
        pinned = kwargs.pop("pin_memory", False)
        made = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        for tensor in (leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)):
            if on_card:
                self._here[tensor] = True
            elif pinned:
                self._pinned[tensor] = True
        return made

    def _copy(self, tensor: Tensor, *, to_card: bool, non_blocking: bool) -> Tensor:
        if to_card == (tensor in self._here):
            return tensor
        if not (non_blocking and (tensor in self._pinned or not to_card)):
            self.wait()
        with DisableTorchFunction():
            copy = tensor.detach().clone()
        if to_card:
            self._here[copy] = True
        return copy


def _on_cpu(leaf: Any) -> Any:
    return CPU if isinstance(leaf, torch.device) else leaf


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], PretendedCard]:
    """Return what gives a card of so much memory."""

    def give(memory: int) -> PretendedCard:
        card = PretendedCard()
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=card.wait))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        # Below what PyTorch itself checks of its arguments.
        monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaMemGetInfo=lambda _: (memory, memory)))
        monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda _: 1.0)
        # A mode holds for its own thread only.
        monkeypatch.setattr(images, "preloaded", lambda make, items: (make(item) for item in items))
        # PyTorch asks the tensors below Python where they are.
        monkeypatch.setattr(
            torch.nn.utils.clip_grad,
            "_group_tensors_by_device_and_dtype",
            lambda lists: {(CUDA, torch.float32): (lists, [])},
        )
        return card

    return give


def _trainer(config: TrialConfig, steps: int, card: PretendedCard | None = None, device: torch.device = CPU) -> Trainer:
    """Return one with so many steps in an epoch, on a pretended card or on a device."""
    count = steps * BATCH + HELD_OUT
    random, rows = np.random.default_rng(0), np.arange(count)
    classifier = build_classifier(config, CLASSES).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if card is not None:
        card.take(classifier)
    features = random.random((count, classifier.backbone.embedding), np.float32)
    pixels = random.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return Trainer(
        config=config,
        classifier=classifier,
        images=ImageSource(pixels, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), CUDA if card is not None else device),
        labels=rows % CLASSES,
        train=rows[HELD_OUT:],
        validation=rows[:HELD_OUT],
        precision="fp32",
        features=lambda rows, _: features[rows],
    )


KINDS = pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ({"optimizer": "adamw"}, 2**40),
        ({"optimizer": "sgd", "micro_batch": 2}, 0),
        ({"optimizer": "adam", "unfreezing": "frozen"}, 0),
    ],
    ids=["resident", "pinned", "cached"],
)


@pytest.fixture(autouse=True)
def _two_batches_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU prepares so many; and it is asked for its numbers at the end of an epoch only."""
    monkeypatch.setattr(images, "GPU_ANSWERED_PIXELS", 2 * BATCH * SIDE**2)
    monkeypatch.setattr(loop, "STEPS_BETWEEN_CHECKS", 1000)


@KINDS
def test_the_host_waits_as_often_in_a_long_epoch_as_in_a_short_one(
    pretend: Callable[[int], PretendedCard], settings: dict[str, Any], memory: int
) -> None:
    """Four steps or sixteen, validation with them: the lines at which the host waits are the same, each as often."""
    cards = []
    for steps in (4, 16):
        card = pretend(memory)
        trainer = _trainer(CONFIG.model_copy(update=settings), steps, card)
        with card:
            trainer.run_epoch(0)
        cards.append(card)
    assert cards[0].waits == cards[1].waits
    assert cards[0].waits.total() > 2


@KINDS
def test_an_epoch_as_a_gpu_takes_it_is_that_of_the_cpu(
    pretend: Callable[[int], PretendedCard], settings: dict[str, Any], memory: int
) -> None:
    """Sent for the whole epoch, prepared several batches at a time: losses and logits are those of batch by batch."""
    config = CONFIG.model_copy(update=settings)
    ours = _trainer(config, 5)
    expected = ours.run_epoch(0)
    card = pretend(memory)
    theirs = _trainer(config, 5, card)
    with card:
        logits = theirs.run_epoch(0)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert theirs.progress.history[0]["train_loss"] == pytest.approx(ours.progress.history[0]["train_loss"], rel=1e-4)


@pytest.mark.parametrize("memory", [2**40, 0], ids=["resident", "pinned"])
def test_a_batch_is_what_the_stream_yields(pretend: Callable[[int], PretendedCard], memory: int) -> None:
    """From the GPU's memory or the host's, one at a time or two, augmented or not: equal bit by bit, and its rows."""
    card = pretend(memory)
    source = _trainer(CONFIG, 3, card).images
    rows, order = [np.array([7, 2, 9]), np.array([0, 22]), np.array([5, 6, 1, 3])], np.arange(len(source.pixels))
    augmentation = augmentation_of(CONFIG)
    assert augmentation is not None
    for view in (None, View(augmentation, 1, 2)):
        with card:
            streamed = list(source.stream(rows, view))
            alone = [source.batch(each, view) for each in rows]
        expected = replace(source, device=CPU).batch(order, view)
        for one, other, part in zip(streamed, alone, rows, strict=True):
            assert torch.equal(one, other)
            torch.testing.assert_close(one, expected[part], rtol=1e-4, atol=1e-4)
            assert one.is_contiguous(memory_format=torch.channels_last)


def test_what_pytorch_reads_once_is_set_before_a_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has been given a device has cuBLAS's setting; determinism has no TF32, so that fp32 is float32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr("carcls.machine._held", [1.0])
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert images.pick_device() == CUDA
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    make_deterministic()
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_network_built_amid_an_epoch_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else dropout on a GPU would differ between the trial that makes a view's features and one that finds them."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    for config in (CONFIG, TrialConfig(backbone="efficientnet_lite0", weights="random")):
        before = torch.get_rng_state()
        build_classifier(config, CLASSES)
        assert torch.equal(torch.get_rng_state(), before)
    assert not seeded
    seed_epoch(0, 0)
    assert len(seeded) == 1


def test_a_trial_that_has_ended_leaves_no_tensor(tmp_path: Path) -> None:
    """Nor does it wait for the cyclic collector: a GPU's memory is free for the next trial of the process."""
    (tmp_path / "trial").mkdir()
    config = CONFIG.model_copy(update={"augmentation_strength": 0, "epochs": 2, "unfreezing": "1:all"})
    gc.collect()
    gc.disable()
    try:
        before = _tensors()
        trainer = _trainer(config, 2)
        trainer.fit(tmp_path / "trial", lambda _: None)
        assert len(_tensors() - before) > 10
        del trainer
        assert not _tensors() - before
    finally:
        gc.enable()


def _tensors() -> set[int]:
    return {id(each) for each in gc.get_objects() if issubclass(type(each), Tensor)}
