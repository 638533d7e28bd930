"""The measures of a classifier agree with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support, top_k_accuracy_score

from carcls.evaluation.classification import classification_metrics, softmax
from carcls.evaluation.significance import wilson_interval


def _answers(seed: int, images: int = 300, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 2, images)
    logits = random.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 1.0
    logits[:, 3] = -50.0  # never predicted
    return logits, labels


@pytest.mark.parametrize("average", ["weighted", "macro"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_precision_recall_and_f1_agree_with_scikit_learn(seed: int, average: str) -> None:
    """Both averagings give scikit-learn's numbers, with absent and never-predicted classes among them."""
    logits, labels = _answers(seed)
    ours = classification_metrics(logits, labels)
    theirs = precision_recall_fscore_support(labels, logits.argmax(axis=1), average=average, zero_division=0)
    ending = "_macro" if average == "macro" else ""
    assert [ours[name + ending] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3], abs=1e-12)


def test_loss_and_top5_agree_with_scikit_learn() -> None:
    """Cross entropy and top-5 accuracy are scikit-learn's."""
    logits, labels = _answers(5)
    ours = classification_metrics(logits, labels)
    classes = np.arange(logits.shape[1])
    # Probabilities are floored by scikit-learn, so none of those compared may be tiny.
    likely = np.maximum(logits, -5)
    expected = log_loss(labels, softmax(likely).astype(np.float64), labels=classes)
    assert classification_metrics(likely, labels)["loss"] == pytest.approx(expected, rel=1e-5)
    assert ours["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=classes))


def test_weighted_recall_is_accuracy() -> None:
    """The documented recall equals accuracy, as in its tables."""
    logits, labels = _answers(7)
    ours = classification_metrics(logits, labels)
    assert ours["recall"] == pytest.approx(ours["accuracy"])


def test_equal_logits_do_not_count_as_found_among_the_top() -> None:
    """A classifier that answers the same for every class earns no top-5 accuracy."""
    ours = classification_metrics(np.zeros((4, 10), np.float32), np.array([6, 7, 8, 9]))
    assert ours["top5"] == 0.0
    assert ours["accuracy"] == 0.0


def test_a_nan_logit_gives_a_nan_loss() -> None:
    """A network that broke is seen in its loss."""
    logits = np.zeros((2, 3), np.float32)
    logits[0, 0] = np.nan
    assert np.isnan(classification_metrics(logits, np.array([0, 1]))["loss"])


@pytest.mark.parametrize(("hits", "images"), [(0, 10), (10, 10), (1, 3), (5933, 8041)])
def test_wilson_interval_solves_its_equation(hits: int, images: int) -> None:
    """Each end of the interval is a share that the observed one is exactly 1.96 standard errors away from."""
    share = hits / images
    for end in wilson_interval(hits, images):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(share - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / images), rel=1e-6)
