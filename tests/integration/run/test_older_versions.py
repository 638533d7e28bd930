"""Sweeps that an older version (commit b4f6d8d) left: looked at, gone on with, repaired and promoted by this one."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command
from sweeps.spec.sweep_file import read_file, read_spec
from sweeps.study.records import read_history
from sweeps.tracking.store import check_tracking

FIXTURES = Path(__file__).parents[2] / "fixtures" / "b4f6d8d"
Run = Callable[..., tuple[int, str, str]]
# Status and (epoch, accuracy) of each run in MLflow, by name.
Runs = dict[str, tuple[str, list[tuple[int, float]]]]

THIRD = pytest.approx(1 / 3)
WHOLE: Runs = {
    "whole": ("FINISHED", []),
    "trial 0 · search": ("FINISHED", [(1, THIRD), (2, THIRD)]),
    "trial 1 · search": ("FINISHED", [(1, 0.0)]),
}
# As that version wrote them: another sweep that goes on leaves them as they are.
AS_WRITTEN: Runs = {
    "whole": WHOLE["whole"],
    "trial-0000": WHOLE["trial 0 · search"],
    "trial-0001": ("KILLED", WHOLE["trial 1 · search"][1]),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with the sweeps as the older version would have left them there."""
    home = tmp_path / "home"
    shutil.copytree(FIXTURES, home)
    with tarfile.open(home / "others.tar.gz") as others:
        others.extractall(home, filter="data")
    for path in home.rglob("*"):
        if path.is_file() and b"@HOME@" in (said := path.read_bytes()):
            path.write_bytes(said.replace(b"@HOME@", str(home).encode()))
    database = sqlite3.connect(home / "runs" / "mlflow.db")
    database.executescript((home / "runs" / "mlflow.sql").read_text(encoding="utf-8"))
    database.close()
    for name in ("whole", "cut"):
        _note_spec(home / "runs" / name)
    return home


def _note_spec(folder: Path) -> None:
    """Put the spec's digest into the journal: that of before was of a spec with another path of the images."""
    journal, lines = folder / "study.journal", []
    for line in journal.read_text(encoding="utf-8").splitlines():
        log = json.loads(line)
        if "spec" in log.get("user_attr", {}):
            log["user_attr"]["spec"] = read_spec(folder).digest
            del log["crc"]
            text = json.dumps(log, separators=(",", ":"))
            line = f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}'
        lines.append(line)
    journal.write_text("\n".join([*lines, ""]), encoding="utf-8")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``carsweep``."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run_command(carsweep, list(map(str, words)))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return call


