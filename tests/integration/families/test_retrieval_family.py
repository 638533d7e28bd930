"""The retrieval family on images read from disk: one extractor for many trials, honest siblings, exported as tested."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from family_trials import SIZE, TIMES, one_thread, read, run, timeless
from helpers import events_of
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.data.splits import Splits
from carcls.errors import TrialFailure, WeightsError
from carcls.export import load_export
from carcls.families import evaluate_on_test, export_trial, preflight, refit_trial
from carcls.families.retrieval import RetrievalTrial
from carcls.models.backbones import build_backbone
from carcls.outcome import Outcome
from carcls.stages import StageStore
from sweeps.tracking import model_code as registry_pyfunc
from sweeps.tracking.pyfunc import signature_of

CLASSES = 3
# Noise hides the tints, so that answers are neither all right nor all wrong.
TINTS = ((110, 90, 90), (90, 110, 90), (90, 90, 110))
VOTED = {f"{name}{ending}" for name in ("precision", "recall", "f1") for ending in ("", "_macro")} | {"accuracy"}
RANKED = {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r", "r_precision"}
FROZEN = TrialConfig(
    family="retrieval", backbone="efficientnet_lite0", image_size=SIZE, batch_size=8, k=5, precision="fp32"
)
TUNED = FROZEN.model_copy(update={"unfreezing": "full", "epochs": 2, "crop": "random", "flip": True, "head_lr": 1e-4})


# Fitting a whitening costs the cube of the width; this network's is 512.
SMALL = {"backbone": "timm:resnet10t", "weights": "random"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 24 training and 5 test images of each of three tints; the first one's are wider than high."""
    root = tmp_path_factory.mktemp("tints")
    random = np.random.default_rng(0)
    for label, tint in enumerate(TINTS):
        for split, count in (("train", 24), ("test", 5)):
            place = root / split / f"tint {label}"
            place.mkdir(parents=True)
            for number in range(count):
                coarse = random.integers(-60, 60, (6, 6, 3)).repeat(8, axis=0).repeat(8 if label else 12, axis=1)
                Image.fromarray((coarse + np.array(tint)).astype(np.uint8)).save(place / f"{number}.png")
    return root


@pytest.fixture
def stages(tmp_path: Path) -> StageStore:
    """An empty store."""
    return StageStore(tmp_path / "stages")


def _data(folder: Path, stages: StageStore) -> Dataset:
    return read(folder, stages, validation=0.25)


def _events(stages: StageStore, kind: str) -> list[str]:
    return [event.event for event in events_of(stages) if event.kind == kind]


def _embeddings(stages: StageStore, outcome: Outcome, pooling: str = "average") -> NDArray[np.float32]:
    return np.load(stages.root / outcome.model / f"{pooling}.npy", allow_pickle=False)


def test_trials_share_what_they_have_in_common(folder: Path, stages: StageStore) -> None:
    """Trials that differ in what follows the training make one training and one embedding, and search where they must.

    Neighbours are searched again for another pooling, normalisation or whitening, and for no k, distance or vote.
    """
    data = _data(folder, stages)
    run(TUNED, data, stages)
    for settings in ({"k": 1}, {"distance": "cosine"}, {"vote": "softmax", "temperature": 0.1}):
        run(TUNED.model_copy(update=settings), data, stages)
    assert _events(stages, "neighbours").count("made") == 1
    others = ({"pooling": "max"}, {"pooling": "gem"}, {"l2_normalize": True}, {"whitening": "lda"})
    for settings in others:
        run(TUNED.model_copy(update=settings), data, stages)
    assert _events(stages, "neighbours").count("made") == 1 + len(others)
    assert _events(stages, "training").count("made") == 1
    assert _events(stages, "embeddings").count("made") == 1
    assert not _events(stages, "test-embeddings")
    _, again = run(TUNED, data, stages)
    assert again.reused


