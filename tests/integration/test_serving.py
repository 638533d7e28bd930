"""The server as its clients know it: every form of an image, every limit, tokens, ends."""

from __future__ import annotations

import base64
import io
import shutil
import signal
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from carcls.export import load_export
from carcls.serving.asked import Limits
from carcls.serving.served import Served
from tests.served import CLASSES, SHOWN, Server, jpeg, picture, serving, serving_here, until

KEY = "a-token-of-tests"


def _file(kind: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(3)).convert(mode).save(file, kind)
    return file.getvalue()


def test_every_form_of_an_image_is_answered_as_the_model_answers_it(server: Server, models: list[Path]) -> None:
    """Bytes of any format, base64, data URLs and pixels; grey, with transparency, CMYK."""
    predictor = load_export(models[1])
    for kind, mode in (
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
    ):
        sent = _file(kind, mode)
        (expected,) = predictor.predict([sent])
        packed = base64.b64encode(sent).decode()
        code, _, raw = server.ask("/predict?model=transfer", sent, content_type=f"image/{kind.lower()}")
        assert code == 200
        answers = [raw, server.send("/predict?model=transfer", {"image": packed})[1]]
        answers.append(server.send("/predict?model=transfer", {"image": f"data:image/x;base64,{packed}"})[1])
        answers += server.send("/predict?model=transfer", {"images": [packed, packed]})[1]["predictions"]
        for answer in answers:
            assert (answer["label"], answer["probability"]) == (expected.label, pytest.approx(expected.probability))
            assert [(one["label"], one["probability"]) for one in answer["top"]] == [
                (label, pytest.approx(share)) for label, share in expected.top
            ]
    code, answer = server.send("/predict?model=transfer", {"image": picture(3).tolist()})
    assert (code, answer["label"]) == (200, predictor.predict([picture(3)])[0].label)


def test_a_bad_image_among_others_has_its_error_and_they_their_answers(server: Server) -> None:
    """Also where it is a path: nobody learns which files the server has."""
    good = base64.b64encode(jpeg(1)).decode()
    images = [good, "nonsense", "/etc/passwd", "/no/such/file", good]
    code, answer = server.send("/predict", {"images": images})
    assert code == 200
    first, *wrong, last = answer["predictions"]
    assert first["label"] == last["label"] in CLASSES
    assert {one["error"] for one in wrong} == {
        "no files are read here; send the image itself, as base64 or as a data URL"
    }


