"""Where runs are written, what may not be shown, and the values that travel to MLflow."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import free_port

from carcls.errors import TrackingError, mask_secrets
from sweeps.run.tracked import find_remains
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.tracking.compat import one_transaction
from sweeps.tracking.mirror import Mirror
from sweeps.tracking.store import SERVER_SECONDS, Tracking, check_tracking
from sweeps.tracking.updates import Update, to_mlflow


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


@contextmanager
def silent_port() -> Iterator[int]:
    """Listen on a port, take connections, and never answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@contextmanager
def other_server() -> Iterator[int]:
    """Run a web server that is not MLflow's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("scheme", "port", "said"),
    [
        ("http", lambda: nullcontext(free_port()), "must answer within"),
        ("postgresql", lambda: nullcontext(free_port()), "must be readable and writable"),
        ("http", silent_port, "must answer within"),
        ("http", other_server, "must be an MLflow server"),
    ],
)
def test_what_is_no_mlflow_server_is_refused_in_seconds_without_showing_its_password(
    scheme: str, port: Callable[[], AbstractContextManager[int]], said: str, tmp_path: Path
) -> None:
    """A server that is not there, says nothing, or is another one is told in one line that names no password."""
    start = time.perf_counter()
    with port() as number, pytest.raises(TrackingError, match=said) as caught:
        check_tracking(f"{scheme}://ann:s3cret@127.0.0.1:{number}/mlflow", tmp_path)
    assert time.perf_counter() - start < 5 * SERVER_SECONDS
    assert "s3cret" not in str(caught.value)
    assert "***@127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


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


def places(folder: Path) -> list[str]:
    """Return all paths of files that the database in a folder has."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        query = "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs"
        return [place for (place,) in database.execute(query)]


def test_a_database_that_was_moved_or_copied_with_its_files_is_mended(tmp_path: Path) -> None:
    """A copy has its own files from then on, which is said once; the first keeps its own, and somebody else's stays."""
    old, copy = tmp_path / "old runs", tmp_path / "copy"
    tracking = check_tracking(None, old)
    client = tracking.client()
    run = client.create_run(tracking.experiment("transfer")).info.run_id
    client.create_experiment("mine", artifact_location="/nowhere/artifacts/mine")
    client.create_experiment("carsweep-url", artifact_location=(old / "artifacts" / "carsweep-url").as_uri())
    client.log_text(run, "first", "said.txt")
    shutil.copytree(old, copy)
    before = places(old)
    planned = check_tracking(None, copy, plan=True)
    assert planned.note == f"{copy} was moved or copied from {old}: MLflow's paths will be mended by a run."
    assert places(copy) == before
    moved = check_tracking(None, copy)
    assert moved.note == f"{copy} was moved or copied from {old}: MLflow's paths are mended."
    second = moved.client().create_run(moved.experiment("transfer")).info
    assert second.artifact_uri == f"{copy}/artifacts/carsweep-transfer/{second.run_id}/artifacts"
    assert (places(old), check_tracking(None, old).note, check_tracking(None, copy).note) == (before, "", "")
    assert {place for place in places(copy) if str(old) in place or old.as_uri() in place} == set()
    assert "/nowhere/artifacts/mine" in places(copy)
    assert (copy / "artifacts" / "carsweep-url").as_uri() in places(copy)
    shutil.rmtree(old)
    assert (Path(moved.client().get_run(run).info.artifact_uri) / "said.txt").read_text() == "first"
    link = tmp_path / "link"
    link.symlink_to(copy)
    assert (check_tracking(None, link).note, places(copy)) == ("", places(link))


