"""The list of settings: complete, read off the models, and true to what a sweep does."""

from __future__ import annotations

from pathlib import Path

import pytest

from carcls.config import MATTERS, TrialConfig
from carcls.data.config import DataConfig
from carcls.errors import SpecError
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.loading import edit_spec, load_spec
from sweeps.spec.settings import settings, settings_about
from sweeps.spec.space import Choice, Range, read_domain
from sweeps.spec.spec import SECTIONS, SweepSpec
from sweeps.spec.values import TRIAL_SETTINGS
from sweeps.spec.yaml_text import read_value, write_value

FAMILIES = ("transfer", "retrieval", "scratch")


def test_every_setting_that_can_be_set_is_listed_and_has_a_meaning() -> None:
    """Trials', data's, early stopping's and the sweep's own: none is missing, none lacks words or values."""
    own = {name for name in SweepSpec.model_fields if name not in ("family", "data", "early_stopping")}
    data = {f"data.{name}" for name in DataConfig.model_fields}
    stopping = {f"early_stopping.{name}" for name in EarlyStopping.model_fields}
    assert settings().keys() == {*TRIAL_SETTINGS, *data, *stopping, *own}
    assert [setting.path for setting in settings().values() if not (setting.meaning and setting.values)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_and_domains_are_those_of_the_family_s_packaged_spec(family: str) -> None:
    """What the list says is what a sweep on own data has."""
    spec = load_spec(family, overrides={"data": "somewhere"})
    base = spec.trial_config({})
    for name in TRIAL_SETTINGS:
        found = settings()[name].families.get(family)
        assert (name in spec.search) == (found is not None and found.search is not None), name
        if found is not None:
            assert found.default == getattr(base, name), name
            assert found.search is None or read_domain(name, found.search) == spec.search[name]
    assert settings()["trials"].families[family].default == spec.trials


@pytest.mark.parametrize("setting", settings().values(), ids=lambda setting: setting.path)
def test_values_that_are_listed_can_be_set(setting: object) -> None:
    """Each choice is accepted by a family that has the setting, alone or in the list that it is one of."""
    for choice in setting.choices:
        for family in setting.families:
            said = f"[{choice}]" if setting.values.startswith("a list") else choice
            try:
                edit_spec(SweepSpec(family=family), [f"{setting.path}={said}"], {})
                break
            except SpecError as error:
                refused = error
        else:
            raise refused


def test_what_limits_a_number_is_told_as_it_is_checked() -> None:
    """The words come from the limits themselves."""
    told = {name: settings()[name].values for name in ("dropout", "head_lr", "jitter", "micro_batch", "seed", "flip")}
    assert told == {
        "dropout": "a number from 0 to 0.95",
        "head_lr": "a number above 0, at most 10",
        "jitter": "a number at least 0, below 1",
        "micro_batch": "a whole number from 1 to 4,096, or null",
        "seed": "a whole number at least 0",
        "flip": "true | false",
    }


def test_sources_tell_documented_values_from_carsweep_s_own() -> None:
    """All documented transfer trials have head_lr 0.001; they flip differently; nobody documented momentum."""
    source = {name: settings()[name].families["transfer"].source for name in ("head_lr", "flip", "momentum")}
    assert source == {"head_lr": "documented", "flip": "packaged spec", "momentum": "carsweep's default"}


def test_conditions_name_settings_as_they_are_called() -> None:
    """Where a setting matters in some trials only, the words say which other setting decides it."""
    assert settings()["momentum"].matters[-1] == "optimizer is sgd"
    assert settings()["temperature"].related == ("vote",)
    assert {name for names, _, _ in MATTERS for name in names} <= TrialConfig.model_fields.keys()


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("dropout", ["dropout"]),
        ("search.dropout.high", ["dropout"]),
        ("space.dropout", ["dropout"]),
        ("fixed.k", ["k"]),
        ("early_stopping.reduction", ["early_stopping.reduction"]),
        ("early_stopping", [f"early_stopping.{name}" for name in EarlyStopping.model_fields]),
        ("space", ["search"]),
        ("cpus-per-trial", ["cpus_per_trial"]),
        ("search.nothing", []),
        ("search.trials", []),
        ("fixed.data", []),
        ("dropout.high", []),
        ("", []),
    ],
)
def test_a_setting_is_found_by_its_path_or_a_path_into_a_section(key: str, found: list[str]) -> None:
    """What --set takes is understood; what it refuses is not."""
    assert [setting.path for setting in settings_about(key)] == found
    assert not found or key in SECTIONS or found[0] in settings()


def test_a_value_on_one_line_is_read_back() -> None:
    """What explain shows can be pasted."""
    for value in (
        1e-5,
        True,
        None,
        "2:1",
        "1e-4",
        [1, 2],
        {"low": 0.0, "high": 0.7, "log": True},
        "off",
        [0.1, "a, b"],
    ):
        assert read_value(write_value(value)) == value


