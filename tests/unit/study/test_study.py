"""The durable study, without Ray."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ask, asked_of, complete, rewrite_journal, run_study, study_spec

from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.spec.space import Choice, Range
from sweeps.study.journal import JOURNAL
from sweeps.study.proposals import find_near_duplicate
from sweeps.study.records import read_history
from sweeps.study.sampling import Sampler
from sweeps.study.study import MAX_ATTEMPTS, Asked, Study

# Two documented experiments and four searched trials.
spec_of = partial(
    study_spec,
    trials=6,
    experiments=("transfer/frozen", "transfer/frozen-augmented"),
    search={
        "dropout": Range(0.0, 0.5),
        "head_lr": Range(1e-4, 1e-2, log=True),
        "weight_decay": Range(1e-6, 1e-2, log=True),
    },
    early_stopping={"min_epochs": 1, "reduction": 3, "within_kind": 0.0},
)


def score(asked: Asked) -> float:
    """A smooth accuracy with its best at dropout 0.2 and head_lr 1e-3."""
    return 1.0 - (asked.config.dropout - 0.2) ** 2 - (math.log10(asked.config.head_lr) + 3) ** 2 / 10


def run_all(study: Study) -> list[Asked]:
    """Complete all that the study still owes."""
    return run_study(study, lambda asked: {"val_accuracy": score(asked)})


def test_a_record_says_in_how_many_processes_its_trial_trained(tmp_path: Path) -> None:
    """As it was handed out last, whoever reads it; it is asked for as before, and answers what is like it."""
    spec = spec_of(experiments=("transfer/finetuned",), search={"head_lr": Range(1e-4, 1e-2, log=True)})
    with Study.open(tmp_path, spec) as study:
        asked = ask(study)
        study.note_processes(asked.number, 2)
        study.hand_back(asked.number, counted=False)
    with Study.open(tmp_path, spec) as study:
        again = ask(study)
        assert (again.number, again.config) == (asked.number, asked.config)
        assert study.record(0).trial_config.processes == 2
        study.note_processes(0, 4)
        complete(study, again, {"val_accuracy": 0.5})
        config = read_history(tmp_path).record(0).trial_config
        assert config.model_copy(update={"processes": 1}) == asked.config
        assert (config.processes, config.digest != asked.config.digest) == (4, True)
        near = asked.config.model_copy(update={"head_lr": asked.config.head_lr * 1.001})
        assert find_near_duplicate(study.records(), near, spec) == 0


def test_a_record_names_the_process_that_ran_it_last(tmp_path: Path) -> None:
    """It is noted once a process; a journal that tells of none has none."""
    with Study.open(tmp_path, spec_of()) as study:
        asked = ask(study)
        assert study.record(asked.number).worker == ""
        for worker in ("node1 pid 7", "node1 pid 7", "node1 GPU 0,1 pid 8"):
            study.note_worker(asked.number, worker)
    assert read_history(tmp_path).record(asked.number).worker == "node1 GPU 0,1 pid 8"
    assert (tmp_path / "study.journal").read_text().count("worker") == 2


def test_a_record_names_the_stages_that_its_trial_used(tmp_path: Path) -> None:
    """Told with epochs and the outcome, they survive kill -9 and a process that begins again; made is not saved."""

    def epoch(number: int, **stages: float | None) -> Measurement:
        return Measurement(number, {"val_accuracy": 0.5}, stages=stages)

    with Study.open(tmp_path, spec_of()) as study:
        number = ask(study).number
        study.report(number, epoch(1, pack=3.0, head=None))
    (record,) = read_history(tmp_path).records
    assert (record.status, record.stages, record.saved) == ("running", {"pack": 3.0, "head": None}, 3.0)
    with Study.open(tmp_path, spec_of()) as study:
        assert ask(study).number == number
        study.report(number, epoch(1, head=2.0, other=4.0))
        assert study.record(number).stages == {"pack": 3.0, "head": None, "other": 4.0}  # that epoch was told before
        study.tell_complete(number, {"metrics": {"val_accuracy": 0.5}, "epochs": 2, "stages": {"costs": 1.0}})
    (record,) = read_history(tmp_path).records
    assert record.stages == {"pack": 3.0, "head": None, "other": 4.0, "costs": 1.0}
    assert record.saved == 8.0


def test_documented_experiments_come_first_and_teach_what_fits(tmp_path: Path) -> None:
    """In their order, with exactly the configs that the spec gives them.

    Weight decay 0 is in no logarithmic domain: the sampler gets the other settings, the record gets all.
    """
    spec = spec_of()
    with Study.open(tmp_path, spec) as study:
        asked = run_all(study)
        record = study.record(0)
    assert [(a.experiment, a.config) for a in asked[:2]] == spec.experiment_configs()
    assert [a.experiment for a in asked[2:]] == [None] * 4
    assert record.settings == {"dropout": 0.0, "head_lr": 1e-3, "weight_decay": 0.0}
    seen = Sampler(spec.search, seed=0)._trial_of(record)
    assert seen is not None
    assert seen.params == {"dropout": 0.0, "head_lr": 1e-3}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_the_same_seed_asks_the_same_even_over_a_restart(tmp_path: Path, sampler: str) -> None:
    """A study that is reopened after each trial asks what an uninterrupted one asks; another seed asks otherwise."""
    spec = spec_of(trials=14, sampler=sampler)
    with Study.open(tmp_path / "whole", spec) as study:
        whole = [a.config for a in run_all(study)]
    pieces = []
    for _ in range(14):
        with Study.open(tmp_path / "pieces", spec) as study:
            pieces.append(ask(study))
            complete(study, pieces[-1], {"val_accuracy": score(pieces[-1])})
    with Study.open(tmp_path / "other", spec_of(trials=14, sampler=sampler, seed=1)) as study:
        other = [a.settings for a in run_all(study)]
    assert whole == [a.config for a in pieces]
    assert other[2:] != [a.settings for a in pieces][2:]


@pytest.mark.parametrize("metrics", [{"val_accuracy": math.nan}, {"val_accuracy": 0.5, "train_loss": math.inf}])
def test_a_measurement_that_is_not_finite_fails_the_trial(tmp_path: Path, metrics: dict[str, float]) -> None:
    """NaN or infinity in any metric fails the trial with its reason and keeps the last finite measurement."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        asked = ask(study)
        study.report(asked.number, Measurement(1, {"val_accuracy": 0.4}))
        assert study.report(asked.number, Measurement(2, metrics))
        record = study.record(asked.number)
        assert not study.is_live(asked.number)
    assert record.status == "failed"
    assert "became NaN or infinite after epoch 2" in record.reason
    assert record.metrics == {"val_accuracy": 0.4}


