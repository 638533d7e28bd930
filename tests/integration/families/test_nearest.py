"""The training images nearest to mistakes, held against sorting all distances, for each kind of trial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from family_trials import SIZE, one_thread, read, run
from helpers import trial_record
from numpy.typing import NDArray
from PIL import Image

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from carcls.families.nearest import find_nearest
from carcls.families.retrieval import RetrievalTrial
from carcls.outcome import Outcome
from carcls.stages import StageStore
from carcls.training.trained import TrainedClassifier
from sweeps.report.mistakes import answers_file, has_nearest, look_at_mistakes, read_nearest, worst_mistakes

FROZEN = TrialConfig(family="transfer", backbone="timm:resnet10t", weights="random", image_size=SIZE, epochs=1)
K, PLENTY = 3, {"seconds": 600.0, "per_image": 0.001}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, StageStore]:
    """Noise in three classes: most answers are wrong."""
    root, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for label in range(3):
        for number in range(24):
            path = root / "cars" / ("train" if number < 20 else "test") / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    stages = StageStore(root / "stages")
    return read(root / "cars", stages), stages


def mistaken(home: tuple[Dataset, StageStore], outcome: Outcome) -> list[tuple[int, int, int]]:
    """Return the worst mistakes of a trial, of which there are some."""
    found = worst_mistakes(home[1].root / outcome.predictions, home[0], {})
    assert len(found) > 2
    return [(one.row, one.label, one.answered) for one in found]


def by_sorting(
    embeddings: NDArray[np.float64], query: NDArray[np.float64], rows: Sequence[int]
) -> list[tuple[int, float]]:
    """Return rows of the k embeddings with the least 1 - cosine, and that."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(query)
    distances = 1 - embeddings @ query / lengths
    return [(rows[place], distances[place]) for place in np.argsort(distances, kind="stable")[:K]]


def agree(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> bool:
    """Tell whether both are the same images at the same distances, up to rounding."""
    return [row for row, _ in found] == [row for row, _ in expected] and np.allclose(
        [far for _, far in found], [far for _, far in expected], atol=1e-4
    )


def test_a_trained_network_is_asked_about_both_classes(home: tuple[Dataset, StageStore]) -> None:
    """The nearest among the training images of the true and the answered class, by what its own head sees."""
    data, stages = home
    config = FROZEN.model_copy(update={"unfreezing": "full", "flip": True})
    _, outcome = run(config, data, stages)
    mistakes = mistaken(home, outcome)
    said, found = find_nearest(config, data, stages, outcome.model, mistakes, K, **PLENTY)
    assert "of both classes, not of all" in said
    assert list(found) == [row for row, _, _ in mistakes]
    embed = TrainedClassifier(config, data, stages).embedder(outcome.model)
    for row, true, answered in mistakes:
        rows = [int(r) for r in data.splits.train if data.labels[r] in (true, answered)]
        query, *gallery = embed(np.array([row, *rows])).astype(float)
        assert agree(found[row], by_sorting(np.array(gallery), query, rows))


@pytest.mark.parametrize("flip", [False, True], ids=["features of all images in the store", "of no plain image"])
def test_features_that_are_in_the_store_are_taken(home: tuple[Dataset, StageStore], flip: bool) -> None:
    """A frozen backbone without augmentation has seen all training images as they are; with it, none."""
    data, stages = home
    config = FROZEN.model_copy(update={"flip": flip, "seed": 1 + flip})
    _, outcome = run(config, data, stages)
    mistakes, time = mistaken(home, outcome), PLENTY if flip else {"seconds": 0.0, "per_image": math.inf}
    said, found = find_nearest(config, data, stages, outcome.model, mistakes, K, **time)
    assert ("of both classes" in said) == flip
    embed = TrainedClassifier(config, data, stages).embedder(outcome.model)
    if not flip:
        rows = data.splits.train.tolist()
        gallery = embed(data.splits.train).astype(float)
        for row, _, _ in mistakes:
            assert agree(found[row], by_sorting(gallery, embed(np.array([row]))[0].astype(float), rows))


def test_neighbours_that_voted_are_the_nearest(home: tuple[Dataset, StageStore]) -> None:
    """A retrieval trial shows its own neighbours at its own distance, and costs no time of a network."""
    data, stages = home
    config = FROZEN.model_copy(update={"family": "retrieval", "k": 2, "distance": "euclidean"})
    _, outcome = run(config, data, stages)
    mistakes = mistaken(home, outcome)
    said, found = find_nearest(config, data, stages, outcome.model, mistakes, K, seconds=0.0, per_image=math.inf)
    assert said == "The nearest of all training images, which vote (euclidean distance)."
    embedded = np.load(stages.root / outcome.model / f"{config.pooling}.npy").astype(float)
    train = data.splits.train.tolist()
    places = {int(row): len(train) + place for place, row in enumerate(data.splits.validation)}
    normed = embedded / np.linalg.norm(embedded, axis=1, keepdims=True) if config.l2_normalize else embedded
    for row, _, _ in mistakes:
        distances = np.linalg.norm(normed[: len(train)] - normed[places[row]], axis=1)
        assert [near for near, _ in found[row]] == [train[place] for place in np.argsort(distances, kind="stable")[:K]]
        assert [far for _, far in found[row]] == pytest.approx(np.sort(distances)[:K].tolist(), rel=1e-5)


def test_time_bounds_what_is_embedded(home: tuple[Dataset, StageStore]) -> None:
    """Without time for one mistake nothing is found, and it is said; a network that is gone is said, too."""
    data, stages = home
    config = FROZEN.model_copy(update={"unfreezing": "full", "flip": True})
    _, outcome = run(config, data, stages)
    mistakes = mistaken(home, outcome)
    for time in ({"seconds": 1.0, "per_image": 9.0}, {"seconds": 20.0, "per_image": math.inf}):
        with pytest.raises(TrialFailure, match=r"Embedding \d+ images would take"):
            find_nearest(config, data, stages, outcome.model, mistakes, K, **time)
    with pytest.raises(TrialFailure, match="not kept any more"):
        find_nearest(config, data, stages, "training/gone", mistakes, K, **PLENTY)
    assert find_nearest(config, data, stages, outcome.model, [], K, **PLENTY)[1] == {}


def test_what_was_found_is_kept_also_of_a_derived_trial(home: tuple[Dataset, StageStore]) -> None:
    """It is a stage of the store; a derived trial, which has no answers of its own, has them from then on."""
    data, stages = home
    config = FROZEN.model_copy(update={"family": "retrieval", "k": 2})
    _, outcome = run(config, data, stages)
    parent: dict[str, Any] = {"model": outcome.model, "config": config.model_dump()}
    derived = trial_record(1, 0.5, derived_from=0, **{**parent, "config": {**parent["config"], "k": 1}})
    own = trial_record(0, 0.5, predictions=outcome.predictions, **parent)
    for record in (own, derived):
        assert read_nearest(data, stages, record) == {}
        look_at_mistakes(data, stages, record=record, seconds=5.0)
        assert has_nearest(data, stages, record)
        near = read_nearest(data, stages, record)
        found = worst_mistakes(answers_file(stages, record), data, near)
        assert all(len(one.nearest) == 4 for one in found)
        # Of one neighbour, the nearest image is of the class that was answered.
        assert record is own or all(one.nearest[0].label == one.answered for one in found)
    expected = RetrievalTrial(derived.trial_config, data, stages).answer_validation(stages.root / outcome.model)
    assert answers_file(stages, derived) == stages.root / expected
