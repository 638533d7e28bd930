"""Where runs are written, what may not be shown, and the values that travel to MLflow."""

from __future__ import annotations

import importlib.metadata
import math
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import free_port

from carcls.errors import TrackingError, mask_secrets
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.tracking.mirror import Mirror
from sweeps.tracking.store import SERVER_SECONDS, Tracking, check_tracking
from sweeps.tracking.updates import Update, as_metrics, as_params


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:s3cret@host:5000", "http://***@host:5000"),
        ("got 'ann:s3cret@host:5000'", "got '***@host:5000'"),
        ("got 'http:/ann:s3cret@host/w.pth'", "got 'http:/***@host/w.pth'"),
        ("models:/carsweep-transfer@champion", "models:/carsweep-transfer@champion"),
        ("postgresql+psycopg2://ann:p@ss:w@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("https://token@host/mlflow?api_key=s3cret&a=1", "https://***@host/mlflow?api_key=***&a=1"),
        ("cannot reach http://ann:s3cret@host/x: refused", "cannot reach http://***@host/x: refused"),
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("mail ann@example.org", "mail ann@example.org"),
    ],
)
def test_masking_hides_credentials_and_nothing_else(text: str, shown: str) -> None:
    """User, password and tokens of a URI are masked; everything else stays readable."""
    assert mask_secrets(text) == shown


@pytest.mark.parametrize("uri", ["ftp://host", "./mlruns", "file:///tmp/mlruns", "databricks", "http://", "sqlite://"])
def test_unknown_kind_of_store_is_refused_with_the_remedy(uri: str, tmp_path: Path) -> None:
    """A URI that is no server and no database is refused in one line that says what to give."""
    with pytest.raises(TrackingError, match=r"--tracking-uri") as caught:
        check_tracking(uri, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "said"),
    [("http", "must answer within"), ("postgresql", "must be readable and writable")],
)
def test_silent_server_is_refused_without_showing_its_password(scheme: str, said: str, tmp_path: Path) -> None:
    """A server that does not answer is told at once, in one line that names no password."""
    with pytest.raises(TrackingError, match=said) as caught:
        check_tracking(f"{scheme}://ann:s3cret@127.0.0.1:{free_port()}/mlflow", tmp_path)
    assert "s3cret" not in str(caught.value)
    assert "***@127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_that_accepts_and_says_nothing_is_refused_in_seconds(tmp_path: Path) -> None:
    """A port that takes connections and never answers does not hold the command up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        start = time.perf_counter()
        with pytest.raises(TrackingError, match="must answer within"):
            check_tracking(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
    assert time.perf_counter() - start < 5 * SERVER_SECONDS


def test_another_web_server_is_refused_as_no_mlflow_server(tmp_path: Path) -> None:
    """A server that answers, but is not MLflow, is told apart from one that does not answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(TrackingError, match="must be an MLflow server"):
                check_tracking(f"http://127.0.0.1:{server.server_port}", tmp_path)
        finally:
            server.shutdown()


def test_what_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    """A file that is none is named, and not overwritten; so is an output folder that cannot be made."""
    file = tmp_path / "mlflow.db"
    file.write_text("not a database, but somebody's", encoding="utf-8")
    with pytest.raises(TrackingError, match="not a database"):
        check_tracking(None, tmp_path)
    with pytest.raises(TrackingError, match="must be readable and writable"):
        check_tracking(None, file)
    assert file.read_text(encoding="utf-8") == "not a database, but somebody's"


def test_database_that_another_process_holds_is_refused_in_seconds(tmp_path: Path) -> None:
    """The write lock is asked for at once, and not when the first trial has begun."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match=r"database is locked.*wait until it has") as raised:
            check_tracking(None, tmp_path)
    assert "ove the file" not in str(raised.value)


def test_a_sweep_can_begin_without_mlflow(tmp_path: Path) -> None:
    """What runs before the first trial loads no MLflow, whose import takes seconds, and leaves no empty database."""
    code = (
        "import sys; from pathlib import Path\n"
        "import sweeps.run.sweep, sweeps.engine.engine, sweeps.run.comparison, sweeps.run.reproduction\n"
        "import sweeps.tracking.mirror\n"
        "sweeps.tracking.store.check_tracking(None, Path(sys.argv[1]))\n"
        "sweeps.tracking.store.check_tracking(f'sqlite:///{sys.argv[1]}/new/mine.db', Path(sys.argv[1]))\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database has an experiment, and one of somebody else's."""
    out = tmp_path_factory.mktemp("place") / "runs"
    tracking = check_tracking(None, out)
    tracking.experiment("transfer")
    tracking.client().create_experiment("mine", artifact_location="/nowhere/artifacts/mine")
    return out


def test_a_database_that_was_moved_is_refused_until_its_models_are_found(logged: Path, tmp_path: Path) -> None:
    """One line with both folders and the remedy; a link in the old place is one, and nothing is written meanwhile."""
    old, new = tmp_path / "old", tmp_path / "new"
    check_tracking(None, logged)
    check_tracking(None, old).experiment("transfer")
    old.rename(new)
    content = (new / "mlflow.db").read_bytes()
    with pytest.raises(TrackingError, match=re.escape(f"leave a link in the old place (ln -s {new} {old})")) as caught:
        check_tracking(None, new)
    assert "\n" not in str(caught.value)
    assert (new / "mlflow.db").read_bytes() == content
    old.symlink_to(new)
    check_tracking(None, new)
    check_tracking(None, old)


