"""From challenger to champion, in a real model registry with real exports and stored test predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from scipy.stats import binomtest
from tracked import alone_together, at_once, tracked_sweep

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.errors import InputError
from carcls.evaluation.significance import wilson_interval
from carcls.stages import StageStore
from sweeps.tracking import promotion, pyfunc
from sweeps.tracking.contest import FILES_TAG, Contest, Demands
from sweeps.tracking.gates import GATES, Gate, GateAnswer
from sweeps.tracking.models import ModelFiles
from sweeps.tracking.names import PREDICTIONS
from sweeps.tracking.promotion import Promotion, history, rollback
from sweeps.tracking.registry import TrialModel
from sweeps.tracking.store import Tracking, check_tracking

NAME = "carsweep-transfer"
IMAGES = 100
Register = Callable[..., str]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose database has a sweep of four trials; the artifacts of all tests lie there."""
    out = tmp_path_factory.mktemp("template")
    tracked_sweep(out, 4)
    return out


@pytest.fixture
def tracking(template: Path, tmp_path: Path) -> Tracking:
    """A database of its own with that sweep."""
    shutil.copy(template / "mlflow.db", tmp_path / "mlflow.db")
    (tmp_path / "artifacts").symlink_to(template / "artifacts")
    return check_tracking(None, tmp_path)


@pytest.fixture
def register(tracking: Tracking, export: Path, tmp_path: Path) -> Register:
    """Return a function that registers the next trial, with answers that are right but for ``wrong`` of 100."""
    labels = np.arange(IMAGES) % 7

    def call(
        wrong: range,
        *,
        is_champion: bool = False,
        test_images: str = "123",
        first_row: int = 0,
        sure: float = 0.0,
        folder: Path = export,
    ) -> str:
        predicted, file = labels.copy(), tmp_path / PREDICTIONS
        predicted[list(wrong)] = (labels[list(wrong)] + 1) % 7
        arrays = {"rows": np.arange(first_row, first_row + IMAGES), "labels": labels, "predicted": predicted}
        if sure:
            shares = np.full((IMAGES, 7), (1 - sure) / 6, np.float32)
            shares[np.arange(IMAGES), predicted] = sure
            arrays["probabilities"] = shares
        np.savez(file, **arrays)
        version = TrialModel(tracking, "transfer", "s1", next(numbers)).register(
            folder,
            metrics={},
            test={"test_accuracy": 1 - len(wrong) / IMAGES},
            details={"data": "cars", "test_images": test_images},
            predictions=file,
            card="carsweep serve --model NAME/VERSION",
        )
        if is_champion:
            crown(tracking, version.version)
        return version.version

    numbers = iter(range(4))
    return call


def promote(tracking: Tracking, family: str, **how: Any) -> Promotion:
    """Promote a family's challenger."""
    return promotion.promote(tracking, family, ModelFiles(tracking), **how)


@pytest.fixture
def without_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gate loads the model in another process, which takes seconds; for tests of other gates."""
    monkeypatch.setattr(promotion, "GATES", [gate for gate in GATES if gate.name != "loads"])


def crown(tracking: Tracking, version: str) -> None:
    """Make a version champion without asking."""
    tracking.client().set_registered_model_alias(NAME, "champion", version)


def champion_of(tracking: Tracking) -> str | None:
    """Return the version that is champion."""
    version = tracking.client().get_registered_model(NAME).aliases.get("champion")
    return None if version is None else str(version)


def records(tracking: Tracking, kind: str) -> list[dict[str, Any]]:
    """Return what the model's tags of one kind say, oldest first."""
    tags = tracking.client().get_registered_model(NAME).tags
    return [json.loads(tags[name]) for name in sorted(tags) if name.startswith(f"carsweep.{kind}.")]


def refused(tracking: Tracking) -> Promotion:
    """Promote, and require that nothing moved and that the refusal is recorded."""
    before = champion_of(tracking)
    outcome = promote(tracking, "transfer")
    assert (outcome.accepted, outcome.moved, champion_of(tracking)) == (False, False, before)
    assert records(tracking, "refusal")[-1]["why"] == outcome.reason
    assert records(tracking, "promotion") == []
    return outcome


