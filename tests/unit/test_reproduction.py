"""Reproducing the documented experiments: what is run, and how it is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from carcls.config import TrialConfig
from carcls.errors import InputError, SpecError
from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command
from sweeps.documented import EXPERIMENTS, find_experiment
from sweeps.job_checks import claim_folder
from sweeps.reproduction import Reproduced, Reproduction
from sweeps.reproduction_tables import LEAK_MARK, final_table, markdown_of
from sweeps.several_specs import chosen_experiments, specs_of_experiments
from sweeps.spec import SweepSpec

NAMES = [experiment.name for experiment in EXPERIMENTS]
ROOT = Path(__file__).resolve().parents[2]


def specs_of(
    *sets: str, experiments: tuple[str, ...] = (), demo: bool = False, **overrides: object
) -> dict[str, SweepSpec]:
    """Return the specs of a reproduction on data of the user's, by family."""
    chosen = chosen_experiments(experiments, None)
    given = {"data": "/cars", **overrides}
    specs = specs_of_experiments(chosen, name="mine", sets=sets, overrides=given, demo_scale=demo)
    return {spec.family: spec for spec in specs}


def test_all_nine_are_chosen_when_none_is_named() -> None:
    """Names come in the documented order, whatever order they were asked for; a family means its three."""
    assert [e.name for e in chosen_experiments((), None)] == NAMES
    assert [e.name for e in chosen_experiments((), "scratch")] == NAMES[6:]
    asked = ("scratch/basic", "transfer/frozen", "scratch/basic")
    assert [e.name for e in chosen_experiments(asked, None)] == ["transfer/frozen", "scratch/basic"]


@pytest.mark.parametrize(
    ("names", "family", "words"),
    [
        (("scratch/basics",), None, "Did you mean scratch/basic?"),
        (("scratch/basic", "transfer/frozen"), "scratch", "family scratch, got 'transfer/frozen'"),
    ],
)
def test_what_cannot_be_chosen_is_told(names: tuple[str, ...], family: str | None, words: str) -> None:
    """A misspelt experiment is answered with the nearest; one of another family than --family is refused."""
    with pytest.raises(InputError) as caught:
        chosen_experiments(names, family)
    assert words in str(caught.value)


def test_at_the_documented_scale_nothing_differs_from_the_documentation() -> None:
    """Each family's sweep has its experiments with exactly their settings, and nothing to search or stop."""
    specs = specs_of()
    assert list(specs) == ["transfer", "retrieval", "scratch"]
    for family, spec in specs.items():
        assert (spec.name, spec.trials, spec.search, spec.starts) == (f"mine-{family}", 3, {}, ())
        assert not spec.early_stopping.enabled
        for name, config in spec.experiment_configs():
            documented = {**find_experiment(name).settings, "family": family}
            assert config.canonical() == TrialConfig.model_validate(documented).canonical()
            assert spec.changed_settings(name) == {}


def test_only_families_that_were_asked_for_have_a_sweep() -> None:
    """One experiment makes one sweep of one trial."""
    specs = specs_of(experiments=("retrieval/densenet121-k7-cosine",))
    assert {family: spec.experiments for family, spec in specs.items()} == {
        "retrieval": ("retrieval/densenet121-k7-cosine",)
    }


def test_a_setting_reaches_the_families_that_it_means_something_in() -> None:
    """A backbone never reaches scratch, neighbours reach retrieval only, widths scratch only, epochs everyone."""
    specs = specs_of("backbone=efficientnet_lite0", "unfreezing=full", "k=5", "width=8", "epochs=4", weights="random")
    assert {family: spec.fixed for family, spec in specs.items()} == {
        "transfer": {"backbone": "efficientnet_lite0", "unfreezing": "full", "epochs": 4, "weights": "random"},
        "retrieval": {"backbone": "efficientnet_lite0", "unfreezing": "full", "k": 5, "epochs": 4, "weights": "random"},
        "scratch": {"width": 8, "epochs": 4},
    }
    for name in specs["scratch"].experiments:
        assert specs["scratch"].changed_settings(name) == {"width": (32, 8), "epochs": (40, 4)}


