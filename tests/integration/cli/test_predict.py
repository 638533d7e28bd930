"""``carsweep predict`` on real files: what it says, where it says it, and what it leaves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import draw_pictures

from carcls.export import load_export

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures in folders, one that is cut short, one that is empty, and a text."""
    folder = draw_pictures(tmp_path / "pictures", classes=3, train=3, test=1)
    whole = next(folder.rglob("*.jpg")).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "notes.txt").touch()
    return folder


def test_every_image_has_a_row_and_one_that_cannot_be_read_says_why(run: Run, export: Path, pictures: Path) -> None:
    """A line, a row of a table and an object for each, with the answers of the model itself."""
    code, out, said = run("predict", pictures, "--model", export, "--top", 2, "--csv", "found.csv", "--json")
    value, rows = json.loads(out), list(csv.DictReader(io.StringIO(Path("found.csv").read_text())))
    assert code == 0
    assert (value["unreadable"], value["left_out"], len(value["images"]), len(rows)) == (2, {".txt": 1}, 14, 14)
    assert "12 images answered" in said
    assert "2 cannot be read. Left out: 1 .txt." in said
    code, lines, _ = run("predict", pictures, "--model", export, "--top", 2)
    assert code == 0
    wrong = {"cut.jpg": "it is damaged", "empty.png": "the file is empty"}
    for line, row, image in zip(lines.splitlines(), rows, value["images"], strict=True):
        name, *cells = line.split("\t")
        assert name == row["image"] == image["image"]
        if reason := wrong.get(Path(name).name):
            assert cells[:2] == ["", ""]
            assert all(text.startswith(reason) for text in (cells[2], row["error"], image["error"]))
            continue
        (known,) = load_export(export).predict([name], top=2)
        assert (row["label"], row["error"], image["label"]) == (known.label, "", known.label)
        assert cells[::2] == [label for label, _ in known.top]
        # The sums of a batch and of one image may differ in their last bit.
        assert [float(text) for text in cells[1::2]] == pytest.approx([share for _, share in known.top], abs=1e-4)
        assert [row["label_2"], row["probability_2"]] == cells[2:]
        assert [(one["label"], pytest.approx(one["probability"], abs=1e-5)) for one in image["top"]] == list(known.top)


def test_a_list_is_answered_line_by_line(
    run: Run, export: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of stdin keep their order; when none can be read the exit code is 1."""
    images = sorted(map(str, pictures.rglob("0*.jpg")))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(reversed(images))))
    code, out, _ = run("predict", "-", "--model", export)
    assert code == 0
    assert [line.partition("\t")[0] for line in out.splitlines()] == images[::-1]
    monkeypatch.setattr(sys, "stdin", io.StringIO("missing.jpg\n"))
    assert run("predict", "-", "--model", export)[:2] == (1, "missing.jpg\t\t\tthe file is missing\n")
    monkeypatch.setattr(sys, "stdin", None)  # as the shell's <&- leaves it
    code, _, err = run("predict", "-", "--model", export)
    assert (code, "closed" in err) == (2, True)


def test_a_table_has_no_more_columns_than_there_are_classes(run: Run, export: Path, pictures: Path) -> None:
    """However many are asked for."""
    image = next(pictures.rglob("0*.jpg"))
    assert run("predict", image, "--model", export, "--top", 10_000, "--csv", "found.csv")[0] == 0
    head, row = Path("found.csv").read_text().splitlines()
    assert (head.count(","), row.count(",")) == (15, 15)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer"], "Missing PATH after the family 'transfer'. A file or folder of that name is ./transfer"),
        (["transfer", "pictures", "--model", "x"], "Give FAMILY or --model, not both"),
        (["nowhere"], "PATH must name images"),
        (["transfr", "pictures"], "'transfr' is neither a family nor a file. Did you mean transfer?"),
        (["pictures", "--csv", "no/such/found.csv"], "--csv must name a file in a folder that exists"),
        (["pictures", "--csv", "pictures"], "--csv must name a file in a folder that exists"),
        (["transfer", "pictures"], "--out must be a folder with runs"),
        (["pictures", "--tracking-uri="], "Empty argument after '--tracking-uri'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(words: list[str], said: str, run: Run, pictures: Path) -> None:
    """Exit code 2, one line with the remedy, and nothing is written."""
    before = sorted(pictures.parent.rglob("*"))
    code, out, err = run("predict", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert sorted(pictures.parent.rglob("*")) == before


def test_a_folder_without_images_is_a_mistake(run: Run, export: Path, tmp_path: Path) -> None:
    """What it holds in their place is told, and no empty table is left."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").touch()
    code, _, err = run("predict", "texts", "--model", export, "--csv", "found.csv")
    assert code == 2
    assert "got none in 'texts'. Left out: 1 .txt." in err
    assert not Path("found.csv").exists()


def test_a_table_of_a_run_that_is_killed_is_not_there(export: Path, pictures: Path, tmp_path: Path) -> None:
    """Neither half of it nor a file under another name: what was there before stays."""
    (tmp_path / "found.csv").write_text("before")
    command = [sys.executable, "-m", "sweeps.cli", "predict", "-", "--model", str(export), "--csv", "found.csv"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{next(pictures.rglob('0*.jpg'))}\n" * 1000)
        process.stdin.flush()
        assert "answers" in process.stderr.readline()
        time.sleep(1)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "pictures"]
    assert (tmp_path / "found.csv").read_text() == "before"