def test_a_database_without_its_files_or_in_use_by_another_path_is_refused(tmp_path: Path) -> None:
    """One line with both folders and the way on, and nothing is changed."""
    old, new = tmp_path / "old", tmp_path / "new"
    tracking = check_tracking(None, old)
    tracking.client().create_run(tracking.experiment("transfer"))
    new.mkdir()
    shutil.copy(old / "mlflow.db", new)
    with pytest.raises(TrackingError, match=re.escape(f"(cp -r {old}/artifacts {new}/artifacts)")) as caught:
        check_tracking(f"sqlite:///{new / 'mlflow.db'}", tmp_path / "elsewhere")
    assert "\n" not in str(caught.value)
    (new / "artifacts").mkdir()
    code = "import sys, time; from pathlib import Path; from sweeps.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(new / "mine")], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        with pytest.raises(TrackingError, match="is used by 'mine', which process"):
            check_tracking(None, new)
        running.kill()
    assert places(new) == places(old)
    assert check_tracking(None, new).note
    assert places(new) != places(old)


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
    """A point has its epoch's timestamp; NaN and infinity are left out; credentials are masked."""
    points = ((3, {"val_accuracy": 0.5, "val_loss": math.nan, "train_loss": math.inf}),)
    metrics, (param,), _ = to_mlflow(
        Update("", points=points, params={"weights": "https://ann:s3cret@host/w.pt"}), 1000
    )
    assert [(m.key, m.value, m.step, m.timestamp) for m in metrics] == [("val_accuracy", 0.5, 3, 4000)]
    assert param.value == "https://***@host/w.pt"


def test_the_folder_mlflow_does_not_stand_in_front_of_the_library() -> None:
    """A module in the folder of that name would be found before the library in the root of the repository."""
    assert [path.name for path in (Path(__file__).parents[3] / "mlflow").rglob("*") if path.suffix != ".md"] == []


def test_a_store_that_fails_while_a_sweep_is_looked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow raises while runs are read for ``carsweep delete``, page after page, has its remedy."""

    def search_runs(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    check_tracking(None, tmp_path).experiment("transfer")
    monkeypatch.setattr("mlflow.MlflowClient.search_runs", search_runs)
    write_file(tmp_path / "mine", "sweep", None, [SweepSpec(family="transfer", name="mine")])
    with pytest.raises(TrackingError, match="Another process writes to it"):
        find_remains(tmp_path / "mine", None)


def mirror_on(warnings: list[str], **done: Callable[..., Any]) -> Mirror:
    """Return a mirror on a pretended server, which does nothing but what is given."""
    quiet = dict.fromkeys(("read", "write", "close_open"), lambda *_: None)
    runs: Any = SimpleNamespace(
        **{"tracking": Tracking("http://host", None), "write_together": lambda _: False, **quiet, **done}
    )
    return Mirror(runs, Update("mine"), warnings.append)


def test_a_server_that_starts_again_gets_the_end_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that is closed while a server refuses asks it again, with time between."""
    monkeypatch.setattr("sweeps.tracking.mirror.RETRY_SECONDS", 0.3)
    asked, warnings = list[float](), list[str]()

    def write(_: int | None, __: Update) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1 and asked[-1] - asked[1] < 0.25:
            raise ConnectionError("refused")

    mirror = mirror_on(warnings, write=write)
    mirror.bring_in_line([])
    assert mirror.close("complete")
    assert len(asked) == 3  # the beginning, and the end twice
    assert not any("missing" in line for line in warnings)


def test_a_store_that_does_not_open_in_time_is_told() -> None:
    """A mirror that is closed while the store is being opened says that the end is missing, and how it is mended."""
    warnings, opens = list[str](), threading.Event()
    mirror = mirror_on(warnings, read=opens.wait)
    assert not mirror.flush(0.01)
    assert not mirror.close("interrupted", 0.1)
    opens.set()
    assert ["carsweep tracking repair mine" in line for line in warnings] == [True]


def test_two_threads_that_write_in_one_transaction_leave_the_store_as_it_was() -> None:
    """The second waits for the first, and takes nothing of it for MLflow's own."""
    sessions = SimpleNamespace(commit=None, rollback=None, flush=lambda: None)

    def make_session(*, read_only: bool) -> AbstractContextManager[Any]:
        assert not read_only
        return nullcontext(sessions)

    store = SimpleNamespace(ManagedSessionMaker=make_session)
    client = SimpleNamespace(_tracking_client=SimpleNamespace(store=store))

    def write() -> None:
        with one_transaction(client):
            pass

    second = threading.Thread(target=write)
    with one_transaction(client):
        second.start()
        second.join(0.2)
        assert second.is_alive()
    second.join(5.0)
    assert store.ManagedSessionMaker is make_session
