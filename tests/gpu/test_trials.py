"""Trials in real processes of Ray on a card: where they compute, and who holds it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from gpu_trial import SIZE, sweep_of
from helpers import draw_pictures

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.stages import StageStore
from sweeps.engine.session import RaySession


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small pictures."""
    return draw_pictures(tmp_path_factory.mktemp("pictures"), train=16)


@pytest.fixture(scope="module")
def dataset(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The pictures as trials take them."""
    return prepare_dataset(DataConfig(path=str(pictures)), StageStore(tmp_path_factory.mktemp("stages")), SIZE)


@pytest.mark.parametrize(
    "share", [0.0, pytest.param(1.0, marks=pytest.mark.gpu), pytest.param(0.25, marks=pytest.mark.gpu)]
)
def test_a_trial_computes_where_it_was_placed(
    share: float, session: RaySession, dataset: Dataset, tmp_path: Path
) -> None:
    """With a part of a GPU it trains on it, with that part of its memory; without one CUDA is not begun."""
    where = "cuda" if share else "cpu"
    result, notes, _ = sweep_of(tmp_path / "sweep", where, dataset, session, trials=2, gpus_per_trial=share)
    assert [record.status for record in result.records] == ["complete", "complete"]
    ended = [note for note in notes if note["event"] == "end"]
    assert {(note["device"], note["held"], note["initialized"]) for note in ended} == {(where, share, share > 0)}
    if share:
        assert {note["fraction"] for note in ended} == {share}
        assert all(note["peak"] > 2**20 for note in ended)


@pytest.mark.gpu
def test_the_command_takes_nothing_of_the_card(pictures: Path, tmp_path: Path) -> None:
    """From its start to the registered winner the command itself opens no GPU; its trials' processes do."""
    settings = ["backbone=efficientnet_lite0", f"image_size={SIZE}", "epochs=2", "unfreezing=full", "experiments=[]"]
    words = ["run", "transfer", "--data", str(pictures), "--trials", "1", "--set", *settings]
    with (tmp_path / "said.txt").open("w") as said:
        command = subprocess.Popen([sys.executable, "-m", "sweeps.cli", *words], cwd=tmp_path, stdout=said, stderr=said)
        opened: set[str] = set()
        while command.poll() is None:
            opened |= gpus_opened_by(command.pid)
            time.sleep(0.05)
    assert command.returncode == 0, (tmp_path / "said.txt").read_text()
    assert opened == set()


def gpus_opened_by(pid: int) -> set[str]:
    """Return the devices by which a process holds memory of GPUs: CUDA opens them, and who only counts GPUs does not.

    Ray asks NVML for their name in the command's process, which opens others for a moment (/dev/nvidiactl).
    """
    opened = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                opened.add(str(entry.readlink()))
    return {path for path in opened if path.startswith("/dev/nvidia-uvm")}


@pytest.mark.gpu
def test_whoever_computes_on_a_card_has_it_open() -> None:
    """What is looked for in the command is there in a process that holds a tensor."""
    code = "import torch; held = torch.zeros(1, device='cuda'); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    opened = gpus_opened_by(process.pid)
    process.communicate("\n")
    assert opened
