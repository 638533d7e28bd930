"""Measures of a classifier, on arrays.

Letters: n images, c classes. The documented precision, recall and F1 are averages over the classes weighted by their
number of images ("support-weighted"); the plain averages over classes carry the ending ``_macro``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOP = 5


def classification_metrics(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, prefix: str = ""
) -> dict[str, float]:
    """Return loss (mean cross entropy in nats) and, in [0, 1], accuracy, top5, precision, recall, f1 and their macros.

    Corner cases, as in scikit-learn: a class that is never predicted has precision 0; a class without images counts in
    the macro averages only when something was taken for it; of equal logits, the class of lower index is predicted.

    Args:
        logits: float32 [n, c], unnormalised.
        labels: int64 [n], in [0, c).
        prefix: put before every name (``val_``, ``test_``).

    >>> m = classification_metrics(np.array([[2.0, 0.0], [2.0, 0.0]], np.float32), np.array([0, 1]))
    >>> m["accuracy"], m["recall"], m["precision"], m["precision_macro"]
    (0.5, 0.5, 0.25, 0.25)
    """
    predicted = logits.argmax(axis=1)
    metrics = {"loss": cross_entropy(logits, labels), "accuracy": float((predicted == labels).mean())}
    metrics["top5"] = top_accuracy(logits, labels, TOP)
    metrics |= averaged_measures(predicted, labels, logits.shape[1])
    return {prefix + name: value for name, value in metrics.items()}


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean of −log softmax(logits)[label] in nats; infinite or NaN logits give NaN or infinity."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        log_norms = np.log(np.exp(wide - top).sum(axis=1)) + top[:, 0]
        return float((log_norms - wide[np.arange(len(labels)), labels]).mean())


def top_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64], top: int) -> float:
    """Return the share of images whose label is among the ``top`` highest logits (ties counted against the label)."""
    of_label = logits[np.arange(len(labels)), labels][:, None]
    others_above = (logits >= of_label).sum(axis=1) - 1
    return float((others_above < top).mean())


def averaged_measures(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Return precision, recall and f1, support-weighted and macro.

    Per class: precision tp / (tp + fp), recall tp / (tp + fn), f1 2tp / (2tp + fp + fn); 0 where the divisor is 0.
    """
    hits = np.bincount(labels[predicted == labels], minlength=classes).astype(np.float64)
    taken = np.bincount(predicted, minlength=classes).astype(np.float64)
    support = np.bincount(labels, minlength=classes).astype(np.float64)
    per_class = {
        "precision": _ratio(hits, taken),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, taken + support),
    }
    present = (taken + support) > 0
    weighted = {name: float((values * support).sum() / support.sum()) for name, values in per_class.items()}
    macro = {f"{name}_macro": float(values[present].mean()) for name, values in per_class.items()}
    return weighted | macro


def _ratio(numerator: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, divisor, out=np.zeros_like(numerator), where=divisor > 0)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities, float32 [n, c], rows summing to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
