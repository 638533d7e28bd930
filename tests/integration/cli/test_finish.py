"""A sweep that is finished before its time: the best so far is tested and registered, and the rest can still go on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from helpers import draw_pictures, run_carsweep

from sweeps.study.records import read_history

COMMAND = [sys.executable, "-m", "sweeps.cli"]
RUN = [
    *("run", "transfer", "--data", "pictures", "--name", "mine", "--trials", "40", "--concurrency", "1"),
    *("--set", "backbone=efficientnet_lite0", "image_size=64", "epochs=4", "experiments=[]", "near=0"),
    "early_stopping.enabled=false",
]


def test_a_sweep_that_runs_is_finished_with_the_best_so_far(tmp_path: Path) -> None:
    """Its own command ends as one that was interrupted; no other trial is run, and resume would go on with the rest."""
    draw_pictures(tmp_path / "pictures", classes=3)
    log = tmp_path / "log"
    with log.open("w") as stderr:
        running = subprocess.Popen([*COMMAND, *RUN], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        deadline = time.monotonic() + 300
        while not re.search("trial 1 epoch|trial 2 started", log.read_text()):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        done = run_carsweep(tmp_path, ["finish", "mine", "--json"])
        assert done.code == 0, done.err
        assert running.wait(60) == 130
    finally:
        running.kill()
    ended = [one for one in done.value["trials"] if one["status"] == "complete"]
    assert 1 <= len(ended) < 40
    best = max(ended, key=lambda one: (one["metrics"]["val_accuracy"], -one["number"]))
    assert done.value["best"]["metrics"]["val_accuracy"] == best["metrics"]["val_accuracy"]
    assert done.value["registered"]["version"] == "1"
    assert done.value["test"]["evaluations"] == 1
    assert len(read_history(tmp_path / "runs" / "mine").records) == len(done.value["trials"])
    (status,) = run_carsweep(tmp_path, ["status", "mine", "--json"]).value["sweeps"]
    assert status["registered"] == "carsweep-transfer 1"
    again = run_carsweep(tmp_path, ["finish", "mine", "--json"])
    assert (again.code, again.value["test"], again.value["registered"]) == (
        *(0, done.value["test"], done.value["registered"]),
    )


def test_a_sweep_without_a_complete_trial_has_nothing_to_register(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """It is refused in words, and still runs if it did."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    code, spec, _ = run("run", "transfer", "--name", "mine", "--print-spec")
    assert code == 0
    (folder / "spec.yaml").write_text(spec)
    code, out, err = run("finish", "mine", "--json")
    assert (code, "error" in json.loads(out)) == (2, True)
    assert "nothing to register. Let it run, or stop it: carsweep stop mine." in err


def test_a_sweep_whose_images_were_moved_says_how_to_go_on(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """As resume does; finish has no word for where they are now."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    code, spec, _ = run("run", "transfer", "--name", "mine", "--data", "gone", "--print-spec")
    assert code == 0
    (folder / "spec.yaml").write_text(spec)
    code, _, err = run("finish", "mine")
    assert (code, "carsweep resume mine --data NEW" in " ".join(err.split())) == (2, True)
