"""Sweeps from Python: the scripts of docs/python.md, twice in a process, in a thread, interrupted, in a notebook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from listener import listening
from nbclient import NotebookClient

from sweeps import load_sweep

DOCS = Path(__file__).resolve().parents[3] / "docs"
# Added to the document's script: the same sweep with a trial more, in a thread; and what was seen.
_MORE = """
import json, sys, threading
import mlflow
def more(seen=[]):
    seen.append(run_sweep("transfer", data="pictures", name="first", trials=3, experiments=["transfer/frozen"],
        search={"dropout": {"low": 0.0, "high": 0.5}, "optimizer": ["adam", "adamw"]}, quiet=True,
        backbone="efficientnet_lite0", image_size=64, epochs=1))
    return seen
thread = threading.Thread(target=more)
thread.start(); thread.join()
print(json.dumps({"before": frame.index.tolist(), "after": sorted(more.__defaults__[0][0].frame().index.tolist()),
    "answers": answers["label"].tolist(), "svg": sorted(sweep.figures), "page": str(page), "curves": curves.shape,
    "uri": mlflow.get_tracking_uri(), "left": [t.name for t in threading.enumerate()], "best": sweep.best.number}))
"""


@pytest.fixture
def folder(tmp_path: Path, draw_tints: Callable[..., Path]) -> Path:
    """Return a folder with three classes of pictures."""
    draw_tints(tmp_path / "pictures", 12, 4)
    return tmp_path


def test_script_of_the_document_runs_and_so_does_a_second_sweep(folder: Path) -> None:
    """It needs no guard; a second sweep of the process, in a thread, goes on with the first; MLflow's URI is kept."""
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    script = folder / "script.py"
    own = f"import mlflow\nmlflow.set_tracking_uri('sqlite:///{folder}/own.db')\n"
    script.write_text(own + "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)) + _MORE)
    with listening() as server:
        words, environment = [sys.executable, str(script)], {**os.environ, "CARSWEEP_NOTIFY": server.url()}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [(body["event"], body["report"], len(body["sweeps"])) for *_, body in server.heard]
    first, together = (str(folder / "runs" / name / "report.html") for name in ("first", "together"))
    assert events == [("finished", first, 1), ("finished", together, 3), ("finished", first, 1)]
    assert "'transfer': 0." in done.stdout
    assert (folder / "runs" / "together" / "comparison.json").is_file()
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (sorted(seen["before"]), seen["after"]) == ([0, 1], [0, 1, 2])
    assert seen["best"] == seen["before"][0]
    assert {*seen["answers"]} <= {"tint 0", "tint 1", "tint 2"}
    assert len(seen["answers"]) == 12
    assert "curves" in seen["svg"]
    assert Path(seen["page"]) == folder / "runs" / "first" / "report.html"
    assert seen["uri"] == f"sqlite:///{folder}/own.db"
    assert seen["left"] == ["MainThread"]
    assert "trial 0 complete: val accuracy" in done.stderr
    assert "trial 2" not in done.stderr  # quiet


def test_interrupted_sweep_raises_and_keeps_everything(folder: Path) -> None:
    """After SIGINT the script ends by KeyboardInterrupt, told how to go on, and the sweep can be loaded."""
    script, errors = folder / "script.py", folder / "errors.txt"
    script.write_text(
        "import sys\nfrom sweeps import run_sweep\n"
        "run_sweep('transfer', data='pictures', name='mine', trials=500, backbone='efficientnet_lite0', image_size=64,"
        " epochs=1, unfreezing='frozen', early_stopping={'enabled': False}, notify=sys.argv[1])\n"
    )
    with errors.open("w") as stderr, listening() as server:
        process = subprocess.Popen([sys.executable, str(script), server.url("/secret")], cwd=folder, stderr=stderr)
        deadline = time.monotonic() + 300
        while "complete" not in errors.read_text():
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == -signal.SIGINT
    ((*_, body),) = server.heard
    assert (body["event"], body["resume"]) == ("stopped", f"carsweep resume mine --out {folder / 'runs'}")
    assert [path for path in (folder / "runs").rglob("*") if path.is_file() and b"/secret" in path.read_bytes()] == []
    said = errors.read_text()
    assert "Interrupted. What there is: load_sweep('mine'). To go on: name='mine'." in said
    assert said.rstrip().endswith("KeyboardInterrupt")
    sweep = load_sweep("mine", out=folder / "runs")
    assert sweep.status.state == "unfinished"
    assert len(sweep.frame()) >= 1


def test_example_notebook_runs(tmp_path: Path) -> None:
    """Each cell of docs/example.ipynb runs in an empty folder; it is committed without outputs."""
    notebook = nbformat.read(DOCS / "example.ipynb", as_version=4)
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert not any(cell.outputs or cell.execution_count for cell in cells.values())
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    progress, shown = cells["run"].outputs[0]["data"], cells["run"].outputs[-1]["data"]
    assert re.search("trial 2 (complete|pruned): val accuracy", progress["text/html"])
    assert "registering trial" in progress["text/plain"]
    assert {output.output_type for output in cells["run"].outputs} == {"display_data", "execute_result"}
    assert shown["text/html"].count("<tr") == 4
    assert "image/svg+xml" in cells["figure"].outputs[0]["data"]
    assert cells["predict"].outputs[0]["data"]["text/html"].count("<tr") == 4
    assert (tmp_path / "runs" / "cars" / "report.html").is_file()
