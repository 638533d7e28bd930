"""Run as a program: load one registered model, ask it about a small black image, write its answer as a line of JSON.

A process of its own, because a registered model brings its own copy of carcls, which must not meet the installed one.
The stores come from the environment, so that no password stands on a command line.
"""

from __future__ import annotations

import json
import sys

import mlflow
import numpy as np


def main(uri: str) -> None:
    """Write ``columns``, ``rows`` and ``probability`` of the answer."""
    answer = mlflow.pyfunc.load_model(uri).predict(np.zeros((64, 64, 3), np.uint8))
    told = {
        "columns": list(answer.columns),
        "rows": len(answer),
        "probability": float(answer["probability"].iloc[0]),
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
