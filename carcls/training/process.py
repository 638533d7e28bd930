"""One of the processes that train a classifier together: ``python -m carcls.training.process``, by the launcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from carcls.config import TrialConfig
from carcls.disk import full_disk_named
from carcls.errors import LostProcess
from carcls.helpers import Caller, serve
from carcls.machine import hold_gpus, is_broken_device, keep_freed_memory
from carcls.models.classifier import Classifier, build_classifier
from carcls.outcome import Measurement
from carcls.seeding import make_deterministic
from carcls.training.images import ImageSource, pick_device
from carcls.training.launcher import LOGITS
from carcls.training.loop import Trainer
from carcls.training.memory import memory_errors_named
from carcls.training.parallel import Parallel, join


def _train(caller: Caller) -> None:
    """Train as one of several; the first measures, reports and writes, the others follow it."""
    order = caller.order
    config, folder = TrialConfig.model_validate(order["config"]), Path(order["folder"])
    hold_gpus(order["gpus"])
    torch.set_num_threads(order["threads"])
    keep_freed_memory()
    make_deterministic()
    with _device_errors_named(), memory_errors_named(config):
        device, parallel = pick_device(), Parallel(order["rank"], config.processes)
        trainer = _trainer(caller, config, device, parallel)
        join(parallel, Path(order["meeting"]), device)
        if parallel.rank:
            trainer.follow(folder)
            return

        def report(measurement: Measurement) -> None:
            said = {"epoch": measurement.epoch, "metrics": dict(measurement.metrics), "trained": measurement.trained}
            caller.say(measured=said)
            caller.wait()

        logits = trainer.fit(folder, report)
        with full_disk_named(folder):
            np.save(folder / LOGITS, logits)


@contextmanager
def _device_errors_named() -> Iterator[None]:
    """Turn an error of CUDA or NCCL, after which a process is of no use, into what the trial goes on after.

    Raises:
        LostProcess: how this process ended, in words that follow its name.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_broken_device(error):
            raise
        raise LostProcess(f"failed ({type(error).__name__}: {error})") from error


def _trainer(caller: Caller, config: TrialConfig, device: torch.device, parallel: Parallel) -> Trainer:
    order = caller.order
    classifier = build_classifier(config, order["classes"])
    if config.sync_batch_norm:
        classifier = _synchronised(classifier)
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone, pixels = classifier.backbone, np.load(order["pixels"], mmap_mode="r")
    return Trainer(
        config=config,
        classifier=classifier,
        images=ImageSource(pixels, backbone.mean, backbone.std, device),
        labels=np.array(order["labels"], np.int64),
        train=np.array(order["train"], np.int64),
        validation=np.array(order["validation"], np.int64),
        precision=order["precision"],
        features=None,
        parallel=parallel,
    )


def _synchronised(classifier: Classifier) -> Classifier:
    """Return the classifier with every BatchNorm, timm's own kinds too, replaced by one that sees all processes."""
    from timm.layers import convert_sync_batchnorm

    found: Classifier = convert_sync_batchnorm(classifier)
    return found


if __name__ == "__main__":
    serve(_train)