@pytest.mark.slow
def test_challengers_become_champion_one_after_the_other(tracking: Tracking, register: Register) -> None:
    """The first one needs only to answer, the next may be no worse; every move is recorded, and can be loaded."""
    first = register(range(20))
    assert promote(tracking, "transfer").verdict == "first champion"
    again = promote(tracking, "transfer")
    assert (again.verdict, again.accepted, again.moved) == ("already champion", True, False)
    second = register(range(18, 36))
    outcome = promote(tracking, "transfer")
    assert (outcome.verdict, outcome.moved, champion_of(tracking)) == ("no difference shown", True, second)
    numbers = outcome.comparison
    assert numbers is not None
    assert (numbers.first_accuracy, numbers.second_accuracy) == (0.82, 0.8)
    assert (numbers.first_only, numbers.second_only) == (18, 16)
    assert numbers.p_value == pytest.approx(binomtest(18, 34).pvalue)

    moves = records(tracking, "promotion")
    assert [(move["from"], move["to"]) for move in moves] == [(None, first), (first, second)]
    assert moves[1]["numbers"]["p_value"] == numbers.p_value
    assert moves[1]["by"]
    tags = tracking.client().get_model_version(NAME, second).tags
    assert (tags["promoted_over"], tags["promoted_at"]) == (first, moves[1]["at"])
    mlflow.set_tracking_uri(tracking.uri)
    assert len(mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict([np.zeros((8, 8, 3), np.uint8)])) == 1


@pytest.mark.usefixtures("without_loading")
def test_challenger_that_is_shown_to_be_better_is_called_so(tracking: Tracking, register: Register) -> None:
    """Ten images more right and none fewer is a difference at 5%; a dry run says so and moves nothing."""
    first, _ = register(range(10), is_champion=True), register(range(0))
    outcome = promote(tracking, "transfer", dry_run=True)
    assert (outcome.verdict, outcome.accepted, outcome.moved) == ("better", True, False)
    assert champion_of(tracking) == first
    assert records(tracking, "promotion") == []


