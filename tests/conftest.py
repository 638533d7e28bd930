"""What holds for every test."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

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


@pytest.fixture
def run_while_held() -> Callable[[Callable[[], Any], Path, Sequence[Path]], Any]:
    """Run something while another holds a stage's lock, and let go once the other stages are made."""

    def run(work: Callable[[], Any], held: Path, others: Sequence[Path]) -> Any:
        assert others
        held.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(1) as pool:
            with FileLock(f"{held}.lock"):
                running, deadline = pool.submit(work), time.monotonic() + 60
                while not all((stage / "key.json").is_file() for stage in others):
                    assert time.monotonic() < deadline
                    assert not running.done()
                    time.sleep(0.05)
                assert not held.exists()
            return running.result()

    return run