def _huge_png() -> bytes:
    """Return a picture of 30,000 × 30,000 pixels in a file of some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(30_001)) for _ in range(300)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", 422, "send an image"),
        (b"I am a text.", 422, "not an image of a known format"),
        (jpeg(1, quality=95)[:700], 422, "damaged"),
        (_huge_png(), 422, "pixels"),
        (bytes(50 * 2**20), 413, "20 MiB"),
    ],
    ids=["nothing", "text", "truncated", "huge picture", "50 MB"],
)
def test_what_cannot_be_answered_is_refused_in_words(server: Server, body: bytes, code: int, words: str) -> None:
    """With one code each, and the server goes on."""
    try:
        found, _, answer = server.ask("/predict", body)
    except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        assert code == 413
    else:
        assert found == code
        assert words in answer["error"]
    assert server.ask("/predict", jpeg(1))[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("/predict?model=other", jpeg(1), 404, "retrieval, transfer"),
        ("/search?model=transfer", jpeg(1), 422, "no gallery"),
        ("/predict?model=transfer&k=3", jpeg(1), 422, "Leave them out"),
        (f"/search?k={SHOWN + 1}", jpeg(1), 422, f"1 to {SHOWN}"),
        ("/search?k=many", jpeg(1), 422, "whole number"),
        ("/search?k=0", jpeg(1), 422, "from 1"),
        ("/predict?top=0", jpeg(1), 422, "from 1"),
        (f"/predict?top={'9' * 5000}", jpeg(1), 422, "from 1"),
        ("/predict?top=%D9%A3", jpeg(1), 422, "from 1"),
        ("/predict?abstain=", jpeg(1), 422, "such as 0.9"),
        ("/predict?looked=maybe", jpeg(1), 422, "1 or 0"),
        ("/search?distance=far", jpeg(1), 422, "euclidean or cosine"),
        ("/predict?abstain=0.9", jpeg(1), 422, "validation answers"),
        ("/thumbnails/retrieval/99", None, 404, "no such picture"),
        ("/nowhere", None, 404, "Not Found"),
        ("/predict", None, 405, "Method Not Allowed"),
    ],
)  # fmt: skip
def test_a_wrong_question_is_told_what_is_right(
    server: Server, path: str, body: bytes | None, code: int, words: str
) -> None:
    """One sentence, as JSON."""
    found, _, answer = server.ask(path, body)
    assert found == code
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("kind", "body", "code", "words"),
    [
        ("application/json", b"[" * 200_000, 400, "too deeply"),
        ("application/json", b'{"image":' + b"[" * 90 + b"1" + b"]" * 90 + b"}", 422, "cannot be read"),
        ("application/json", b'{"image":[[' + b"9" * 5000 + b"]]}", 400, "is not"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n" + jpeg(1), 415, "--data-binary @car.jpg"),
    ],
    ids=["200,000 brackets", "90 brackets", "5,000 digits", "a form"],
)
def test_a_body_of_the_wrong_kind_is_told_what_is_right(
    server: Server, kind: str, body: bytes, code: int, words: str
) -> None:
    """As JSON, not as a fault of the server."""
    found, _, answer = server.ask("/predict", body, content_type=kind)
    assert found == code
    assert words in answer["error"]


def test_the_bytes_that_wait_are_bounded(models: list[Path]) -> None:
    """Whose body would be too much besides those that are there is told to come back, and can once they are gone."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
    with serving_here(models[1:], Limits(bodies=100_000)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(head + bytes(80_000))
            until(lambda: b"held_bytes 80000" in server.ask("/metrics")[2])
            code, headers, answer = server.ask("/predict", bytes(30_000))
            assert (code, headers["retry-after"]) == (429, "1")
            assert "ask again" in answer["error"]
        until(lambda: b"held_bytes 0" in server.ask("/metrics")[2])
        assert server.ask("/predict", jpeg(1))[0] == 200


def test_of_a_request_that_takes_too_long_nothing_more_begins(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 32 images the network computes the one it has begun, and the next request is answered."""
    computed, slowly = list[int](), Served.answer

    def answer(*given: Any, **named: Any) -> dict[str, Any]:
        computed.append(1)
        if named["top"] == 7:
            time.sleep(0.5)
        return slowly(*given, **named)

    monkeypatch.setattr(Served, "answer", answer)
    many = {"images": [base64.b64encode(jpeg(1)).decode()] * 32}
    with serving_here(models[1:], Limits(seconds=0.8)) as server:
        before = len(computed)
        code, told = server.send("/predict?top=7", many)
        assert (code, told["error"]) == (503, "there was no answer within 0.8 seconds")
        assert server.ask("/predict", jpeg(1))[0] == 200
        time.sleep(1)
        assert len(computed) - before <= 4


def test_a_fault_of_the_server_is_said_as_json_and_counted(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the headers of every answer; the next request is answered."""
    with serving_here(models[1:], Limits()) as server:
        with monkeypatch.context() as broken:
            broken.setattr(Served, "answer", lambda *_, **__: 1 / 0)
            code, headers, answer = server.ask("/predict", jpeg(1))
        assert (code, headers["x-content-type-options"]) == (500, "nosniff")
        assert "its log says more" in answer["error"]
        assert b'path="/predict",code="500"} 1' in server.ask("/metrics")[2]
        assert server.ask("/predict", jpeg(1))[0] == 200


def test_the_search_finds_the_picture_itself_first_and_shows_it(server: Server) -> None:
    """With as many neighbours as asked for, by either distance, each with its small picture."""
    for distance in ("euclidean", "cosine"):
        code, _, answer = server.ask(f"/search?k=5&distance={distance}", jpeg(4, quality=95))
        assert code == 200
        assert len(answer["neighbours"]) == 5
        nearest = answer["neighbours"][0]
        assert (nearest["image"], nearest["label"]) == ("train/4.jpg", CLASSES[4 % 3])
        code, headers, shown = server.ask(nearest["thumbnail"])
        assert (code, headers["content-type"], shown) == (200, "image/jpeg", jpeg(4))


def test_the_network_tells_where_it_looked(server: Server) -> None:
    """A grid of numbers in 0..1, of the classifier and of the extractor."""
    for model in ("transfer", "retrieval"):
        places = np.array(server.ask(f"/predict?model={model}&looked=1", jpeg(2))[2]["looked"])
        assert places.shape == (2, 2)
        assert (places.min() >= 0, places.max()) == (True, 1.0)


def test_what_the_server_is_can_be_read(server: Server) -> None:
    """Its models, its health, its counts, its interface: for people, too, with nothing from elsewhere."""
    assert [one["model"] for one in server.ask("/models")[2]["models"]] == ["retrieval", "transfer"]
    assert server.ask("/health")[2]["status"] == "ok"
    before = _count(server)
    server.ask("/predict", jpeg(1))
    assert _count(server) == before + 1
    api = server.ask("/openapi.json")[2]
    for path in api["paths"]:
        assert f"{path}</code>" in server.ask("/docs")[2].decode()
    for path in ("/", "/page.js", "/page.css", "/docs"):
        code, headers, body = server.ask(path)
        assert code == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert b"https://" not in body
        assert b"http://" not in body


def _count(server: Server) -> int:
    lines = server.ask("/metrics")[2].decode().splitlines()
    name = 'carsweep_requests_total{path="/predict",code="200"} '
    return next((int(line.removeprefix(name)) for line in lines if line.startswith(name)), 0)


def test_a_page_elsewhere_asks_nothing_through_a_name_for_this_machine(server: Server) -> None:
    """Without a token only this machine's own names are answered."""
    for host in ("cars.example", "127.0.0.1.cars.example", "[nonsense", ""):
        code, _, answer = server.ask("/models", host=host)
        assert code == 400
        assert "localhost" in answer["error"]
    for host in (f"localhost:{server.port}", "127.0.0.2", "[::1]:80"):
        assert server.ask("/models", host=host)[0] == 200


def test_sixteen_clients_at_once_are_answered_and_more_are_asked_to_wait(server: Server) -> None:
    """Sixteen get their own answers; of sixty-four with several images each some get 429 with a time to come back."""

    def ask(count: int, images: int) -> Counter[int]:
        codes = Counter[int]()
        sent = {"images": [base64.b64encode(jpeg(1)).decode()] * images}
        together = threading.Barrier(count)

        def client() -> None:
            together.wait()
            code, _ = server.send("/predict", sent)
            codes[code] += 1

        threads = [threading.Thread(target=client) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return codes

    assert ask(16, 1) == {200: 16}
    codes = ask(64, 8)
    assert set(codes) == {200, 429}
    assert server.ask("/health")[0] == 200


def test_folders_of_one_name_are_two_models(models: list[Path], tmp_path: Path) -> None:
    """Each sweep's export is called ``model``: none hides another."""
    places = [tmp_path / name / "model" for name in ("one", "other")]
    for source, place in zip(models, places, strict=True):
        shutil.copytree(source, place)
    with serving(places) as server:
        told = server.ask("/models")[2]["models"]
        assert [(one["model"], one["search"] is None) for one in told] == [("model", False), ("model-2", True)]
        assert server.ask("/predict?model=model-2", jpeg(1))[0] == 200


def test_a_token_is_asked_for(models: list[Path]) -> None:
    """Page and health are open; what is asked without it, or with another, is 401, and it is printed nowhere."""
    with serving(models[1:], CARSWEEP_TOKEN=KEY) as server:
        assert server.ask("/")[0] == server.ask("/health")[0] == 200
        for headers in ({}, {"authorization": "Bearer other-token"}, {"authorization": KEY}):
            for path, body in (("/models", None), ("/metrics", None), ("/predict", jpeg(1))):
                assert server.ask(path, body, **headers)[0] == 401
        assert server.ask("/predict", jpeg(1), authorization=f"Bearer {KEY}")[0] == 200
    assert server.process.stdout is not None
    assert KEY not in server.process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_port_is_free_again(models: list[Path], number: signal.Signals) -> None:
    """Within seconds, with exit code 0, and another one serves on the same port; killing that one does no harm."""
    with serving(models[1:]) as server:
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
    with serving(models[1:], "--port", str(server.port)) as again:
        assert again.port == server.port
        again.process.kill()
        again.process.wait(10)
        until(lambda: _is_free(server.port))
    with serving(models[1:], "--port", str(server.port)) as again:
        assert again.ask("/predict", jpeg(1))[0] == 200


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
