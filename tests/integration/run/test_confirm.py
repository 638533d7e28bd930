"""`--confirm` and `--refit` with a real Ray: killed in the middle, and from the command line to the registry."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.study.records import read_history

RUNNER = """
import json, time
from pathlib import Path
from carcls.outcome import Measurement, Outcome

def load(path):
    return json.loads(Path(path).read_text())

def run(config, data, stages, report):
    with open(data["log"], "a") as file:
        file.write(f"{config.seed} {config.dropout:.6f}\\n")
    time.sleep(0.4)
    report(Measurement(1, {"val_accuracy": 1 - config.dropout}))
    return Outcome({"val_accuracy": 1 - config.dropout}, 1, 0.0, False, "m", "p.npz")
"""

DRIVER = """
import sys
from functools import partial
from pathlib import Path
from sweeps.engine.engine import run_trials
from sweeps.engine.resources import Machine
from sweeps.engine.session import RaySession
from sweeps.engine.task import Work
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree
from sweeps.run.session import repeats_wanted

class Silent:
    def trial_changed(self, record):
        if record.status != "running":
            print(record.number, record.confirms, flush=True)

folder = Path(sys.argv[1])
spec = SweepSpec.from_tree(read_tree((folder / "spec.yaml").read_text(), "spec.yaml"))
with RaySession(machine=Machine(2)) as session:
    work = Work(
        spec, folder / "sweep", folder / "dataset.json", folder / "stages", session,
        runner="slow_runner:run", loader="slow_runner:load",
    )
    run_trials(work, [Silent()], confirm=partial(repeats_wanted, spec))
"""


@pytest.mark.slow
def test_kill_9_while_confirming_loses_no_run_and_repeats_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 between runs with fresh seeds the next driver runs what is missing: two trials, three seeds each,
    in parallel, and no finished one again.
    """
    (tmp_path / "slow_runner.py").write_text(RUNNER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    spec = SweepSpec(
        family="transfer",
        trials=3,
        concurrency=2,
        gpus_per_trial=0.0,
        confirm="2x3",
        config={"epochs": 1},
        search={"dropout": Range(0.1, 0.9)},
        early_stopping=EarlyStopping(enabled=False),
    )
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    (tmp_path / "dataset.json").write_text(json.dumps({"log": str(tmp_path / "log")}))
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with (tmp_path / "out").open("w") as out:
        driver = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _wait_for(lambda: sum("None" not in line for line in (tmp_path / "out").read_text().splitlines()) >= 2)
        finally:
            driver.kill()
            driver.wait()
    finished = {r.number for r in read_history(tmp_path / "sweep").records if r.status == "complete"}
    log = (tmp_path / "log").read_text().splitlines()
    ran_before = len(log)
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    records = read_history(tmp_path / "sweep").records
    assert [record.status for record in records] == ["complete"] * 9
    best = sorted(records[:3], key=lambda record: record.config["dropout"])[:2]
    assert Counter(r.confirms for r in records[3:]) == {record.number: 3 for record in best}
    assert len({record.config["seed"] for record in records[3:]}) == 6
    again = (tmp_path / "log").read_text().splitlines()[ran_before:]
    assert len(again) == 9 - len(finished)


def _wait_for(happens: Any) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw discs and boxes on noise, as class folders with a test split; return the folder around them."""
    folder = tmp_path_factory.mktemp("confirm")
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for name, shape in (("disc", "ellipse"), ("box", "rectangle")):
            (folder / "shapes" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(random.integers(0, 255, (72, 72, 3), dtype=np.uint8))
                x, y, side = (int(v) for v in random.integers((5, 5, 30), (30, 30, 40)))
                getattr(ImageDraw.Draw(picture), shape)([x, y, x + side, y + side], fill=(250, 20, 20))
                picture.save(folder / "shapes" / split / name / f"{number}.png")
    return folder


def command(folder: Path, *more: str) -> dict[str, Any]:
    """Run the sweep in ``folder`` to its end; return its object."""
    words = ["run", "transfer", "--data", str(folder / "shapes"), "--out", str(folder / "runs"), "--name", "mine"]
    settings = ["--trials", "2", "--set", "backbone=efficientnet_lite0", "image_size=64", "batch_size=8", "epochs=1"]
    whole = [sys.executable, "-m", "sweeps.cli", *words, *settings, "experiments=[]", "--json", *more]
    done = subprocess.run(whole, capture_output=True, text=True, cwd=folder, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return {**value, "stderr": done.stderr}


@pytest.mark.slow
def test_a_sweep_that_is_done_is_confirmed_and_then_refitted(shapes: Path) -> None:
    """The same command with --confirm adds the runs and chooses by them; with --refit it registers a new model of the
    winner's settings; each reading of the test images is counted, and without the options nothing is forgotten.
    """
    plain = command(shapes)
    assert (plain["confirmed"], plain["best"]["confirms"], plain["test"]["readings"]) == ([], None, 1)
    assert len(plain["comparison"]) == 1
    confirmed = command(shapes, "--confirm", "2x2")
    runs = [trial for trial in confirmed["trials"] if trial["confirms"] is not None]
    assert len(runs) == 4
    winner = confirmed["confirmed"][0]
    assert confirmed["best"]["confirms"] == winner["number"]
    assert confirmed["best"]["number"] in winner["runs"]
    assert confirmed["best"]["params"]["seed"] != 0
    scores = [trial["metrics"]["val_accuracy"] for trial in runs if trial["confirms"] == winner["number"]]
    assert winner["mean"] == pytest.approx(sum(scores) / 2)
    assert (confirmed["test"]["readings"], confirmed["test"]["models"]) == (2, 2)
    assert "no difference shown" in confirmed["stderr"]
    again = command(shapes)
    assert again["confirmed"] == confirmed["confirmed"]
    assert again["registered"] == confirmed["registered"]
    refit = command(shapes, "--refit")
    assert refit["test"]["refit"]
    assert refit["test"]["models"] == 3
    assert int(refit["registered"]["version"]) == int(confirmed["registered"]["version"]) + 1
    assert "so it has no validation score" in refit["stderr"]


@pytest.mark.slow
def test_damaged_result_is_written_anew(shapes: Path) -> None:
    """A result.json that cannot be read is told and made again from the journal, with no new reading and no version."""
    before = command(shapes)
    (shapes / "runs" / "mine" / "result.json").write_text('{"sweep": "mi')
    after = command(shapes)
    assert "result.json cannot be read" in after["stderr"]
    assert after["test"] == before["test"]
    assert after["registered"]["version"] == before["registered"]["version"]
