"""A real tracking server on loopback: logging, registering, and its death in the middle of a sweep."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from carcls.export import load_export, write_export
from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier
from carcls.outcome import Measurement
from sweeps.record import TrialRecord
from sweeps.registry import find_registered, register_best
from sweeps.tracking import Mirror, Tracking, open_tracking

# Starting the server takes most of the time: about 10 s on an idle core, thrice.
pytestmark = pytest.mark.slow


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server_on(port: int, folder: Path) -> Iterator[None]:
    """Run ``mlflow server`` until the end of the block, then kill it with its workers."""
    database = open_tracking(None, folder)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.uri, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port, server, folder / "server.log")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(port: int, server: subprocess.Popen[Any], log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        with (
            suppress(OSError, http.client.HTTPException),
            closing(http.client.HTTPConnection("127.0.0.1", port)) as link,
        ):
            link.request("GET", "/health")
            if link.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def mirror_of(tracking: Tracking, warnings: list[str]) -> Mirror:
    """Return the mirror of a small sweep."""
    return Mirror(
        tracking,
        family="transfer",
        sweep_id="s1",
        name="s1",
        spec_yaml="trials: 2\n",
        details={"seed": 0},
        warn=warnings.append,
    )


def record(number: int, epochs: int, status: Any = "running") -> TrialRecord:
    """Return what the study knows of a trial."""
    told = tuple(Measurement(epoch, {"val_accuracy": epoch / 100}) for epoch in range(1, epochs + 1))
    last = told[-1].metrics if told else {}
    return TrialRecord(number, None, {}, {"dropout": 0.1}, status, last, epochs, 1.0, history=told)


def states(tracking: Tracking) -> dict[str, str]:
    """Return the status of every run by its name."""
    runs = tracking.client().search_runs([tracking.experiment("transfer")])
    return {run.info.run_name: run.info.status for run in runs}


def points(tracking: Tracking, name: str) -> list[tuple[int, float]]:
    """Return (epoch, accuracy) of all that MLflow has of a trial."""
    client = tracking.client()
    (run,) = [r for r in client.search_runs([tracking.experiment("transfer")]) if r.info.run_name == name]
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "val_accuracy")]


def test_sweep_and_model_reach_the_server(tmp_path: Path) -> None:
    """Runs, artifacts and the registered model go through the server, and the model loads from it."""
    port, warnings = free_port(), []
    with server_on(port, tmp_path):
        tracking = open_tracking(f"http://127.0.0.1:{port}", tmp_path / "elsewhere")
        mirror = mirror_of(tracking, warnings)
        for epochs in (0, 1, 2, 2):
            mirror.trial_changed(record(0, epochs))
            assert mirror.flush()
        mirror.trial_changed(record(0, 2, "complete"))
        assert mirror.flush()

        classifier = Classifier(build_backbone("efficientnet_lite0"), 0.0, 3)
        export = tmp_path / "model"
        write_export(
            export,
            classifier,
            classes=("a", "b", "c"),
            image_size=64,
            backbone="efficientnet_lite0",
            margin=0.0,
            details={},
        )
        registered = register_best(
            tracking,
            family="transfer",
            sweep_id="s1",
            number=0,
            export=export,
            metrics={},
            test={},
            details={},
            predictions=tmp_path / "test-predictions.npz",
        )
        assert mirror.close("complete")
        assert states(tracking) == {"s1": "FINISHED", "trial-0000": "FINISHED"}
        (run,) = [r for r in tracking.client().search_runs([tracking.experiment("transfer")]) if r.data.metrics]
        history = tracking.client().get_metric_history(run.info.run_id, "val_accuracy")
        assert [(m.step, m.value) for m in history] == [(1, 0.01), (2, 0.02)]
        pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        answer = mlflow.pyfunc.load_model(registered.uri).predict(pixels)
        assert answer["label"].tolist() == [one.label for one in load_export(export).predict(pixels)]
        client = tracking.client()
        known: Any = {"family": "transfer", "sweep_id": "s1", "number": 0}
        client.delete_registered_model_alias(registered.name, "challenger")
        assert find_registered(tracking, **known) == registered
        client.delete_registered_model(registered.name)
        assert find_registered(tracking, **known) is None
    assert warnings == []
    assert not (tmp_path / "elsewhere").exists()


def test_sweep_outlives_its_server_and_is_mended_later(tmp_path: Path) -> None:
    """When the server dies the sweep goes on at full speed with one warning; a mirror mends what it missed."""
    port, warnings = free_port(), []
    uri = f"http://ann:s3cret@127.0.0.1:{port}"
    with server_on(port, tmp_path):
        mirror = mirror_of(open_tracking(uri, tmp_path), warnings)
        mirror.trial_changed(record(0, 1))
        assert mirror.flush()

    start = time.perf_counter()
    for epochs in range(2, 51):
        mirror.trial_changed(record(0, epochs))
    mirror.trial_changed(record(0, 50, "complete"))
    mirror.trial_changed(record(1, 0))
    mirror.trial_changed(record(1, 1, "complete"))
    assert time.perf_counter() - start < 0.5
    assert not mirror.close("complete")
    assert time.perf_counter() - start < 30
    assert len(warnings) == 2, warnings
    assert "goes on" in warnings[0]
    assert "running the sweep again" in warnings[1]
    assert not any("s3cret" in line for line in warnings)

    with server_on(port, tmp_path):
        tracking = open_tracking(uri, tmp_path)
        assert states(tracking) == {"s1": "RUNNING", "trial-0000": "RUNNING"}
        again = mirror_of(tracking, warnings)
        again.mirror_all([record(0, 50, "complete"), record(1, 1, "complete")])
        assert again.close("complete")
        assert states(tracking) == {"s1": "FINISHED", "trial-0000": "FINISHED", "trial-0001": "FINISHED"}
        assert points(tracking, "trial-0000") == [(epoch, epoch / 100) for epoch in range(1, 51)]