def test_unfinished_trials_are_handed_out_first_and_asked_once(tmp_path: Path) -> None:
    """What a dead driver left running is handed out again with the same config before anything new."""
    first = Study.open(tmp_path, spec_of())
    lost = [ask(first) for _ in range(3)]
    first.report(lost[2].number, Measurement(1, {"val_accuracy": 0.5}))
    first.close()
    with Study.open(tmp_path, spec_of()) as study:
        again = run_all(study)
        records = study.records()
    assert again[:3] == lost
    assert [record.status for record in records] == ["complete"] * 6


def test_a_trial_that_kills_its_driver_again_and_again_fails(tmp_path: Path) -> None:
    """After the last attempt without a new epoch a trial is closed as failed, and the sweep goes on."""
    for _ in range(MAX_ATTEMPTS):
        study = Study.open(tmp_path, spec_of())
        asked = ask(study)
        study.report(asked.number, Measurement(1, {"val_accuracy": 0.5}))
        study.close()
        assert asked.number == 0
    study = Study.open(tmp_path, spec_of())
    assert ask(study).number == 0  # the first driver that died left an epoch, so that one did not count
    study.close()
    with Study.open(tmp_path, spec_of()) as study:
        assert ask(study).number == 1
        record = study.record(0)
    assert (record.status, record.epochs, record.metrics) == ("failed", 1, {"val_accuracy": 0.5})
    assert "lost 3 times" in record.reason


@pytest.mark.parametrize("way", ["stopped", "goes on"])
def test_what_costs_no_attempt_may_happen_any_number_of_times(tmp_path: Path, way: str) -> None:
    """Stopping on purpose, and drivers that die as long as each leaves an epoch more than the last."""
    for last in range(1, 3 * MAX_ATTEMPTS):
        with Study.open(tmp_path, spec_of()) as study:
            assert ask(study).number == 0
            if way == "stopped":
                study.release()
            else:
                study.report(0, Measurement(last, {"val_accuracy": last / 10}))


def test_a_config_that_was_complete_before_is_not_computed_again(tmp_path: Path) -> None:
    """A small space is exhausted: each config is handed out, listed and announced once, with those drawn again.

    It has no more work then, also for the next driver; only a larger budget looks again.
    """
    spec = spec_of(experiments=(), trials=10, search={"dropout": Choice((0.0, 0.1, 0.2))})
    with Study.open(tmp_path, spec) as study:
        asked = run_all(study)
        numbers, records = [a.number for a in asked], study.records()
        assert [record.number for record in study.take_finished()] == numbers
    assert sorted(a.config.dropout for a in asked) == [0.0, 0.1, 0.2]
    assert [record.number for record in records] == numbers
    drawn = [(twin, record) for record in records for twin in record.duplicates]
    assert drawn
    assert all((twin.settings, twin.near) == (record.settings, False) for twin, record in drawn)
    assert sorted([*numbers, *(twin.number for twin, _ in drawn)]) == list(range(len(numbers) + len(drawn)))
    with Study.open(tmp_path, spec) as study:
        assert not study.has_work
        assert study.ask() is None
        assert study.records() == records
    with Study.open(tmp_path, spec.model_copy(update={"trials": 11})) as study:
        assert study.has_work


