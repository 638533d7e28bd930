"""Training in this process, on a card and on the CPU: the same numbers twice, number formats, memory, no waiting."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from epoch import trainer_of
from family_trials import read, run, timeless
from gpu_trial import SIZE, TRIALS
from helpers import draw_pictures
from torch import nn

from carcls.config import TrialConfig
from carcls.errors import OutOfMemory
from carcls.models.classifier import build_classifier
from carcls.stages import StageStore
from carcls.training import images, loop
from carcls.training.images import NumberFormat, autocast, pick_device
from carcls.training.memory import memory_errors_named
from sweeps.failures import failure_of

AUGMENTED = {"crop": "resized", "flip": True, "rotation": 15.0, "jitter": 0.2, "dropout": 0.2}


def config_of(device: str, **changes: Any) -> TrialConfig:
    """Return a small training with all augmentation, of a large network on a card and of a small one on the CPU."""
    trial = TRIALS[device]
    return TrialConfig.model_validate({"family": trial["family"], **trial["config"], **AUGMENTED, **changes})


def test_the_same_trial_twice_gives_the_same_numbers(device: str, tmp_path: Path) -> None:
    """Two stores that know nothing of each other hold the same metrics of each epoch, and the same probabilities."""
    pictures, found = draw_pictures(tmp_path / "pictures", train=16), []
    for name in ("one", "other"):
        stages = StageStore(tmp_path / name)
        reports, outcome = run(config_of(device, epochs=3), read(pictures, stages), stages)
        with np.load(stages.root / outcome.predictions) as kept:
            found.append(([timeless(report.metrics) for report in reports], kept["probabilities"]))
    (numbers, probabilities), (again, repeated) = found
    assert numbers == again
    assert len(numbers) == 3
    assert np.array_equal(probabilities, repeated)


def test_bf16_is_for_the_backbone_and_near_fp32(device: str) -> None:
    """Convolutions compute in bf16, the head in fp32, and embeddings point where those of fp32 do."""
    classifier = build_classifier(TrialConfig(backbone="efficientnet_lite0"), 5)
    classifier = classifier.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    seen: list[torch.dtype] = []
    first = next(module for module in classifier.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _, __, answer: seen.append(answer.dtype))
    pictures = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(device)
    found = {}
    for precision in get_args(NumberFormat):
        with torch.inference_mode():
            with autocast(torch.device(device), precision):
                embeddings = classifier.embed(pictures)
            found[precision] = embeddings.float()
            assert classifier.classify(found[precision]).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]
    assert not torch.equal(found["bf16"], found["fp32"])
    assert float(nn.functional.cosine_similarity(found["bf16"], found["fp32"]).min()) > 0.98


def test_a_lack_of_memory_is_known_in_the_words_of_this_pytorch(device: str) -> None:
    """More than there can be is refused, and whoever asked is told at which batch and image size."""
    with (
        pytest.raises(OutOfMemory, match="at batch_size 48") as caught,
        memory_errors_named(TrialConfig(batch_size=48)),
    ):
        torch.empty(2**50, dtype=torch.uint8, device=device)
    assert failure_of(caught.value).kind == "out_of_memory"
    assert caught.value.__cause__ is not None
    assert failure_of(caught.value.__cause__).kind == "out_of_memory"
    assert ("GPU" in str(caught.value)) == (device == "cuda")


# With all memory but 16 MiB taken, the first product and the first convolution of a process need what is not there.
FULL = """
import torch
from carcls.machine import is_lack_of_memory
torch.zeros(1, device="cuda")
free, _ = torch.cuda.mem_get_info()
held = [torch.empty(free - 2**26, dtype=torch.uint8, device="cuda")]
try:
    while True:
        held.append(torch.empty(2**21, dtype=torch.uint8, device="cuda"))
except RuntimeError as error:
    print(is_lack_of_memory(error), error)
del held[-8:]
torch.cuda.empty_cache()
product, image, kernel = torch.ones(64, 64, device="cuda"), torch.ones(1, 3, 32, 32, device="cuda"), None
for compute in (lambda: product @ product, lambda: torch.nn.Conv2d(3, 512, 3, device="cuda")(image).sum().backward()):
    try:
        compute()
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(is_lack_of_memory(error), error)
"""


@pytest.mark.gpu
def test_a_full_card_is_a_lack_of_memory_whichever_library_says_so() -> None:
    """What PyTorch, cuBLAS and cuDNN say on a card that is full is known as that, every time."""
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, timeout=120, check=True)
    verdicts = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("True", "False"))]
    assert verdicts, done.stdout
    assert set(verdicts) == {"True"}, done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("room", [0.25, 0.0], ids=["resident", "pinned"])
def test_no_step_of_training_waits_for_the_gpu(room: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTorch itself warns of as many waits in an epoch of twenty steps as in one of ten, wherever the pixels are."""
    monkeypatch.setattr("carcls.machine._held", [1.0])
    monkeypatch.setattr(images, "PACK_SHARE", room)
    monkeypatch.setattr(images, "GPU_ANSWERED_PIXELS", 2 * 8 * SIZE**2)
    monkeypatch.setattr(loop, "STEPS_BETWEEN_CHECKS", 1000)
    counts = {steps: waits_of_an_epoch(steps, tmp_path) for steps in (10, 20)}
    assert counts[10] == counts[20]


def waits_of_an_epoch(steps: int, folder: Path) -> Counter[str]:
    """Return the lines at which PyTorch warns that the host waits in an epoch of so many steps, and how often."""
    trainer = trainer_of(config_of("cuda", batch_size=8), steps, "bf16", folder)
    trainer.run_epoch(0)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.run_epoch(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message))


def test_a_trainer_computes_where_its_trial_was_placed(device: str, tmp_path: Path) -> None:
    """Network, optimizer and batches are on the device that the trial was given."""
    trainer = trainer_of(config_of(device), 2, "fp32", tmp_path)
    trainer.run_epoch(0)
    tensors = [*trainer.classifier.state_dict().values(), trainer.images.batch(np.arange(4))]
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    assert {tensor.device.type for tensor in [*tensors, *moments]} == {device} == {pick_device().type}