def test_hours_are_numbers_or_such_as_90m() -> None:
    """Wherever hours are said: on the command line, in a spec, or with --set."""
    for said, hours in {"90m": 1.5, "1h": 1.0, "1h30m": 1.5, "30min": 0.5, "2": 2.0, "1.5h": 1.5}.items():
        assert load_spec("transfer", overrides={"hours": said}).hours == hours
        assert load_spec("transfer", sets=[f"hours={said}"]).hours == hours
    for wrong in ("soon", "90x", "h", "1h30", "-1", "0m"):
        with pytest.raises(SpecError, match=r"^hours: must be"):
            load_spec("transfer", overrides={"hours": wrong})


def test_a_domain_that_is_listed_is_written_as_a_person_reads_it() -> None:
    """Ranges by their ends, choices one beside the other."""
    search = load_spec("scratch", overrides={"data": "somewhere"}).search
    assert (type(search["head_lr"]), type(search["width"])) == (Range, Choice)
    assert (str(search["head_lr"]), str(search["width"])) == ("0.0002 to 0.01, log", "16 | 32 | 48 | 64")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("head_lr=1e-3,1e-2", "search.head_lr=[1e-3, 1e-2]"),
        ("head_lr=[0.001, 0.01]", "search.head_lr=[0.001, 0.01]"),
        ("dropout=0.1..0.5", "search.dropout={low: 0.1, high: 0.5}"),
        ("dropout={low: 0.1, high: 0.5}", "search.dropout={low: 0.1, high: 0.5}"),
        ("optimizer=adam,adamw", "search.optimizer=[adam, adamw]"),
        ("backbone=resnet50,densenet121", "search.backbone=[resnet50, densenet121]"),
        ("flip=true,false", "search.flip=[true, false]"),
        ("config.epochs=5,10", "search.epochs=[5, 10]"),
    ],
)
def test_several_values_for_one_setting_are_answered_with_the_words_that_search_them(said: str, meant: str) -> None:
    """The mistake says what to type instead, and that is accepted."""
    with pytest.raises(SpecError) as error:
        edit_spec(SweepSpec(family="transfer"), [said], {})
    assert f"say '{meant}'." in str(error.value)
    assert edit_spec(SweepSpec(family="transfer"), [meant], {}).search


@pytest.mark.parametrize("said", ["head_lr=1e-3,x", "dropout=0.1..7", "crop=randm", "epochs=[]", "jitter=0.1,"])
def test_nothing_is_proposed_that_would_be_a_mistake_too(said: str) -> None:
    """Words of which one is no value of the setting are not turned into a search."""
    with pytest.raises(SpecError) as error:
        edit_spec(SweepSpec(family="transfer"), [said], {})
    assert "search" not in str(error.value)


WHOLE = {
    "demo": [],
    "own data": ["data=/cars", "trials=3", "name=mine"],
    "less search": [
        "data=/cars",
        "search.crop=null",
        "search.dropout={low: 0.1, high: 0.3}",
        "search.head_lr.log=false",
    ],
    "fixed in experiments alone": ["search.image_size=[64, 96]", "search.dropout.when.flip=[true]"],
    "goals": ["objectives=[f1, parameters]", "constraints=[parameters<=10M]", "hours=90m", "starts=[{epochs: 2}]"],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_spec_as_a_file_is_the_same_spec(family: str, case: str, tmp_path: Path) -> None:
    """Nothing packaged is laid under it: not the demo preset, no search that was left out."""
    spec = load_spec(family, sets=WHOLE[case])
    (tmp_path / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    again = load_spec(family, spec_file=tmp_path / "spec.yaml")
    assert (again, again.digest) == (spec, spec.digest)
    changed = load_spec(family, spec_file=tmp_path / "spec.yaml", sets=["dropout=0.25"])
    assert changed.fixed["dropout"] == 0.25


def test_a_whole_spec_is_of_one_family_and_says_so_plainly(tmp_path: Path) -> None:
    """Another family's is refused as any file of it is, and so is a word in the place of true."""
    (tmp_path / "spec.yaml").write_text(load_spec("transfer").to_yaml(), encoding="utf-8")
    with pytest.raises(SpecError, match=r"^family: must be scratch"):
        load_spec("scratch", spec_file=tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_text("complete: almost\n")
    with pytest.raises(SpecError, match=r"^complete: must be true or false, got 'almost'"):
        load_spec("scratch", spec_file=tmp_path / "spec.yaml")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("search.head_lr=1e-3", "To fix it say head_lr=0.001."),
        ("search.flip=true", "To fix it say flip=true."),
        ("search.dropout=0.1..0.5", "say 'search.dropout={low: 0.1, high: 0.5}'."),
        ("search.crop=none,random", "say 'search.crop=[none, random]'."),
    ],
)
def test_one_value_where_a_domain_is_meant_is_answered_with_what_fixes_or_searches_it(said: str, meant: str) -> None:
    """One value can be fixed; several are a domain that is said otherwise."""
    with pytest.raises(SpecError) as error:
        edit_spec(SweepSpec(family="transfer"), [said], {})
    assert meant in str(error.value)
