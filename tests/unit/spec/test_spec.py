"""Specs: where they come from, what they make of a trial, and how they complain."""

from __future__ import annotations

import pickle
import shlex

import pytest
import yaml
from helpers import spec_of_yaml
from pydantic import ValidationError

from carcls.config import TrialConfig
from carcls.errors import SpecError
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.loading import edit_spec, load_spec
from sweeps.spec.samplers import SAMPLERS, SamplerKind
from sweeps.spec.space import Choice, Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import read_file, write_file


def mistakes_of(**arguments):
    """Return what is wrong with a spec."""
    with pytest.raises(SpecError) as caught:
        load_spec("transfer", **arguments)
    return caught.value.mistakes


@pytest.fixture
def spec_file(tmp_path):
    """Write a user's spec and return its path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --- where a spec comes from


@pytest.mark.parametrize(
    "arguments", [{"overrides": {"data": "/cars"}}, {"sets": ["data=/cars"]}, {"sets": ["data.path=/cars"]}]
)
def test_with_data_the_documented_scale_is_taken_and_else_the_demo(arguments):
    """A data set of the user's is swept at the documented scale, however it is named; the demo says it is smaller."""
    spec, demo = load_spec("transfer", **arguments), load_spec("transfer")
    assert (spec.data.path, spec.note) == ("/cars", None)
    assert [spec.changed_settings(name) for name in spec.experiments] == [{}, {}, {}]
    assert demo.fixed["backbone"] == "efficientnet_lite0"
    assert "scaled down" in demo.note


def test_a_demo_that_an_older_version_has_begun_is_the_same_sweep():
    """What a demo preset leaves out does not change it, so the same command goes on with it."""
    digests = {"transfer": "cb96422f99f0284d", "retrieval": "bc5463a98cda4262", "scratch": "4ec00307957217c0"}
    assert {family: load_spec(family).digest for family in digests} == digests


def test_a_partial_file_changes_only_what_it_says(spec_file):
    """A user's file may say a part of a part; the rest stays as packaged."""
    file = spec_file("trials: 5\nsearch:\n  dropout: {high: 0.4}\n  optimizer: null\nearly_stopping: {reduction: 4}\n")
    mine, packaged = load_spec("transfer", spec_file=file), load_spec("transfer", overrides={"data": "/cars"})
    assert mine.trials == 5
    assert mine.search["dropout"] == Range(0.0, 0.4)
    assert set(packaged.search) - set(mine.search) == {"optimizer"}
    assert mine.early_stopping == EarlyStopping(min_epochs=packaged.early_stopping.min_epochs, reduction=4)
    assert mine.config == packaged.config


def test_a_table_and_the_folder_of_its_images_are_said_alike_everywhere(spec_file):
    """In a file, by settings and by options; a sweep of before, which had no word for them, is what it was."""
    said = [
        load_spec("transfer", spec_file=spec_file("data: {path: cars.csv, images: pics}\n")),
        load_spec("transfer", spec_file=spec_file("data: cars.csv\n"), sets=["images=pics"]),
        load_spec("transfer", sets=["data=cars.csv", "data.images=pics"]),
        load_spec("transfer", overrides={"images": "pics", "data": "cars.csv"}),
    ]
    assert {(spec.data.path, spec.data.images) for spec in said} == {("cars.csv", "pics")}
    assert "images" not in load_spec("transfer", overrides={"data": "cars.csv"}).data.canonical()
    with pytest.raises(SpecError, match=r"data.path: must be a folder or file .* aws s3 sync s3://b/cars cars"):
        load_spec("transfer", overrides={"data": "s3://b/cars"})
    with pytest.raises(SpecError, match=r"data.images: must come with a table"):
        load_spec("transfer", overrides={"images": "pics"})


def test_later_sources_win(spec_file):
    """A file, then --set, then the command line's options: the last one wins, and None says nothing."""
    file = spec_file("trials: 5\nseed: 5\nhours: 5\n")
    spec = load_spec("transfer", spec_file=file, sets=["trials=6", "seed=6"], overrides={"trials": 7, "hours": None})
    assert (spec.trials, spec.seed, spec.hours) == (7, 6, 5)


def test_a_bare_setting_is_fixed_for_every_trial():
    """It holds in experiments and searched trials, and is no longer searched; options may name settings too."""
    spec = load_spec("transfer", sets=["dropout=0.3"], overrides={"weights": "random"})
    assert "dropout" not in spec.search
    assert spec.trial_config({"dropout": 0.6}).dropout == 0.3
    assert all((config.dropout, config.weights) == (0.3, "random") for _, config in spec.experiment_configs())
    assert spec.changed_settings("transfer/frozen")["weights"] == ("auto", "random")


