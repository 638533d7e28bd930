"""What a trial is: validation, canonical settings, digest."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from carcls.config import ARCHITECTURE_SETTINGS, NEIGHBOUR_SETTINGS, SCRATCH, TrialConfig, digest_of
from carcls.data.config import DataConfig

# For every setting, values that differ from its default and from each other, and values that it cannot have.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "seed": ([1, 2**31 - 1], [-1, 2**31, 0.5]),
    "backbone": (["densenet121", "timm:resnet18", "scratch"], ["resnet51", "timm:"]),
    "weights": (["random", "some/folder"], []),
    "image_size": ([32, 1024], [31, 1025]),
    "dropout": ([0.5, 0.95], [-0.1, 0.96, 1.5, float("nan"), "much"]),
    "unfreezing": (["full", "progressive", "1:2,3:all"], ["half", "2:1,1:2", "1:all,2:1", "1:0", ""]),
    "optimizer": (["adamw", "sgd"], ["adagrad"]),
    "momentum": ([0.0, 0.5], [-0.1, 1.0]),
    "head_lr": ([1e-4, 10.0], [0.0, -1.0, 11.0, float("inf"), float("nan")]),
    "backbone_lr": ([1e-4, 10.0], [0.0]),
    "weight_decay": ([1e-4, 1.0], [-1e-9, 1.1]),
    "lr_schedule": (["constant", "cosine", "onecycle"], ["linear"]),
    "step_epochs": ([1, 3], [0]),
    "step_gamma": ([0.5, 1.0], [0.0, 1.1]),
    "warmup_epochs": ([1, 3], [-1]),
    "loss": (["cosine"], ["hinge"]),
    "label_smoothing": ([0.1, 0.5], [-0.1, 1.0]),
    "clip_norm": ([1.0, 5.0], [-1.0]),
    "crop": (["random", "resized"], ["center"]),
    "crop_scale": ([0.2, 1.0], [0.0, 1.1]),
    "flip": ([True], []),
    "rotation": ([15.0, 180.0], [-1.0, 181.0]),
    "jitter": ([0.2, 0.9], [-0.1, 1.0]),
    "augmentation_strength": ([0.0, 0.5, 3.0], [-0.1, 3.1]),
    "epochs": ([1, 10_000], [0, 10_001]),
    "batch_size": ([1, 4096], [0, 4097]),
    "micro_batch": ([1, 16], [0, 4097, 1.5]),
    "processes": ([2, 8], [0, 1.5, 1025]),
    "sync_batch_norm": ([True], ["perhaps"]),
    "precision": (["fp32", "bf16"], ["fp16"]),
    "depth": ([1, 7], [0, 8]),
    "width": ([4, 256], [3, 257]),
    "batch_norm": ([True], ["perhaps"]),
    "residual": ([True], [2]),
    "stem": (["stride2", "resnet"], ["stride4"]),
    "head_pooling": (["average", "max"], ["gem"]),
    "pooling": (["max", "gem"], ["flatten"]),
    "l2_normalize": ([True], ["perhaps"]),
    "whitening": (["pca", "lda"], ["zca"]),
    "whitening_dim": ([1, 8192], [0, 8193]),
    "k": ([1, 100_000], [0, 100_001, 2.5]),
    "distance": (["cosine"], ["manhattan"]),
    "vote": (["distance", "softmax"], ["loudest"]),
    "temperature": ([0.01, 100.0], [0.0, -1.0, 101.0, float("nan")]),
    "family": ([], ["tranfer"]),
}
OTHERS = {name: others for name, (others, _) in VALUES.items() if name != "family"}
# A trial in which every setting matters, but for those that exclude each other.
BUSY = {"unfreezing": "full", "crop": "resized", "flip": True, "rotation": 15.0, "jitter": 0.2}
WHERE_IT_MATTERS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd"},
    "warmup_epochs": {"lr_schedule": "cosine"},
    "flip": {"flip": False},
    "sync_batch_norm": {"processes": 2},
    **{name: {"backbone": SCRATCH} for name in ARCHITECTURE_SETTINGS},
    **{name: {"family": "retrieval"} for name in NEIGHBOUR_SETTINGS},
    "whitening_dim": {"family": "retrieval", "whitening": "pca"},
    "temperature": {"family": "retrieval", "vote": "softmax"},
}
# A setting, and what makes it meaningless.
MEANINGLESS = [
    ("backbone_lr", {"unfreezing": "frozen"}),
    ("momentum", {"optimizer": "adam"}),
    ("step_epochs", {"lr_schedule": "cosine"}),
    ("step_gamma", {"lr_schedule": "onecycle"}),
    ("warmup_epochs", {"lr_schedule": "step"}),
    ("processes", {"unfreezing": "frozen"}),
    ("processes", {"unfreezing": "9:all", "epochs": 9}),
    ("processes", {"family": "retrieval", "unfreezing": "frozen"}),
    ("sync_batch_norm", {"processes": 1}),
    ("sync_batch_norm", {"processes": 2, "unfreezing": "frozen"}),
    ("sync_batch_norm", {"processes": 2, "backbone": SCRATCH, "batch_norm": False}),
    ("crop_scale", {"crop": "random"}),
    ("augmentation_strength", {"crop": "none", "flip": False, "rotation": 0.0, "jitter": 0.0}),
    *((name, {"augmentation_strength": 0.0}) for name in ("crop", "crop_scale", "flip", "rotation", "jitter")),
    *((name, {"backbone": SCRATCH}) for name in ("weights", "unfreezing", "backbone_lr")),
    *((name, {"family": "scratch", "weights": "random"}) for name in ("unfreezing", "backbone_lr")),
    *((name, {"family": "retrieval", "backbone": "resnet50"}) for name in ARCHITECTURE_SETTINGS),
    *((name, {"family": family}) for name in NEIGHBOUR_SETTINGS for family in ("transfer", "scratch")),
    *(
        (name, {"family": "retrieval", "unfreezing": "frozen"})
        for name in ("dropout", "head_lr", "epochs", "batch_size", "optimizer", "flip")
    ),
    ("whitening_dim", {"family": "retrieval", "whitening": "none"}),
    ("temperature", {"family": "retrieval", "vote": "uniform"}),
    ("temperature", {"family": "retrieval", "vote": "distance"}),
]
FAMILIES = ["transfer", "retrieval", "scratch"]


def test_every_setting_is_examined_here() -> None:
    """The tables of this test name every setting of a trial."""
    assert set(VALUES) == set(TrialConfig.model_fields)
    assert {name for name, (_, bad) in VALUES.items() if not bad} == {"weights", "flip"}


def test_defaults_are_the_documented_shared_settings() -> None:
    """Without a word, a trial is the documented transfer recipe."""
    config = TrialConfig()
    assert (config.image_size, config.batch_size, config.epochs) == (224, 32, 10)
    assert (config.optimizer, config.head_lr, config.lr_schedule) == ("adam", 1e-3, "step")
    assert (config.step_epochs, config.step_gamma, config.augments) == (7, 0.1, False)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in VALUES.items() for value in bad])
def test_a_bad_value_is_refused(name: str, value: Any) -> None:
    """A value out of range or of an unknown name is refused, and the message says which setting."""
    with pytest.raises(ValidationError) as caught:
        TrialConfig(**{name: value})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_that_matters_changes_the_digest(name: str) -> None:
    """Trials that differ in a setting that matters have different digests; so have their trainings, before any vote."""
    trial = TrialConfig(**{**BUSY, **WHERE_IT_MATTERS.get(name, {})})
    values = {getattr(trial, name), *OTHERS[name]}
    others = [trial.model_copy(update={name: value}) for value in values]
    assert len({other.digest for other in others}) == len(values) > 1
    trainings = {other.training().digest for other in others}
    assert len(trainings) == (1 if name in NEIGHBOUR_SETTINGS else len(values))


@pytest.mark.parametrize(("name", "because"), MEANINGLESS)
def test_a_setting_that_cannot_matter_does_not(name: str, because: dict[str, Any]) -> None:
    """Two trials that differ only where it cannot matter are one trial."""
    trial = TrialConfig(**{**BUSY, **because})
    for value in OTHERS[name]:
        assert trial.model_copy(update={name: value}).digest == trial.digest


def test_equal_trials_have_equal_digests_however_they_were_made() -> None:
    """The digest follows the settings, not their order or whether a number was written as text or integer."""
    draw = random.Random(0)
    for _ in range(100):
        names = draw.sample(sorted(OTHERS), 8)
        settings = {name: draw.choice(OTHERS[name]) for name in names}
        shuffled = {name: settings[name] for name in draw.sample(names, len(names))}
        trial = TrialConfig(**settings)
        assert TrialConfig(**shuffled).digest == trial.digest
        assert TrialConfig.model_validate_json(trial.model_dump_json()).digest == trial.digest
    assert TrialConfig(rotation=15, flip=True).digest == TrialConfig(rotation="15.0", flip=True).digest


def test_canonical_settings_are_a_trial_of_the_same_digest() -> None:
    """Taking away what cannot matter is done once and for all; digests differ exactly where what is left does."""
    draw, canonical, digests = random.Random(2), set(), set()
    for _ in range(300):
        settings = {name: draw.choice(OTHERS[name]) for name in draw.sample(sorted(OTHERS), draw.choice([3, 12]))}
        trial = TrialConfig(family=draw.choice(FAMILIES), **settings)
        again = TrialConfig(**trial.canonical())
        assert again.canonical() == trial.canonical()
        assert again.digest == trial.digest
        canonical.add(str(sorted(trial.canonical().items())))
        digests.add(trial.digest)
    assert len(digests) == len(canonical)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"weights": "random"}, False),
        ({"family": "retrieval"}, False),
        ({"family": "scratch", "weights": "random"}, True),
        ({"backbone": "scratch"}, True),
        ({"family": "retrieval", "backbone": "scratch", "unfreezing": "frozen"}, True),
    ],
)
def test_what_is_trained_from_scratch(settings: dict[str, Any], expected: bool) -> None:
    """The scratch family trains everything from scratch, whatever the network; so does every family the scratch one."""
    assert TrialConfig(**settings).is_from_scratch is expected


def test_retrieval_trains_as_transfer_does() -> None:
    """Whatever a retrieval trial does with its embeddings, its training is that of the transfer trial."""
    draw = random.Random(3)
    trained_settings = sorted(set(OTHERS) - set(NEIGHBOUR_SETTINGS))
    for _ in range(100):
        trained = {name: draw.choice(OTHERS[name]) for name in draw.sample(trained_settings, 8)}
        after = {name: draw.choice(OTHERS[name]) for name in draw.sample(NEIGHBOUR_SETTINGS, 3)}
        transfer = TrialConfig(family="transfer", **trained)
        retrieval = TrialConfig(family="retrieval", **trained, **after)
        assert retrieval.training() == transfer.training()
        assert retrieval.training().digest == transfer.training().digest
        assert retrieval.digest != transfer.digest
        assert transfer.training().training() == transfer.training()


def test_what_is_trained_from_scratch_is_unfrozen_at_one_learning_rate() -> None:
    """A scratch network trains alike in every family; another network as the transfer trial that opens it whole."""
    networks = [TrialConfig(family=family, backbone=SCRATCH, head_lr=0.01, unfreezing="frozen") for family in FAMILIES]
    trainings = [network.training() for network in networks]
    assert trainings[0] == trainings[1] == trainings[2]
    assert len({network.digest for network in networks}) == 3
    assert (trainings[0].unfreezing, trainings[0].backbone_lr) == ("full", 0.01)
    ours = TrialConfig(family="scratch", weights="random", head_lr=0.01, backbone_lr=0.5)
    theirs = TrialConfig(weights="random", unfreezing="full", head_lr=0.01, backbone_lr=0.01)
    assert ours.training().digest == theirs.training().digest


def test_the_digest_is_that_of_every_process_and_version() -> None:
    """What earlier versions wrote is found under the same digests."""
    networks = [TrialConfig(), TrialConfig(dropout=0.25, flip=True)]
    networks += [TrialConfig(family="retrieval", backbone=SCRATCH, k=3)]
    assert [network.digest for network in networks] == ["327bf1f43324b3c0", "30a28f2fdedec0d6", "d57c180339d4c99f"]
    assert [len(network.architecture()) for network in networks] == [0, 0, len(ARCHITECTURE_SETTINGS)]


def test_a_trial_takes_known_settings_and_cannot_be_changed() -> None:
    """A mistyped setting is a mistake, not a wish that is overheard; a built trial is frozen."""
    with pytest.raises(ValidationError, match="dropuot"):
        TrialConfig.model_validate({"dropuot": 0.1})
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().dropout = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "margin": -0.1,
        "validation_fraction": 0.0,
        "test_fraction": 0.9,
        "split_seed": -1,
        "max_loss": 1.1,
        "pth": "x",
    }.items(),
)
def test_a_bad_data_setting_is_refused(name: str, value: Any) -> None:
    """A data setting out of range, or unknown, is refused."""
    with pytest.raises(ValidationError, match=name):
        DataConfig(**{name: value})


def test_values_of_different_kinds_have_different_digests() -> None:
    """A digest tells a number from its text and a list from its order."""
    values = [1, "1", [1, 2], [2, 1], {"a": 1}, {"a": "1"}, None]
    assert len({digest_of(value) for value in values}) == len(values)
