"""Making room beside real studies: what sweeps need is read from their journals."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.stages import StageStore
from carcls.stages_disk import list_store
from sweeps.clearing import DiskKeeper, clear
from sweeps.cli.app import carsweep
from sweeps.disk_needs import answers_on_disk, model_on_disk, ranked_models, read_needs, wanted_models
from sweeps.holding import hold
from sweeps.record import TrialRecord
from sweeps.space import FloatDomain
from sweeps.spec import SweepSpec
from sweeps.study import Study

DATA = "d0"


def spec_of(**changes: object) -> SweepSpec:
    """Eight searched trials that nothing stops early."""
    fields = {"family": "transfer", "trials": 8, "search": {"dropout": FloatDomain(0.0, 0.5)}}
    return SweepSpec.model_validate({**fields, "early_stopping": {"enabled": False}, **changes})


def key_of(config: TrialConfig) -> dict[str, object]:
    """Return the key of a trial's training stage."""
    return {**config.training_settings(), "data": DATA, "weights": "w", "precision": "fp32", "version": 1}


def fill(folder: Path) -> None:
    """Make something of a known size."""
    (folder / "content").write_bytes(b"x" * 40_000)


def _die(folder: Path) -> None:
    fill(folder)
    raise RuntimeError


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs: six complete trials, the later the better, a failed and an unfinished one with checkpoints."""
    monkeypatch.setattr("sweeps.disk_needs._digests", lambda _: (DATA, "m"))
    store, folder, spec = StageStore(tmp_path / "stages"), tmp_path / "mine", spec_of(name="mine")
    with Study.open(folder, spec) as study:
        for place in range(8):
            asked = study.ask()
            assert asked is not None
            if place < 6:
                stage = store.resume_or_make("training", key_of(asked.config), fill)
                more = {"model": stage.relative_to(store.root).as_posix()}
                study.tell_complete(asked.number, {"val_accuracy": place / 10}, 2, 1.0, more)
                continue
            with pytest.raises(RuntimeError):
                store.resume_or_make("training", key_of(asked.config), _die)
            if place == 6:
                study.tell_failed(asked.number, "it failed")
        study.release()
    (folder / "spec.yaml").write_text(spec.to_yaml())
    return tmp_path


def records_of(out: Path) -> list[TrialRecord]:
    """Return the sweep's trials."""
    with Study.open(out / "mine", spec_of(name="mine")) as study:
        return study.records()


def left(out: Path) -> set[str]:
    """Return what is in the store."""
    return {stored.path.name for stored in list_store(out / "stages")}


def test_without_a_budget_only_what_is_of_no_use_goes(out: Path) -> None:
    """The failed trial's checkpoint goes; six models and the unfinished trial's checkpoint stay."""
    before = left(out)
    cleared = clear(out)
    assert {what: amount.count for what, amount in cleared.removed.items()} == {"stopped": 1}
    assert len(left(out)) == 7
    assert left(out) < before
    assert sum(name.endswith(".unfinished") for name in left(out)) == 1


def test_with_a_budget_the_worst_models_go_and_the_best_stay(out: Path) -> None:
    """With room for nothing, the best five of six models and the checkpoint that a trial goes on from stay."""
    cleared = clear(out, disk=1)
    models = [Path(model).name for model in ranked_models(records_of(out))]
    assert set(models[:5]) < left(out)
    assert models[5] not in left(out)
    assert cleared.is_too_much
    assert len(left(out)) == 6
    clear(out, disk=1, keep=2)
    assert {name for name in left(out) if not name.endswith(".unfinished")} == set(models[:2])


def test_a_dry_run_tells_the_same_and_removes_nothing(out: Path) -> None:
    """What is told beforehand is what happens."""
    before = left(out)
    told = clear(out, disk=1, dry_run=True)
    assert left(out) == before
    assert clear(out, disk=1).as_dict() == {**told.as_dict(), "dry_run": False}


def test_documented_experiments_keep_their_models(out: Path) -> None:
    """They are compared with their documented numbers, however bad they are."""
    worst = min(records_of(out), key=lambda record: record.metrics.get("val_accuracy", 1.0))
    named = TrialRecord(9, "transfer/frozen", {}, worst.config, "complete", {"val_accuracy": 0.0}, 1, 1.0, model="t/x")
    assert "t/x" in wanted_models([*records_of(out), named], 1)


def test_stages_of_a_sweep_that_is_gone_are_claimed_by_nobody(out: Path) -> None:
    """Whoever deletes a sweep's folder gets its models' room back."""
    (out / "mine" / "spec.yaml").unlink()
    clear(out)
    assert left(out) == set()


def test_every_sweep_of_the_folder_is_asked(out: Path) -> None:
    """A second sweep whose only trial has the worst model of the first keeps it."""
    worst = min((r for r in records_of(out) if r.model), key=lambda record: record.metrics["val_accuracy"])
    other = spec_of(name="other", trials=1, search={}, fixed={"dropout": worst.config["dropout"]})
    with Study.open(out / "other", other) as study:
        asked = study.ask()
        assert asked is not None
        study.tell_complete(asked.number, {"val_accuracy": 0.9}, 2, 1.0, {"model": worst.model})
    (out / "other" / "spec.yaml").write_text(other.to_yaml())
    clear(out, disk=1, keep=1)
    assert Path(worst.model).name in left(out)


def test_a_sweep_that_cannot_be_read_stops_everything(out: Path) -> None:
    """Nobody knows what it needs, so nothing goes."""
    journal = out / "mine" / "study.journal"
    journal.write_bytes(b"{nonsense}\n" + journal.read_bytes())
    before = left(out)
    with pytest.raises(InputError):
        clear(out, disk=1)
    assert left(out) == before