def test_a_duplicate_of_a_running_trial_is_not_run(tmp_path: Path) -> None:
    """While its twin runs a duplicate is not computed; what comes of the twin, also of a failed one, is its result."""
    spec = spec_of(experiments=(), trials=10, search={"dropout": Choice((0.0, 0.1, 0.2))})
    with Study.open(tmp_path, spec) as study:
        asked = list(asked_of(study))
        assert len(asked) == 3
        assert {r.status for r in study.records()} == {"running"}
        assert not study.report(asked[0].number, Measurement(1, {"val_accuracy": 0.9}))
        assert study.report(asked[1].number, Measurement(1, {"val_accuracy": 0.1}))
        study.tell_pruned(asked[1].number)
        study.tell_failed(asked[2].number, "no memory")
        twins = [(record.config["dropout"], record.status) for record in study.records() if record.duplicates]
        assert twins
        assert study.ask() is None
        assert len(study.records()) == 3


def test_a_sweep_can_be_extended_but_not_become_another(tmp_path: Path) -> None:
    """The same spec with more trials runs the difference, by equal records; another one is refused with the remedy."""
    with Study.open(tmp_path, spec_of(trials=3)) as study:
        assert len(run_all(study)) == 3
        before = study.records()
    with Study.open(tmp_path, spec_of(trials=5)) as study:
        assert study.records() == before
        assert len(run_all(study)) == 2
        assert not study.has_work
    with pytest.raises(InputError, match=r"name must .* --name"):
        Study.open(tmp_path, spec_of(trials=5, seed=7))


def test_starts_are_run_after_the_experiments_and_once(tmp_path: Path) -> None:
    """A start may lie outside of the search space, comes before the search, and is not run again after a restart."""
    spec = spec_of(experiments=("transfer/frozen",), starts=({"dropout": 0.66, "epochs": 4},), trials=4)
    with Study.open(tmp_path, spec) as study:
        first, second = ask(study), ask(study)
        for asked in (first, second):
            complete(study, asked, {"val_accuracy": 0.5})
    assert (first.experiment, second.experiment) == ("transfer/frozen", None)
    assert (second.config.dropout, second.config.epochs) == (0.66, 4)
    with Study.open(tmp_path, spec) as study:
        rest = run_all(study)
    assert len(rest) == 2
    assert all(asked.config.dropout != 0.66 for asked in rest)


def test_a_trial_has_its_epochs_whoever_reads_it(tmp_path: Path) -> None:
    """Each epoch once and in order: in the driver that heard them, in the next one, and for those who only look.

    The journal has each whole measurement in one line, and does not repeat what else it knows of the trial.
    """
    metrics = {f"metric_{i}": 0.123456789 for i in range(20)}
    first = [Measurement(epoch, {"val_accuracy": epoch / 10, **metrics}, trained=epoch > 1) for epoch in (1, 2, 3)]
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        numbers = [ask(study).number for _ in range(2)]
        before = (tmp_path / JOURNAL).stat().st_size
        for measurement in first:
            for number in numbers:
                study.report(number, measurement)
        assert (tmp_path / JOURNAL).stat().st_size - before < 6 * (len(json.dumps(first[0].metrics)) + 200)
        record = study.record(numbers[0])
        assert list(record.history) == first
        assert (record.metrics, record.epochs) == (first[-1].metrics, 3)
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        ask(study)
        # A process that died after its report tells it again, perhaps otherwise; the first report stands.
        study.report(numbers[0], replace(first[-1], metrics={"val_accuracy": 0.9}))
        assert [list(r.history) for r in study.records()] == [first, first]
        assert study.record(numbers[1]).history[1:] == tuple(first[1:])
    seen = read_history(tmp_path).records[0].history
    assert list(seen) == first
    (tmp_path / JOURNAL).write_text("another one\n")
    with pytest.raises(InputError, match="written anew"):
        list(seen)


def test_journals_of_older_versions_are_read(tmp_path: Path) -> None:
    """Their epochs hold the objective alone; a trial that was begun but never handed out is none."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        study.report(ask(study).number, Measurement(1, {"val_accuracy": 0.5, "val_loss": 1.0}))

    def as_before(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for log in (log for log in logs if "measured" in log):
            log["intermediate_value"] = log.pop("measured")["metrics"]["val_accuracy"]
        return [*logs, {"op_code": 4, "study_id": 0}]

    rewrite_journal(tmp_path, as_before)
    (record,) = read_history(tmp_path).records
    assert list(record.history) == [Measurement(1, {"val_accuracy": 0.5})]
    assert (record.metrics, record.epochs) == ({"val_accuracy": 0.5}, 1)
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        assert len(run_all(study)) == len(study.records()) == 6
