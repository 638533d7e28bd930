"""How tests of the families run a trial on small pictures that are read from disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.families import run_trial
from carcls.outcome import Measurement, Outcome
from carcls.stages import StageStore

SIZE = 32
TIMES = {"seconds", "fit_seconds", "predict_seconds", "ms_per_query", "predict_ms"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one core: images this small lose more by sharing the work than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def read(folder: Path, stages: StageStore, validation: float = 0.3) -> Dataset:
    """Read a folder of pictures into a store."""
    return prepare_dataset(DataConfig(path=str(folder), validation_fraction=validation), stages, SIZE)


def run(config: TrialConfig, data: Dataset, stages: StageStore) -> tuple[list[Measurement], Outcome]:
    """Run a trial; return what it reported, and its outcome."""
    reports: list[Measurement] = []
    return reports, run_trial(config, data, stages, reports.append)


def timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the measures that repeat to the last bit."""
    return {name: value for name, value in metrics.items() if name.removeprefix("test_") not in TIMES}


def numbers(config: TrialConfig, data: Dataset, stages: StageStore) -> list[dict[str, float]]:
    """Run a trial; return the measures of each epoch that repeat."""
    return [timeless(report.metrics) for report in run(config, data, stages)[0]]