def test_every_changed_setting_is_told() -> None:
    """What is run otherwise than documented is listed with both values; what cannot matter is not."""
    spec = specs_of("loss=cosine", "backbone_lr=0.01")["transfer"]
    assert spec.changed_settings("transfer/frozen") == {"loss": ("cross_entropy", "cosine")}
    assert set(spec.changed_settings("transfer/finetuned")) == {"loss", "backbone_lr"}


def test_the_scale_of_the_demo_is_that_of_its_presets() -> None:
    """--scale demo takes the small backbone, images and widths on own data, and fixed settings go on top."""
    specs = specs_of("epochs=2", demo=True)
    assert specs["transfer"].fixed["backbone"] == "efficientnet_lite0"
    assert specs["scratch"].fixed["image_size"] < 100
    assert {spec.fixed["epochs"] for spec in specs.values()} == {2}
    assert {spec.data.path for spec in specs.values()} == {"/cars"}


@pytest.mark.parametrize(("sets", "small"), [((), True), (("data.path=/cars",), False)])
def test_without_data_of_the_users_the_demo_is_what_runs(sets: tuple[str, ...], small: bool) -> None:
    """Nothing given means demo cars at the demo's scale; data may be given with --set as well."""
    (spec,) = specs_of_experiments(
        chosen_experiments(("scratch/basic",), None), name="mine", sets=sets, overrides={}, demo_scale=False
    )
    assert ("image_size" in spec.fixed) == (spec.data.path is None) == small


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trials=5", "--set trials"),
        ("search.dropout=[0.1, 0.2]", "--set search.dropout"),
        ("experiments=[transfer/frozen]", "--set experiments"),
        ("config.width=8", "--set config.width"),
        ("k=5", "scratch"),
        ("epochs=0", "epochs"),
        ("dropuot=0.1", "Did you mean dropout?"),
    ],
)
def test_a_set_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    """What would change nothing is told, like any other mistake, before anything runs."""
    with pytest.raises(SpecError) as caught:
        specs_of(text, experiments=("scratch/basic",))
    assert words in str(caught.value)


def test_a_name_that_carsweep_uses_is_refused() -> None:
    """The tables cannot be put among the shared stages."""
    with pytest.raises(SpecError, match="name: must be none of stages"):
        specs_of_experiments(EXPERIMENTS, name="stages", sets=(), overrides={}, demo_scale=True)


def test_a_name_goes_on_with_its_own_experiments_only(tmp_path: Path) -> None:
    """The same call finds its sweeps again; other settings under the same name are refused."""
    spec = specs_of()["scratch"]
    (tmp_path / "mine-scratch").mkdir()
    (tmp_path / "mine-scratch" / "spec.yaml").write_text(spec.to_yaml())
    (tmp_path / "mine-scratch" / "dataset.json").touch()  # its images were read
    claim_folder(specs_of()["scratch"], tmp_path)
    with pytest.raises(InputError, match="mine-scratch"):
        claim_folder(specs_of("epochs=3")["scratch"], tmp_path)