def test_a_dotted_key_addresses_the_tree():
    """Dots reach a domain or its end, a data setting, early stopping, and the base of the searched trials.

    A domain has the types that a trial has: a range of epochs is one of whole numbers without saying so.
    """
    keys = ["search.dropout.high=0.5", "data.margin=0.1", "early_stopping.reduction=5", "config.head_lr=0.01"]
    domains = ["search.crop_scale=[1, 0.5]", "search.label_smoothing={low: 0, high: 0.2}"]
    spec = load_spec("transfer", sets=[*keys, *domains, "fixed.epochs=null", "search.epochs={low: 4, high: 8}"])
    assert (spec.data.margin, spec.early_stopping.reduction) == (0.1, 5)
    assert [spec.search[name] for name in ("dropout", "label_smoothing")] == [Range(0.0, 0.5), Range(0.0, 0.2)]
    assert spec.search["epochs"] == Range(4, 8, step=1)
    assert repr(spec.search["crop_scale"].choices) == "(1.0, 0.5)"
    assert spec.trial_config({}).head_lr == 0.01
    assert spec.trial_config({}, "transfer/frozen").head_lr == 0.001


def test_searching_what_a_preset_fixes_keeps_the_experiments_scaled_down():
    """A search over image sizes on the demo does not send the documented experiments back to full size."""
    spec = load_spec("transfer", sets=["search.image_size=[64, 96]"])
    assert spec.trial_config({"image_size": 64}).image_size == 64
    assert {config.image_size for _, config in spec.experiment_configs()} == {80}


def test_numbers_and_schedules_are_read_as_people_mean_them():
    """1e-4 is a number, 2:1 a schedule, 2024 a name."""
    spec = load_spec("transfer", sets=["head_lr=1e-4", "unfreezing=2:1", "name=2024", "flip=true"])
    assert [spec.fixed[name] for name in ("head_lr", "unfreezing", "flip")] == [0.0001, "2:1", True]
    assert spec.name == "2024"


# --- what a spec makes of a trial


def test_settings_win_in_the_documented_order():
    """Base, then the experiment, then the trial's settings, then what is fixed; the seed is the sweep's."""
    spec = SweepSpec(
        family="transfer", seed=7, config={"dropout": 0.1, "epochs": 3, "flip": True}, fixed={"batch_size": 8}
    )
    config = spec.trial_config({"head_lr": 0.02, "batch_size": 64}, "transfer/finetuned")
    assert (config.seed, config.epochs, config.dropout, config.head_lr, config.batch_size) == (7, 10, 0.5, 0.02, 8)
    searched = spec.trial_config({"head_lr": 0.02})
    assert (searched.epochs, searched.dropout, searched.flip) == (3, 0.1, True)


def test_changed_settings_ignore_what_cannot_matter():
    """Another backbone rate is no change of an experiment whose backbone is frozen."""
    spec = load_spec("transfer", sets=["data=/cars", "backbone_lr=0.01", "epochs=4"])
    assert spec.changed_settings("transfer/frozen") == {"epochs": (10, 4)}
    assert spec.changed_settings("transfer/finetuned") == {"backbone_lr": (0.001, 0.01), "epochs": (10, 4)}


_TRAINING = "dropout optimizer head_lr weight_decay lr_schedule label_smoothing augmentation_strength"
_VOTES = "whitening k distance vote temperature"
_PROMISED = {
    "transfer": f"{_TRAINING} unfreezing backbone_lr",
    "retrieval": f"{_TRAINING} unfreezing backbone_lr backbone pooling l2_normalize {_VOTES}",
    "scratch": f"{_TRAINING} depth width batch_norm residual stem head_pooling loss image_size",
}


@pytest.mark.parametrize("family", _PROMISED)
def test_packaged_search_covers_what_the_documentation_promises(family):
    """At full scale, each family searches around its experiments over everything that is documented as searched."""
    assert set(load_spec(family, sets=["data=/cars"]).search) >= set(_PROMISED[family].split())


