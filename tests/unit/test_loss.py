"""What training minimises: cross entropy and cosine loss, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from carcls.config import TrialConfig
from carcls.training.loss import training_loss

COSINE = TrialConfig(loss="cosine")
LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


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
def test_cross_entropy_is_its_definition(smoothing: float) -> None:
    """The loss is the cross entropy against the smoothed target."""
    loss = training_loss(LOGITS, LABELS, TrialConfig(label_smoothing=smoothing))
    assert loss.item() == pytest.approx(cross_entropy_by_hand(smoothing), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cosine_loss_is_its_definition(smoothing: float) -> None:
    """The loss is the cosine distance plus a tenth of the cross entropy; smoothing acts on the latter."""
    loss = training_loss(LOGITS, LABELS, COSINE.model_copy(update={"label_smoothing": smoothing}))
    assert loss.item() == pytest.approx(cosine_by_hand() + 0.1 * cross_entropy_by_hand(smoothing), rel=1e-5)


def test_the_cosine_part_ignores_the_length_of_the_logits() -> None:
    """Doubling the logits changes only the part of the cross entropy."""
    cosine_parts = []
    for scale in (1.0, 2.0):
        whole = training_loss(LOGITS * scale, LABELS, COSINE)
        cosine_parts.append(whole - 0.1 * training_loss(LOGITS * scale, LABELS, TrialConfig()))
    torch.testing.assert_close(*cosine_parts)


def test_logits_of_zero_have_small_gradients() -> None:
    """A head that says nothing yet can start to learn, and is not thrown away by its first step."""
    logits = torch.zeros(2, 5, requires_grad=True)
    training_loss(logits, torch.tensor([0, 1]), COSINE).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.abs().max() <= 1000
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_the_right_answer_has_the_least_loss() -> None:
    """Confident right logits cost next to nothing, confident wrong ones more than 1."""
    right = 50.0 * torch.nn.functional.one_hot(LABELS, 5)
    assert training_loss(right, LABELS, COSINE).item() == pytest.approx(0.0, abs=1e-6)
    assert training_loss(right.roll(1, dims=1), LABELS, COSINE).item() > 1.0
