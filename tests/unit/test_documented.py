"""The documented experiments: their settings and their reported scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from carcls.config import TrialConfig
from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK, experiments_of, find_experiment

TRANSFER = {
    "backbone": "resnet50",
    "weights": "auto",
    "image_size": 224,
    "optimizer": "adam",
    "head_lr": 0.001,
    "batch_size": 32,
    "lr_schedule": "step",
    "step_gamma": 0.1,
    "step_epochs": 7,
    "epochs": 10,
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
}
RETRIEVAL = {**TRANSFER, "batch_size": 64, "l2_normalize": False, "whitening": "none", "vote": "uniform"}
SCRATCH = {
    "backbone": "scratch",
    "image_size": 224,
    "optimizer": "adam",
    "head_lr": 0.001,
    "batch_size": 64,
    "epochs": 40,
    "lr_schedule": "constant",
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "width": 32,
    "residual": False,
    "stem": "none",
}
NO_AUGMENTATION = {"crop": "none", "flip": False, "rotation": 0.0, "jitter": 0.0}
AUGMENTATION = {"crop": "random", "flip": True, "rotation": 15.0, "jitter": 0.0, "augmentation_strength": 1.0}
JITTERED = {"crop": "random", "flip": True, "rotation": 0.0, "jitter": 0.2, "augmentation_strength": 1.0}
FINETUNED = {"unfreezing": "full", "dropout": 0.5, "backbone_lr": 0.001, **AUGMENTATION}
REGULARIZED = {"depth": 4, "batch_norm": True, "dropout": 0.5}


EXPECTED = {
    "transfer/frozen": (
        {**TRANSFER, "unfreezing": "frozen", "dropout": 0.0, **NO_AUGMENTATION},
        {"loss": 2.3724, "accuracy": 0.4237, "f1": 0.4196, "precision": 0.4291, "recall": 0.4237},
    ),
    "transfer/frozen-augmented": (
        {**TRANSFER, "unfreezing": "frozen", "dropout": 0.0, **AUGMENTATION},
        {"loss": 2.0, "accuracy": 0.47, "f1": 0.47, "precision": 0.5, "recall": 0.47},
    ),
    "transfer/finetuned": (
        {**TRANSFER, **FINETUNED},
        {"loss": 0.9012, "accuracy": 0.7378, "f1": 0.7363, "precision": 0.7818, "recall": 0.7378},
    ),
    "retrieval/resnet50-k3-euclidean": (
        {**RETRIEVAL, **FINETUNED, "k": 3, "distance": "euclidean"},
        {"accuracy": 0.7493, "f1": 0.7523, "precision": 0.7738, "recall": 0.7493}
        | {"fit_seconds": 0.0092, "predict_seconds": 1.1998},
    ),
    "retrieval/resnet50-k10-euclidean": (
        {**RETRIEVAL, **FINETUNED, "k": 10, "distance": "euclidean"},
        {"accuracy": 0.7677, "f1": 0.7677, "precision": 0.7881, "recall": 0.7677}
        | {"fit_seconds": 0.0079, "predict_seconds": 1.3873},
    ),
    "retrieval/densenet121-k7-cosine": (
        {**RETRIEVAL, "backbone": "densenet121", "unfreezing": "progressive", "k": 7, "distance": "cosine"},
        {"accuracy": 0.7341, "f1": 0.7349, "precision": 0.7533, "recall": 0.7341}
        | {"fit_seconds": 0.0047, "predict_seconds": 1.0178},
    ),
    "scratch/basic": (
        {**SCRATCH, "depth": 3, "batch_norm": False, "dropout": 0.0, **NO_AUGMENTATION},
        {"loss": 4.6955, "accuracy": 0.0888, "f1": 0.0852, "precision": 0.098},
    ),
    "scratch/regularized": (
        {**SCRATCH, **REGULARIZED, **NO_AUGMENTATION},
        {"loss": 4.5436, "accuracy": 0.0816, "f1": 0.0623, "precision": 0.0717},
    ),
    "scratch/augmented": (
        {**SCRATCH, **REGULARIZED, **JITTERED},
        {"loss": 1.1026, "accuracy": 0.7226, "f1": 0.7217, "precision": 0.7299, "recall": 0.7226},
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_experiment_has_exactly_the_documented_settings_and_scores(name):
    """Each documented experiment builds a trial with the settings of its table, and carries its scores as fractions."""
    settings, scores = EXPECTED[name]
    experiment = find_experiment(name)
    config = TrialConfig.model_validate(dict(experiment.settings))
    assert {key: getattr(config, key) for key in settings} == settings
    assert dict(experiment.documented) == scores


def test_only_the_rounded_scores_are_marked_approximate():
    """The experiment whose scores were given with "about" says so."""
    assert [e.name for e in EXPERIMENTS if e.approximate] == ["transfer/frozen-augmented"]


def test_only_the_leaked_score_is_marked_and_its_note_says_why():
    """The score on images whose like had been trained on is the one that nothing can be compared with."""
    (leaked,) = (e for e in EXPERIMENTS if e.leaked)
    assert leaked.name == "scratch/augmented"
    assert "99.7%" in leaked.note
    assert leaked.note.startswith("Not comparable")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_experiment_says_how_its_number_was_made(experiment):
    """Whoever compares with a documented score learns that the pictures were not cut to their boxes."""
    assert "bounding boxes" in experiment.note


# Of everything that a trial has, no documentation says these; they belong to the machine and to the sweep.
UNDOCUMENTED = {"family", "seed", "precision"}
STRANGE = {
    "backbone": "densenet121",
    "weights": "random",
    "image_size": 64,
    "dropout": 0.9,
    "unfreezing": "0:2",
    "optimizer": "sgd",
    "momentum": 0.1,
    "head_lr": 0.5,
    "backbone_lr": 0.5,
    "weight_decay": 0.5,
    "lr_schedule": "cosine",
    "step_epochs": 2,
    "step_gamma": 0.5,
    "warmup_epochs": 3,
    "loss": "cosine",
    "label_smoothing": 0.5,
    "clip_norm": 5.0,
    "crop": "resized",
    "crop_scale": 0.9,
    "flip": True,
    "rotation": 90.0,
    "jitter": 0.9,
    "augmentation_strength": 3.0,
    "epochs": 3,
    "batch_size": 3,
    "depth": 2,
    "width": 7,
    "batch_norm": True,
    "residual": True,
    "stem": "resnet",
    "head_pooling": "max",
    "pooling": "gem",
    "l2_normalize": True,
    "whitening": "lda",
    "whitening_dim": 3,
    "k": 50,
    "distance": "cosine",
    "vote": "softmax",
    "temperature": 9.0,
}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_no_base_setting_of_a_sweep_reaches_a_documented_experiment(experiment):
    """An experiment brings every setting that matters to it, so a sweep's own base changes nothing of it."""
    assert STRANGE.keys() == TrialConfig.model_fields.keys() - UNDOCUMENTED - {"micro_batch"}  # for small memories
    plain = TrialConfig.model_validate({**experiment.settings, "family": experiment.family})
    upon = TrialConfig.model_validate({**STRANGE, **experiment.settings, "family": experiment.family})
    assert upon.canonical() == plain.canonical()