ODD = ["name=1e-4", "unfreezing=2:1,4:all", "search.epochs={low: 1, high: 9, step: 4}", "fixed.epochs=null", "hours=1"]
ODD += ["data.path='/a: b/#ü'"]
CONDITIONAL = [
    "search.dropout.when.unfreezing=[full, frozen]",
    "fixed.epochs=null",
    "search.epochs={low: 1, high: 4, when: {residual: true}}",
    "search.optimizer={choices: [adam, sgd], when: {crop_scale: [1], batch_size: [8, 16]}}",
]
GOALS = ["objectives=[accuracy, f1]", "constraints=[parameters<=10000k]", "price=2/gpu-hour", "max_cost=5", "disk=20GB"]


@pytest.mark.parametrize("sets", [[], ODD, CONDITIONAL, GOALS], ids=["", "odd", "when", "goals"])
def test_what_is_kept_of_a_spec_gives_an_equal_one(sets, tmp_path):
    """Its YAML, by any safe reader, its file, and a pickle for another process: equal, and with the same digest."""
    spec = load_spec("transfer", sets=sets)
    text = spec.to_yaml()
    write_file(tmp_path / "mine", "sweep", None, [spec])
    kept = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    for read in (spec_of_yaml(text), kept, *read_file(tmp_path / "mine").read_specs()):
        assert (read, read.digest) == (spec, spec.digest)
    assert yaml.safe_load(text)["name"] == spec.name
    assert "!!" not in text


def test_digest_is_of_what_determines_trials():
    """More trials, more time or other resources keep the digest; another seed, space or data set changes it."""
    digest = load_spec("transfer").digest
    same = {"trials": 99, "hours": 2.0, "concurrency": 3, "cpus_per_trial": 2.0, "gpus_per_trial": 0.5, "name": "a"}
    assert load_spec("transfer", overrides=same).digest == digest
    others = [["seed=1"], ["search.dropout.high=0.6"], ["data.margin=0.1"], ["dropout=0.5"], ["experiments=[]"]]
    others.append(["search.dropout.when.unfreezing=[full]"])
    assert len({digest, *(load_spec("transfer", sets=sets).digest for sets in others)}) == 7


# --- how a spec complains


@pytest.mark.parametrize(
    ("key", "mistake"),
    [
        ("dropout=1.5", "dropout: must be at most 0.95, got 1.5."),
        ("head_lr=0", "head_lr: must be above 0.0, got 0."),
        ("epochs=2.5", "epochs: must be a whole number, got 2.5."),
        ("epochs=true", "epochs: must be a whole number, got True."),
        ("dropout=much", "dropout: must be a number, got 'much'."),
        ("dropout=.nan", "dropout: must be at most 0.95, got nan."),
        ("flip=3", "flip: must be true or false, got 3."),
        ("optimizer=adma", "optimizer: must be one of adam, adamw, sgd, got 'adma'. Did you mean adam?"),
        ("trials=0", "trials: must be at least 1, got 0."),
        ("trials=true", "trials: must be a whole number, got True."),
        ("hours=.inf", "hours: must be a finite number, got inf."),
        ("data.margin=2", "data.margin: must be at most 1.0, got 2."),
        ("early_stopping.reduction=1", "early_stopping.reduction: must be at least 2, got 1."),
        ("search.dropout.high=1.5", "search.dropout.high: must be at most 0.95, got 1.5."),
        (
            "search.crop=[none, rnd]",
            "search.crop[1]: must be one of none, random, resized, got 'rnd'. Did you mean random?",
        ),
        ("experiments=3", "experiments: must be a list of names, got 3."),
        ("search=3", "search: must be a mapping from settings to domains, got 3."),
        ("fixed=3", "fixed: must be a mapping from settings to values, got 3."),
        (
            "early_stopping=false",
            "early_stopping: must be a mapping, got False. To turn it off say early_stopping: {enabled: false}.",
        ),
        ("sampler=gpp", "sampler: must be a known one, got 'gpp'. Did you mean gp? Known: gp, qmc, random, tpe."),
        ("objectives=f1", "objectives: must be a list, got 'f1'. Put it in brackets: ['f1']."),
        (
            "family=scratch",
            "family: must be transfer, which is what was asked for, got 'scratch'. "
            "For that one say carsweep run scratch.",
        ),
        ("dropout", "--set dropout: must be KEY=VALUE, such as dropout=0.3, got 'dropout'."),
    ],
)
def test_a_mistake_is_one_sentence_that_begins_with_its_path(key, mistake):
    """One wrong value gives exactly one sentence: the path, the rule, and what was given."""
    assert mistakes_of(sets=[key]) == (mistake,)


