"""Making room: the policy over drawn stores, stores on disk, and real studies whose journals say what they need."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import ask, events_of, study_spec

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.stages_disk import Stored, list_store, take_out
from sweeps.lock import locked
from sweeps.results.models import answers_on_disk, model_on_disk, ranked_models, wanted_models
from sweeps.run.cleaning import USELESS, DiskKeeper, Marks, choose, clear, read_marks
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.study import Study
from sweeps.trial import TrialRecord

NOW = 1_000_000.0
Run = Callable[..., tuple[int, str, str]]


def draw_store(dice: random.Random) -> tuple[list[Stored], Marks]:
    """Draw a store and what sweeps say of it."""
    things = []
    for number in range(dice.randrange(1, 30)):
        kind = dice.choice(["training", "embeddings", "features", "neighbours", "pack", "index", "new-kind"])
        state = dice.choice(["made", "made", "made", "unfinished", "making", "trash"])
        things.append(stored(kind, f"{number:024x}", state, dice.randrange(1, 1000), NOW - dice.random() * 10_000))
    made = [one.name for one in things if one.state == "made"]
    going_on = [one.name for one in things if one.state == "unfinished" and dice.random() < 0.5]
    models = dict(zip(dice.sample(made, len(made) // 2), range(1, 99), strict=False))
    return things, Marks(
        kept={*going_on, *(name for name, rank in models.items() if rank <= 2)},
        named={*going_on, *models, *(name for name in made if dice.random() < 0.5)},
        models=models,
        in_use_since=dice.choice([float("inf"), NOW - 3000]),
        has_unnamed=dice.random() < 0.5,
    )


def stored(kind: str, digest: str, state: Any, size: int, used: float) -> Stored:
    """Return a folder of a store that is not there."""
    return Stored(Path("/store") / kind / digest, kind, digest, state, size, used)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_needed_never_goes_and_the_budget_holds_when_it_can(seed: int) -> None:
    """Over drawn stores: needed stages stay, what goes was necessary, and what stays fits or is needed."""
    dice = random.Random(seed)
    things, marks = draw_store(dice)
    budget = dice.choice([None, 1, dice.randrange(1, 10_000)])
    useless_too = dice.random() < 0.5
    gone = {one.path for _, one in choose(things, marks, budget, useless_too=useless_too)}
    for one in things:
        made, unfinished = one.state == "made", one.state == "unfinished"
        is_needed = (made or unfinished) and (one.name in marks.kept or one.kind == "index")
        may_be_open = (made and one.used >= marks.in_use_since) or (unfinished and marks.has_unnamed)
        is_named = made and budget is None and (one.name in marks.named or marks.has_unnamed)
        if is_needed or may_be_open or is_named:
            assert one.path not in gone
    left = [one for one in things if one.path not in gone]
    if budget is None:
        assert gone == {one.path for one in things if useless_too and marks.why(one) in USELESS}
    elif sum(one.size for one in left) > budget:
        assert all(marks.why(one) is None for one in left)


def test_the_readiest_go_first_and_no_more_than_the_budget_asks() -> None:
    """Leftovers, then checkpoints, then the worst models, then what was not used for longest."""
    order = [
        ("leftover", stored("training", "0", "making", 10, NOW)),
        ("stopped", stored("training", "1", "unfinished", 10, NOW)),
        ("model", stored("training", "2", "made", 10, NOW)),
        ("model", stored("training", "3", "made", 10, NOW)),
        ("unused", stored("training", "4", "made", 10, NOW - 99)),
        ("unused", stored("training", "5", "made", 10, NOW - 1)),
    ]
    kept, things = stored("index", "0", "made", 10, 0.0), [one for _, one in order]
    marks = Marks(named={one.name for one in things}, models={"training/2": 9, "training/3": 7})
    for count in range(len(order) + 1):
        assert choose([*reversed(things), kept], marks, 70 - 10 * count, useless_too=False) == order[:count]


def fill(folder: Path) -> None:
    """Make something of a known size."""
    (folder / "content").write_bytes(b"x" * 40_000)


def _die(folder: Path) -> None:
    fill(folder)
    raise RuntimeError


def test_a_store_is_listed_and_what_is_taken_out_is_made_again(tmp_path: Path) -> None:
    """Whole and unfinished ones, with their bytes; who has a file of one open reads on, who asks gets it anew."""
    store, key = StageStore(tmp_path), {"a": 1}
    with pytest.raises(RuntimeError):
        store.get_or_make("kind", {"a": 2}, _die, keep=True)
    path = store.get_or_make("kind", key, fill)
    made, unfinished = sorted(list_store(tmp_path), key=lambda one: one.state)
    assert (made.state, made.path) == ("made", path)
    assert (unfinished.state, unfinished.path.suffix) == ("unfinished", ".unfinished")
    assert 40_000 <= made.size <= 80_000
    with (path / "content").open("rb") as file:
        assert take_out(made)
        assert len(file.read()) == 40_000
    assert list_store(tmp_path) == [unfinished]
    store.get_or_make("kind", key, fill)
    assert [event.event for event in events_of(store)] == ["made", "made"]


def test_what_is_used_since_it_was_listed_or_is_being_made_stays(tmp_path: Path) -> None:
    """Somebody may have it open; its maker holds its lock."""
    store = StageStore(tmp_path)
    path = store.get_or_make("kind", {"a": 1}, fill)
    (before,) = list_store(tmp_path)
    store.get_or_make("kind", {"a": 1}, fill)
    assert not take_out(before)
    (now,) = list_store(tmp_path)
    with FileLock(path.with_suffix(".lock")):
        assert not take_out(now)
    assert take_out(now)


def spec_of(**changes: Any) -> SweepSpec:
    """Eight searched trials that nothing stops early."""
    return study_spec(**{"trials": 8, **changes})


def key_of(config: TrialConfig) -> dict[str, object]:
    """Return the key of a trial's training stage."""
    return {**config.training_settings(), "data": "d0"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of runs: six complete trials, the later the better, a failed and an unfinished one with checkpoints."""
    return make_runs(tmp_path, names=True)


def make_runs(out: Path, *, names: bool) -> Path:
    """Fill the folder; without ``names`` the trials do not say which stages they used, as in older versions."""
    folder, spec, store = out / "mine", spec_of(name="mine"), StageStore(out / "stages")
    with Study.open(folder, spec) as study:
        for place in range(8):
            asked, accuracy = ask(study), {"val_accuracy": place / 10}
            with suppress(RuntimeError):
                store.get_or_make("training", key_of(asked.config), fill if place < 6 else _die, keep=True)
            used = store.take_used()
            study.report(asked.number, Measurement(1, accuracy, stages=used if names else {}))
            if place < 6:
                model = store.folder("training", key_of(asked.config)).relative_to(store.root).as_posix()
                study.tell_complete(asked.number, {"metrics": accuracy, "epochs": 2, "model": model})
            elif place == 6:
                study.tell_failed(asked.number, "it failed")
        study.release()
    write_file(folder, "sweep", None, [spec])
    return out


def records_of(out: Path) -> list[TrialRecord]:
    """Return the sweep's trials."""
    with Study.open(out / "mine", spec_of(name="mine")) as study:
        return study.records()


def left(out: Path) -> set[str]:
    """Return what is in the store."""
    return {stored.path.name for stored in list_store(out / "stages")}


def test_only_what_is_of_no_use_goes_without_a_budget_and_the_worst_models_with_one(out: Path) -> None:
    """A failed trial's checkpoint goes at once; the best models and an unfinished trial's checkpoint stay for ever.

    What a dry run tells is what happens.
    """
    before = left(out)
    told = clear(out, dry_run=True)
    assert left(out) == before
    cleared = clear(out)
    assert cleared.as_dict() == {**told.as_dict(), "dry_run": False}
    assert {what: len(sizes) for what, sizes in cleared.removed.items()} == {"stopped": 1}
    assert (len(left(out)), left(out) < before) == (7, True)
    models = [Path(model).name for model in ranked_models(records_of(out))]
    for keep in (5, 2):
        assert clear(out, disk=1, keep=keep).is_too_much
        assert {name for name in left(out) if not name.endswith(".unfinished")} == set(models[:keep])
        assert sum(name.endswith(".unfinished") for name in left(out)) == 1


def test_a_sweep_that_is_gone_claims_nothing_and_one_that_cannot_be_read_everything(out: Path) -> None:
    """Whoever deletes a sweep's folder gets its models' room back; nobody knows what a damaged one needs."""
    journal, before = out / "mine" / "study.journal", left(out)
    whole = journal.read_bytes()
    journal.write_bytes(b"{nonsense}\n" + whole)
    with pytest.raises(InputError):
        clear(out, disk=1)
    assert left(out) == before
    journal.write_bytes(whole)
    (out / "mine" / "sweep.json").unlink()
    clear(out)
    assert left(out) == set()


def test_stages_that_a_record_names_are_claimed(out: Path) -> None:
    """What a trial used, or the reading of the images, goes for a budget alone; what nobody names goes at once."""
    names = ("named", "prepared", "nobody's")
    for name in names:
        StageStore(out / "stages").get_or_make("pack", {"name": name}, fill)
    named, prepared, nobodys = (StageStore(out / "stages").folder("pack", {"name": name}) for name in names)
    write_file(out / "mine", "sweep", None, [spec_of(name="mine")], [f"pack/{prepared.name}"])
    with Study.open(out / "mine", spec_of(name="mine")) as study:
        asked = ask(study)
        study.report(asked.number, Measurement(2, {"val_accuracy": 0.1}, stages={f"pack/{named.name}": 1.0}))
        study.release()
    assert {what: len(sizes) for what, sizes in clear(out).removed.items()} == {"stopped": 1, "unclaimed": 1}
    assert named.name in left(out)
    assert prepared.name in left(out)
    assert nobodys.name not in left(out)
    assert len(clear(out, disk=1).removed["unused"]) == 2


def test_stages_of_sweeps_that_name_none_stay(tmp_path: Path) -> None:
    """While an older version's sweep lies there, stages go for a budget alone, and checkpoints not at all."""
    make_runs(tmp_path, names=False)
    StageStore(tmp_path / "stages").get_or_make("features", {"view": 1}, fill)
    before = left(tmp_path)
    assert clear(tmp_path).removed == {}
    assert left(tmp_path) == before
    assert set(clear(tmp_path, disk=1).removed) == {"model", "unused"}
    assert sum(name.endswith(".unfinished") for name in left(tmp_path)) == 2


def test_every_sweep_of_the_folder_is_asked(out: Path) -> None:
    """A second sweep whose only trial has the worst model of the first keeps it; so does a documented experiment."""
    worst = min((r for r in records_of(out) if r.model), key=lambda record: record.metrics["val_accuracy"])
    other = spec_of(name="other", trials=1, search={}, fixed={"dropout": worst.config["dropout"]})
    with Study.open(out / "other", other) as study:
        asked = ask(study)
        study.tell_complete(asked.number, {"metrics": {"val_accuracy": 0.9}, "epochs": 2, "model": worst.model})
    write_file(out / "other", "sweep", None, [other])
    clear(out, disk=1, keep=1)
    assert Path(worst.model).name in left(out)
    documented = replace(worst, experiment="transfer/frozen", model="t/x")
    assert "t/x" in wanted_models([*records_of(out), documented], 1)


def test_while_a_sweep_runs_what_was_just_used_stays(out: Path) -> None:
    """A trial that runs may have a stage open; only its checkpoints are known to be nobody's."""
    with locked(out / "mine"):
        assert read_marks(out, keep=1).in_use_since < float("inf")
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


def test_a_model_that_is_gone_or_damaged_is_made_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are answers that others are compared by; what is there and whole is not made."""
    made: list[str] = []

    def run(config: TrialConfig, *_: object) -> TrialRecord:
        made.append(config.digest)
        return replace(best, predictions="training/other/answers.npz")

    monkeypatch.setattr("carcls.families.run_trial", run)
    records = sorted((r for r in records_of(out) if r.model), key=lambda record: record.metrics["val_accuracy"])
    gone, best = records[0], replace(records[-1], predictions=f"{records[-1].model}/content")
    clear(out, disk=1)
    stages, told = StageStore(out / "stages"), list[str]()
    assert model_on_disk(stages, None, best, told.append) == best.model  # type: ignore[arg-type]
    assert answers_on_disk(stages, None, best) == best.predictions  # type: ignore[arg-type]
    assert (made, told) == ([], [])
    assert model_on_disk(stages, None, gone, told.append) == best.model  # type: ignore[arg-type]
    with (stages.root / best.predictions).open("r+b") as file:
        file.truncate(100)
    assert model_on_disk(stages, None, best, told.append) == best.model  # type: ignore[arg-type]
    assert answers_on_disk(stages, None, best) == "training/other/answers.npz"  # type: ignore[arg-type]
    assert made == [TrialConfig.model_validate(dict(record.config)).digest for record in (gone, best, best)]
    assert told == [f"The model of trial {gone.number} is not on disk any more; it is made again."]


def test_the_command_tells_what_went(out: Path, run: Run) -> None:
    """Counts and sizes for people; one object for scripts."""
    tune = out / "mine" / "trials" / "tune"
    tune.mkdir(parents=True)
    (tune / "state.json").write_text("{}" * 4000)
    shown = run("gc", "--out", out, "--dry-run")[1]
    assert "Would remove 1 checkpoint of a trial that has ended (4" in shown
    assert "1 folder of Ray's" in shown
    value = json.loads(run("gc", "--out", out, "--disk", "1kB", "--json")[1])
    assert {what: amount["count"] for what, amount in value["removed"].items()} == {"stopped": 1, "ray": 1, "model": 1}
    assert (value["kept"]["count"], value["fits"], tune.exists()) == (6, False, False)


@pytest.mark.parametrize("words", [["--disk", "20"], ["--keep", "3"], ["--disk", "1GB", "--keep", "0"]])
def test_mistakes_of_the_command_are_told(out: Path, words: list[str], run: Run) -> None:
    """Nothing is removed on a guess."""
    before = left(out)
    code, told, err = run("gc", "--out", out, *words)
    assert (code, told, err.count("\n"), left(out)) == (2, "", 1, before)


def test_the_status_tells_what_cached_stages_saved(tmp_path: Path, run: Run) -> None:
    """How often trials found one that another had made, and the seconds of making that this took nobody."""
    with Study.open(tmp_path / "runs" / "mine", spec_of(name="mine")) as study:
        for _ in range(3):
            asked, store = ask(study), StageStore(tmp_path / "runs" / "stages")
            store.get_or_make("pack", {"size": 64}, lambda _: time.sleep(0.2))
            study.tell_complete(
                asked.number, {"metrics": {"val_accuracy": 0.1}, "epochs": 1, "stages": store.take_used()}
            )
    write_file(tmp_path / "runs" / "mine", "sweep", None, [spec_of(name="mine")])
    assert "\n  Cached stages were found 2 times and saved 0.4 s of computing.\n" in run("status")[1]
    (value,) = json.loads(run("status", "--json")[1])["sweeps"]
    assert (value["stage_hits"], value["saved_seconds"]) == (2, pytest.approx(0.4, abs=0.05))
