"""Learning rates over a trial: the documented StepLR, cosine with warm-up, one-cycle; and who is decayed."""

import pytest
import torch

from carcls.config import TrialConfig
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
