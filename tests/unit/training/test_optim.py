"""What a step minimises and how far it goes: losses against their definitions, learning rates, weight decay."""

import math
import subprocess
import sys
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

from carcls.config import Optimizer, TrialConfig
from carcls.models.classifier import Classifier, build_classifier
from carcls.training.optim import build_optimizer, lr_factor, set_learning_rates, training_loss

STEPS = 9
COSINE = TrialConfig(loss="cosine")
LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def _factors(config: TrialConfig) -> list[float]:
    return [lr_factor(config, step, STEPS) for step in range(config.epochs * STEPS)]


def _torchs(kind: type[torch.optim.lr_scheduler.LRScheduler], steps: int, **settings: Any) -> list[float]:
    """Return the rates that one of torch's schedulers gives, step by step, of a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = kind(optimizer, **settings), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


def test_schedules_are_torchs() -> None:
    """The documented schedule is StepLR(step_size=7, gamma=0.1), epoch by epoch; one-cycle is OneCycleLR."""
    schedulers = torch.optim.lr_scheduler
    by_epoch = [rate for rate in _torchs(schedulers.StepLR, 20, step_size=7, gamma=0.1) for _ in range(STEPS)]
    assert _factors(TrialConfig(epochs=20)) == pytest.approx(by_epoch)
    one = _torchs(schedulers.OneCycleLR, 10 * STEPS, max_lr=1.0, total_steps=10 * STEPS, cycle_momentum=False)
    assert _factors(TrialConfig(epochs=10, lr_schedule="onecycle")) == pytest.approx(one, abs=1e-9)


def test_cosine_warms_up_and_ends_near_zero() -> None:
    """Two warm-up epochs rise in a line to the peak, which is followed by a fall to zero."""
    factors = _factors(TrialConfig(epochs=10, lr_schedule="cosine", warmup_epochs=2))
    assert factors[: 2 * STEPS] == pytest.approx([(i + 1) / (2 * STEPS) for i in range(2 * STEPS)])
    assert factors[2 * STEPS] == pytest.approx(1.0)
    assert factors[-1] < 0.001
    assert all(a >= b for a, b in zip(factors[2 * STEPS :], factors[2 * STEPS + 1 :], strict=False))
    for warmup in (5, 50):  # longer than the trial
        only = _factors(TrialConfig(epochs=3, lr_schedule="cosine", warmup_epochs=warmup))
        assert all(0 < before < after <= 1 for before, after in pairwise(only))


@pytest.mark.parametrize(("backbone", "rate"), [("efficientnet_lite0", 0.015), ("scratch", 0.15)])
def test_head_and_backbone_have_their_own_rates_and_vectors_are_not_decayed(backbone: str, rate: float) -> None:
    """Each group has its peak rate, one for all that is trained from scratch; weight decay acts on matrices only.

    No parameter is left out or named twice.
    """
    settings = {"head_lr": 0.3, "backbone_lr": 0.03, "weight_decay": 0.1, "optimizer": "adamw", "batch_norm": True}
    config = TrialConfig(backbone=backbone, weights="random", image_size=32, **settings).training()
    classifier = build_classifier(config, 5)
    optimizer = build_optimizer(classifier, config)
    set_learning_rates(optimizer, 0.5)
    heads = {id(p) for p in classifier.head.parameters()}
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen.append(id(parameter))
            assert group["lr"] == pytest.approx(0.15 if id(parameter) in heads else rate)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    assert sorted(seen) == sorted(id(p) for p in classifier.parameters())


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_steps_are_those_of_torchs_optimizers(name: str) -> None:
    """Without what PyTorch's compiler would need, the weights come out the same to the last bit, resumed or not."""
    config = TrialConfig(optimizer=name, backbone="efficientnet_lite0", weights="random", weight_decay=0.1)
    ours = build_classifier(config, classes=3)
    theirs = build_classifier(config, classes=3)
    optimizer = build_optimizer(ours, config)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    assert isinstance(optimizer, kind)
    settings = {"momentum": config.momentum} if name == "sgd" else {"fused": True}
    reference = kind(_same_groups(optimizer, ours, theirs), **settings)
    for step in range(4):
        for classifier, stepping in ((ours, optimizer), (theirs, reference)):
            stepping.zero_grad(set_to_none=True)
            embeddings = torch.rand(5, classifier.head.in_features, generator=torch.Generator().manual_seed(step))
            classifier.head(embeddings).square().sum().backward()
            stepping.step()
        if step == 1:
            optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(ours.head.weight, theirs.head.weight)
    assert torch.equal(ours.head.bias, theirs.head.bias)


def _same_groups(optimizer: torch.optim.Optimizer, ours: Classifier, theirs: Classifier) -> list[dict[str, object]]:
    """Return the optimizer's groups with the parameters of the other classifier."""
    twin = dict(zip(ours.parameters(), theirs.parameters(), strict=True))
    return [
        {**{name: group[name] for name in ("lr", "weight_decay")}, "params": [twin[p] for p in group["params"]]}
        for group in optimizer.param_groups
    ]


def test_training_a_head_loads_no_compiler() -> None:
    """PyTorch's optimizers and its determinism load it, which takes each process more than a second."""
    code = """
import sys
import torch
from carcls.config import TrialConfig
from carcls.models.classifier import build_classifier, stand_in
from carcls.seeding import make_deterministic
from carcls.training.optim import build_optimizer

make_deterministic()
assert torch.are_deterministic_algorithms_enabled()
config = TrialConfig(backbone="efficientnet_lite0")
classifier = build_classifier(config, 3, stand_in(config.backbone))
optimizer = build_optimizer(classifier, config)
optimizer.zero_grad()
classifier.head(torch.rand(5, 1280)).sum().backward()
optimizer.step()
print({"torch._dynamo", "timm", "torchvision"} & {*sys.modules})
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def cross_entropy_by_hand(smoothing: float) -> float:
    """Mean over the batch of -Σ target · log softmax, the target smoothed over all classes."""
    total = 0.0
    for row, label in zip(LOGITS.double().tolist(), LABELS.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(z) for z in row))
        for index, z in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (index == label)
            total -= target * (z - log_sum)
    return total / len(LABELS)


def cosine_by_hand() -> float:
    """Mean over the batch of 1 - cosine between the logits and the label's one-hot vector."""
    rows = zip(LOGITS.double().tolist(), LABELS.tolist(), strict=True)
    return sum(1 - row[label] / math.sqrt(sum(z * z for z in row)) for row, label in rows) / len(LABELS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_their_definitions(smoothing: float) -> None:
    """Cross entropy against the smoothed target; cosine distance plus a tenth of that."""
    entropy = training_loss(LOGITS, LABELS, TrialConfig(label_smoothing=smoothing))
    assert entropy.item() == pytest.approx(cross_entropy_by_hand(smoothing), rel=1e-5)
    cosine = training_loss(LOGITS, LABELS, COSINE.model_copy(update={"label_smoothing": smoothing}))
    assert cosine.item() == pytest.approx(cosine_by_hand() + 0.1 * cross_entropy_by_hand(smoothing), rel=1e-5)


def test_logits_of_zero_have_small_gradients() -> None:
    """A head that says nothing yet can start to learn, and is not thrown away by its first step."""
    logits = torch.zeros(2, 5, requires_grad=True)
    training_loss(logits, torch.tensor([0, 1]), COSINE).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.abs().max() <= 1000
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