def test_a_transfer_trial_has_trained_the_extractor(folder: Path, stages: StageStore) -> None:
    """After a transfer trial with equal training nothing is trained; epochs are reported, the last with the vote."""
    data = _data(folder, stages)
    before, _ = run(TUNED.model_copy(update={"family": "transfer"}), data, stages)
    reports, outcome = run(TUNED, data, stages)
    assert _events(stages, "training") == ["made", "reused"]
    assert [report.epoch for report in reports] == [1, 2]
    assert outcome.epochs == 2
    assert reports[0].metrics == before[0].metrics
    last, classifier = reports[1].metrics, before[1].metrics
    assert outcome.metrics == last
    trained = {"train_loss", "val_classifier_accuracy"}
    assert set(last) == {f"val_{name}" for name in VOTED | RANKED} | TIMES | {"parameters"} | trained
    assert last["predict_ms"] > last["ms_per_query"] > 0
    assert last["val_classifier_accuracy"] == classifier["val_accuracy"]
    assert (last["train_loss"], last["seconds"]) == (classifier["train_loss"], classifier["seconds"])
    sibling = outcome.derived[0]
    assert sibling.settings["k"] != TUNED.k
    assert {name: sibling.metrics[name] for name in trained} == {name: last[name] for name in trained}


def test_a_frozen_extractor_trains_nothing(folder: Path, stages: StageStore) -> None:
    """There is no training, no epoch and no classifier; the settings of a training make no other embedding."""
    data = _data(folder, stages)
    reports, outcome = run(FROZEN, data, stages)
    run(FROZEN.model_copy(update={"epochs": 3, "head_lr": 0.1, "flip": True, "seed": 7}), data, stages)
    assert (reports, outcome.epochs) == ([], 0)
    assert set(outcome.metrics) == {f"val_{name}" for name in VOTED | RANKED} | (TIMES - {"seconds"}) | {"parameters"}
    assert not _events(stages, "training")
    assert _events(stages, "embeddings") == ["made", "reused"]


def test_random_weights_belong_to_a_seed(folder: Path, stages: StageStore) -> None:
    """A frozen extractor of random weights embeds anew for another seed, and the user is told that it knows nothing."""
    data, random = _data(folder, stages), FROZEN.model_copy(update={"weights": "random"})
    for seed in (0, 1, 1):
        run(random.model_copy(update={"seed": seed}), data, stages)
    assert _events(stages, "embeddings") == ["made", "made", "reused"]
    (note,), _ = preflight([random], stages.root)
    assert note == "efficientnet_lite0 starts from random weights: nothing is transferred."
    assert preflight([FROZEN], stages.root)[0] == []


@pytest.mark.parametrize(("k", "distance"), [(1, "euclidean"), (5, "cosine")])
def test_measures_are_those_of_scikit_learn(folder: Path, stages: StageStore, k: int, distance: str) -> None:
    """With votes by distance, which leave no ties, accuracy, precision, recall and F1 are scikit-learn's."""
    data = _data(folder, stages)
    config = FROZEN.model_copy(update={"k": k, "distance": distance, "vote": "distance", "pooling": "gem"})
    _, outcome = run(config, data, stages)
    embeddings, count = _embeddings(stages, outcome, "gem").astype(np.float64), len(data.splits.train)
    model = KNeighborsClassifier(k, weights="distance", metric=distance, algorithm="brute")
    model.fit(embeddings[:count], data.labels[data.splits.train])
    predicted, labels = model.predict(embeddings[count:]), data.labels[data.splits.validation]
    assert 0.2 < (predicted == labels).mean() < 1
    expected = precision_recall_fscore_support(labels, predicted, average="weighted", zero_division=0)
    names = ("val_precision", "val_recall", "val_f1")
    assert [outcome.metrics[name] for name in names] == pytest.approx(expected[:3])
    assert outcome.metrics["val_accuracy"] == pytest.approx((predicted == labels).mean())
    written = np.load(stages.root / outcome.predictions)
    assert written["rows"].tolist() == data.splits.validation.tolist()
    assert written["predicted"].tolist() == predicted.tolist()
    shares = model.predict_proba(embeddings[count:])
    np.testing.assert_allclose(written["probabilities"], shares, atol=1e-5)


def test_siblings_are_what_trials_of_their_own_measure(folder: Path, tmp_path: Path) -> None:
    """Each other k, distance and vote is a sibling, once, with the measures of a trial that was asked for just that.

    All images of the gallery may be neighbours.
    """
    here, elsewhere = StageStore(tmp_path / "here"), StageStore(tmp_path / "elsewhere")
    data, other = _data(folder, here), _data(folder, elsewhere)
    config = FROZEN.model_copy(update={**SMALL, "k": 54, "vote": "softmax", "temperature": 0.2, "whitening": "pca"})
    assert len(data.splits.train) == 54
    _, outcome = run(config, data, here)
    found = {tuple(sibling.settings.values()): sibling for sibling in outcome.derived}
    ks = [*range(1, 51), 54]
    votes, distances = ("uniform", "distance", "softmax"), ("euclidean", "cosine")
    assert set(found) == {(k, d, v) for k in ks for d in distances for v in votes} - {(54, "euclidean", "softmax")}
    assert len(outcome.derived) == len(found)
    assert len({sibling.metrics["val_accuracy"] for sibling in outcome.derived}) > 3
    for asked in ((1, "cosine", "uniform"), (7, "euclidean", "distance"), (54, "cosine", "softmax")):
        _, alone = run(config.model_copy(update=dict(found[asked].settings)), other, elsewhere)
        assert timeless(found[asked].metrics) == timeless(alone.metrics)
        assert all(found[asked].metrics[name] > 0 for name in TIMES - {"seconds"})


