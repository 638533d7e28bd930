"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest

import sweeps.tracking_store  # noqa: F401 - what it sets in the environment is there before every test


@pytest.fixture(autouse=True)
def _environment_left_as_found() -> Iterator[None]:
    """MLflow writes the store it was given into the environment, from which child processes would take it."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        if name.startswith("MLFLOW_"):
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith("MLFLOW_")})
