"""Learning rates over a trial: the documented StepLR, cosine with warm-up, one-cycle; and who is decayed."""

import subprocess
import sys
from typing import get_args

import pytest
import torch

from carcls.config import Optimizer, TrialConfig
from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier, build_classifier
from carcls.training.optim import build_optimizer, lr_factor, set_learning_rates

STEPS = 9


def _factors(config: TrialConfig) -> list[float]:
    return [lr_factor(config, step, STEPS) for step in range(config.epochs * STEPS)]


def test_step_schedule_is_torch_step_lr() -> None:
    """The documented schedule has the rates of torch's StepLR(step_size=7, gamma=0.1), epoch by epoch."""
    config = TrialConfig(epochs=20)
    parameter = torch.nn.Parameter(torch.zeros(1))
    reference = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(reference, step_size=7, gamma=0.1)
    for epoch in range(20):
        expected = pytest.approx(reference.param_groups[0]["lr"])
        assert lr_factor(config, epoch * STEPS, STEPS) == expected
        assert lr_factor(config, epoch * STEPS + STEPS - 1, STEPS) == expected
        reference.step()
        schedule.step()


def test_onecycle_is_torch_one_cycle_lr() -> None:
    """One-cycle has the rates of torch's OneCycleLR, step by step."""
    config = TrialConfig(epochs=10, lr_schedule="onecycle")
    parameter = torch.nn.Parameter(torch.zeros(1))
    reference = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=1.0, total_steps=10 * STEPS, cycle_momentum=False)
    for factor in _factors(config):
        assert factor == pytest.approx(reference.param_groups[0]["lr"], abs=1e-9)
        reference.step()
        if schedule.last_epoch < 10 * STEPS - 1:
            schedule.step()


def test_cosine_warms_up_and_ends_near_zero() -> None:
    """Two warm-up epochs rise in a line to the peak, which is followed by a fall to zero."""
    factors = _factors(TrialConfig(epochs=10, lr_schedule="cosine", warmup_epochs=2))
    assert factors[: 2 * STEPS] == pytest.approx([(i + 1) / (2 * STEPS) for i in range(2 * STEPS)])
    assert factors[2 * STEPS] == pytest.approx(1.0)
    assert factors[-1] < 0.001
    assert all(a >= b for a, b in zip(factors[2 * STEPS :], factors[2 * STEPS + 1 :], strict=False))


@pytest.mark.parametrize("warmup", [5, 50])
def test_a_warm_up_longer_than_the_trial_does_not_fail(warmup: int) -> None:
    """A trial that is all warm-up only ever rises."""
    factors = _factors(TrialConfig(epochs=3, lr_schedule="cosine", warmup_epochs=warmup))
    assert all(0 < factor <= 1 for factor in factors)


def test_head_and_backbone_have_their_own_rates_and_vectors_are_not_decayed() -> None:
    """Each group has its peak rate; weight decay acts on matrices only; no parameter is left out or named twice."""
    classifier = Classifier(build_backbone("efficientnet_lite0"), 0.0, 5)
    config = TrialConfig(head_lr=0.3, backbone_lr=0.03, weight_decay=0.1, optimizer="adamw")
    optimizer = build_optimizer(classifier, config)
    set_learning_rates(optimizer, 0.5)
    heads = {id(p) for p in classifier.head.parameters()}
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen.append(id(parameter))
            assert group["lr"] == pytest.approx(0.15 if id(parameter) in heads else 0.015)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    assert sorted(seen) == sorted(id(p) for p in classifier.parameters())


def test_what_is_trained_from_nothing_has_one_rate() -> None:
    """Every parameter of a scratch network, its head included, has the trial's learning rate."""
    config = TrialConfig(backbone="scratch", image_size=32, batch_norm=True, head_lr=0.3, backbone_lr=0.03).training()
    classifier = build_classifier(config, 5)
    optimizer = build_optimizer(classifier, config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}
    seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
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
from carcls.models.classifier import build_classifier
from carcls.seeding import make_deterministic
from carcls.training.optim import build_optimizer

make_deterministic()
assert torch.are_deterministic_algorithms_enabled()
config = TrialConfig(backbone="efficientnet_lite0")
classifier = build_classifier(config, 3, later=True)
optimizer = build_optimizer(classifier, config)
optimizer.zero_grad()
classifier.head(torch.rand(5, 1280)).sum().backward()
optimizer.step()
print({"torch._dynamo", "timm", "torchvision"} & {*sys.modules})
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