def test_two_runs_of_a_trial_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    """In two stores that share nothing, everything but the time is the same: embeddings, reports, siblings, test."""
    results = []
    for name in ("a", "b"):
        store = StageStore(tmp_path / name)
        data, config = _data(folder, store), TUNED.model_copy(update={**SMALL, "whitening": "lda"})
        reports, outcome = run(config, data, store)
        score = evaluate_on_test(config, data, store, outcome.model)
        tested = timeless(score.metrics)
        told = [timeless(report.metrics) for report in reports], [timeless(s.metrics) for s in outcome.derived]
        results.append((told, tested, _embeddings(store, outcome).tobytes()))
    assert results[0] == results[1]


def test_test_images_are_embedded_once_and_only_for_the_test(folder: Path, tmp_path: Path) -> None:
    """Readings that share an extractor embed test images once; scores are those of scikit-learn, and are written."""
    stages = StageStore(tmp_path / "stages")
    data = _data(folder, stages)
    config = FROZEN.model_copy(update={"vote": "distance"})
    _, outcome = run(config, data, stages)
    assert not _events(stages, "test-embeddings")
    score = evaluate_on_test(config, data, stages, outcome.model, tmp_path / "test.npz")
    evaluate_on_test(FROZEN.model_copy(update={"k": 3, "distance": "cosine"}), data, stages, outcome.model)
    assert _events(stages, "test-embeddings") == ["made", "reused"]
    timed = {f"test_{name}" for name in TIMES - {"seconds", "predict_ms"}}
    calibration = {"test_raw_calibration_error", "test_calibration_error"}
    assert set(score.metrics) == {f"test_{name}" for name in VOTED | RANKED} | timed | calibration
    (place,) = (path for path in (stages.root / "test-embeddings").iterdir() if path.is_dir())
    gallery = _embeddings(stages, outcome)[: len(data.splits.train)]
    model = KNeighborsClassifier(5, weights="distance", algorithm="brute")
    model.fit(gallery.astype(np.float64), data.labels[data.splits.train])
    predicted, labels = (
        model.predict(np.load(place / "embeddings.npy").astype(np.float64)),
        data.labels[data.splits.test],
    )
    assert score.metrics["test_accuracy"] == pytest.approx((predicted == labels).mean())
    assert score.images == len(data.splits.test) == 15
    assert score.interval[0] <= score.metrics["test_accuracy"] <= score.interval[1]
    written = np.load(tmp_path / "test.npz")
    assert written["rows"].tolist() == data.splits.test.tolist()
    assert written["predicted"].tolist() == predicted.tolist()


def test_test_images_are_embedded_anew_at_another_size(folder: Path, stages: StageStore) -> None:
    """A frozen network has the same weights at each image size, and other embeddings."""
    data, small = _data(folder, stages), FROZEN.model_copy(update=SMALL)
    for config in (small, small.model_copy(update={"image_size": SIZE + 32})):
        _, outcome = run(config, data, stages)
        evaluate_on_test(config, data, stages, outcome.model)
    assert _events(stages, "test-embeddings") == ["made", "made"]


