"""What holds for every test."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_card import FakeCards, fake_cards_in
from filelock import FileLock
from PIL import Image

import sweeps.tracking.store  # what it sets in the environment is there before every test
import sweeps.waits
from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command


@pytest.fixture(autouse=True)
def _environment_left_as_found() -> Iterator[None]:
    """MLflow writes the store it was given into the environment, from which child processes would take it."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        if name.startswith("MLFLOW_"):
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith("MLFLOW_")})


@pytest.fixture(autouse=True)
def _no_words_of_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on how fast the machine is; waits have tests of their own."""
    monkeypatch.setattr(sweeps.waits, "QUIET_SECONDS", 600.0)


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``carsweep`` in an empty folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = run_command(carsweep, [str(word) for word in words])
        sys.stdout.flush()
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def fake_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCards]:
    """This machine with one fake NVIDIA card, or with those that ``tell`` names: for nvidia-smi and trials' processes.

    >>> fake_cards.tell(Card("GPU-a", total=80 * GIB), Card("GPU-b", processes=[(4242, "/usr/bin/python", 70_000)]))
    """
    with fake_cards_in(tmp_path / "cards", monkeypatch) as cards:
        yield cards


@pytest.fixture(scope="session")
def draw_tints() -> Callable[..., Path]:
    """Return a function that draws class folders of noise with a train and a test split, a tint for each class."""

    def draw(
        root: Path,
        train: int,
        test: int,
        *,
        size: tuple[int, int] = (48, 60),
        tints: Sequence[tuple[int, int, int]] = ((180, 0, 0), (0, 180, 0), (0, 0, 180)),
        noise: int = 70,
    ) -> Path:
        random = np.random.default_rng(0)
        for label, tint in enumerate(tints):
            for split, count in (("train", train), ("test", test)):
                place = root / split / f"tint {label}"
                place.mkdir(parents=True)
                for number in range(count):
                    pixels = random.integers(0, noise, (*size, 3)) + np.array(tint)
                    Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
        return root

    return draw


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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A retrieval model and a classifier, both small, to be served."""
    from tests.served import write_models  # loads PyTorch, which most tests do without

    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(models: list[Path]) -> Iterator[Any]:
    """A running server of both (``tests.served.Server``)."""
    from tests.served import serving

    with serving(models) as server:
        yield server