def test_a_copied_database_is_refused(logged: Path, tmp_path: Path) -> None:
    """Its runs would get their models in the first one's folder; without the database the copy can be used."""
    copy = Path(shutil.copytree(logged, tmp_path / "copy"))
    with pytest.raises(TrackingError, match=re.escape(f"go on in {logged}, or move this database away")):
        check_tracking(None, copy)
    with pytest.raises(TrackingError, match="must lie where it was made"):
        check_tracking(f"sqlite:///{copy / 'mlflow.db'}", tmp_path / "elsewhere")
    (copy / "mlflow.db").rename(copy / "old.db")
    check_tracking(None, copy)


def test_a_model_that_the_shell_names_gets_no_metric(tmp_path: Path) -> None:
    """MLFLOW_ACTIVE_MODEL_ID of another store made every metric of a sweep fail."""
    code = (
        "import sys; from pathlib import Path; from sweeps.tracking.store import check_tracking; import mlflow\n"
        "tracking = check_tracking(None, Path(sys.argv[1])); client = tracking.client()\n"
        "run = client.create_run(tracking.experiment('transfer')).info.run_id\n"
        "client.log_batch(run, [mlflow.entities.Metric('m', 1.0, 0, 0)])\n"
        "mlflow.set_tracking_uri(tracking.uri); mlflow.log_metric('n', 1.0, run_id=run)\n"
        "print(sorted(client.get_run(run).data.metrics))"
    )
    environment = os.environ | {"MLFLOW_ACTIVE_MODEL_ID": "m-of-another-store"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "['m', 'n']\n", done.stderr


def test_processes_that_start_at_once_share_one_fresh_database(tmp_path: Path) -> None:
    """Two processes that meet no database get the same whole one."""
    code = (
        "import sys; from pathlib import Path; from sweeps.tracking.store import check_tracking\n"
        "print(check_tracking(None, Path(sys.argv[1])).experiment('transfer'))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].strip() for process in running]
    assert [process.returncode for process in running if process.returncode] == []
    assert len(set(answers)) == 1
    assert [file.name for file in tmp_path.glob("*.tmp*")] == []


def test_what_is_logged_is_finite_and_holds_no_password() -> None:
    """A point has the same timestamp whenever it is reported; NaN and infinity are left out; credentials are masked."""
    points = ((3, {"val_accuracy": 0.5, "val_loss": math.nan, "train_loss": math.inf}),)
    for metrics in (as_metrics(points, 1000), as_metrics(points, 1000)):
        assert [(m.key, m.value, m.step, m.timestamp) for m in metrics] == [("val_accuracy", 0.5, 3, 4000)]
    (param,) = as_params({"weights": "https://ann:s3cret@host/w.pt"})
    assert param.value == "https://***@host/w.pt"


def test_the_folder_mlflow_does_not_stand_in_front_of_the_library() -> None:
    """``import mlflow`` in the root of the repository gives the library."""
    root = Path(__file__).parents[3]
    assert (root / "mlflow").is_dir()
    code = "import importlib.util as u; print(u.find_spec('mlflow').origin)"
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    library = importlib.metadata.distribution("mlflow").locate_file("mlflow/__init__.py")
    assert found.stdout.strip() == str(library), found.stderr


def test_a_store_that_fails_while_a_sweep_is_looked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow raises while runs are read for ``carsweep delete``, page after page, has its remedy."""
    from sweeps.run.tracked import find_remains

    def search_runs(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    client = SimpleNamespace(
        get_experiment_by_name=lambda _: SimpleNamespace(experiment_id="1"),
        search_model_versions=lambda _: [],
        search_logged_models=lambda *_, **__: [],
        search_runs=search_runs,
    )
    monkeypatch.setattr(Tracking, "client", lambda _: client)
    write_file(tmp_path / "mine", "sweep", None, [SweepSpec(family="transfer", name="mine")])
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(TrackingError, match="Another process writes to it"):
        find_remains(tmp_path / "mine", None)


def test_a_server_that_starts_again_gets_the_end_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that is closed while a server refuses asks it again, with time between."""
    monkeypatch.setattr("sweeps.tracking.mirror.RETRY_SECONDS", 0.3)
    asked: list[float] = []

    def write(_: int | None, __: Update) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1 and asked[-1] - asked[1] < 0.25:
            raise ConnectionError("refused")

    quiet = dict.fromkeys(("read", "close_open"), lambda *_: None)
    runs: Any = SimpleNamespace(
        tracking=Tracking("http://host", None), write=write, write_together=lambda _: False, **quiet
    )
    warnings: list[str] = []
    mirror = Mirror(runs, Update("mine"), warnings.append)
    mirror.open()
    assert mirror.close("complete")
    assert len(asked) == 3  # the beginning, and the end twice
    assert not any("missing" in line for line in warnings)