@pytest.mark.usefixtures("without_loading")
def test_challenger_that_is_shown_to_be_worse_is_refused(
    tracking: Tracking, register: Register, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """The champion stays, and the numbers are told; exit code 1; a dry run leaves no trace and is one object."""
    register(range(0), is_champion=True)
    register(range(10))
    code, out, _ = run("promote", "transfer", "--dry-run", "--json", "--tracking-uri", tracking.uri)
    value = json.loads(out)
    assert (code, value["verdict"], value["gate"], value["dry_run"]) == (1, "worse", "not worse", True)
    assert (value["champion"], value["challenger"], value["comparison"]["second_only"]) == ("1", "2", 10)
    assert records(tracking, "refusal") == []
    code, told, _ = run("promote", "transfer", "--out", tmp_path)
    assert code == 1
    assert told.startswith("Not promoted: The champion, version 1, has significantly more of the test images right")
    assert "version 2 (challenger)  90.00%, 0 right that the other has wrong" in told
    assert "difference -10.00 points (95% interval" in told
    assert "exact McNemar p = 0.00195: worse" in told
    outcome = refused(tracking)
    assert outcome.comparison is not None
    assert outcome.comparison.p_value == pytest.approx(binomtest(0, 10).pvalue)


def test_challenger_that_cannot_be_loaded_is_refused(tracking: Tracking, register: Register, template: Path) -> None:
    """A model whose weights are damaged never becomes champion, not even the first."""
    weights_of(tracking, template, register(range(0))).write_bytes(b"damaged")
    tracking.client().delete_model_version_tag(NAME, "1", FILES_TAG)  # as versions of an older carsweep
    outcome = refused(tracking)
    assert "must load and answer an image" in outcome.reason
    assert outcome.gates[0] == GateAnswer("files", "not asked", outcome.gates[0].said)
    assert not promote(tracking, "transfer", forced="I know.").accepted


@pytest.mark.usefixtures("without_loading")
def test_challenger_of_which_a_byte_was_changed_is_refused(
    tracking: Tracking, register: Register, template: Path
) -> None:
    """Each file is read whole, also where loading reads samples of it; no reason forces it."""
    register(range(10), is_champion=True)
    weights = weights_of(tracking, template, register(range(0)))
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size * 2 // 3)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    outcome = refused(tracking)
    assert (outcome.gate, "model/model.safetensors changed" in outcome.reason) == ("files", True)
    assert promote(tracking, "transfer", forced="I know.").gate == "files"
    with pytest.raises(InputError, match="Version 2 cannot be champion again: The files of version 2"):
        rollback(tracking, "transfer", ModelFiles(tracking), to="2")


@pytest.mark.usefixtures("without_loading")
@pytest.mark.parametrize("name", ["MLmodel", "requirements.txt", "code/__init__"])
def test_challenger_that_would_load_other_code_is_refused(
    tracking: Tracking, register: Register, template: Path, name: str
) -> None:
    """MLmodel names the code, the requirements what is installed for it; a new file beside the code may be imported."""
    file = weights_of(tracking, template, register(range(0))).parents[2] / name
    with file.open("a") as changed:
        changed.write("\n")
    outcome = refused(tracking)
    assert (outcome.gate, f"{name} changed since" in outcome.reason) == ("files", True)


def weights_of(tracking: Tracking, template: Path, version: str) -> Path:
    """Return the file of a registered version's weights."""
    model_id = tracking.client().get_model_version(NAME, version).source.rpartition("/")[2]
    (weights,) = [file for file in template.rglob("model.safetensors") if model_id in file.parts]
    return weights


@pytest.mark.usefixtures("without_loading")
def test_challenger_with_another_signature_is_refused(
    tracking: Tracking, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the champion's columns must find them in the next champion."""
    register(range(10), is_champion=True)
    other = ModelSignature(outputs=Schema([ColSpec(DataType.string, "name")]))
    monkeypatch.setattr(pyfunc, "signature_of", lambda _: other)
    register(range(0))
    outcome = refused(tracking)
    assert outcome.gate == "signature"
    assert "answers name (DataType.string)" in outcome.reason
    assert "label (DataType.string)" in outcome.reason


@pytest.mark.parametrize("difference", [{"test_images": "456"}, {"first_row": 5}])
@pytest.mark.usefixtures("without_loading")
def test_versions_tested_on_different_images_are_not_compared(
    tracking: Tracking, register: Register, difference: dict[str, Any]
) -> None:
    """Another data set, or other rows of it, is a reason to refuse, with both named."""
    register(range(10), is_champion=True)
    register(range(0), **difference)
    assert "must be tested on the same images, got cars (test images" in refused(tracking).reason


def test_a_registered_version_knows_the_champion_beside_it(tracking: Tracking, register: Register) -> None:
    """Its score with the interval, and the paired difference on the same images or why there is none."""
    first = register(range(20))
    described = tracking.client().get_model_version(NAME, first).description
    assert described.startswith(f"carsweep serve --model {NAME}/{first}\n")
    model = partial(TrialModel, tracking, "transfer", "s1")
    assert model(0).find().champion is None
    crown(tracking, first)
    register(range(18, 28))
    same, own = model(1).find().champion, model(0).find().champion
    assert (same.version, same.accuracy, same.interval) == (first, 0.8, wilson_interval(80, IMAGES))
    assert same.comparison.difference == pytest.approx(0.1)
    assert (own.version, own.comparison, own.apart) == (first, None, "")
    register(range(5), test_images="456")
    other = model(2).find().champion
    assert (other.accuracy, other.comparison) == (0.8, None)
    assert other.apart == "it was tested on other images, of cars"


@pytest.mark.usefixtures("without_loading")
def test_missing_predictions_are_refused(tracking: Tracking, register: Register, template: Path) -> None:
    """A champion without stored answers cannot be compared; the way out is named."""
    register(range(10), is_champion=True)
    for file in template.rglob(PREDICTIONS):
        file.unlink()
    register(range(0))
    way_out = "Set the alias yourself, as docs/promotion.md says."
    assert refused(tracking).reason == f"The test predictions of version 1 are missing. {way_out}"


@pytest.mark.usefixtures("without_loading")
def test_pickles_in_stored_predictions_are_not_opened(tracking: Tracking, register: Register, tmp_path: Path) -> None:
    """A file from a server that would run code when it is opened is refused unopened."""
    register(range(10), is_champion=True)
    version = tracking.client().get_model_version(NAME, register(range(0)))
    np.savez(tmp_path / PREDICTIONS, rows=np.array([{}], dtype=object), labels=np.arange(1), predicted=np.arange(1))
    tracking.client().log_artifact(version.run_id, str(tmp_path / PREDICTIONS))
    assert "allow_pickle=False" in refused(tracking).reason


def test_champion_that_changes_meanwhile_is_not_overwritten(
    tracking: Tracking, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias is read again right before the move, after all gates, of which one may be added."""
    first, other, _ = register(range(10)), register(range(10)), register(range(0))
    crown(tracking, first)

    def crown_another(_: Contest) -> None:
        crown(tracking, other)

    monkeypatch.setattr(promotion, "GATES", [Gate("late", "It waits for another.", crown_another)])
    outcome = promote(tracking, "transfer")
    assert not outcome.accepted
    assert "meanwhile" in outcome.reason
    assert champion_of(tracking) == other
    assert len(records(tracking, "refusal")) == 1


@pytest.mark.usefixtures("without_loading")
def test_model_without_challenger_is_refused(tracking: Tracking, register: Register) -> None:
    """A model whose challenger was taken away says how to get one; no model at all is a mistake of the input."""
    with pytest.raises(InputError, match="Run `carsweep run transfer` first"):
        promote(tracking, "transfer")
    register(range(0))
    tracking.client().delete_registered_model_alias(NAME, "challenger")
    assert refused(tracking).reason.startswith(f"{NAME} has no challenger. Run `carsweep run transfer`")


def state_of(outcome: Promotion, gate: str) -> tuple[str, str]:
    """Return what a gate says of a challenger."""
    return next((one.state, one.said) for one in outcome.gates if one.gate == gate)


@pytest.mark.usefixtures("without_loading")
def test_every_gate_is_asked_and_shown_in_80_columns(
    register: Register, tmp_path: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses does not hide the others; each has its figures or why it is not asked."""
    register(range(0), is_champion=True)
    register(range(10))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("promote", "transfer", "--dry-run", "--max-mb", "0.5", "--out", tmp_path)
    lines = out.splitlines()
    table = lines[1 : next(place for place, line in enumerate(lines) if line.startswith("On the same"))]
    assert max(map(len, table)) <= 80  # sentences wrap in a terminal
    assert code == 1
    states = {gate.name: line for gate in promotion.GATES for line in lines if line.startswith(f"{gate.name} ")}
    assert list(states) == [gate.name for gate in promotion.GATES]
    assert "passed" in states["files"]
    assert "refused" in states["not worse"]
    assert "refused" in states["size"]
    assert "not asked" in states["latency"]


@pytest.mark.usefixtures("without_loading")
@pytest.mark.parametrize(("margin", "verdict"), [(25.0, "within the margin"), (17.0, "worse")])
def test_margin_is_what_the_interval_must_keep(
    tracking: Tracking, register: Register, margin: float, verdict: str
) -> None:
    """Ten of 100 images fewer are shown to be fewer, 18.0 at the interval's end: enough for one margin alone."""
    register(range(0), is_champion=True)
    register(range(10))
    outcome = promote(tracking, "transfer", dry_run=True, limits=Demands(margin=margin))
    assert outcome.comparison is not None
    assert -25 < 100 * outcome.comparison.interval[0] < -17
    assert outcome.verdict == verdict
    assert outcome.accepted == (verdict != "worse")


@pytest.mark.usefixtures("without_loading")
def test_a_class_that_falls_is_named(tracking: Tracking, register: Register) -> None:
    """As many are right in all, but one class is lost: seven classes together show it; a class of two images cannot."""
    register(range(0, 98, 7), is_champion=True)
    register(range(3, 98, 7))
    outcome = promote(tracking, "transfer", dry_run=True)
    assert (outcome.gate, outcome.verdict) == ("each class", "refused")
    assert state_of(outcome, "not worse")[0] == "passed"
    assert "of 1 of 7 classes is shown to fall by more than 0 points: Make Model 2010 -100.0" in outcome.reason
    assert promote(tracking, "transfer", dry_run=True, limits=Demands(per_class_margin=100)).accepted
    register(range(3, 17, 7))
    said = state_of(promote(tracking, "transfer", dry_run=True), "each class")
    assert said[0] == "passed"
    assert said[1].startswith("most: Make Model 2010 -14.3 (")


@pytest.mark.usefixtures("without_loading")
def test_probabilities_may_not_be_further_off(tracking: Tracking, register: Register) -> None:
    """Of 90 right of 100 one says 90%, the next 50%; what has no probabilities is not compared."""
    register(range(10), is_champion=True, sure=0.9)
    register(range(10), sure=0.5)
    outcome = promote(tracking, "transfer", dry_run=True)
    assert outcome.gate == "calibration"
    assert "0.400 against 0.000" in outcome.reason
    register(range(10))
    outcome = promote(tracking, "transfer", dry_run=True)
    assert (outcome.accepted, state_of(outcome, "calibration")[0]) == (True, "not asked")


@pytest.mark.usefixtures("without_loading")
def test_a_class_that_is_gone_is_named(tracking: Tracking, register: Register, export: Path, tmp_path: Path) -> None:
    """The champion's classes must be there; others are welcome."""
    folder = Path(shutil.copytree(export, tmp_path / "other"))
    about = json.loads((folder / "model.json").read_text())
    about["classes"][0] = "Unheard Of"
    (folder / "model.json").write_text(json.dumps(about))
    register(range(10), is_champion=True)
    register(range(0), folder=folder)
    outcome = promote(tracking, "transfer", dry_run=True)
    assert (outcome.gate, "Make Model 2007 is gone" in outcome.reason) == ("classes", True)


@pytest.mark.usefixtures("without_loading")
def test_more_columns_than_the_champions_are_welcome(
    tracking: Tracking, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the champion's finds them."""
    register(range(10), is_champion=True)
    more = [*pyfunc.signature_of("transfer").outputs.inputs, ColSpec(DataType.double, "doubt")]
    monkeypatch.setattr(pyfunc, "signature_of", lambda _: ModelSignature(outputs=Schema(more)))
    register(range(0))
    said = state_of(promote(tracking, "transfer", dry_run=True), "signature")
    assert said == ("passed", f"all {len(more) - 1} columns of the champion, and 1 more")


def test_speed_is_measured_where_a_limit_is_given(tracking: Tracking, register: Register) -> None:
    """No answer takes less than a microsecond."""
    register(range(0))
    outcome = promote(tracking, "transfer", dry_run=True, limits=Demands(max_ms=0.001))
    assert outcome.gate == "latency"
    assert state_of(outcome, "loads")[0] == "passed"


@pytest.mark.usefixtures("without_loading")
def test_a_forced_move_is_recorded_and_rolled_back(
    tracking: Tracking,
    register: Register,
    tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Force needs words; history has each move; rolling back goes to the champion before, until there is none."""
    first, second = register(range(0), is_champion=True), register(range(10))
    for words in (["--force"], ["--reason", "x"], ["--force", "--reason", " "]):
        code, _, said = run("promote", "transfer", *words, "--out", tmp_path)
        assert (code, "must be given together" in said) == (2, True)
    code, out, _ = run("promote", "transfer", "--force", "--reason", "The fair is on.", "--out", tmp_path)
    assert (code, champion_of(tracking)) == (0, second)
    assert "Forced, although refused by not worse: The fair is on." in " ".join(out.split())
    assert "exact McNemar p = 0.00195\n" in out  # the verdict is not that of the test
    (move,) = history(tracking, "transfer").moves
    assert (move.forced, move.reason, move.before, move.after) == (("not worse",), "The fair is on.", first, second)

    code, out, _ = run("rollback", "transfer", "--reason", "Complaints.", "--out", tmp_path)
    assert (code, champion_of(tracking)) == (0, first)
    assert out == f"Version {first} of {NAME} is the champion again, after version {second}.\n"
    code, _, said = run("rollback", "transfer", "--out", tmp_path)
    assert (code, "no champion before version 1 is recorded" in said) == (2, True)
    code, _, said = run("rollback", "transfer", "--to", "9", "--out", tmp_path)
    assert (code, "got '9', which it does not have" in said) == (2, True)

    code, out, _ = run("history", "transfer", "--json", "--out", tmp_path)
    value = json.loads(out)
    assert [(one["kind"], one["before"], one["after"]) for one in value["moves"]] == [
        ("promotion", first, second),
        ("rollback", second, first),
    ]
    assert (value["champion"], value["by_hand"], value["moves"][0]["numbers"]["second_only"]) == (first, False, 10)
    crown(tracking, second)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("history", "transfer", "--out", tmp_path)
    assert f"{NAME}: version {second} is champion, set by hand since the last move." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert rollback(tracking, "transfer", ModelFiles(tracking)).after == first


@pytest.mark.usefixtures("without_loading")
def test_a_move_is_recorded_last_and_in_the_room_that_there_is(
    tracking: Tracking, register: Register, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """Another machine's clock may be ahead; a server's tables take 5,000 characters, so that reasons have an end."""
    first, _ = register(range(0), is_champion=True), register(range(10))
    ahead = json.dumps({"at": "2999-01-01T00:00:00+00:00", "by": "ann", "from": None, "to": first})
    tracking.client().set_registered_model_tag(NAME, "carsweep.rollback.29990101T000000.000000Z", ahead)
    code, _, said = run("promote", "transfer", "--force", "--reason", "é" * 1001, "--out", tmp_path)
    assert (code, "--reason must have at most 1,000 characters, got 1,001" in said) == (2, True)
    assert run("promote", "transfer", "--force", "--reason", "é" * 1000, "--out", tmp_path)[0] == 0
    found = history(tracking, "transfer")
    assert ([move.kind for move in found.moves], found.by_hand) == (["rollback", "promotion"], False)
    assert found.moves[-1].at < ahead[8:]
    assert rollback(tracking, "transfer", ModelFiles(tracking), reason="x").after == first
    assert history(tracking, "transfer").moves[-1].kind == "rollback"
    tags = tracking.client().get_registered_model(NAME).tags
    assert max(map(len, tags.values())) <= 5000
    assert min(len(records(tracking, kind)) for kind in ("promotion", "rollback")) >= 1


@pytest.mark.usefixtures("without_loading")
def test_the_champion_answers_the_images_that_came_later(
    tracking: Tracking, register: Register, tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Data of the same name with other test images: the champion is evaluated on them, once and counted."""
    out = tmp_path / "runs"
    images, stages = draw_tints(tmp_path / "grown", 6, 4, size=(64, 64)), StageStore(out / "stages")
    data = prepare_dataset(DataConfig(path=str(images)), stages, 64, workers=1)
    (out / "s1").mkdir()
    data.save(out / "s1" / "dataset.json")
    register(range(10), is_champion=True)
    version = tracking.client().get_model_version(NAME, register(range(0), test_images=data.test_digest))
    rows = data.splits.test
    answers = {"rows": rows, "labels": data.labels[rows], "predicted": data.labels[rows]}
    np.savez(tmp_path / PREDICTIONS, **answers, sure=np.ones(len(rows), np.float32))
    tracking.client().log_artifact(version.run_id, str(tmp_path / PREDICTIONS))
    tracking.client().set_model_version_tag(NAME, version.version, "sweep", "s1")
    assert "Promote with the --out of the challenger's sweep" in promote(tracking, "transfer", dry_run=True).reason
    for _ in range(2):
        judged = promotion.promote(tracking, "transfer", ModelFiles(tracking, out), dry_run=True)
        assert judged.comparison is not None
        assert (judged.comparison.images, judged.comparison.first_accuracy) == (12, 1.0)
        assert "the champion evaluated on new images" in state_of(judged, "not worse")[1]
        assert state_of(judged, "calibration")[1].endswith("(expected calibration error)")
        assert tracking.client().get_model_version(NAME, "1").tags["test_readings"] == "2"


@pytest.mark.usefixtures("without_loading")
def test_two_promotions_at_once_are_one_move(tracking: Tracking, register: Register) -> None:
    """Of processes that promote the same challenger in the same instant one moves it; the others find it moved."""
    register(range(10), is_champion=True)
    register(range(0))
    said = at_once(
        """
from sweeps.tracking import promotion
from sweeps.tracking.models import ModelFiles
promotion.GATES[:] = [gate for gate in promotion.GATES if gate.name == "not worse"]
done = promotion.promote(tracking, "transfer", ModelFiles(tracking))
print(done.moved, done.verdict)
""",
        tracking,
        3,
    )
    assert sorted(said).count("True better") == 1
    assert set(said) == {"True better", "False already champion"}
    assert len(records(tracking, "promotion")) == 1


def test_one_process_at_a_time_moves_aliases(tracking: Tracking, register: Register) -> None:
    """Three processes that each take the lock five times are never in it together."""
    register(range(0))
    assert alone_together(tracking, 3, 5) == ["done"] * 3


def test_each_gate_is_documented() -> None:
    """docs/promotion.md has a row for every gate, in its order and its words."""
    text = (Path(__file__).parents[3] / "docs" / "promotion.md").read_text(encoding="utf-8")
    assert "\n".join(f"| `{gate.name}` | {gate.asks} |" for gate in GATES) in text