def comparison(name: str, **changes: object) -> Reproduced:
    """Return an experiment that came out at half of everything."""
    experiment = find_experiment(name)
    made = Reproduced(
        name=name,
        family=experiment.family,
        documented=dict(experiment.documented),
        measured=dict.fromkeys(("loss", "accuracy", "f1", "precision", "recall"), 0.5),
        interval=(0.489, 0.511),
        validation_accuracy=0.6,
        changed={},
        approximate=experiment.approximate,
        leaked=experiment.leaked,
        note=experiment.note,
        status="complete",
        reason="",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests give fields by name


def reproduction(*comparisons: Reproduced, **changes: object) -> Reproduction:
    """Return a reproduction on Stanford Cars."""
    made = Reproduction(
        name="mine",
        data="stanford_cars",
        demo=False,
        images={"train": 6922, "validation": 1222, "test": 8041},
        classes=196,
        cut=True,
        comparisons=comparisons,
        best={comparison.family: comparison.name for comparison in comparisons},
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests give fields by name


def row_of(text: str, start: str) -> list[str]:
    """Return the cells of the table row that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_cell_is_documented_beside_measured() -> None:
    """The columns are the documentation's; what was not reported or not measured is a dash."""
    text = markdown_of(reproduction(*map(comparison, NAMES)))
    assert row_of(text, "transfer/finetuned")[1:] == [
        "0.9012 / 0.5000",
        "73.78% / 50.00%",
        "73.63% / 50.00%",
        "78.18% / 50.00%",
        "73.78% / 50.00%",
        "48.9% to 51.1%",
    ]
    timed = comparison("retrieval/resnet50-k3-euclidean", measured={"accuracy": 0.5, "predict_seconds": 0.25})
    row = row_of(markdown_of(reproduction(timed)), "retrieval/resnet50-k3-euclidean")
    assert row[1:7] == [
        "74.93% / 50.00%",
        "75.23% / –",
        "77.38% / –",
        "74.93% / –",
        "0.0092 s / –",
        "1.1998 s / 0.2500 s",
    ]
    assert row_of(text, "scratch/basic")[5] == "– / 50.00%"


def test_rounded_numbers_are_marked() -> None:
    """About 47% is not told as 47.00%."""
    row = row_of(markdown_of(reproduction(comparison("transfer/frozen-augmented"))), "transfer/frozen-augmented")
    assert [cell.startswith("~") for cell in row[1:6]] == [True] * 5


def test_the_leaked_number_is_marked_wherever_it_stands() -> None:
    """72.26% never stands without its mark, and the note under the table says why it compares with nothing."""
    text = markdown_of(reproduction(*map(comparison, NAMES)))
    lines = [line for line in text.splitlines() if "72.26%" in line]
    assert len(lines) == 2
    assert text.count("72.26%") == text.count(f"72.26%{LEAK_MARK}") == 4
    assert row_of(text, "scratch/augmented")[1] == f"1.1026{LEAK_MARK} / 0.5000"
    assert LEAK_MARK not in "".join(row_of(text, "scratch/basic"))
    assert [line for line in text.splitlines() if line.startswith(f"- augmented {LEAK_MARK}: ") and "99.7%" in line]


def test_a_failed_experiment_says_why_in_its_table() -> None:
    """Its measured numbers are dashes, its status takes the interval's place, and the reason is a note of one line."""
    failed = comparison("transfer/frozen", measured={}, interval=None, status="failed", reason="loss must be\nfinite")
    whole = reproduction(failed, comparison("transfer/finetuned"), best={"transfer": "transfer/finetuned"})
    text = markdown_of(whole)
    assert row_of(text, "transfer/frozen")[1:3] == ["2.3724 / –", "42.37% / –"]
    assert row_of(text, "transfer/frozen")[-1] == "failed"
    assert "- transfer/frozen has no result: loss must be finite." in text.splitlines()
    assert not whole.is_whole


def test_the_final_comparison_takes_the_best_by_validation() -> None:
    """The measured row is the best on validation, even where another did better on test; documented ones are fixed."""
    by_validation = comparison("scratch/basic", measured={"accuracy": 0.1}, validation_accuracy=0.9)
    by_test = comparison("scratch/regularized", measured={"accuracy": 0.8}, validation_accuracy=0.2)
    table = final_table(reproduction(by_validation, by_test, best={"scratch": "scratch/basic"}))
    assert row_of(table, "Scratch, measured")[1:3] == ["scratch/basic", "10.00%"]
    assert row_of(table, "Scratch, documented")[1:3] == ["scratch/augmented", f"72.26%{LEAK_MARK}"]
    assert row_of(final_table(reproduction(by_test, best={})), "Scratch, measured")[1] == "none finished"


def test_what_differs_is_told_under_its_table() -> None:
    """A stand-in for a backbone, changes that all share, and those of one alone each have their sentence."""
    shared = {"backbone": ("resnet50", "efficientnet_lite0"), "epochs": (10, 2)}
    first = comparison("transfer/frozen", changed=shared)
    second = comparison("transfer/finetuned", changed={**shared, "dropout": (0.5, 0.1)})
    lines = markdown_of(reproduction(first, second)).splitlines()
    assert "**efficientnet_lite0 stands in for resnet50.**" in lines
    assert "**Not at the documented scale: epochs 2 instead of 10.**" in lines
    assert "- transfer/finetuned: dropout 0.1 instead of 0.5." in lines
    plain = markdown_of(reproduction(comparison("transfer/frozen")))
    assert "stands in" not in plain
    assert "Not at" not in plain


@pytest.mark.parametrize(("cut", "words"), [(True, "cut to their bounding boxes here"), (False, "as they are here")])
def test_the_protocol_is_told(cut: bool, words: str) -> None:
    """The report says whose test images these are, how many, and how they were cut."""
    text = markdown_of(reproduction(comparison("transfer/frozen"), cut=cut))
    assert words in text
    assert "test split has 8,041 images" in text
    assert "rendered" not in text


def test_demo_cars_compare_with_nothing_and_the_report_says_so() -> None:
    """Nobody may take rendered cars for the real ones."""
    assert "no measured number can be compared" in markdown_of(reproduction(comparison("transfer/frozen"), demo=True))


@pytest.mark.parametrize("part", [Reproduced, Reproduction])
def test_each_field_of_the_object_is_documented(part: type) -> None:
    """docs/json.md names every field of reproduction.json."""
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8").partition("\n## Reproductions\n")[2]
    prefix = "comparisons[]." if part is Reproduced else ""
    names = [field.name for field in fields(part) if field.name != "comparisons"]
    assert [name for name in names if f"`{prefix}{name}`" not in text] == []


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs ``carsweep`` in an empty folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_command(carsweep, list(arguments))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_a_dry_run_tells_each_experiment_and_its_changes(run: Run) -> None:
    """The plan has a line for every experiment, and runs nothing."""
    code, out, _ = run("reproduce", "--dry-run", "--set", "epochs=2")
    assert code == 0
    assert [name for name in NAMES if f"  {name}" not in out] == []
    assert "epochs 2 instead of 40" in out
    assert "demo-cars" in out
    assert not Path("runs").exists()
    code, out, _ = run("reproduce", "--dry-run", "--json", "--family", "scratch")
    (plan,) = json.loads(out)["plans"]
    assert (code, plan["experiments"]) == (0, NAMES[6:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["transfer/fine"], "Did you mean transfer/finetuned?"),
        (["--name", "a/b"], "name: must be"),
        (["--set", "k=5", "--family", "transfer"], "--set k"),
        (["--data", "nowhere"], "nowhere"),
        (["--scale", "large"], "--scale"),
        (["--family", "retrieval", "--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], words: str, run: Run) -> None:
    """Each mistake is told in one line before anything is run."""
    code, out, err = run("reproduce", *arguments)
    assert (code, out, err.count("carsweep: ")) == (2, "", 1)
    assert words in err


def test_a_name_of_a_sweep_is_refused(run: Run) -> None:
    """The tables are not written into the folder of a sweep."""
    folder = Path("runs/mine")
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("family: transfer\n")
    code, _, err = run("reproduce", "--name", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "'mine'" in err


def test_the_list_marks_the_leaked_number(run: Run) -> None:
    """All nine are listed; the one that compares with nothing says so."""
    code, out, _ = run("list", "experiments")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert (code, [head.split()[0] for head in heads]) == (0, NAMES)
    assert [head.split()[0] for head in heads if LEAK_MARK in head] == ["scratch/augmented"]
