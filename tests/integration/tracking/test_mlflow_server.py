"""A real tracking server on loopback: logging, registering, and its death in the middle of a sweep."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import free_port
from tracked import all_runs_of, alone_together, at_once, history, mirror_of, record, runs_of

from carcls.export import load_export
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import read_file, write_file
from sweeps.tracking import promotion
from sweeps.tracking.models import find_model
from sweeps.tracking.moves import Move
from sweeps.tracking.registry import TrialModel, load_model
from sweeps.tracking.store import Tracking, check_tracking
from sweeps.trial import TrialRecord

# Starting the server takes most of the time: about 10 s on an idle core, thrice.
pytestmark = pytest.mark.slow


@contextmanager
def server_on(port: int, folder: Path) -> Iterator[None]:
    """Run ``mlflow server`` until the end of the block, then kill it with its workers."""
    database, log = check_tracking(None, folder), folder / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.uri, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # For receivers on loopback, as docs/promotion.md says.
    environment |= {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    with log.open("a") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline, answers = time.monotonic() + 120, False
        while not answers:
            assert time.monotonic() < deadline, log.read_text()
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
            with suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                answers = True
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def trial(number: int, epochs: int, status: str = "running") -> TrialRecord:
    """Return what the study knows of a trial after so many epochs."""
    return record(number, status, accuracies=[epoch / 100 for epoch in range(1, epochs + 1)])


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before a server and passes requests on; what is done with the answers is for the test to say.

    Attributes:
        answer: of the requests that change something, by their place in their order: ``pass``, ``500`` or ``drop``
            once the request was carried out, ``late`` for 6 s later.
        login: user:password that it asks for; empty lets everybody in.
        spoiled, changes, requests: answers that did not pass; requests that change something; all there were.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind, self.answer, self.login = port, passed, ""
        self.spoiled = self.changes = self.requests = 0
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def next_answer(self, path: str) -> str:
        """Return what is done with the answer of the next request."""
        self.requests += 1
        if path.endswith(("/search", "/get", "/get-by-name")) or "get" in path.rpartition("/")[2]:
            return "pass"
        self.changes += 1
        what = self.answer(self.changes - 1)
        self.spoiled += what != "pass"
        return what


class _Forward(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        basic = f"Basic {base64.b64encode(self.server.login.encode()).decode()}"
        if self.server.login and self.headers.get("Authorization") != basic:
            self.send_error(401)
            return
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as link:
            headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
            link.request(self.command, self.path, body, headers)
            said = link.getresponse()
            text = said.read()
        what = self.server.next_answer(self.path)
        if what == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if what == "late":
            time.sleep(6)
        self.send_response(500 if what == "500" else said.status)
        text = b"{}" if what == "500" else text
        self.send_header("Content-Type", said.getheader("Content-Type") or "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def passed(_place: int) -> str:
    """Let each answer pass."""
    return "pass"


@pytest.fixture(scope="module")
def one_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server behind a proxy, for all tests here that need no more than a sweep of their own."""
    folder, port = tmp_path_factory.mktemp("behind a proxy"), free_port()
    with server_on(port, folder), Proxy(port) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def proxy(one_proxy: Proxy) -> Proxy:
    """The proxy as each test finds it: all answers pass."""
    one_proxy.answer, one_proxy.login = passed, ""
    return one_proxy


@pytest.fixture
def tracking(proxy: Proxy, tmp_path: Path) -> Tracking:
    """The server behind the proxy."""
    return check_tracking(proxy.uri, tmp_path)


def bring_in_line(tracking: Tracking, sweep_id: str) -> None:
    """Write all records by a mirror of their own, and close it."""
    mirror = mirror_of(tracking, sweep_id)
    mirror.bring_in_line(RECORDS)
    assert mirror.close("complete")


