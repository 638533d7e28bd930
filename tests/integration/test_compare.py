"""``carsweep compare`` on folders of sweeps as sweeps leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult, TestReading
from sweeps.trial import TrialRecord

IMAGES = 100


def write_sweep(out: Path, name: str, wrong: range, *, digest: str = "0123456789abcdef", dropout: float = 0.0) -> Path:
    """Write what a sweep with one trial leaves that this command reads."""
    folder = out / name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("family: transfer\n")
    labels = np.arange(IMAGES) % 7
    predicted = labels.copy()
    predicted[list(wrong)] = 7
    np.savez(folder / "test-predictions.npz", rows=np.arange(IMAGES), labels=labels, predicted=predicted)
    params = TrialConfig.model_validate({"family": "transfer", "dropout": dropout}).model_dump()
    metrics = {"val_accuracy": 0.5}
    accuracy = 1 - len(wrong) / IMAGES
    SweepResult(
        sweep=name,
        family="transfer",
        out=str(out),
        data=DataSummary("cars", digest, 300, 7, {"train": 150, "validation": 50, "test": IMAGES}),
        board=Leaderboard((TrialRecord(0, "transfer/frozen", {}, params, "complete", metrics, 1, 2.0),)),
        winner=0,
        test=TestReading({"test_accuracy": accuracy, "test_f1": accuracy}, (0.1, 0.9), IMAGES),
        registered=None,
        tracking_uri="",
        seconds=3.0,
    ).save(folder / "result.json")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two sweeps that differ, one that differs from neither, and one of another data set."""
    write_sweep(tmp_path, "weak", range(30), dropout=0.4)
    write_sweep(tmp_path, "strong", range(10))
    write_sweep(tmp_path, "middle", range(10, 22))
    write_sweep(tmp_path, "elsewhere", range(5), digest="fedcba9876543210")
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run ``carsweep compare`` with the words; return exit code, stdout and stderr."""
    code = run_command(carsweep, ["compare", *map(str, words)])
    told = capfd.readouterr()
    return code, told.out, told.err


def test_all_sweeps_are_shown_with_their_pairs(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each data set has a table, best first; pairs say who is better or that no difference is shown."""
    code, told, _ = run(capfd, "--out", out)
    assert code == 0
    assert told.count("test accuracy") == 2
    assert told.index("strong") < told.index("middle") < told.index("weak")
    assert "strong – weak: +20.00 [" in told
    assert "right alone 20 and 0, p = 5.72e-06: strong is better" in told
    assert "strong – middle: +2.00 [" in told
    assert "right alone 12 and 10, p = 0.832: no difference shown" in told
    assert "elsewhere –" not in told
    assert "– elsewhere" not in told
    assert f"ui --out {out}" in told


def test_tables_fit_a_narrow_terminal(
    out: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 80 columns no line of a table is wider; sentences wrap where the terminal wraps them."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run(capfd, "strong", "weak", "--out", out)[1].splitlines()
    assert sum(line.startswith("rank") for line in narrow) == 2
    assert all(len(line) <= 80 for line in narrow if "–" not in line and "MLflow" not in line)


def test_json_has_the_same_and_nothing_else(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One object on stdout, with the groups, and what is unfinished or unreadable."""
    (out / "running").mkdir()
    (out / "running" / "spec.yaml").write_text("family: transfer\n")
    write_sweep(out, "damaged", range(3)).joinpath("result.json").write_text("{")
    code, told, _ = run(capfd, "--out", out, "--json")
    value = json.loads(told)
    assert code == 0
    assert [[line["sweep"] for line in group["sweeps"]] for group in value["groups"]] == [
        ["elsewhere"],
        ["strong", "middle", "weak"],
    ]
    assert len(value["groups"][1]["pairs"]) == 3
    assert value["unfinished"] == ["running"]
    assert value["unreadable"][0].startswith("damaged: result.json must be one that this carsweep wrote, got")


def test_damaged_predictions_leave_a_sweep_without_pairs(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The row stays, and what is wrong is said."""
    (out / "weak" / "test-predictions.npz").write_bytes(b"PK\x03\x04 not a zip")
    code, told, _ = run(capfd, "weak", "strong", "--out", out)
    assert code == 0
    assert "70.0%" in told
    assert "weak: test-predictions.npz must hold rows, labels and predicted" in told
    assert "p =" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stron"], "got 'stron'. Did you mean strong? Known: elsewhere, middle, strong, weak."),
        (["--top", "0"], "--top"),
    ],
)
def test_mistakes_are_told_in_a_line(out: Path, words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An unknown sweep names the nearest one; exit code 2."""
    code, told, error = run(capfd, *words, "--out", out)
    assert (code, told) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_folder_without_sweeps_is_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing to compare says what to name."""
    code, _, error = run(capfd, "--out", tmp_path)
    assert code == 2
    assert "--out must be a folder with sweeps" in error
