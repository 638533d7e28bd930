"""What an audit says."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from carcls.families.labels import LabelAudit
from sweeps.report.audit import DataAudit


def test_no_suspicious_label_is_said_to_be_none() -> None:
    """A sentence about the 0 least likely labels would have to be read twice."""
    labels = LabelAudit("efficientnet_lite0", 224, 24, 0, 1.0, ())
    audit = DataAudit(
        cast(Any, None), [], np.ones((2, 3), np.int64), np.array([]), np.zeros((0, 2), np.int32), [], labels
    )
    assert audit.labels_text == (
        "No label is suspicious to a linear head on efficientnet_lite0 at 224 pixels that did not train on the image "
        "and gives 100.0% of all images their label."
    )
