"""The documented experiments: their settings and their reported scores."""

from __future__ import annotations

import pickle

import pytest

from carcls.config import TrialConfig
from sweeps.documented import EXPERIMENTS, experiments_of, find_experiment

SHARED = {
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
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
}
NO_AUGMENTATION = {"crop": "none", "flip": False, "rotation": 0.0, "jitter": 0.0}
AUGMENTATION = {"crop": "random", "flip": True, "rotation": 15.0, "jitter": 0.0, "augmentation_strength": 1.0}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("transfer/frozen", {"unfreezing": "frozen", "dropout": 0.0, **NO_AUGMENTATION}),
        ("transfer/frozen-augmented", {"unfreezing": "frozen", "dropout": 0.0, **AUGMENTATION}),
        ("transfer/finetuned", {"unfreezing": "full", "dropout": 0.5, "backbone_lr": 0.001, **AUGMENTATION}),
    ],
)
def test_experiment_has_exactly_the_documented_settings(name, settings):
    """Each documented experiment builds a trial with the settings of its table."""
    config = TrialConfig.model_validate(dict(find_experiment(name).settings))
    expected = {**SHARED, **settings}
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("transfer/frozen", {"loss": 2.3724, "accuracy": 0.4237, "f1": 0.4196, "precision": 0.4291, "recall": 0.4237}),
        ("transfer/frozen-augmented", {"loss": 2.0, "accuracy": 0.47, "f1": 0.47, "precision": 0.5, "recall": 0.47}),
        (
            "transfer/finetuned",
            {"loss": 0.9012, "accuracy": 0.7378, "f1": 0.7363, "precision": 0.7818, "recall": 0.7378},
        ),
    ],
)
def test_experiment_reports_the_documented_scores(name, reported):
    """Each documented experiment carries the scores of its table as fractions."""
    assert dict(find_experiment(name).documented) == reported


def test_only_the_rounded_scores_are_marked_approximate():
    """The experiment whose scores were given with "about" says so."""
    assert [e.name for e in EXPERIMENTS if e.approximate] == ["transfer/frozen-augmented"]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_experiment_says_how_its_number_was_made(experiment):
    """Whoever compares with a documented score learns that the pictures were not cut to their boxes."""
    assert "bounding boxes" in experiment.note


def test_experiments_of_a_family_keep_their_order():
    """The transfer family has three experiments in the documented order; an unknown family has none."""
    names = [experiment.name for experiment in experiments_of("transfer")]
    assert names == ["transfer/frozen", "transfer/frozen-augmented", "transfer/finetuned"]
    assert experiments_of("nothing") == ()


def test_an_unknown_experiment_names_the_nearest():
    """A misspelt experiment is answered with the nearest known one."""
    with pytest.raises(ValueError, match=r"Did you mean transfer/finetuned\?"):
        find_experiment("transfer/fine-tuned")


def test_settings_cannot_be_changed_and_survive_a_pickle():
    """Nobody can change a documented setting, and an experiment can be handed to another process."""
    experiment = find_experiment("transfer/frozen")
    with pytest.raises(TypeError):
        experiment.settings["dropout"] = 0.9
    assert pickle.loads(pickle.dumps(experiment)) == experiment  # noqa: S301 - our own bytes