def test_the_two_resnet_retrieval_experiments_share_one_training():
    """They differ in k alone, so the extractor is trained once."""
    trainings = [
        TrialConfig.model_validate({**find_experiment(name).settings, "family": "retrieval"}).training().digest
        for name in ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean")
    ]
    assert trainings[0] == trainings[1]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_the_document_has_every_experiment_with_its_numbers(experiment):
    """docs/experiments.md has a row of each experiment with the numbers of the code, and marks the leaked one."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{experiment.name}`"))
    shares = [f"{experiment.documented[name]:.2%}" for name in ("accuracy", "f1", "precision")]
    assert [share for share in shares if share not in row and share.replace(".00%", "%") not in row] == []
    for name in ("loss", "fit_seconds", "predict_seconds"):
        assert name not in experiment.documented or str(experiment.documented[name]) in row
    assert (LEAK_MARK in row) == experiment.leaked


def test_experiments_of_a_family_keep_their_order():
    """Each family has three experiments in the documented order; an unknown family has none."""
    names = [
        experiment.name for family in ("transfer", "retrieval", "scratch") for experiment in experiments_of(family)
    ]
    assert names == [experiment.name for experiment in EXPERIMENTS]
    assert [experiment.name for experiment in experiments_of("transfer")] == [
        "transfer/frozen",
        "transfer/frozen-augmented",
        "transfer/finetuned",
    ]
    assert experiments_of("nothing") == ()


def test_an_unknown_experiment_names_the_nearest():
    """A misspelt experiment is answered with the nearest known one."""
    with pytest.raises(ValueError, match=r"Did you mean transfer/finetuned\?"):
        find_experiment("transfer/fine-tuned")


def test_settings_cannot_be_changed():
    """Nobody can change a documented setting."""
    with pytest.raises(TypeError):
        find_experiment("transfer/frozen").settings["dropout"] = 0.9
