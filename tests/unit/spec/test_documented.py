"""What comes with carsweep: the documented experiments with their scores, and the specs that begin with them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers import spec_of_yaml

from carcls.catalog import FAMILIES
from carcls.config import HOW_COMPUTED, TrialConfig, default_of
from carcls.data.config import DataConfig
from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK, DocumentedExperiment, experiments_of, find_experiment
from sweeps.spec.loading import load_spec, packaged_specs
from sweeps.spec.yaml_text import read_tree, read_value

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "experiments.md").read_text(encoding="utf-8")
SHARED = "image_size=224 optimizer=adam head_lr=0.001 loss=cross_entropy label_smoothing=0.0 weight_decay=0.0"
PRETRAINED = f"{SHARED} weights=auto lr_schedule=step step_gamma=0.1 step_epochs=7 epochs=10"
TRANSFER = f"{PRETRAINED} backbone=resnet50 batch_size=32"
RETRIEVAL = f"{PRETRAINED} batch_size=64 l2_normalize=false whitening=none vote=uniform"
SCRATCH = f"{SHARED} backbone=scratch batch_size=64 epochs=40 lr_schedule=constant width=32 residual=false stem=none"
AS_IT_IS = "crop=none flip=false rotation=0.0 jitter=0.0"
AUGMENTED = "crop=random flip=true rotation=15.0 jitter=0.0 augmentation_strength=1.0"
JITTERED = "crop=random flip=true rotation=0.0 jitter=0.2 augmentation_strength=1.0"
FINETUNED = f"unfreezing=full dropout=0.5 backbone_lr=0.001 {AUGMENTED}"
REGULARIZED = "depth=4 batch_norm=true dropout=0.5"
EXPECTED = {
    "transfer/frozen": f"{TRANSFER} unfreezing=frozen dropout=0.0 {AS_IT_IS}",
    "transfer/frozen-augmented": f"{TRANSFER} unfreezing=frozen dropout=0.0 {AUGMENTED}",
    "transfer/finetuned": f"{TRANSFER} {FINETUNED}",
    "retrieval/resnet50-k3-euclidean": f"{RETRIEVAL} backbone=resnet50 {FINETUNED} k=3 distance=euclidean",
    "retrieval/resnet50-k10-euclidean": f"{RETRIEVAL} backbone=resnet50 {FINETUNED} k=10 distance=euclidean",
    "retrieval/densenet121-k7-cosine": f"{RETRIEVAL} backbone=densenet121 unfreezing=progressive k=7 distance=cosine",
    "scratch/basic": f"{SCRATCH} depth=3 batch_norm=false dropout=0.0 {AS_IT_IS}",
    "scratch/regularized": f"{SCRATCH} {REGULARIZED} {AS_IT_IS}",
    "scratch/augmented": f"{SCRATCH} {REGULARIZED} {JITTERED}",
}
each_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)


def config_of(experiment: DocumentedExperiment, **base: Any) -> TrialConfig:
    """The trial of an experiment, upon other settings."""
    return TrialConfig.model_validate({**base, **experiment.settings, "family": experiment.family})


@pytest.mark.parametrize("name", EXPECTED)
def test_an_experiment_has_exactly_the_documented_settings(name: str) -> None:
    """Each builds a trial with the settings of its table, in the order of its family; nobody can change one."""
    experiment = find_experiment(name)
    expected = {key: read_value(value) for key, value in (pair.split("=") for pair in EXPECTED[name].split())}
    assert {key: getattr(config_of(experiment), key) for key in expected} == expected
    assert [e.name for e in experiments_of(experiment.family)] == [
        n for n in EXPECTED if n.startswith(experiment.family)
    ]
    with pytest.raises(TypeError):
        experiment.settings["dropout"] = 0.9  # type: ignore[index]


@each_experiment
def test_the_document_has_every_experiment_with_its_numbers(experiment: DocumentedExperiment) -> None:
    """docs/experiments.md has a row of each with the numbers of the code, and marks what is rounded or leaked."""
    row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{experiment.name}`"))
    reported = dict(experiment.documented)
    assert reported.pop("recall", reported["accuracy"]) == reported["accuracy"]
    times = {"fit_seconds", "predict_seconds"} if experiment.family == "retrieval" else {"loss"}
    assert set(reported) == {"accuracy", "f1", "precision"} | times
    for name, value in reported.items():
        written = f"{value:.2%}" if name in ("accuracy", "f1", "precision") else str(value)
        assert written in row or written.replace(".00%", "%") in row
    assert ("~" in row) == experiment.approximate == (experiment.name == "transfer/frozen-augmented")
    assert (LEAK_MARK in row) == experiment.leaked == (experiment.name == "scratch/augmented")


@each_experiment
def test_an_experiment_says_how_its_number_was_made(experiment: DocumentedExperiment) -> None:
    """Whoever compares with it learns that pictures were not cut to their boxes, and why one number means nothing."""
    assert "bounding boxes" in experiment.note
    assert experiment.note.startswith("Not comparable") == experiment.leaked
    assert ("99.7%" in experiment.note) == experiment.leaked


def strange(name: str) -> Any:
    """Return a valid value of a setting that is not its default."""
    default = default_of(name)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default // 2 or 3 if isinstance(default, int) else default / 2 or 0.5
    named = {"backbone": "densenet121", "weights": "random", "unfreezing": "0:2"}
    return named[name] if name in named else get_args(TrialConfig.model_fields[name].annotation)[-1]


@each_experiment
def test_no_base_setting_of_a_sweep_reaches_a_documented_experiment(experiment: DocumentedExperiment) -> None:
    """An experiment brings every setting that matters to it; others belong to the machine, its memory and the sweep."""
    machines = {"family", "seed", "precision", *HOW_COMPUTED}
    base = {name: strange(name) for name in TrialConfig.model_fields.keys() - machines}
    assert not [name for name, value in base.items() if value == default_of(name)]
    assert config_of(experiment, **base).canonical() == config_of(experiment).canonical()


# The packaged specs


def test_each_family_has_a_spec_and_a_demo() -> None:
    """The names are the families', and the demos' are the same with a prefix."""
    assert set(packaged_specs()) == {*FAMILIES, *(f"demo-{family}" for family in FAMILIES)}


@pytest.mark.parametrize("name", packaged_specs())
def test_a_packaged_spec_is_what_its_first_comment_runs(name: str) -> None:
    """Whoever copies the command runs this spec: all documented experiments in their order, then a search.

    On real data nothing differs from the documentation; a demo tells that its scores compare with nothing.
    """
    text = packaged_specs()[name]
    program, run, family, *options = shlex.split(text.splitlines()[0].lstrip("# "))
    assert (program, run) == ("carsweep", "run")
    spec = load_spec(family, overrides=dict(zip((o.lstrip("-") for o in options[::2]), options[1::2], strict=True)))
    said = read_tree(text, name)
    assert {part: getattr(spec, part) for part in said if part in ("trials", "note", "fixed")}.items() <= said.items()
    assert family != name or spec.model_copy(update={"data": DataConfig()}) == spec_of_yaml(text)
    assert spec.experiments == tuple(experiment.name for experiment in experiments_of(spec.family))
    assert spec.trials > len(spec.experiments)
    assert spec.search
    changed = tuple(experiment for experiment in spec.experiments if spec.changed_settings(experiment))
    if name.startswith("demo-"):
        assert changed == spec.experiments
        assert "not comparable" in (spec.note or "")
    else:
        assert (changed, spec.note) == ((), None)


def test_the_demo_of_retrieval_trains_no_extractor_that_the_demo_of_transfer_has() -> None:
    """The two ResNet experiments embed with the network that the fine-tuned transfer experiment trained."""
    demos = {family: dict(load_spec(family).experiment_configs()) for family in ("transfer", "retrieval")}
    finetuned = demos["transfer"]["transfer/finetuned"].training().digest
    for name in ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean"):
        assert demos["retrieval"][name].training().digest == finetuned
