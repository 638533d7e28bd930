"""Probabilities that are right as often as they say, and the confidence that a precision needs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from carcls.evaluation.calibration import expected_error
from carcls.evaluation.confidence import Confidence, confidence_from, fit_confidence

CLASSES = 6


def _drawn(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits [n, c] and labels that are as likely as the logits say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, CLASSES)).astype(np.float32)
    likely = Confidence().of_logits(logits).astype(np.float64)
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in likely])
    return logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_that_answers_were_made_with_is_found(factor: float) -> None:
    """Logits that say too much or too little by a factor get it as their temperature, and other answers are righter."""
    logits, labels = _drawn(0, 4000)
    said = logits * np.float32(factor)
    raw = Confidence().of_logits(said)
    found = fit_confidence(raw, labels, raw.argmax(axis=1) == labels, votes=False)
    assert found.temperature == pytest.approx(factor, rel=0.07)
    assert (found.smoothing, found.images) == (0.0, 4000)
    logits, labels = _drawn(1, 2000)
    others, hits = logits * np.float32(factor), logits.argmax(axis=1) == labels
    before, after = (expected_error(each.of_logits(others).max(axis=1), hits) for each in (Confidence(), found))
    assert after < 0.03
    assert before > 3 * after or factor == 1.0


def test_a_handful_of_answers_changes_little() -> None:
    """Six right answers by narrow margins are no reason to be sure of everything."""
    logits = np.eye(CLASSES, dtype=np.float32)
    found = fit_confidence(Confidence().of_logits(logits), np.arange(CLASSES), np.ones(CLASSES, bool), votes=False)
    assert 0.3 < found.temperature < 1.0
    many = np.tile(logits, (200, 1))
    sure = fit_confidence(
        Confidence().of_logits(many), np.tile(np.arange(CLASSES), 200), np.ones(1200, bool), votes=False
    )
    assert sure.temperature < 0.2


def test_votes_for_nothing_but_the_winner_become_what_they_are_worth() -> None:
    """One neighbour is always sure; fitted, it says how often it is right, and what it never said is possible."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 1000)
    said = np.where(rng.random(1000) < 0.6, labels, (labels + 1) % CLASSES)
    shares = np.eye(CLASSES, dtype=np.float32)[said]
    found = fit_confidence(shares, labels, said == labels, votes=True)
    served = found.of_votes(shares)
    assert served.max(axis=1) == pytest.approx((said == labels).mean(), abs=0.02)
    assert served.min() > 0.01
    assert served.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert found.error_before == pytest.approx(0.4, abs=0.05)
    assert found.error_after < 0.02


@pytest.mark.parametrize("confidence", [Confidence(0.3), Confidence(4.0, 0.5), Confidence(0.5, 1e-6)])
def test_no_order_changes(confidence: Confidence) -> None:
    """The classes of each answer keep their order, those that are equal stay equal, and each row is shared out."""
    rng = np.random.default_rng(3)
    shares = rng.integers(0, 6, (50, CLASSES)).astype(np.float32) + np.float32(1)
    shares /= shares.sum(axis=1, keepdims=True)
    for served, raw in ((confidence.of_votes(shares), shares), (confidence.of_logits(shares * 8), shares)):
        assert served.dtype == np.float32
        assert served.sum(axis=1) == pytest.approx(1, abs=1e-5)
        differences = np.sign(np.diff(np.take_along_axis(served, raw.argsort(axis=1, kind="stable"), axis=1)))
        assert (differences >= 0).all()
        assert (differences == np.sign(np.diff(np.sort(raw, axis=1)))).all()


def test_a_threshold_has_the_precision_that_was_asked_for() -> None:
    """It is the least that has: of equal confidences all are answered or none, and what was never reached is None."""
    sure = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, True, False])
    probabilities = np.column_stack([sure, 1 - sure]).astype(np.float32)
    found = replace(fit_confidence(probabilities, np.where(right, 0, 1), right, votes=False))
    answered = Confidence(found.temperature).of_logits(np.log(probabilities))[:, 0]
    for precision in (0.5, 0.66, 0.7, 0.8, 0.9, 1.0):
        threshold = found.threshold(precision)
        assert threshold is not None
        assert right[answered >= threshold].mean() >= precision
        lower = [each for each in set(answered.tolist()) if each < threshold]
        assert all(right[answered >= each].mean() < precision for each in lower)
    assert found.reached == 1.0
    never = fit_confidence(probabilities, np.ones(6, np.int64), np.zeros(6, bool), votes=False)
    assert never.threshold(0.5) is None


def test_json_gives_back_what_it_was_given() -> None:
    """A model's description holds it; one that is older than it, or holds something else, is told apart."""
    logits, labels = _drawn(0, 50)
    raw = Confidence().of_logits(logits)
    found = fit_confidence(raw, labels, raw.argmax(axis=1) == labels, votes=False)
    written = json.loads(json.dumps(found.as_dict()))
    assert confidence_from(written) == found
    assert confidence_from(None) == Confidence()
    for wrong in ({"temperature": 0}, {"unheard": 1}, {"curve": [1]}):
        with pytest.raises((TypeError, ValueError)):
            confidence_from({**written, **wrong})
