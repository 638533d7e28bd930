"""Who is notified of the end of a command: a real server hears it; a silent, broken or absent one delays nothing."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import free_port, trial_record
from listener import listening

from carcls.data.config import DataSummary
from carcls.errors import InputError, SweepStopped
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Registered, SweepResult
from sweeps.run import notify
from sweeps.run.command import Command
from sweeps.run.notify import Ending, check_address, notifying
from sweeps.spec.loading import load_spec


def result(*, interrupted: bool = False) -> SweepResult:
    """Return a sweep that registered its one trial."""
    data, board = DataSummary("cars", "d", 10, 2, {"validation": 10}), Leaderboard((trial_record(0, 0.8),))
    registered = Registered("carsweep-transfer", "3", "challenger", "models:/m/3")
    return SweepResult("mine", "transfer", "/runs", data, board, 0, None, registered, "", 9.0, interrupted)


def end(url: str, tmp_path: Path, *, whole: bool = True, interrupted: bool = False, raises: Any = None) -> list[str]:
    """Let a command end; return what a person is told."""
    command, told = Command("sweep", "mine", (load_spec("transfer"),), out=tmp_path, notify=url), list[str]()
    with notifying(command, told.append) as ending:
        if raises is not None:
            raise raises
        ending.results.append(result(interrupted=interrupted))
        ending.is_whole = whole
    return told


def test_finished_sweep_is_posted_as_one_object(tmp_path: Path) -> None:
    """One POST of JSON says what came of each sweep, for scripts and for people."""
    with listening() as server:
        assert end(server.url(), tmp_path) == []
    ((method, path, headers, body),) = server.heard
    assert (method, path, headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert (body["event"], body["name"], body["kind"], body["reason"]) == ("finished", "mine", "sweep", "")
    assert body["folder"] == str(tmp_path / "mine")
    assert (body["resume"], body["report"]) == (None, None)
    (sweep,) = body["sweeps"]
    assert (sweep["sweep"], sweep["family"], sweep["status"]) == ("mine", "transfer", "complete")
    assert (sweep["val_accuracy"], sweep["registered"]) == (0.8, "carsweep-transfer 3")
    first, second = body["text"].splitlines()
    assert first.startswith("carsweep: mine finished after ")
    assert second == "sweep mine, val accuracy 80.0% ±22.7, test accuracy –, registered carsweep-transfer 3"


@pytest.mark.parametrize(
    ("how", "event", "reason"),
    [
        ({"interrupted": True}, "stopped", ""),
        ({"raises": KeyboardInterrupt()}, "stopped", ""),
        ({"whole": False}, "failed", "No model was registered."),
        ({"raises": SweepStopped("Three trials failed.\nhttp://ann:pw@host")}, "failed", "Three … http://***@host"),
        ({"raises": ZeroDivisionError()}, "failed", "ZeroDivisionError"),
    ],
)
def test_stop_and_failure_are_posted(how: dict[str, Any], event: str, reason: str, tmp_path: Path) -> None:
    """A stop and a failure are told with the reason, without secrets, and with the command that goes on."""
    with listening() as server, suppress(KeyboardInterrupt, SweepStopped, ZeroDivisionError):
        end(server.url(), tmp_path, **how)
    ((*_, body),) = server.heard
    assert (body["event"], body["reason"]) == (event, reason.replace("…", "trials failed."))
    assert body["resume"] == f"carsweep resume mine --out {tmp_path}"
    assert body["resume"] in body["text"]


def test_slack_gets_a_text_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack's webhooks take `text`, in which three signs are written otherwise."""
    with listening() as server:
        monkeypatch.setattr(notify, "_SLACK", "127.0.0.1")
        with suppress(SweepStopped):
            end(server.url(), tmp_path, raises=SweepStopped("a <b> & c"))
    ((*_, body),) = server.heard
    assert list(body) == ["text"]
    assert "a &lt;b&gt; &amp; c" in body["text"]


def test_password_goes_into_a_header(tmp_path: Path) -> None:
    """User and password of an address are sent as HTTP asks for them, and the path stays what it was."""
    with listening() as server:
        assert end(server.url("/a?b=c", "ann:s%40c@"), tmp_path) == []
    ((_, path, headers, _),) = server.heard
    assert (path, headers["Authorization"]) == ("/a?b=c", "Basic YW5uOnNAYw==")


@pytest.mark.parametrize("status", [404, 500])
def test_server_that_refuses_costs_one_sentence(status: int, tmp_path: Path) -> None:
    """What could not be delivered is told, without the path of the address, which is a secret."""
    with listening(status) as server:
        told = end(server.url("/services/T0/secret", "ann:pw@"), tmp_path)
    assert told == [f"http://127.0.0.1:{server.server_port}/… was not notified: it answered {status}."]


def test_nobody_there_costs_one_sentence(tmp_path: Path) -> None:
    """A port on which nothing listens ends nothing."""
    (told,) = end(f"http://127.0.0.1:{free_port()}/secret", tmp_path)
    assert "was not notified: " in told
    assert "refused" in told
    assert "secret" not in told


def test_silent_server_delays_three_seconds_at_most(tmp_path: Path) -> None:
    """Neither one that takes the request and never answers, nor one that never takes it, is waited for long."""
    with listening(wait=threading.Event()) as server, socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
        for url in (server.url(), f"http://127.0.0.1:{deaf.getsockname()[1]}/"):
            began = time.monotonic()
            (told,) = end(url, tmp_path)
            assert time.monotonic() - began < 4.0
            assert told.endswith(("no answer came in time.", "timed out."))


def test_what_a_server_says_moves_no_terminal(tmp_path: Path) -> None:
    """An answer that is no HTTP is told without its control characters."""

    def answer(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            while not peer.recv(65536).endswith(b"}"):
                pass
            peer.sendall(b"\x1b[31mhello\x07\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        (told,) = end(f"http://127.0.0.1:{server.getsockname()[1]}/", tmp_path)
    assert told.endswith("was not notified: [31mhello.")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, tmp_path: Path) -> None:
    """What was posted to one address goes to no other, of whatever scheme."""
    with listening() as other, listening(status, Location=other.url()) as server:
        (told,) = end(server.url(), tmp_path)
    assert told.endswith(f"it answered {status}.")
    assert (len(server.heard), other.heard) == (1, [])


@pytest.mark.parametrize(
    "url",
    ["ftp://host/secret", "host/secret", "http://", "https://:80/", "http://h:port/", "http://h/a b", "file:///x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """It is refused in one sentence that does not repeat what may be a secret."""
    with pytest.raises(InputError, match=r"^--notify must be an address such as https://host/path, got ") as refused:
        check_address(url)
    assert "secret" not in str(refused.value)


def test_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret need not be in a command line, which other users of the machine see."""
    monkeypatch.setenv("CARSWEEP_NOTIFY", "http://there/")
    assert check_address(None) == "http://there/"
    assert check_address("http://here/") == "http://here/"
    monkeypatch.setenv("CARSWEEP_NOTIFY", "")
    assert check_address(None) is None


def test_nobody_is_notified_unasked(tmp_path: Path) -> None:
    """Without an address nothing is sent, and nothing is told."""
    told: list[str] = []
    with notifying(Command("sweep", "mine", (), out=tmp_path), told.append) as ending:
        assert ending == Ending()
    assert told == []


def test_address_is_not_shown(tmp_path: Path) -> None:
    """A command that is printed, as in a traceback, does not have it."""
    assert "secret" not in repr(Command("sweep", "mine", (), out=tmp_path, notify="http://h/secret"))
