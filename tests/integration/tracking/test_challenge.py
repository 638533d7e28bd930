"""Which version is the challenger, in a real registry with stored validation answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from tracked import tracked_sweep

from sweeps.results.result import Registered
from sweeps.tracking.names import PREDICTIONS, VALIDATION, VALIDATION_IMAGES
from sweeps.tracking.registry import TrialModel
from sweeps.tracking.store import Tracking

IMAGES = 24
Register = Callable[..., Registered]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A store with one sweep of many trials."""
    return tracked_sweep(tmp_path_factory.mktemp("runs"), 9)


@pytest.fixture(scope="module")
def numbers() -> count[int]:
    """The trials, each once."""
    return count()


@pytest.fixture
def register(tracking: Tracking, export: Path, tmp_path: Path, numbers: count[int]) -> Register:
    """Return a function that registers the next trial, under the test's own name, with so many answers right."""

    def call(
        right: int, seeds: Sequence[int] = (), images: str = "v1", classes: Sequence[str] = ("a", "b"), number: int = -1
    ) -> Registered:
        labels = np.zeros(IMAGES, np.int64)
        said = [(np.arange(IMAGES) >= hits).astype(np.int64) for hits in (right, *seeds)]
        arrays = {"rows": np.arange(IMAGES), "labels": labels, "predicted": said[0]}
        np.savez(tmp_path / VALIDATION, **arrays, confirmed=np.array(said[1:], np.int64), classes=np.array(classes))
        number = next(numbers) if number < 0 else number
        details = {"data": "cars", "data_digest": images, VALIDATION_IMAGES: images}
        model = TrialModel(tracking, "transfer", "s1", number, wanted=f"of-{tmp_path.name}")
        files = tmp_path / PREDICTIONS
        registered = model.register(export, metrics={}, test={}, details=details, predictions=files)
        assert model.find() == registered
        return registered

    return call


def test_a_version_that_is_shown_to_be_worse_is_no_challenger(tracking: Tracking, register: Register) -> None:
    """2 of 24 right do not take the place of 13 of 24, whatever comes after; 12 of 24 do: no difference is shown."""
    first, worse = register(13), register(2)
    assert (worse.alias, worse.challenger, worse.uri) == ("", first.version, f"models:/{first.name}/{worse.version}")
    assert worse.standing == (
        f"while version {first.version} is the challenger. On the same {IMAGES} validation images version "
        f"{first.version} has significantly more right: 54.2% against 8.3% (exact p = 0.00098)."
    )
    equal = register(12)
    assert (equal.alias, equal.note) == ("challenger", "")
    assert str(tracking.client().get_model_version_by_alias(first.name, "challenger").version) == equal.version


def test_confirmed_means_are_compared_with_means_and_single_scores_with_single_ones(register: Register) -> None:
    """Two confirmed winners by their seeds; one that is not confirmed by the scores of both searches."""
    register(23, seeds=(3, 3, 4))
    better = register(20, seeds=(18, 19, 18))
    assert better.alias == "challenger"
    worse = register(24, seeds=(5, 4, 4))
    assert "76.4% against 18.1% in the mean of 3 and 3 fresh seeds (exact p = " in worse.note
    assert register(21).alias == "challenger"


def test_data_that_has_grown_makes_a_challenger_and_names_its_classes(register: Register) -> None:
    """Other images are no ground to refuse; what was added to the classes, and what is gone, is listed."""
    first = register(24)
    grown = register(2, images="v2", classes=("b", "c", "d"))
    assert grown.standing == (
        f"alias challenger. Its data is not that of version {first.version}, the challenger before; classes added: "
        "c, d; classes gone: a."
    )
