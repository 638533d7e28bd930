"""What training minimises.

Letters: b batch, c classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from carcls.config import TrialConfig

CROSS_ENTROPY_SHARE = 0.1
# Shorter logits are taken to be this long: at zero the gradient of the cosine would have no bound.
LEAST_LENGTH = 1e-3


def training_loss(logits: Tensor, labels: Tensor, config: TrialConfig) -> Tensor:
    """Return the mean loss of a batch, a scalar.

    ``cross_entropy``: in nats, with label smoothing. ``cosine``: 1 - z[y] / ‖z‖, the cosine distance between the
    logits z and the one-hot vector of the label y, plus 0.1 × the cross entropy of z. Barz and Denzler 2020 ("Deep
    Learning on Small Datasets without Pre-Training using Cosine Loss") take the cross entropy of a further linear
    layer; here both parts read the same logits, so that a trained model has one head whatever its loss was.

    Args:
        logits: float [b, c].
        labels: int64 [b], in [0, c).
        config: of the trial; ``loss`` and ``label_smoothing`` count.
    """
    entropy = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    if config.loss == "cross_entropy":
        return entropy
    directions = functional.normalize(logits, dim=1, eps=LEAST_LENGTH)  # [b, c]
    cosine = directions.gather(1, labels[:, None]).squeeze(1)  # [b]
    return (1 - cosine).mean() + CROSS_ENTROPY_SHARE * entropy
