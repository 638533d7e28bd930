"""Starts the processes that train one classifier together, hears what they report, and ends them.

The trial's process itself computes nothing meanwhile, and is in no exchange with them: it waits for words. So whatever
happens to one of them is known at once, and nothing of theirs can keep the trial's process from ending all of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carcls import errors
from carcls.config import TrialConfig
from carcls.errors import CarsweepError, InputError, LostProcess
from carcls.helpers import Helpers
from carcls.outcome import Measurement, Report
from carcls.training.images import NumberFormat
from carcls.training.parallel import LOOPBACK

MODULE = "carcls.training.process"
LOGITS = "logits.npy"
"""What the first process leaves beside the model."""
MEETING = "meeting"
"""By which the processes find each other."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# So that the last words of one that dies are on its death: DistributedDataParallel warns of what is meant so.
_QUIET = {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
# So long a process that failed at an exchange may be ahead of the news that another one died.
_NEWS_SECONDS = 5.0


@dataclass(frozen=True)
class Launcher:
    """Trains one classifier in several processes, as ``Trainer`` does in one.

    Attributes:
        config: the trial as its training sees it.
        classes: of the head.
        pixels: file of the decoded images, uint8 [total, s, s, 3].
        labels: of all rows of the pack, int64 [total].
        train, validation: rows of the splits, int64 [n].
        precision: of the backbone's arithmetic.
        device: of the trial's process. On GPUs each process has one of those that this one sees; on a CPU they share
            the threads of this one.
    """

    config: TrialConfig
    classes: int
    pixels: Path
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    precision: NumberFormat
    device: torch.device

    def fit(self, folder: Path, report: Report) -> NDArray[np.float32]:
        """As ``Trainer.fit``; the epochs up to the checkpoint in ``folder`` may have trained in another number of them.

        Raises:
            InputError: there are fewer GPUs than processes; or as ``Trainer.fit``.
            LostProcess: one of them died.
            TrialFailure: as one of them failed.
        """
        self._require_devices()
        # Here, where the next try finds it, and not in TMPDIR, where it would stay when this process is killed.
        meeting = folder / MEETING
        meeting.unlink(missing_ok=True)
        order = {
            "config": self.config.model_dump(),
            "classes": self.classes,
            "pixels": str(self.pixels),
            "labels": self.labels.tolist(),
            "train": self.train.tolist(),
            "validation": self.validation.tolist(),
            "precision": self.precision,
            "folder": str(folder),
            "meeting": str(meeting),
            "gpus": float(self.device.type == "cuda"),
            "threads": self._threads,
        }
        ranks = range(self.config.processes)
        orders = [{**order, "rank": rank} for rank in ranks]
        with Helpers(MODULE, orders, [self._environment(rank) for rank in ranks]) as helpers:
            self._hear(helpers, report)
        logits: NDArray[np.float32] = np.load(folder / LOGITS)
        for file in (folder / LOGITS, meeting):
            file.unlink()
        return logits

    def _require_devices(self) -> None:
        count = self.config.processes
        if self.device.type != "cuda":
            if self.config.sync_batch_norm:
                raise InputError(
                    "sync_batch_norm must be false where trials have no GPUs: PyTorch synchronises BatchNorm on GPUs "
                    "only, got true. Use --set sync_batch_norm=false."
                )
        elif torch.cuda.device_count() < count:
            raise InputError(
                f"processes must be at most the trial's GPUs, one for each, got {count} with "
                f"{torch.cuda.device_count()}. Use --gpus-per-trial {count}, or --set processes=1."
            )

    @property
    def _threads(self) -> int:
        return max(1, torch.get_num_threads() // self.config.processes)

    def _environment(self, rank: int) -> dict[str, str]:
        """Return what differs in the environment of one process."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads))
        own = {name: os.environ.get(name, value) for name, value in (LOOPBACK | _QUIET).items()} | threads
        if self.device.type != "cuda":
            return own
        listed = os.environ.get(_VISIBLE)
        return own | {_VISIBLE: str(rank) if listed is None else listed.split(",")[rank].strip()}

    def _hear(self, helpers: Helpers, report: Report) -> None:
        """Pass on what the first process reports, until all are done."""
        busy = set(range(self.config.processes))
        while busy:
            rank, said = helpers.hear()
            if said is None:
                raise self._lost(helpers, rank)
            if "failed" in said:
                raise self._failure(helpers, rank, said["failed"])
            if "measured" in said:
                report(Measurement(**said["measured"]))
                helpers.answer(rank)
            else:
                busy.discard(rank)

    def _lost(self, helpers: Helpers, rank: int) -> LostProcess:
        return LostProcess(
            f"process {rank} of the {self.config.processes} that train together died ({helpers.end_of(rank)})."
        )

    def _failure(self, helpers: Helpers, rank: int, said: dict[str, Any]) -> Exception:
        """Return what a process failed with, as this one would have raised it; or that another one had died before."""
        kind = getattr(errors, said["kind"], None)
        if isinstance(kind, type) and issubclass(kind, CarsweepError) and kind is not LostProcess:
            return kind(said["message"])
        with suppress(Empty):
            while True:
                other, word = helpers.hear(_NEWS_SECONDS)
                if word is None:
                    return self._lost(helpers, other)
        if kind is LostProcess:
            return LostProcess(f"process {rank} of the {self.config.processes} that train together {said['message']}")
        error = RuntimeError(f"{said['kind']}: {said['message']}")
        error.add_note(f"In process {rank} of {self.config.processes}:\n{said['traceback']}")
        return error
