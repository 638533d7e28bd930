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
from tracked import tracked_sweep

from carcls.errors import InputError
from carcls.evaluation.significance import wilson_interval
from sweeps.tracking import promotion, registry
from sweeps.tracking.gates import GATES, Contest, Gate
from sweeps.tracking.names import PREDICTIONS
from sweeps.tracking.promotion import Promotion, promote
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

    def call(wrong: range, *, is_champion: bool = False, test_images: str = "123", first_row: int = 0) -> str:
        predicted, file = labels.copy(), tmp_path / PREDICTIONS
        predicted[list(wrong)] = 7
        np.savez(file, rows=np.arange(first_row, first_row + IMAGES), labels=labels, predicted=predicted)
        version = TrialModel(tracking, "transfer", "s1", next(numbers)).register(
            export,
            metrics={},
            test={"test_accuracy": 1 - len(wrong) / IMAGES},
            details={"data": "cars", "test_images": test_images},
            predictions=file,
        )
        if is_champion:
            crown(tracking, version.version)
        return version.version

    numbers = iter(range(4))
    return call


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


def test_challenger_that_is_shown_to_be_better_is_called_so(tracking: Tracking, register: Register) -> None:
    """Ten images more right and none fewer is a difference at 5%; a dry run says so and moves nothing."""
    first, _ = register(range(10), is_champion=True), register(range(0))
    outcome = promote(tracking, "transfer", dry_run=True)
    assert (outcome.verdict, outcome.accepted, outcome.moved) == ("better", True, False)
    assert champion_of(tracking) == first
    assert records(tracking, "promotion") == []


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
    model_id = tracking.client().get_model_version(NAME, register(range(0))).source.rpartition("/")[2]
    (weights,) = [file for file in template.rglob("model.safetensors") if model_id in file.parts]
    weights.write_bytes(b"damaged")
    assert "must load and answer an image" in refused(tracking).reason


def test_challenger_with_another_signature_is_refused(
    tracking: Tracking, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the champion's columns must find them in the next champion."""
    register(range(10), is_champion=True)
    other = ModelSignature(outputs=Schema([ColSpec(DataType.string, "name")]))
    monkeypatch.setattr(registry, "signature_of", lambda _: other)
    register(range(0))
    outcome = refused(tracking)
    assert outcome.gate == "signature"
    assert "answers name (DataType.string)" in outcome.reason
    assert "label (DataType.string)" in outcome.reason


@pytest.mark.parametrize("difference", [{"test_images": "456"}, {"first_row": 5}])
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


def test_missing_predictions_are_refused(tracking: Tracking, register: Register, template: Path) -> None:
    """A champion without stored answers cannot be compared; the way out is named."""
    register(range(10), is_champion=True)
    for file in template.rglob(PREDICTIONS):
        file.unlink()
    register(range(0))
    way_out = "Set the alias yourself, as docs/promotion.md says."
    assert refused(tracking).reason == f"The test predictions of version 1 are missing. {way_out}"


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

    monkeypatch.setattr(promotion, "GATES", [*GATES, Gate("late", "It waits for another.", crown_another)])
    outcome = promote(tracking, "transfer")
    assert not outcome.accepted
    assert "meanwhile" in outcome.reason
    assert champion_of(tracking) == other
    assert len(records(tracking, "refusal")) == 1


def test_model_without_challenger_is_refused(tracking: Tracking, register: Register) -> None:
    """A model whose challenger was taken away says how to get one; no model at all is a mistake of the input."""
    with pytest.raises(InputError, match="Run `carsweep run transfer` first"):
        promote(tracking, "transfer")
    register(range(0))
    tracking.client().delete_registered_model_alias(NAME, "challenger")
    assert refused(tracking).reason.startswith(f"{NAME} has no challenger. Run `carsweep run transfer`")


def test_each_gate_is_documented() -> None:
    """docs/promotion.md has a row for every gate, in its order and its words."""
    text = (Path(__file__).parents[3] / "docs" / "promotion.md").read_text(encoding="utf-8")
    assert "\n".join(f"| `{gate.name}` | {gate.asks} |" for gate in GATES) in text
