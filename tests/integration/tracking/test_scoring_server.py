"""The registered model behind MLflow's own scoring server: every form that clients send, and nothing of its files."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.pyfunc import scoring_server
from PIL import Image
from starlette.testclient import TestClient

from carcls.export import load_export
from carcls.export.formats import write_format
from sweeps.tracking import model_code
from sweeps.tracking.pyfunc import pack_code, save_beside, save_model, signature_of
from tests.served import Server, jpeg, picture, until, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A retrieval model and a classifier."""
    return write_models(tmp_path_factory.mktemp("models"))


def _save(model: Path, place: Path, family: str) -> Path:
    asked: dict[str, Any] = {"archive": pack_code(model.parent), "signature": signature_of(family), "accepts": ""}
    save_model(place, export=model, **asked)
    return place


@contextmanager
def _scoring(place: Path, **variables: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(place), "-p", str(port)]
    command += ["--env-manager", "local", "-h", "127.0.0.1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where MLflow finds uvicorn
    with (place / "log.txt").open("w") as log:
        environment = {**os.environ, "PATH": path, **variables}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, text=True)
    server = Server(port, process)
    try:

        def answers() -> bool:
            assert process.poll() is None, (place / "log.txt").read_text()
            try:
                return server.ask("/ping")[0] == 200
            except OSError:
                return False

        until(answers, 120)
        yield server
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def server(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The classifier, served by MLflow."""
    with _scoring(_save(models[1], tmp_path_factory.mktemp("scored") / "model", "transfer")) as server:
        yield server


def _told(server: Server, sent: Mapping[str, Any]) -> list[dict[str, Any]]:
    code, answer = server.send("/invocations", sent)
    assert code == 200, answer
    rows: list[dict[str, Any]] = answer["predictions"]
    return rows


def _bytes(kind: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(3)).convert(mode).save(file, kind)
    return file.getvalue()


def test_every_form_that_clients_send_is_answered(server: Server, models: list[Path]) -> None:
    """Base64, data URLs, whole and floating pixels, grey, RGBA and CMYK, in all four envelopes."""
    predictor = load_export(models[1])
    pixels = picture(3)
    images: dict[str, Any] = {
        "jpeg": base64.b64encode(jpeg(3)).decode(),
        "url": "data:image/png;base64," + base64.b64encode(_bytes("PNG", "RGB")).decode(),
        "grey": base64.b64encode(_bytes("PNG", "L")).decode(),
        "rgba": base64.b64encode(_bytes("PNG", "RGBA")).decode(),
        "cmyk": base64.b64encode(_bytes("JPEG", "CMYK")).decode(),
        "whole": pixels.tolist(),
        "shares": (pixels / 255).round(6).tolist(),
    }
    for name, image in images.items():
        (expected,) = predictor.predict([image])
        envelopes = [
            {"inputs": [image]},
            {"instances": [image]},
            {"inputs": {"image": [image]}},
            {"dataframe_split": {"columns": ["image"], "data": [[image]]}},
            {"dataframe_records": [{"image": image}]},
        ]
        for sent in envelopes:
            (row,) = _told(server, sent)
            assert (row["label"], row["error"]) == (expected.label, ""), (name, list(sent))
            assert row["probability"] == pytest.approx(expected.probability, abs=1e-5)
            assert list(row) == signature_of("transfer").outputs.input_names()
    (row,) = _told(server, {"inputs": np.asarray(pixels[:, :, 0]).tolist()})
    assert row["label"] == predictor.predict([pixels[:, :, 0]])[0].label


def test_clients_learn_nothing_of_the_servers_files(server: Server, models: list[Path]) -> None:
    """A picture, a file that is none, and one that is not there are refused alike; other images have their answers."""
    shown = models[1].parent / "shown.jpg"
    shown.write_bytes(jpeg(1))
    good = base64.b64encode(jpeg(1)).decode()
    first, *refused, last = _told(server, {"inputs": [good, str(shown), "/etc/passwd", "/no/such/file", good]})
    assert first["label"] == last["label"] != ""
    assert {(row["label"], row["error"]) for row in refused} == {
        ("", "no files are read here; send the image itself, as base64 or as a data URL")
    }


def test_a_folder_can_be_opened_to_clients(models: list[Path], tmp_path: Path) -> None:
    """CARSWEEP_READ_FOLDER's files are read by their names in it, those outside are not; the neighbours come, too."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "car.jpg").write_bytes(jpeg(4))
    (tmp_path / "closed.jpg").write_bytes(jpeg(4))
    folder = {"CARSWEEP_READ_FOLDER": str(tmp_path / "open")}
    with _scoring(_save(models[0], tmp_path / "model", "retrieval"), **folder) as server:
        names = ["car.jpg", str(tmp_path / "open" / "car.jpg"), "../closed.jpg", str(tmp_path / "closed.jpg"), "gone"]
        rows = _told(server, {"inputs": names})
        assert [row["error"] for row in rows] == [
            "",
            "",
            *["only files of the folder that is served are read"] * 2,
            "the file is missing",
        ]
        assert rows[0]["neighbour_images"][0] == "train/4.jpg"
        assert server.send("/invocations", {"nonsense": 1})[0] == 400


REFUSING = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "ray", "sklearn", "optuna", "sweeps"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_an_onnx_export_is_served_without_pytorch(models: list[Path], tmp_path: Path) -> None:
    """In processes that cannot import it: the example in the model, every envelope, neighbours, errors, no files."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx, which the extra test has")
    predictor, folder = load_export(models[0]), tmp_path / "exported"
    for part in ("exported", "site"):
        (tmp_path / part).mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REFUSING)
    write_format(predictor, "onnx", folder)
    save_beside(folder, "retrieval")
    with _scoring(folder, PYTHONPATH=str(tmp_path / "site")) as server:
        code, _, answer = server.ask(
            "/invocations", (folder / "serving_input_example.json").read_bytes(), content_type="application/json"
        )
        assert (code, answer["predictions"][0]["error"]) == (200, "")
        image, secret = base64.b64encode(jpeg(5)).decode(), "no files are read here; send the image itself"
        (wanted,) = predictor.predict([image])
        for sent in ({"inputs": [image, "car.jpg"]}, {"dataframe_records": [{"image": image}, {"image": "car.jpg"}]}):
            row, refused = _told(server, sent)
            assert list(row) == signature_of("retrieval").outputs.input_names()
            assert (row["label"], row["neighbour_images"]) == (wanted.label, [one.image for one in wanted.neighbours])
            assert row["probability"] == pytest.approx(wanted.probability, abs=1e-3)
            assert refused["error"].startswith(secret)


@pytest.mark.parametrize("name", ["__pyfunc_model_path__", "_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "MLSERVER_MODEL_URI"])
def test_whatever_server_is_around_it_no_files_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one's own process all are."""
    assert not model_code.files_here().forbidden
    monkeypatch.setenv(name, "1")
    assert model_code.files_here().forbidden


def test_a_program_that_makes_the_server_itself_reads_no_files(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's server in a process that read paths of its own until then; clients name none from then on."""
    for name in model_code._SERVERS:
        monkeypatch.setenv(name, "1")  # so that what the server sets is taken back in the end
        monkeypatch.delenv(name)
    place, shown = tmp_path / "model", tmp_path / "shown.jpg"
    shown.write_bytes(jpeg(1))
    _save(models[1], place, "transfer")
    model = mlflow.pyfunc.load_model(str(place))
    assert model.predict([str(shown)])["error"].tolist() == [""]
    answer = TestClient(scoring_server.init(model)).post("/invocations", json={"inputs": [str(shown)]})
    assert answer.json()["predictions"][0]["error"].startswith("no files are read here")