def resume(name: str, out: Path) -> tuple[dict[str, Any], str]:
    """Go on with a sweep in a process of its own; return its result and what was said."""
    command = [sys.executable, "-m", "sweeps.cli", "resume", name, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result, done.stderr


def runs_in_mlflow(folder: Path) -> Runs:
    """Return what MLflow has of a sweep; no two of its runs have one name."""
    tracking = check_tracking(None, folder.parent)
    client = tracking.client()
    query = f"tags.`carsweep.sweep_id` = '{read_file(folder).id}'"
    said, found = {}, client.search_runs([tracking.experiment("scratch")], query)
    for one in found:
        points = client.get_metric_history(one.info.run_id, "val_accuracy")
        said[str(one.info.run_name)] = (one.info.status, sorted((point.step, point.value) for point in points))
    assert len(said) == len(found)
    return said


def versions_in(out: Path) -> dict[int, set[str]]:
    """Return the aliases of each registered version."""
    client = check_tracking(None, out).client()
    aliases = client.get_registered_model("carsweep-scratch").aliases.items()
    found = client.search_model_versions("name = 'carsweep-scratch'")
    return {int(v.version): {alias for alias, of in aliases if int(of) == int(v.version)} for v in found}


def files_in(folder: Path) -> dict[Path, bytes]:
    """Return every file's content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_older_sweeps_are_looked_at_and_left_as_they_are(home: Path, run: Run) -> None:
    """Status, runs and compare tell what the older version told; the interrupted sweep says where it stands."""
    before = files_in(home)
    code, out, err = run("status", "whole", "--out", home / "runs", "--json")
    whole = json.loads(out)["sweeps"][0]
    assert (code, err) == (0, "")
    assert (whole["state"], whole["counts"], whole["best"]) == ("finished", {"complete": 1, "pruned": 1}, 0)
    assert (whole["test_accuracy"], whole["registered"]) == (THIRD, "carsweep-scratch 1")
    cut = json.loads(run("status", "cut", "--out", home / "runs", "--json")[1])["sweeps"][0]
    assert (cut["state"], cut["counts"]) == ("unfinished", {"complete": 1, "running": 1})
    assert [(one["number"], one["epoch"], one["accuracy"]) for one in cut["unfinished"]] == [(1, 1, THIRD)]
    _, out, _ = run("runs", "--out", home / "runs")
    assert [line.split()[0] for line in out.splitlines()] == ["sweep", "cut", "whole"]
    _, out, _ = run("compare", "--out", home / "runs", "--json")
    said = json.loads(out)
    assert [line["sweep"] for group in said["groups"] for line in group["sweeps"]] == ["whole"]
    assert said["unfinished"] == ["cut"]
    assert json.loads(run("status", "job", "--out", home / "job", "--json")[1])["sweeps"][0]["name"] == "job-transfer"
    removed = json.loads(run("gc", "--out", home / "runs", "--dry-run", "--json")[1])["removed"]
    assert not {"stopped", "unclaimed"} & set(removed)
    assert files_in(home) == before


def test_the_spec_of_an_older_sweep_is_the_same_one(home: Path, run: Run) -> None:
    """Its digest is what the journal says, so nothing counts as edited by hand; a job's specs are read too."""
    assert read_history(home / "drawn" / "drawn").spec == read_spec(home / "drawn" / "drawn").digest
    for out, name in (("drawn", "drawn"), ("job", "job"), ("runs", "whole"), ("runs", "cut")):
        code, told, err = run("resume", name, "--out", home / out, "--dry-run")
        assert (code, told, err) == (0, f"{name} would go on as it is.\n", "")


def test_a_finished_older_sweep_answers_with_its_result(home: Path, run: Run) -> None:
    """Nothing is trained, evaluated or registered again; its runs in MLflow are the same, each epoch once."""
    folder, before = home / "runs" / "whole", json.loads((home / "runs" / "whole" / "result.json").read_text())
    trials = read_history(folder).records
    assert runs_in_mlflow(folder) == AS_WRITTEN
    result, said = resume("whole", home / "runs")
    for part in ("best", "test", "registered", "data"):
        assert before[part].items() <= result[part].items(), part
    for now, then in zip(result["trials"], before["trials"], strict=True):
        assert then.items() <= now.items()  # some keys have another name beside the one that they had
    assert "changed" not in said
    assert read_history(folder).records == trials
    assert runs_in_mlflow(folder) == WHOLE
    assert versions_in(home / "runs") == {1: {"challenger"}}
    code, out, _ = run("promote", "scratch", "--out", home / "runs", "--dry-run")
    assert (code, out.split(". ")[0]) == (0, "Version 1 of carsweep-scratch would become the champion")


def test_an_interrupted_older_sweep_goes_on_to_its_end(home: Path, run: Run) -> None:
    """Its journal goes on, trials are trained from where they were left, the winner meets the older champion."""
    assert run("promote", "scratch", "--out", home / "runs")[0] == 0
    folder, stages = home / "runs" / "cut", home / "runs" / "stages"
    before = (folder / "study.journal").read_bytes()
    (known,) = (record.model for record in read_history(folder).records if record.status == "complete")
    result, _ = resume("cut", home / "runs")
    assert (folder / "study.journal").read_bytes().startswith(before)
    records = read_history(folder).records
    assert [(record.status, [one.epoch for one in record.history]) for record in records] == [("complete", [1, 2])] * 3
    assert result["registered"]["version"] == "2"
    log = [json.loads(line) for line in (stages / "log.jsonl").read_text().splitlines()]
    made = {f"training/{stage['digest']}" for stage in log if (stage["kind"], stage["event"]) == ("training", "made")}
    assert made == {record.model for record in records} - {known}
    points = [[(one.epoch, pytest.approx(one.metrics["val_accuracy"])) for one in record.history] for record in records]
    trials = {f"trial {number} · search": ("FINISHED", points[number]) for number in range(3)}
    assert runs_in_mlflow(folder) == {"cut": ("FINISHED", []), **trials}
    assert runs_in_mlflow(home / "runs" / "whole") == AS_WRITTEN
    assert versions_in(home / "runs") == {1: {"champion"}, 2: {"challenger"}}
    said = json.loads(run("promote", "scratch", "--out", home / "runs", "--dry-run", "--json")[1])
    assert (said["champion"], said["challenger"], said["comparison"]["images"]) == ("1", "2", 9)
    assert said["comparison"]["second_accuracy"] == THIRD


def test_mlflow_is_brought_in_line_with_older_journals(home: Path, run: Run) -> None:
    """They know of an epoch its accuracy alone, which is there once, also where the database was lost."""
    code, out, _ = run("tracking", "repair", "whole", "--out", home / "runs")
    assert (code, out) == (0, "whole: MLflow has 2 trials with 3 epochs, and the winner as carsweep-scratch 1.\n")
    assert runs_in_mlflow(home / "runs" / "whole") == WHOLE
    code, out, _ = run("tracking", "repair", "cut", "--out", home / "runs")
    assert (code, out) == (0, "cut: MLflow has 2 trials with 3 epochs.\n")
    assert runs_in_mlflow(home / "runs" / "cut") == {
        "cut": ("KILLED", []),
        "trial 0 · search": ("FINISHED", [(1, THIRD), (2, THIRD)]),
        "trial 1 · search": ("KILLED", [(1, THIRD)]),
    }
    assert versions_in(home / "runs") == {1: {"challenger"}}
    code, out, _ = run("tracking", "repair", "drawn", "--out", home / "drawn")
    assert (code, out.partition(". ")[0]) == (0, "drawn: MLflow has 1 trial with 2 epochs")
    assert [epoch for epoch, _ in runs_in_mlflow(home / "drawn" / "drawn")["trial 0 · search"][1]] == [1, 2]


def test_the_model_that_an_older_version_registered_answers_as_then(home: Path) -> None:
    """It brings its own code; its answers to the test images are those that were written down."""
    with np.load(home / "runs" / "whole" / "test-predictions.npz") as stored:
        rows, expected = stored["rows"].tolist(), stored["predicted"].tolist()
    manifest = json.loads((home / "runs" / "whole" / "dataset.json").read_text())["manifest"]
    paths = [str(home / "images" / manifest["images"]["path"][row]) for row in rows]
    code = (
        "import json, sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/carsweep-scratch@challenger');"
        "import carcls; print(json.dumps([carcls.__file__, model.predict(sys.argv[2:])['label'].tolist()]))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{home}/runs/mlflow.db", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=home, check=True)
    used, labels = json.loads(done.stdout)
    assert Path(used).is_relative_to(home / "runs" / "artifacts")
    assert labels == [manifest["classes"][label] for label in expected]


def test_an_older_sweep_on_other_demo_images_is_shown_and_not_gone_on_with(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and compare need no images; resume refuses in one sentence and changes nothing of the sweep."""
    # Drawing takes half a minute, and any pictures but those of then will do.
    monkeypatch.setattr("carcls.data.demo.write_demo", lambda folder, *_: shutil.copytree(home / "images", folder))
    before = files_in(home / "drawn" / "drawn")
    assert json.loads(run("status", "drawn", "--out", home / "drawn", "--json")[1])["sweeps"][0]["state"] == "finished"
    _, out, _ = run("compare", "--out", home / "drawn", "--json")
    assert json.loads(out)["groups"][0]["data"]["name"] == "demo-cars"
    code, out, err = run("resume", "drawn", "--out", home / "drawn")
    assert (code, out, err.count("carsweep: ")) == (2, "", 1)
    assert err.splitlines()[-1].startswith("carsweep: ")
    assert files_in(home / "drawn" / "drawn") == before