def test_while_a_sweep_runs_what_was_just_used_stays(out: Path) -> None:
    """A trial that runs may have a stage open; only its checkpoints are known to be nobody's."""
    with hold(out / "mine"):
        assert read_needs(out).in_use_since < float("inf")
        clear(out, disk=1, keep=1)
        assert len(left(out)) == 7
    clear(out, disk=1, keep=1)
    assert len(left(out)) == 2


def test_a_running_sweep_makes_room_when_a_trial_ends(out: Path) -> None:
    """Within the budget nothing happens; above it the readiest go, and what cannot be helped is told once."""
    told: list[str] = []
    before, ended = left(out), TrialRecord(0, None, {}, {}, "complete", {}, 1, 1.0)
    DiskKeeper(spec_of(disk="1GB"), out, told.append).trial_changed(ended)
    assert (left(out), told) == (before, [])
    keeper = DiskKeeper(spec_of(disk="1kB"), out, told.append)
    keeper.trial_changed(ended)
    keeper.trial_changed(ended)
    assert len(left(out)) == 6
    assert [text.split(":")[1].split()[0] for text in told] == ["removed", "stages"]


def test_a_model_that_was_removed_is_made_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner's model is there, or is made; a model that is there is not made."""
    made: list[str] = []

    def run(config: TrialConfig, *_: object) -> TrialRecord:
        made.append(config.digest)
        return records[0]

    monkeypatch.setattr("carcls.families.run_trial", run)
    records = sorted((r for r in records_of(out) if r.model), key=lambda record: record.metrics["val_accuracy"])
    clear(out, disk=1)
    stages, told = StageStore(out / "stages"), list[str]()
    assert model_on_disk(stages, None, records[-1], told.append) == records[-1].model  # type: ignore[arg-type]
    assert (made, told) == ([], [])
    assert model_on_disk(stages, None, records[0], told.append) == records[0].model  # type: ignore[arg-type]
    assert len(made) == len(told) == 1


def test_a_damaged_model_is_made_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A winner whose file was cut is made before it is read; so are answers that others are compared by."""
    made: list[str] = []

    def run(config: TrialConfig, *_: object) -> TrialRecord:
        made.append(config.digest)
        return replace(best, predictions="training/other/answers.npz")

    monkeypatch.setattr("carcls.families.run_trial", run)
    best = max((r for r in records_of(out) if r.model), key=lambda record: record.metrics["val_accuracy"])
    stages, told = StageStore(out / "stages"), list[str]()
    answered = replace(best, predictions=f"{best.model}/content")
    assert model_on_disk(stages, None, best, told.append) == best.model  # type: ignore[arg-type]
    assert answers_on_disk(stages, None, answered) == answered.predictions  # type: ignore[arg-type]
    assert made == []
    with (stages.root / best.model / "content").open("r+b") as file:
        file.truncate(100)
    assert model_on_disk(stages, None, best, told.append) == best.model  # type: ignore[arg-type]
    assert answers_on_disk(stages, None, answered) == "training/other/answers.npz"  # type: ignore[arg-type]
    assert made == [TrialConfig.model_validate(dict(best.config)).digest] * 2
    assert told == []


def test_the_command_tells_what_went(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Counts and sizes for people; one object for scripts."""
    tune = out / "mine" / "trials" / "tune"
    tune.mkdir(parents=True)
    (tune / "state.json").write_text("{}" * 4000)
    shown = CliRunner().invoke(carsweep, ["gc", "--out", str(out), "--dry-run"], obj=[]).output
    assert "Would remove 1 checkpoint of a trial that has ended (4" in shown
    assert "1 folder of Ray's" in shown
    CliRunner().invoke(carsweep, ["gc", "--out", str(out), "--disk", "1kB", "--json"], obj=[])
    value = json.loads(capfd.readouterr().out)
    assert {what: amount["count"] for what, amount in value["removed"].items()} == {"stopped": 1, "ray": 1, "model": 1}
    assert (value["kept"]["count"], value["fits"], tune.exists()) == (6, False, False)


@pytest.mark.parametrize("words", [["--disk", "20"], ["--keep", "3"], ["--disk", "1GB", "--keep", "0"]])
def test_mistakes_of_the_command_are_told(out: Path, words: list[str]) -> None:
    """Nothing is removed on a guess."""
    before = left(out)
    done = CliRunner().invoke(carsweep, ["gc", "--out", str(out), *words], obj=[])
    assert isinstance(done.exception, InputError)
    assert left(out) == before


def test_the_command_lists_what_stages_saved(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A kind a line for people; one object for scripts; a folder without sweeps is no mistake, a missing one is."""
    for _ in range(3):
        StageStore(tmp_path / "stages").get_or_make("pack", {"size": 64}, lambda _: time.sleep(0.2))
    shown = CliRunner().invoke(carsweep, ["stages", "--out", str(tmp_path)], obj=[]).output.splitlines()
    assert shown[0].split() == ["kind", "stages", "size", "made", "in", "hits", "saved"]
    assert shown[1].split()[:2] == ["pack", "1"]
    assert shown[-1].endswith("sharing saved 0.4 s.")
    CliRunner().invoke(carsweep, ["stages", "--out", str(tmp_path), "--json"], obj=[])
    value = json.loads(capfd.readouterr().out)
    assert (value["kinds"][0]["kind"], value["kinds"][0]["hits"]) == ("pack", 2)
    assert value["saved"] == pytest.approx(2 * value["kinds"][0]["seconds"])
    missing = CliRunner().invoke(carsweep, ["stages", "--out", str(tmp_path / "none")], obj=[])
    assert isinstance(missing.exception, InputError)