@pytest.mark.parametrize(
    ("key", "beginning", "hint"),
    [
        ("trails=3", "--set trails: must be a setting", "Did you mean trials?"),
        ("serch.dropout.high=1", "--set serch.dropout.high: must begin with a section", "Did you mean search?"),
        ("search.dropuot=[0]", "search.dropuot: must be a setting of a trial", "Did you mean dropout?"),
        ("data.margn=0", "data.margn: must be a known key", "Did you mean margin?"),
        ("experiments=[transfer/frozn]", "experiments[0]: must be a documented one", "Did you mean transfer/frozen?"),
        ("backbone=resnet5", "backbone: must be a known name or timm:<model>", "Did you mean resnet50?"),
        ("config.seed=3", "config.seed: must be a setting of a trial", "Say seed at the top of the spec."),
        ("lr=0.1", "--set lr: must be a setting", "Did you mean backbone_lr or head_lr or lr_schedule?"),
        ("config.learning_rate=1", "config.learning_rate: must be a setting", "Did you mean backbone_lr or head_lr"),
        ("k=5", "k: must be left out, since the transfer family has no neighbours.", "carsweep run retrieval"),
        ("search.vote=[uniform]", "vote: must be left out", "carsweep run retrieval"),
        ("search.dropout={low:0, high: 0.3}", "--set search.dropout: must be YAML", "a colon is followed by a space"),
        ("config.trials=3", "config.trials: must be a setting of a trial", "Say trials at the top of the spec."),
        ("dropout=&a [*a]", "--set dropout: must be YAML", "no anchors and aliases"),
        ("data=[a]", "data.path: must be text", "got ['a']"),
        ("data.margin=true", "data.margin: must be a number", "got True."),
        ("disk=9e99GB", "disk: must be a size", "Give one such as 20GB."),
        ("unfreezing=half", "unfreezing: must be frozen, full, progressive or like", "got 'half'"),
        ("image_size=[96, 128]", "image_size: must be a whole number", "say 'search.image_size=[96, 128]'"),
        ("search.flip={low: 0, high: 1}", "search.flip: must be a list of choices", "true or false"),
        ("search.dropout=[0.1", "--set search.dropout: ", "must be YAML"),
        ("experiments=[transfer/frozen, transfer/frozen]", "experiments: must differ from each other", "twice"),
        ("config.image_size=64", "config.image_size: must not be given where image_size is fixed", "--set image_size="),
    ],
)
def test_a_wrong_name_is_answered_with_the_remedy(key, beginning, hint):
    """A misspelt or misplaced name gives one sentence with its path and what to do instead."""
    (mistake,) = mistakes_of(sets=[key])
    assert mistake.startswith(beginning)
    assert hint in mistake


@pytest.mark.parametrize(
    ("sets", "refused"),
    [
        (["sampler=gp"], "take settings that only some trials have (augmentation_strength, backbone_lr), got 'gp'"),
        (["sampler=qmc", "unfreezing=full"], "settings that only some trials have (augmentation_strength), got 'qmc'"),
        (["sampler=plain"], "sampler: must take choices (augmentation_strength, label_smoothing, lr_schedule, "),
        (["sampler=plain", "objectives=[accuracy, f1]"], "sampler: must take several objectives (accuracy, f1), got"),
    ],
)
def test_a_sampler_that_cannot_take_the_search_is_refused(sets, refused, monkeypatch):
    """The message names the settings and the words that help; without them, or what they depend on, it is taken."""
    monkeypatch.setitem(SAMPLERS, "plain", SamplerKind("", categories=False, several_objectives=False))
    mistakes = mistakes_of(sets=sets)
    assert refused in "\n".join(mistakes)
    remedies = [word for said in mistakes for word in shlex.split(said.removesuffix(".").partition("--set ")[2])]
    assert f"sampler={load_spec('transfer', sets=[*sets, *remedies]).sampler}" in sets
    assert load_spec("transfer", sets=["sampler=random"]).digest != load_spec("transfer").digest
    taken = load_spec("transfer", sets=["sampler=gp", "unfreezing=full", "augmentation_strength=1"])
    assert spec_of_yaml(taken.to_yaml()).sampler == "gp"


