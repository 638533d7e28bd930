"""Settings that can be found: listed, explained, and what is misspelt is answered with what was meant."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.spec.loading import edit_spec
from sweeps.spec.settings import settings
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree

Run = Callable[..., tuple[int, str, str]]


def rows_of(text: str) -> dict[str, str]:
    """Return what is told by label; of two with one label the first."""
    rows: dict[str, str] = {}
    for line in text.splitlines():
        label, _, said = line.partition("  ")
        if label.strip() and said.strip():
            rows.setdefault(label, said.strip())
    return rows


@pytest.mark.parametrize(
    "words", ["list settings", "list settings scratch", "explain dropout", "explain early_stopping"]
)
def test_lists_and_explanations_fit_into_80_columns(words: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut: what does not fit goes on in the next line."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*words.split())
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_a_family_lists_what_means_something_in_it(run: Run) -> None:
    """Scratch has a depth and no k; without a family both are there, with their family."""

    def names(*words: str) -> set[str]:
        return {one["path"] for one in json.loads(run("list", "settings", *words, "--json")[1])["settings"]}

    assert "depth" in names("scratch")
    assert "k" not in names("scratch")
    assert names() == settings().keys()
    assert run("list", "backbones", "transfer")[2] == (
        "carsweep: FAMILY goes with settings, not with backbones. Leave it out. See 'carsweep list --help'.\n"
    )


@pytest.mark.parametrize("key", [path for path, setting in settings().items() if setting.part == "trial"])
def test_what_explain_says_to_type_is_accepted(key: str, run: Run) -> None:
    """The words on the command line and the lines of YAML make specs, and the same ones."""
    low, high = ("1", "2") if "whole" in settings()[key].values else ("0.1", "0.5")
    text = run("explain", key)[1].replace("VALUE", high).replace("LOW", low).replace("HIGH", high)
    rows, plain = rows_of(text), SweepSpec(family=next(iter(settings()[key].families)))
    option, said = shlex.split(rows["set it"])
    fixed = edit_spec(plain, [said], {}) if option == "--set" else edit_spec(plain, [], {key: said})
    searched = edit_spec(plain, [shlex.split(rows["search it"])[-1]], {}) if "[]" not in rows["search it"] else None
    assert fixed.fixed == read_tree(rows["in YAML"], "explain")["fixed"]
    assert searched is None or searched.search.keys() == {key}


def test_explain_tells_defaults_by_family_and_when_a_setting_matters(run: Run) -> None:
    """The batch size differs between families; momentum is SGD's."""
    assert rows_of(run("explain", "batch_size")[1])["default"] == "64 (documented); in transfer: 32 (documented)"
    assert "optimizer is sgd" in run("explain", "momentum")[1]
    assert "it is searched only in trials where" in " ".join(run("explain", "search.dropout.high")[1].split())


def test_explain_knows_experiments_and_objectives(run: Run) -> None:
    """Their settings, reported numbers, and how they are asked for; what is both is told as both."""
    assert "carsweep reproduce transfer/frozen" in run("explain", "transfer/frozen")[1]
    assert "--constraint 'predict_ms <= 5'" in run("explain", "predict_ms")[1]
    both = json.loads(run("explain", "loss", "--json")[1])["found"]
    assert [one.get("path") or one.get("metric") for one in both] == ["loss", "val_loss"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("explain dropuot", "Did you mean dropout?"),
        ("explain search.dropuot", "Did you mean dropout?"),
        ("explain transfer/frozn", "Did you mean transfer/frozen?"),
        ("explain resnet50", "It is a value of backbone."),
        ("list setings", "Did you mean settings?"),
        ("list settings tranfer", "Did you mean transfer?"),
        ("run transfr", "Did you mean 'transfer'?"),
        ("stauts", "Did you mean 'status'?"),
        ("promote transfr", "Did you mean transfer?"),
        ("reproduce transfer/frozn", "Did you mean transfer/frozen?"),
        ("run transfer --set dropuot=0.3", "Did you mean dropout?"),
        ("run transfer --set data.margn=0.3", "Did you mean margin?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(words: str, meant: str, run: Run) -> None:
    """One line, exit code 2."""
    code, _, err = run(*words.split())
    assert (code, err.count("\n"), meant in err) == (2, 1, True), err


def test_a_printed_spec_given_back_is_printed_again(run: Run, tmp_path: Path) -> None:
    """What --print-spec prints of options and --set is what --spec makes of it; nothing is run or written."""
    asked = ["run", "transfer", "--set", "search.image_size=[64, 96]", "--trials", "5", "--hours", "90m"]
    code, printed, _ = run(*asked, "--print-spec")
    (tmp_path / "mine.yaml").write_text(printed, encoding="utf-8")
    assert (code, run("run", "transfer", "--spec", "mine.yaml", "--print-spec")[1]) == (0, printed)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert json.loads(run(*asked, "--print-spec", "--json")[1])["specs"][0]["hours"] == 1.5


def test_the_specs_of_a_job_are_a_document_each(run: Run) -> None:
    """Each names the command that takes it back, and its share of the trials."""
    documents = run("run", "all", "--trials", "30", "--print-spec")[1].split("---\n")
    assert [text.partition("\n")[0].split()[3] for text in documents] == ["transfer", "retrieval", "scratch"]
    assert [(tree["name"], tree["trials"]) for tree in (read_tree(text, "") for text in documents)] == [(None, 10)] * 3