def assert_in_line(tracking: Tracking, sweep_id: str, records: Sequence[TrialRecord]) -> None:
    """MLflow has one parent, one run for each record with every epoch once, and nothing that is open."""
    parent, found = runs_of(tracking, sweep_id)
    assert "RUNNING" not in {run.info.status for run in all_runs_of(tracking, sweep_id)}
    assert sorted(found) == [one.number for one in records]
    for one in records:
        run = found[one.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["carsweep.state"] == one.status
        assert history(tracking, run) == [(m.epoch, m.metrics["val_accuracy"]) for m in one.history]


RECORDS = [trial(number, 4 + number, status) for number, status in enumerate(("complete", "pruned", "failed"))]


def test_sweep_and_model_reach_the_server(proxy: Proxy, tmp_path: Path, export: Path) -> None:
    """Runs, artifacts and the model go through the server, this one in at most 50 requests, and it loads from it."""
    tracking, warnings = check_tracking(proxy.uri, tmp_path / "elsewhere"), list[str]()
    mirror = mirror_of(tracking, "whole", warnings)
    for epochs in (0, 1, 2, 2):
        mirror.trial_changed(trial(0, epochs))
        assert mirror.flush()
    mirror.trial_changed(trial(0, 2, "complete"))
    assert mirror.flush()
    model, before = TrialModel(tracking, "transfer", "whole", 0), proxy.requests
    predictions = tmp_path / "test-predictions.npz"
    registered = model.register(export, metrics={}, test={}, details={}, predictions=predictions)
    assert proxy.requests - before <= 50
    assert mirror.close("complete")
    assert_in_line(tracking, "whole", [trial(0, 2, "complete")])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found, before = find_model(tracking, "transfer", out=tmp_path), proxy.requests
    assert found.load().predict(pixels) == load_export(export).predict(pixels)
    assert find_model(tracking, "transfer", out=tmp_path) == found
    assert proxy.requests - before <= 6  # its files are there already
    answer = load_model(tracking, registered).predict(pixels)
    assert answer["label"].tolist() == [one.label for one in load_export(export).predict(pixels)]
    client = tracking.client()
    client.delete_registered_model_alias(registered.name, "challenger")
    assert model.find() == registered
    client.delete_registered_model(registered.name)
    assert model.find() is None
    assert warnings == []
    assert not (tmp_path / "elsewhere").exists()


def test_sweep_outlives_its_server_and_is_mended_later(tmp_path: Path) -> None:
    """When the server dies the sweep goes on at full speed with one warning; a mirror mends what it missed."""
    port, warnings = free_port(), list[str]()
    uri = f"http://ann:s3cret@127.0.0.1:{port}"
    with server_on(port, tmp_path):
        mirror = mirror_of(check_tracking(uri, tmp_path), "s1", warnings)
        mirror.trial_changed(trial(0, 1))
        assert mirror.flush()

    start = time.perf_counter()
    for epochs in range(2, 51):
        mirror.trial_changed(trial(0, epochs))
    records = [trial(0, 50, "complete"), trial(1, 1, "complete")]
    for told in (records[0], trial(1, 0), records[1]):
        mirror.trial_changed(told)
    assert time.perf_counter() - start < 0.5
    assert not mirror.close("complete")
    assert time.perf_counter() - start < 30
    assert len(warnings) == 2, warnings
    assert "goes on" in warnings[0]
    assert "carsweep tracking repair s1" in warnings[1]
    assert not any("s3cret" in line for line in warnings)

    with server_on(port, tmp_path):
        tracking = check_tracking(uri, tmp_path)
        assert {run.info.status for run in all_runs_of(tracking, "s1")} == {"RUNNING"}
        again = mirror_of(tracking, "s1", warnings)
        again.bring_in_line(records)
        assert again.close("complete")
        assert_in_line(tracking, "s1", records)


@pytest.mark.parametrize("what", ["500", "drop"])
def test_answers_that_are_lost_double_nothing(proxy: Proxy, tracking: Tracking, what: str) -> None:
    """Each third request that changes something is carried out and not answered: all is there once, none is open."""
    mirror = mirror_of(tracking, f"lost by {what}")
    mirror.bring_in_line([])
    proxy.answer, before = lambda place: what if place % 3 == 0 else "pass", proxy.spoiled
    for one in RECORDS:
        for epochs in range(one.epochs + 1):
            mirror.trial_changed(trial(one.number, epochs))
            mirror.flush()
        mirror.trial_changed(one)
    mirror.bring_in_line(RECORDS)
    assert proxy.spoiled - before >= 3
    proxy.answer = passed
    assert mirror.close("complete")
    assert_in_line(tracking, f"lost by {what}", RECORDS)
    assert not [run for run in all_runs_of(tracking, f"lost by {what}") if run.data.tags["carsweep.role"] == "surplus"]


def test_a_run_that_is_made_late_is_closed_at_the_end(proxy: Proxy, tracking: Tracking) -> None:
    """A request that was given up, asked for anew and then carried out all the same leaves nothing RUNNING."""
    mirror = mirror_of(tracking, "late run")
    mirror.bring_in_line([])
    proxy.answer = lambda _place: "500"
    mirror.trial_changed(RECORDS[0])
    assert not mirror.flush()
    proxy.answer = passed
    assert mirror.flush()
    first = runs_of(tracking, "late run")[1][0]
    tags = {name: text for name, text in first.data.tags.items() if name.startswith("carsweep.")}
    tracking.client().create_run(first.info.experiment_id, tags=tags, run_name="late")
    assert mirror.close("complete")
    assert_in_line(tracking, "late run", RECORDS[:1])


def test_answers_that_come_late_are_waited_for(proxy: Proxy, tracking: Tracking) -> None:
    """A server that takes 6 s for an answer loses no point, doubles nothing and makes no trial wait."""
    warnings = list[str]()
    mirror = mirror_of(tracking, "late", warnings)
    mirror.bring_in_line([])
    first, before = proxy.changes, proxy.spoiled
    proxy.answer = lambda place: "late" if (place - first) % 4 == 0 else "pass"
    start = time.perf_counter()
    for one in RECORDS:
        mirror.trial_changed(trial(one.number, 1))
        mirror.trial_changed(one)
    assert time.perf_counter() - start < 0.5
    assert mirror.close("complete", seconds=120.0)
    assert proxy.spoiled > before
    assert_in_line(tracking, "late", RECORDS)
    assert [run.data.tags["carsweep.role"] for run in all_runs_of(tracking, "late")].count("trial") == len(RECORDS)
    assert warnings == []


def test_a_mirror_of_what_is_in_line_asks_and_writes_nothing(proxy: Proxy, tracking: Tracking) -> None:
    """Bringing a thousand finished trials in line again costs a search, not a thousand requests."""
    bring_in_line(tracking, "quiet")
    again = mirror_of(tracking, "quiet")
    again.bring_in_line([])  # opens the store, and writes that the sweep goes on
    assert again.flush()
    before = proxy.changes
    again.bring_in_line(RECORDS)
    assert again.flush()
    assert proxy.changes == before
    assert again.close("complete")


def test_a_server_with_a_password_opens_the_saved_view(
    proxy: Proxy, tracking: Tracking, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """The address that is printed has the view and no password; without one the reason is told beside the address."""
    experiment, with_password = tracking.experiment("transfer"), proxy.uri.replace("//", "//ann:s3cret@")
    write_file(
        tmp_path / "mine", "sweep", with_password, [load_spec("transfer", overrides={"name": "mine"}, demo=True)]
    )
    proxy.login, known = "ann:s3cret", read_file(tmp_path / "mine").id
    server = f"The runs are on a tracking server: {proxy.uri}/"
    code, out, err = run("ui", "mine", "--out", str(tmp_path), "--tracking-uri", with_password)
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={known}"
    assert (code, out, err) == (0, f"{server}{page}\n", "")
    code, out, err = run("ui", "mine", "--out", str(tmp_path), "--tracking-uri", proxy.uri)
    assert (code, out, "must accept these credentials" in err) == (0, f"{server}\n", True)
    code, out, err = run("ui", "mine", "--out", str(tmp_path))
    assert (code, out, "--tracking-uri must be given again" in err) == (2, "", True)


def test_moves_on_a_server_are_kept_apart_and_told(tmp_path: Path) -> None:
    """Two rollbacks in the same instant are one move; the receiver of the documents hears of it, and of no forgery."""
    text = (Path(__file__).parents[3] / "docs" / "promotion.md").read_text(encoding="utf-8")
    receiver, heard, secret = free_port(), tmp_path / "heard", "only for this test"
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    with heard.open("w") as file:
        listening = subprocess.Popen(
            [sys.executable, "-c", code, str(receiver)],
            env=os.environ | {"WEBHOOK_SECRET": secret},
            stdout=file,
        )
    port, name = free_port(), "carsweep-transfer"
    try:
        with server_on(port, tmp_path):
            tracking = check_tracking(f"http://127.0.0.1:{port}", tmp_path)
            client = tracking.client()
            url, events = f"http://127.0.0.1:{receiver}/", ["model_version_alias.created"]
            client.create_webhook("champions", url, events, secret=secret)
            client.create_registered_model(name, tags={"carsweep.family": "transfer"})
            for _ in range(2):
                client.create_model_version(name, source="s3://nowhere/model")
            client.set_registered_model_alias(name, "champion", "2")
            assert alone_together(tracking, 3, 2) == ["done"] * 3
            assert "carsweep.moving" not in client.get_registered_model(name).tags
            back = """
from carcls.errors import InputError
from sweeps.tracking.models import ModelFiles
promotion.GATES.clear()
try:
    print(promotion.rollback(tracking, "transfer", ModelFiles(tracking), to="1").after)
except InputError as error:
    print(error)
"""
            said = sorted(at_once(back, tracking, 2))
            assert said[0] == "1"
            assert said[1] == "1" or "set meanwhile" in said[1]  # who came late finds it done
            (move,) = promotion.history(tracking, "transfer").moves
            assert (move.kind, move.before, move.after) == ("rollback", "2", "1")
            deadline = time.monotonic() + 30
            while f"{name}: version 1 is champion" not in heard.read_text() and time.monotonic() < deadline:
                time.sleep(0.2)
        forged = {"X-MLflow-Signature": "v1,AAAA", "X-MLflow-Timestamp": str(int(time.time()))}
        with closing(http.client.HTTPConnection("127.0.0.1", receiver)) as connection:
            connection.request("POST", "/", '{"data": {"name": "x", "alias": "champion", "version": "9"}}', forged)
            assert connection.getresponse().status == 401
        assert heard.read_text().splitlines() == [f"{name}: version {one} is champion" for one in (2, 1)]
    finally:
        listening.kill()
        listening.wait()


class Registry:
    """The models of a real server, moved by whole commands in processes of their own."""

    def __init__(self, uri: str, folder: Path, export: Path) -> None:
        self.tracking, self._folder, self._export = check_tracking(uri, folder), folder, export
        self.client, self.name, self._moves = self.tracking.client(), "carsweep-transfer", tuple[Move, ...]()
        bring_in_line(self.tracking, "s1")

    def register(self, number: int) -> None:
        """Register a trial, which becomes challenger, with answers that are all right."""
        answers = self._folder / "test-predictions.npz"
        np.savez(answers, rows=np.arange(50), labels=np.arange(50) % 7, predicted=np.arange(50) % 7)
        model = TrialModel(self.tracking, "transfer", "s1", number)
        details = {"data": "cars", "test_images": "123"}
        model.register(self._export, metrics={}, test={"test_accuracy": 1.0}, details=details, predictions=answers)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "sweeps.cli", *words, "transfer", "--tracking-uri", self.tracking.uri]
        place = ["--out", str(self._folder), "--json"]
        return subprocess.Popen([*command, *place], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ends(self, *commands: subprocess.Popen[str]) -> list[tuple[int, str]]:
        """Wait for commands; return their exit codes with what they answer, and require what always holds.

        Records are added and never changed, each goes on where the one before ended, and the last one is true.
        """
        told = [command.communicate(timeout=300) for command in commands]
        found = promotion.history(self.tracking, "transfer")
        assert found.moves[: len(self._moves)] == self._moves
        self._moves = found.moves
        made = [(move.before, move.after) for move in found.moves if move.kind != "refusal"]
        assert [before for before, _ in made] == [None, *(after for _, after in made[:-1])]
        assert (made[-1][1], found.by_hand) == (found.champion, False)
        assert "carsweep.moving" not in self.client.get_registered_model(self.name).tags
        return [(one.returncode, out) for one, (out, _) in zip(commands, told, strict=True)]


def test_whole_commands_at_once_leave_one_history(tmp_path: Path, export: Path) -> None:
    """Promotions of one version, of two versions, and a rollback beside one: each moves all or nothing, and says so."""
    port = free_port()
    with server_on(port, tmp_path), Proxy(port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        registry = Registry(proxy.uri, tmp_path, export)
        for number in range(2):
            registry.register(number)
            same = registry.ends(*(registry.start("promote") for _ in range(2)))
            said = sorted((code, json.loads(text)["moved"]) for code, text in same)
            assert said == [(0, False), (0, True)], same

        registry.register(2)
        seen, first = proxy.requests, registry.start("promote")
        while proxy.requests < seen + 8:  # it has read who is challenger, and asks for its files
            assert first.poll() is None
            time.sleep(0.01)
        registry.client.set_registered_model_alias(registry.name, "challenger", "1")
        (late, why), (code, _) = registry.ends(first, registry.start("promote"))
        assert (late, code, "set meanwhile" in why) == (1, 0, True)
        assert promotion.history(registry.tracking, "transfer").champion == "1"

        registry.client.set_registered_model_alias(registry.name, "challenger", "3")
        (one, _), (other, _) = registry.ends(registry.start("promote"), registry.start("rollback"))
        assert (one, other) in {(0, 2), (1, 0), (0, 0)}
        proxy.shutdown()