@pytest.mark.parametrize("base", [FROZEN, TUNED], ids=["frozen", "tuned"])
def test_the_test_asks_the_validated_extractor(base: TrialConfig, folder: Path, stages: StageStore) -> None:
    """If the validation images are also the test images, their embeddings and all scores are the validation's."""
    data = _data(folder, stages)
    _, outcome = run(base, data, stages)
    queries = data.splits.validation
    tested = replace(data, splits=Splits(data.splits.train, queries, queries))
    score = evaluate_on_test(base, tested, stages, outcome.model)
    known = _embeddings(stages, outcome, base.pooling)[-len(queries) :]
    np.testing.assert_allclose(_test_embeddings(stages), known, rtol=1e-4, atol=1e-5)
    for name in VOTED | RANKED:
        assert score.metrics[f"test_{name}"] == pytest.approx(outcome.metrics[f"val_{name}"])


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        (FROZEN, {}),
        (FROZEN, {"pooling": "gem", "l2_normalize": True, "distance": "cosine", "vote": "softmax"}),
        (FROZEN, {**SMALL, "whitening": "pca", "whitening_dim": 20}),
        (TUNED, {**SMALL, "pooling": "max", "whitening": "lda", "vote": "distance", "l2_normalize": True}),
    ],
    ids=["plain", "gem", "pca", "tuned-lda"],
)
def test_the_exported_model_answers_as_it_was_tested(
    base: TrialConfig, settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """From its folder alone, reading the test files again, the model finds the neighbours and shares of the test."""
    stages = StageStore(tmp_path / "stages")
    data, config = _data(folder, stages), base.model_copy(update=settings)
    _, outcome = run(config, data, stages)
    evaluate_on_test(config, data, stages, outcome.model, tmp_path / "test.npz")
    export_trial(config, data, stages, outcome.model, tmp_path / "model", {"seed": 0})
    predictor = load_export(tmp_path / "model")
    assert predictor.gallery is not None
    images = data.manifest.images
    answers = predictor.predict([data.manifest.root / images[row].path for row in data.splits.test])
    written = np.load(tmp_path / "test.npz")
    for answer, label, shares in zip(answers, written["predicted"], written["probabilities"], strict=True):
        assert answer.label == data.classes[label]
        assert answer.probability == pytest.approx(shares[label], abs=1e-3)
    first = predictor.gallery.projection.apply(_test_embeddings(stages))
    known = {images[row].path: place for place, row in enumerate(data.splits.train.tolist())}
    for embedding, answer in zip(first, answers, strict=True):
        distances = _distances(embedding, predictor.gallery.embeddings, config.distance)
        named = [known[neighbour.image] for neighbour in answer.neighbours]
        assert named == np.argsort(distances, kind="stable")[: config.k].tolist()
        assert [n.distance for n in answer.neighbours] == pytest.approx(distances[named], rel=1e-3, abs=1e-5)
        labels = [data.classes[data.labels[data.splits.train[place]]] for place in named]
        assert [n.label for n in answer.neighbours] == labels
    for place, row in enumerate(data.splits.train.tolist()):
        thumbnail = predictor.thumbnail(place)
        assert thumbnail is not None
        seen = np.asarray(Image.open(io.BytesIO(thumbnail)), np.float32)
        assert np.abs(seen - _small(data, row, seen.shape)).mean() < 15  # noise, and JPEG halves its colours


def _small(data: Dataset, row: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the image of a row, float32 [h, w, 3], whose sides have the ratio that is asked for."""
    with Image.open(data.manifest.root / data.manifest.images[row].path) as file:
        width, height = file.size
        assert shape[:2] == (round(shape[1] * height / width), shape[1])
        return np.asarray(file.convert("RGB").resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32)


def test_a_sibling_answers_as_a_trial_of_its_own_does(folder: Path, stages: StageStore) -> None:
    """Its stored predictions are those of running it, and come from its trial's embeddings: nothing is embedded."""
    config, data = FROZEN.model_copy(update=SMALL), _data(folder, stages)
    _, parent = run(config, data, stages)
    sibling = config.model_copy(update={"k": 3, "vote": "distance"})
    answers = RetrievalTrial(sibling, data, stages).answer_validation(stages.root / parent.model)
    stored = np.load(stages.root / answers)
    assert _events(stages, "embeddings") == ["made"]
    _, own = run(sibling, data, StageStore(stages.root.with_name("other")))
    alone = np.load(stages.root.with_name("other") / own.predictions)
    assert stored["predicted"].tolist() == alone["predicted"].tolist()
    assert own.model == parent.model  # which is why it is tested and exported with that one
    with pytest.raises(TrialFailure):
        RetrievalTrial(sibling.model_copy(update={"k": 7}), data, stages).answer_validation(stages.root / "gone")


@pytest.mark.parametrize("base", [FROZEN, TUNED], ids=["frozen", "tuned"])
def test_a_refit_searches_among_validation_images_too(base: TrialConfig, folder: Path, stages: StageStore) -> None:
    """Its gallery is every image but the test's, which it answers and is exported with; asked again it is found."""
    config = base.model_copy(update=SMALL)
    data = _data(folder, stages).refitted()
    model = refit_trial(config, data, stages)
    score = evaluate_on_test(config, data, stages, model)
    assert score.images == 15
    export_trial(config, data, stages, model, stages.root / "exported")
    predictor = load_export(stages.root / "exported")
    assert predictor.gallery is not None
    assert len(predictor.gallery.images) == 72
    assert not set(predictor.gallery.images) & {data.manifest.images[row].path for row in data.splits.test}
    made = _events(stages, "embeddings").count("made")
    assert refit_trial(config, data, stages) == model
    assert _events(stages, "embeddings").count("made") == made


def _test_embeddings(stages: StageStore) -> NDArray[np.float32]:
    (place,) = (path for path in (stages.root / "test-embeddings").iterdir() if path.is_dir())
    return np.load(place / "embeddings.npy", allow_pickle=False)


def _distances(query: NDArray[np.float32], gallery: NDArray[np.float32], distance: str) -> NDArray[np.float64]:
    wide, others = query.astype(np.float64), gallery.astype(np.float64)
    if distance == "euclidean":
        return np.linalg.norm(others - wide, axis=1)
    return 1 - others @ wide / np.linalg.norm(others, axis=1) / np.linalg.norm(wide)


def test_mlflow_serves_the_exported_model(folder: Path, tmp_path: Path) -> None:
    """As an MLflow model it answers paths, arrays and tables alike, with the columns that its signature promises."""
    stages = StageStore(tmp_path / "stages")
    data = _data(folder, stages)
    _, outcome = run(FROZEN, data, stages)
    export_trial(FROZEN, data, stages, outcome.model, tmp_path / "model")
    mlflow.pyfunc.save_model(
        tmp_path / "served",
        python_model=registry_pyfunc.__file__,
        artifacts={"export": str(tmp_path / "model")},
        pip_requirements=["torch"],
        signature=signature_of("retrieval"),
    )
    served = mlflow.pyfunc.load_model(str(tmp_path / "served"))
    paths = [str(data.manifest.root / data.manifest.images[row].path) for row in data.splits.test[:3]]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = load_export(tmp_path / "model").predict(paths)
    files = [Path(path).read_bytes() for path in paths]
    packed = [base64.b64encode(file).decode() for file in files]
    forms = (paths, pixels, files, packed, pixels.tolist(), pixels.astype(np.int64), pixels / 255)
    for given in (*forms, pd.DataFrame({"image": paths}), pd.DataFrame({"image": packed}), {"image": paths}):
        table = served.predict(given)
        assert list(table.columns) == signature_of("retrieval").outputs.input_names()
        assert table["label"].tolist() == [answer.label for answer in expected]
        assert table["neighbour_images"].tolist() == [[n.image for n in a.neighbours] for a in expected]
        assert table["neighbour_labels"].tolist() == [[n.label for n in a.neighbours] for a in expected]
        for shown, answer in zip(table["neighbour_distances"], expected, strict=True):
            assert shown == pytest.approx([n.distance for n in answer.neighbours], rel=1e-3)
        assert table["error"].tolist() == [""] * 3
    mixed = served.predict([packed[0], "no such file", packed[1]])
    assert mixed["label"].tolist() == [expected[0].label, "", expected[1].label]
    assert mixed["error"].tolist() == ["", "the file is missing", ""]


def _split_otherwise(data: Dataset, train: list[int], validation: list[int]) -> Dataset:
    return replace(data, splits=Splits(np.array(train), np.array(validation), data.splits.test))


def test_classes_with_one_image_or_none_in_the_gallery(folder: Path, stages: StageStore) -> None:
    """One image is enough to be found, and no measure breaks; queries of a class with none are wrong and not found.

    Precision@R is of the others.
    """
    data = _data(folder, stages)
    rows = [np.flatnonzero(data.labels == label).tolist() for label in range(CLASSES)]
    train, lost, kept = [*rows[0][:10], *rows[1][:10]], rows[2][:6], [rows[0][10], rows[1][10]]
    _, single = run(FROZEN, _split_otherwise(data, [*train, rows[2][6]], [*kept, *lost]), stages)
    assert all(np.isfinite(value) for value in single.metrics.values())
    assert {sibling.settings["k"] for sibling in single.derived} == set(range(1, 22))
    _, both = run(FROZEN, _split_otherwise(data, train, [*kept, *lost]), stages)
    _, alone = run(FROZEN, _split_otherwise(data, train, kept), stages)
    for name in ("val_accuracy", "val_recall_at_1", "val_recall_at_10"):
        assert both.metrics[name] == pytest.approx(alone.metrics[name] * 2 / 8)
    for name in ("val_map_at_r", "val_r_precision"):
        assert both.metrics[name] == pytest.approx(alone.metrics[name])


@pytest.mark.parametrize("whitening", ["none", "pca", "lda"])
def test_a_gallery_of_equal_images_is_searched(tmp_path: Path, whitening: str) -> None:
    """Where all images are one, all distances are 0, and the gallery's first images vote; nothing is NaN."""
    random = np.random.default_rng(0)
    for place in (tmp_path / "cars" / split / f"class {label}" for split in ("train", "test") for label in range(2)):
        place.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), (90, 120, 60)).save(place / f"equal {number}.png")
            Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place / f"other {number}.png")
    stages = StageStore(tmp_path / "stages")
    data = _data(tmp_path / "cars", stages)
    images = enumerate(data.manifest.images)
    equal = [row for row, image in images if image.path.startswith("train") and "equal" in image.path]
    data = _split_otherwise(data, equal[2:], equal[:2])
    config = FROZEN.model_copy(update={"k": 4, "vote": "distance", "whitening": whitening, "l2_normalize": True})
    _, outcome = run(config, data, stages)
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    written = np.load(stages.root / outcome.predictions)
    shares = np.bincount(data.labels[data.splits.train][:4], minlength=2) / 4
    np.testing.assert_allclose(written["probabilities"], np.stack([shares, shares]))


