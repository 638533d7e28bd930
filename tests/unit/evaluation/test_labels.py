"""Suspicious labels: exchanged ones are found, by heads that did not see them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from carcls.evaluation.held_out import FOLDS, SHRINKAGE, HeldOutHeads
from carcls.evaluation.labels import LEAST_SHOWN, suspicious_labels

CLASSES, EACH, WIDTH = 6, 40, 16


@pytest.fixture(scope="module")
def cars() -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [240, 16] of six classes that overlap a little, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    centres = rng.normal(size=(CLASSES, WIDTH))
    return (centres[labels] + 0.6 * rng.normal(size=(len(labels), WIDTH)) + 3).astype(np.float32), labels


def test_each_image_is_answered_by_the_discriminant_of_the_other_folds(cars: tuple[np.ndarray, np.ndarray]) -> None:
    """As scikit-learn's on the same images: classes' scores are the same but for a factor."""
    features, labels = cars
    heads = HeldOutHeads.fitted([features[:100], features[100:]], labels, CLASSES)
    at, likely = (np.concatenate(parts) for parts in zip(*heads.answers(), strict=True))
    assert at.tolist() == list(range(len(labels)))
    assert np.bincount(labels[heads.folds == 0]).tolist() == [EACH // FOLDS] * CLASSES
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float64)
    for fold in range(FOLDS):
        held = heads.folds == fold
        reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(unit[~held], labels[~held])
        theirs, ours = reference.decision_function(unit[held]), likely[held]
        spread = [scores - scores.mean(axis=1, keepdims=True) for scores in (theirs, ours)]
        factor = (spread[0] * spread[1]).sum() / (spread[0] ** 2).sum()
        np.testing.assert_allclose(spread[1], factor * spread[0], atol=0.01 * np.abs(spread[1]).max())


def test_exchanged_labels_come_first(cars: tuple[np.ndarray, np.ndarray]) -> None:
    """Of 12 labels that were exchanged nearly all are among the first 12, each with the class that it had before."""
    features, labels = cars
    wrong = labels.copy()
    rows = np.arange(0, len(labels), 20)
    wrong[rows] = np.roll(labels[rows], 2)
    issues, accuracy, _ = suspicious_labels(wrong, HeldOutHeads.fitted([features], wrong, CLASSES).answers())
    first = issues[: len(rows)]
    assert len({one.image for one in first} & set(rows.tolist())) >= 11
    assert sum(one.suggested == labels[one.image] for one in first) >= 11
    assert all(one.given_probability < one.suggested_probability <= 1 for one in issues)
    assert 0.8 < accuracy < 0.96


def test_so_many_are_named_and_no_label_that_is_the_answer() -> None:
    """Fifty, or a twentieth of the images where that is more; where all is well, none."""
    rng = np.random.default_rng(0)
    for images, most in ((400, LEAST_SHOWN), (4000, 200)):
        answers = np.log(rng.dirichlet(np.ones(5), images))
        assert len(suspicious_labels(rng.integers(0, 5, images), [(np.arange(images), answers)])[0]) == most
        assert suspicious_labels(answers.argmax(axis=1), [(np.arange(images), answers)]) == ([], 1.0, images)


def test_a_class_of_one_image_is_named_by_nobody() -> None:
    """Its own head never saw it, and the others answer as if it were not there; equal features are no error."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    for features in (np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32), np.ones((11, 4), np.float32)):
        ((_, likely),) = HeldOutHeads.fitted([features], labels, 3).answers()
        np.testing.assert_allclose(np.exp(likely).sum(axis=1), 1, rtol=1e-5)
        assert np.exp(likely[10, 2]) == 0


def test_a_class_of_one_picture_is_not_suspected() -> None:
    """Nobody can tell: it is neither named nor counted among the wrong answers."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([0, 1], 50), np.arange(2, 62)])
    features = (8 * np.eye(62, 64)[labels] + rng.normal(size=(len(labels), 64))).astype(np.float32)
    issues, accuracy, asked = suspicious_labels(labels, HeldOutHeads.fitted([features], labels, 62).answers())
    assert asked == 100
    assert all(one.image < 100 for one in issues)
    assert accuracy > 0.95


def test_a_wrong_copy_does_not_vouch_for_itself() -> None:
    """Of ten pictures that are there twice under one wrong label more are named where copies share a fold."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 3)
    features = rng.normal(size=(40, 128))[labels] + 1.5 * rng.normal(size=(len(labels), 128))
    twice, named = np.concatenate([features, features]).astype(np.float32), np.concatenate([labels, labels])
    rows = rng.permutation(len(labels))[:10]
    wrong = np.concatenate([rows, rows + len(labels)])
    named[wrong] = (named[wrong] + 7) % 40
    found = []
    for groups in (None, np.tile(np.arange(len(labels)), 2)):
        heads = HeldOutHeads.fitted([twice], named, 40, groups)
        found.append(
            len({one.image for one in suspicious_labels(named, heads.answers())[0][:20]} & set(wrong.tolist()))
        )
    assert heads.folds[: len(labels)].tolist() == heads.folds[len(labels) :].tolist()
    assert found[1] >= found[0] + 5