def test_all_mistakes_are_reported_together(spec_file):
    """Mistakes of the file, of --set and of the options come in one error, none of them twice."""
    file = spec_file("trails: 3\nsearch:\n  dropout: {low: 0.0, high: 1.5}\ndata: {margin: 3}\ndropout: 0.3\n")
    mistakes = mistakes_of(spec_file=file, sets=["epochs=0", "x=1"], overrides={"trials": 0})
    beginnings = {mistake.split(":")[0] for mistake in mistakes}
    assert beginnings == {"trails", "search.dropout.high", "data.margin", "dropout", "epochs", "--set x", "trials"}
    assert len(mistakes) == 7


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("trials: 3\n  seed: 4\n", "line 2, column 7: must be YAML, but mapping values are not allowed here."),
        ("trials: 3\ntrials: 4\n", "line 2, column 1: must be YAML, but the key 'trials' is given twice."),
        ("- a\n", "must be a mapping such as 'trials: 20', got ['a']."),
        (
            "name: !!python/name:os.getcwd x\n",
            "line 1, column 7: must be YAML, but a spec has no tags such as '!!python",
        ),
        ("fixed: {dropout: 0.1}\nsearch: {dropout: [0.1, 0.2]}\n", "search.dropout: must not be fixed and searched at"),
        ("name: [a]\n", "name: must be text, got ['a']."),
    ],
)
def test_a_mistaken_file_says_where(spec_file, text, mistake):
    """A file that is no YAML, or would make objects, names its line; one that contradicts itself names the path."""
    (found,) = mistakes_of(spec_file=spec_file(text))
    assert found.removeprefix("mine.yaml: ").startswith(mistake)


def test_an_empty_file_says_nothing(spec_file):
    """An empty file, or one of empty sections, leaves the packaged spec as it is."""
    packaged = load_spec("transfer", overrides={"data": "/cars"})
    for text in ("", "search:\nconfig:\ndata:\nearly_stopping:\nfixed:\n"):
        assert load_spec("transfer", spec_file=spec_file(text), overrides={"data": "/cars"}) == packaged


def test_an_unknown_family_is_a_mistake():
    """A family that does not exist is answered with those that do."""
    with pytest.raises(SpecError, match=r"Did you mean transfer\?"):
        load_spec("transfr")


@pytest.mark.parametrize("gpus", [1.5, 2.25, 0.3, 0.34, 0.75, -1, -0.5, float("nan")])
def test_gpus_of_a_trial_must_fill_a_gpu(gpus):
    """None, whole ones and 1/n are accepted; what leaves a part of a GPU idle, or does not fit on it, is refused."""
    for share in (0, 1, 2, 8.0, 0.5, 0.25, 0.33, 1 / 3, 1 / 7):
        assert load_spec("transfer", overrides={"gpus_per_trial": share}).gpus_per_trial == share
    (mistake,) = mistakes_of(overrides={"gpus_per_trial": gpus})
    assert mistake.startswith("gpus_per_trial: must be")


def test_auto_leaves_the_gpus_to_the_machine(spec_file):
    """In a file, with --set, as an option over a share, and in a resumed sweep it is what nobody saying a word is."""
    asked = [load_spec("transfer", spec_file=spec_file("gpus_per_trial: auto"))]
    quarter = spec_file("gpus_per_trial: 0.25")
    asked += [
        load_spec("transfer", sets=["gpus_per_trial=auto"]),
        load_spec("transfer", spec_file=quarter, overrides={"gpus_per_trial": "auto"}),
        edit_spec(load_spec("transfer", spec_file=quarter), [], {"gpus_per_trial": "auto"}),
    ]
    assert load_spec("transfer", spec_file=quarter).gpus_per_trial == 0.25
    assert [spec.gpus_per_trial for spec in asked] == [None] * 4
    assert mistakes_of(overrides={"gpus_per_trial": "half"}) != []


@pytest.mark.parametrize("name", ["../up", "a b", ".hidden", "-x", "ä", "", "a/b", "x" * 101, "stages", "data"])
def test_a_name_must_be_usable_as_a_folder(name):
    """A name that would leave the output folder, collide with what is in it, or need quoting is refused."""
    (mistake,) = mistakes_of(overrides={"name": name})
    assert mistake.startswith("name: must be")


def test_a_spec_built_in_code_is_checked_too():
    """A spec cannot be built around a domain that leaves what a trial accepts, nor with a wrong field."""
    wrong = {"search": {"dropout": Range(0.0, 2.0)}, "experiments": ("nothing",), "trials": 0}
    for name, value in wrong.items():
        with pytest.raises(ValidationError, match=name):
            SweepSpec(family="transfer", **{name: value})
    spec = SweepSpec(family="transfer", search={"dropout": Choice((0, 0.5))})
    assert isinstance(spec.trial_config({"dropout": 0.5}), TrialConfig)