def _weights_file(path: Path, spoil: float | None = None) -> Path:
    state = {name: tensor.clone() for name, tensor in build_backbone("efficientnet_lite0", 3).body.state_dict().items()}
    if spoil is not None:
        state["bn2.bias"][0] = spoil
    save_file(state, path)
    return path


def test_a_broken_embedding_fails_the_trial_with_its_reason(folder: Path, tmp_path: Path, stages: StageStore) -> None:
    """Weights that give NaN make the trial fail, again and again alike, and tell how many embeddings are broken."""
    config = FROZEN.model_copy(update={"weights": str(_weights_file(tmp_path / "nan.safetensors", float("nan")))})
    data = _data(folder, stages)
    for _ in range(2):
        with pytest.raises(TrialFailure, match=rf"{len(data.splits.train)} of .* gallery embeddings are NaN"):
            run(config, data, stages)


def test_a_frozen_extractor_must_keep_its_weights(folder: Path, tmp_path: Path, stages: StageStore) -> None:
    """A weights file that was replaced is refused, since it would ask the gallery about foreign embeddings."""
    path = _weights_file(tmp_path / "some.safetensors")
    config, data = FROZEN.model_copy(update={"weights": str(path)}), _data(folder, stages)
    _, outcome = run(config, data, stages)
    _weights_file(path, 0.5)
    with pytest.raises(WeightsError, match="weights must be those that the gallery was embedded with"):
        evaluate_on_test(config, data, stages, outcome.model)


