"""Going on with a sweep: a journal cut anywhere, a changed spec, what is remembered, and how it is told."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import ask
from hypothesis import given, settings
from hypothesis import strategies as st

from carcls.data.config import DataConfig, DataSummary
from carcls.errors import InputError, OutputError, SpecError
from carcls.outcome import Measurement
from sweeps.cli.folder import status_lines
from sweeps.engine.engine import EngineResult
from sweeps.lock import locked
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult
from sweeps.run.command import Command
from sweeps.run.conclusion import conclude
from sweeps.run.remembered import extended, recall
from sweeps.run.status import sweep_status, sweeps_in
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice, Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.records import read_history
from sweeps.study.study import Asked, Study
from sweeps.trial import NOTHING, TrialRecord, stage_use

EPOCHS = 4


def spec_of(**changes: Any) -> SweepSpec:
    """Two documented experiments and five searched trials."""
    fields = {
        "family": "transfer",
        "name": "mine",
        "trials": 7,
        "experiments": ("transfer/frozen", "transfer/finetuned"),
        "fixed": {"epochs": EPOCHS},
        "search": {
            "dropout": Range(0.0, 0.5),
            "head_lr": Range(1e-4, 1e-2, log=True),
            "lr_schedule": Choice(("constant", "cosine")),
        },
        "early_stopping": EarlyStopping(min_epochs=1, reduction=3, within_kind=0.0),
    }
    return SweepSpec.model_validate({**fields, **changes})


def accuracy(asked: Asked, epoch: int) -> float:
    """A curve that depends on the settings alone."""
    best = 1.0 - (asked.config.dropout - 0.2) ** 2 - (math.log10(asked.config.head_lr) + 3) ** 2 / 10
    return best * epoch / EPOCHS


def run_to_the_end(study: Study) -> None:
    """Train whatever the study asks for, one after the other."""
    while (asked := study.ask()) is not None:
        train(study, asked)


def train(study: Study, asked: Asked) -> None:
    """Report epoch by epoch, and tell how it ended."""
    for epoch in range(1, EPOCHS + 1):
        if study.report(asked.number, Measurement(epoch, {"val_accuracy": accuracy(asked, epoch)})):
            study.tell_pruned(asked.number)
            return
    metrics = {"val_accuracy": accuracy(asked, EPOCHS)}
    derived = [{"settings": {"dropout": asked.config.dropout / 2}, "metrics": metrics}]
    study.tell_complete(asked.number, {"metrics": metrics, "epochs": EPOCHS, "model": "m", "derived": derived})


def plain(records: tuple[TrialRecord, ...] | list[TrialRecord]) -> list[TrialRecord]:
    """Return records without what a restart may change."""
    return [replace(record, seconds=0.0, spent=NOTHING, began=0.0) for record in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[TrialRecord]]:
    """Return the journal of a sweep that nothing disturbed, and its trials."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Study.open(folder, spec_of()) as study:
        run_to_the_end(study)
        records = plain(study.records())
    assert {record.status for record in records} == {"complete", "pruned"}
    return (folder / "study.journal").read_bytes(), records


@settings(max_examples=200, deadline=None)
@given(share=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_ends_like_an_undisturbed_one(
    undisturbed: tuple[bytes, list[TrialRecord]], tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    """The same trials under the same numbers with the same results; reading first changes nothing."""
    journal, expected = undisturbed
    folder = tmp_path_factory.mktemp("cut")
    (folder / "study.journal").write_bytes(journal[: round(share * len(journal))])
    before = [record for record in plain(read_history(folder).records) if record.status != "running"]
    with Study.open(folder, spec_of()) as study:
        run_to_the_end(study)
        ended = plain(study.records())
    assert ended == expected
    assert [record for record in ended if record.number in {r.number for r in before}] == before


def test_zeros_that_a_power_cut_left_at_the_end_are_cut_off(
    undisturbed: tuple[bytes, list[TrialRecord]], tmp_path: Path
) -> None:
    """A file system may know a file's length before its content."""
    journal, expected = undisturbed
    (tmp_path / "study.journal").write_bytes(journal + bytes(4096))
    with Study.open(tmp_path, spec_of()) as study:
        assert plain(study.records()) == expected


def test_a_changed_search_keeps_what_was_run(tmp_path: Path) -> None:
    """Trials stay, the new domain is asked from, the change is noted once, and nothing documented is asked again."""
    with Study.open(tmp_path, spec_of()) as study:
        run_to_the_end(study)
        before = plain(study.records())
    wider = spec_of(trials=20, search={**spec_of().search, "dropout": Range(0.6, 0.9)})
    with pytest.raises(InputError, match="carsweep resume"):
        Study.open(tmp_path, wider)
    with Study.open(tmp_path, wider, edits=["search.dropout"]) as study:
        run_to_the_end(study)
        after = plain(study.records())
    new = [record for record in after[len(before) :] if record.derived_from is None]
    assert after[: len(before)] == before
    assert len(new) == 13
    assert all(0.6 <= record.config["dropout"] <= 0.9 and record.experiment is None for record in new)
    with Study.open(tmp_path, wider) as study:
        assert study.ask() is None
    (edit,) = read_history(tmp_path).edits
    assert (edit["changes"], edit["after"]) == (["search.dropout"], len(before))


def test_a_journal_that_cannot_grow_stays_whole(tmp_path: Path) -> None:
    """Where only a part of a line could be written, none of it stays; the message has the remedy, and room heals it."""
    with Study.open(tmp_path, spec_of()) as study:
        asked = ask(study)
        before = (tmp_path / "study.journal").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"Make room"):
                study.report(asked.number, Measurement(1, {"val_accuracy": 0.25}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "study.journal").read_bytes() == before
    with Study.open(tmp_path, spec_of()) as study:
        again = ask(study)
        assert again.number == asked.number
        train(study, again)
        assert study.record(again.number).status == "complete"


def extend(*sets: str, **options: str) -> Command:
    """Extend the command of one sweep."""
    given = {"trials": None, "hours": None, **options}
    return extended(Command("sweep", "mine", (spec_of(),)), sets=sets, resources={"concurrency": None}, **given)


@pytest.mark.parametrize(
    ("sets", "options", "changes"),
    [
        ([], {"trials": "+20", "hours": "+2"}, ["trials 7 -> 27", "hours none -> 2.0"]),
        ([], {"trials": "9"}, ["trials 7 -> 9"]),
        (["trials=8"], {}, ["trials 7 -> 8"]),
        (["gpus_per_trial=0.5"], {}, ["gpus_per_trial auto -> 0.5"]),
        ([], {}, []),
    ],
)
def test_what_is_added_or_set_is_told(sets: list[str], options: dict[str, str], changes: list[str]) -> None:
    """+N adds to what there is, N is the number itself; hours count from now."""
    assert extend(*sets, **options).changes == tuple(changes)


def test_fewer_trials_than_were_begun_are_refused(tmp_path: Path) -> None:
    """With how many there are, and what ends the sweep; so many are no mistake: those that were begun are ended."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with Study.open(folder, spec_of()) as study:
        for _ in range(3):
            train(study, ask(study))
    command = Command("sweep", "mine", (spec_of(),), out=tmp_path)
    given: dict[str, Any] = {"hours": None, "sets": [], "resources": {}}
    with pytest.raises(InputError, match=r"at least the 3 that 'mine' has begun, got 2.*carsweep finish mine"):
        extended(command, trials="2", **given)
    assert extended(command, trials="3", **given).specs[0].trials == 3


@pytest.mark.parametrize(("option", "given"), [("data", ["path"]), ("images", ["path", "images"])])
def test_images_that_are_gone_are_asked_for(tmp_path: Path, option: str, given: list[str]) -> None:
    """The folder or table, and the folder that a table's paths begin in, by the option that says where it is now."""
    (tmp_path / "here").mkdir()
    places = {name: str(tmp_path / ("gone" if name == given[-1] else "here")) for name in given}
    spec = spec_of().model_copy(update={"data": DataConfig(**places)})
    command = Command("sweep", "mine", (spec,), out=tmp_path)
    with pytest.raises(InputError, match=rf"data\.{given[-1]} must be .*carsweep resume mine --{option} NEW"):
        extended(command, trials=None, hours=None, sets=[], resources={})
    again = extended(command, trials=None, hours=None, sets=[f"data.{given[-1]}={tmp_path / 'here'}"], resources={})
    assert getattr(again.specs[0].data, given[-1]) == str(tmp_path / "here")


def test_one_end_of_a_domain_is_moved_and_a_fixed_setting_leaves_the_search() -> None:
    """The other end stays."""
    assert extend("space.dropout.high=0.7").specs[0].search["dropout"] == Range(0.0, 0.7)
    assert "dropout" not in extend("dropout=0.1").specs[0].search


@pytest.mark.parametrize(
    ("sets", "options", "named"),
    [
        (["seed=3"], {}, "seed"),
        (["data.margin=0.2"], {}, "data.margin"),
        (["family=scratch"], {}, "family"),
        (["name=yours"], {}, "name"),
        (["space.dropuot.high=0.7"], {}, "dropuot"),
        (["space.dropout.high=7"], {}, "search.dropout"),
        ([], {"trials": "+"}, "--trials"),
        ([], {"trials": "-3"}, "--trials"),
        ([], {"trials": "+0.5"}, "--trials"),
        ([], {"hours": "never"}, "hours"),
    ],
)
def test_what_would_make_scores_incomparable_or_is_no_setting_is_refused(
    sets: list[str], options: dict[str, str], named: str
) -> None:
    """The mistake names the setting."""
    with pytest.raises(SpecError, match=named.replace(".", r"\.")):
        extend(*sets, **options)


def test_a_job_divides_what_is_added(tmp_path: Path) -> None:
    """Trials are shared among the families, settings reach those that they mean something in, all mistakes are told."""
    specs = tuple(SweepSpec(family=f, name=f"job-{f}", trials=4) for f in ("transfer", "retrieval", "scratch"))
    write_file(tmp_path / "job", "all", None, specs)
    more = {"trials": "+7", "hours": None, "resources": {}}
    job = extended(recall(tmp_path, "job"), sets=["k=5"], **more)
    assert [spec.trials for spec in job.specs] == [7, 6, 6]
    assert ["k" in spec.fixed for spec in job.specs] == [False, True, False]
    assert "retrieval: fixed.k none -> 5" in (job.changes or ())
    with pytest.raises(SpecError) as caught:
        extended(recall(tmp_path, "job"), sets=["k=0", "width=0", "epochs=0"], **more)
    assert sorted(mistake.partition(":")[0] for mistake in caught.value.mistakes) == ["epochs", "k", "width"]


def test_a_tracking_uri_with_a_password_is_not_written_down(tmp_path: Path) -> None:
    """It has to be given again; another one is remembered."""
    folder = tmp_path / "mine"
    write_file(folder, "sweep", "http://ann:s3cret@host:5000", [spec_of()])
    assert "s3cret" not in "".join(path.read_text() for path in folder.iterdir())
    with pytest.raises(InputError, match="--tracking-uri"):
        recall(tmp_path, "mine")
    assert recall(tmp_path, "mine", "http://b").tracking_uri == "http://b"
    write_file(folder, "sweep", "http://host:5000", [spec_of()])
    assert recall(tmp_path, "mine") == Command("sweep", "mine", (spec_of(),), "http://host:5000", (), tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    """So is a folder without any sweep."""
    with pytest.raises(InputError, match="--out"):
        recall(tmp_path / "nowhere", "mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spec.yaml").write_text(spec_of().to_yaml())
    with pytest.raises(InputError, match=r"Did you mean mine\?"):
        recall(tmp_path, "mien")


def fail_each_way(study: Study) -> dict[str, Asked]:
    """Let all trials measure an epoch and fail, each for another reason, the lost one three times."""
    failed = {}
    for kind in ("full_disk", "lost", "preempted", "bug", "diverged", "bad_data", "out_of_memory"):
        asked = ask(study)
        study.report(asked.number, Measurement(1, {"val_accuracy": 0.25}))
        for _ in range(2 * (kind == "lost")):
            study.hand_back(asked.number, counted=True)
            assert study.ask() == asked
        study.tell_failed(asked.number, f"failed as {kind}", kind)
        failed[kind] = asked
    return failed


def test_what_failed_through_no_fault_of_its_own_goes_on_when_the_sweep_is_resumed(tmp_path: Path) -> None:
    """Full disks and lost processes: the same numbers and settings are asked again, with all attempts; bugs are not."""
    spec = spec_of(early_stopping=EarlyStopping(enabled=False))
    with Study.open(tmp_path, spec) as study:
        failed = fail_each_way(study)
        numbers = {kind: asked.number for kind, asked in failed.items()}
    again = ("full_disk", "lost", "preempted")
    with Study.open(tmp_path, spec) as study:
        assert (study.reopened, study.ask()) == ((), None)
    with Study.open(tmp_path, spec, edits=[]) as study:
        assert study.reopened == tuple(numbers[kind] for kind in again)
        assert [study.record(numbers[kind]).status for kind in again] == ["running"] * 3
        assert [study.record(numbers[kind]).epochs for kind in again] == [1] * 3
        assert study.left() == 0
        for kind in again:
            assert study.ask() == failed[kind]
        for _ in range(2):
            study.hand_back(numbers["lost"], counted=True)
            assert study.ask() == failed["lost"]
        for kind in again:
            train(study, failed[kind])
        assert study.ask() is None
    own = [r for r in read_history(tmp_path).records if r.derived_from is None]
    assert [record.number for record in own] == sorted(numbers.values())
    ends = {kind: study.record(number).status for kind, number in numbers.items()}
    assert {kind for kind, status in ends.items() if status == "complete"} == set(again)
    assert {record.failure for record in own if record.status == "failed"} == set(numbers) - set(again)
    with Study.open(tmp_path, spec, edits=[]) as study:
        assert (study.reopened, study.ask()) == ((), None)


def test_failures_in_a_journal_cut_at_any_line_are_tried_again_or_stay(tmp_path: Path) -> None:
    """Whatever was written of an end: seven trials have seven numbers, and only what was their own fault is failed."""
    spec = spec_of(early_stopping=EarlyStopping(enabled=False))
    with Study.open(tmp_path, spec) as study:
        fail_each_way(study)
    lines = (tmp_path / "study.journal").read_bytes().splitlines(keepends=True)
    faulty = ("bug", "diverged", "bad_data", "out_of_memory")
    for count in range(len(lines) + 1):
        (tmp_path / "study.journal").write_bytes(b"".join(lines[:count]))
        told = {r.number: r.failure for r in read_history(tmp_path).records if r.failure in faulty}
        with Study.open(tmp_path, spec, edits=[]) as study:
            run_to_the_end(study)
            own = [record for record in study.records() if record.derived_from is None]
        assert len(own) == len({record.number for record in own}) == 7
        assert {record.number: record.failure for record in own if record.status == "failed"} == told


def test_what_took_over_a_failure_takes_over_what_comes_after_it(tmp_path: Path) -> None:
    """A trial drawn twice is run once; it may fail again, which the journal keeps; at last both complete."""
    spec = spec_of(experiments=(), search={"dropout": Choice((0.1,))}, trials=2)
    for time in range(3):
        with Study.open(tmp_path, spec, edits=[]) as study:
            assert study.reopened == (0,) * (time > 0)
            asked = ask(study)
            assert (asked.number, study.ask()) == (0, None)
            study.tell_failed(0, f"no room, time {time}", "full_disk")
            assert {record.status for record in study.records()} == {"failed"}
    journal = (tmp_path / "study.journal").read_text()
    assert [journal.count(f"no room, time {time}") for time in range(3)] == [1, 1, 1]
    with Study.open(tmp_path, spec, edits=[]) as study:
        assert study.ask() == asked
        study.tell_complete(0, {"metrics": {"val_accuracy": 0.5}, "epochs": EPOCHS})
        (record,) = study.records()
    assert record.duplicates
    assert (record.status, record.metrics["val_accuracy"]) == ("complete", 0.5)


def test_status_tells_which_trials_were_not_run_and_why(tmp_path: Path) -> None:
    """A script learns which trial answers a number that it misses; a person reads it in words."""
    search = {"dropout": Range(0.0, 0.9), "optimizer": Choice(("adam",))}
    spec = spec_of(search=search, near=0.1, trials=40)
    write_file(tmp_path / "mine", "sweep", None, [spec])
    with Study.open(tmp_path / "mine", spec) as study:
        run_to_the_end(study)
        twins = sorted(
            (twin.number, record.number, twin.near) for record in study.records() for twin in record.duplicates
        )
    told = sweep_status(tmp_path, "mine")
    said = json.loads(json.dumps(told.as_dict()))["twins"]
    assert [(twin["number"], twin["same_as"], twin["near"]) for twin in said] == twins
    assert all(near for _, _, near in twins)
    line = next(line for line in status_lines(told, tmp_path) if "not run" in line)
    assert f"{twins[0][0]} (nearly the same as trial {twins[0][1]})" in line


def test_status_tells_what_runs_while_it_runs_and_after(tmp_path: Path) -> None:
    """It is running while somebody holds it, unfinished when something is left; the journal tells the rest."""
    folder = tmp_path / "mine"
    write_file(folder, "sweep", None, [spec_of()])
    with locked(folder), Study.open(folder, spec_of()) as study:
        for _ in range(2):
            train(study, ask(study))
        asked = ask(study)
        study.report(asked.number, Measurement(1, {"val_accuracy": 0.25}))
        running = sweep_status(tmp_path, "mine")
    assert (running.state, running.holder is not None) == ("running", True)
    assert (running.ended, running.counts["running"], running.as_dict()["siblings"]) == (2, 1, 1)
    unfinished = {"number": asked.number, "experiment": None, "epoch": 1, "epochs": EPOCHS, "accuracy": 0.25}
    assert running.as_dict()["unfinished"] == [{**unfinished, "confirms": None}]
    assert f"  trial {asked.number} runs: search, epoch 1/{EPOCHS}, val accuracy 25.0%" in status_lines(
        running, tmp_path
    )
    assert running.as_dict()["best"] in (0, 1)
    after = sweep_status(tmp_path, "mine")
    assert (after.state, after.holder) == ("unfinished", None)
    for trials, total in ((7, 7), (1, 2)):
        lines = status_lines(replace(after, spec=spec_of(trials=trials)), tmp_path)
        assert any(line.startswith(f"  2 of {total} trials ended") for line in lines)
    assert sweeps_in(tmp_path) == ["mine"]


def test_a_finished_sweep_of_an_older_version_tells_its_stage_hits(tmp_path: Path) -> None:
    """Its result says none; the journal has them, and the result that is written again too."""
    trial = TrialRecord(
        0, None, {}, {"family": "transfer"}, "failed", {}, 1, 1.0, late_stages={"pack/x": 2.0, "y": None}
    )
    data = DataSummary("cars", "abc", 9, 2, {"validation": 9})
    older = SweepResult("a", "transfer", ".", data, Leaderboard((trial,)), None, None, None, "", 1.0, saved_seconds=0.0)
    saved = list[SweepResult]()
    session: Any = SimpleNamespace(
        before=older,
        spec=SweepSpec(family="transfer", name="a"),
        folder=tmp_path,
        summarize=lambda _: replace(older, **stage_use([trial])),
        save=saved.append,
    )
    silent: Any = SimpleNamespace(summarise=lambda *_, **__: None)
    result = conclude(session, EngineResult((trial,), interrupted=False, used_up=""), silent)
    assert [result] == saved
    assert (older.stage_hits, result.stage_hits, result.saved_seconds) == (0, 1, 2.0)