def test_a_backbone_without_feature_maps_pools_by_itself(folder: Path, stages: StageStore) -> None:
    """Pooling tokens, a mistake before a sweep, is a failure with a reason where the trial runs all the same."""
    tokens = FROZEN.model_copy(update={"backbone": "timm:vit_tiny_patch16_224", "weights": "random", "image_size": 224})
    data = _data(folder, stages)
    small = _split_otherwise(data, data.splits.train[::9].tolist(), data.splits.validation[:2].tolist())
    _, outcome = run(tokens, small, stages)
    assert 0 <= outcome.metrics["val_accuracy"] <= 1
    with pytest.raises(TrialFailure, match="pooling must be average for this backbone"):
        run(tokens.model_copy(update={"pooling": "max"}), small, stages)


def test_an_extractor_is_built_once_before_the_sweep(stages: StageStore) -> None:
    """Of a hundred trials with one extractor one builds it to check it, and the next sweep none."""
    config = FROZEN.model_copy(update={**SMALL, "image_size": 96})
    for _ in range(2):
        notes, networks = preflight((config.model_copy(update={"k": k}) for k in range(1, 101)), stages.root)
        assert notes == ["timm:resnet10t starts from random weights: nothing is transferred."]
        assert networks["timm:resnet10t"].embedding == 512
    assert _events(stages, "network").count("made") == 1
    with pytest.raises(WeightsError, match="does not exist"):
        preflight([config.model_copy(update={"weights": "no/such.pth"})], stages.root)
