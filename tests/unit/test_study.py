"""The durable study, without Ray."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.spec.conditions import fits
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice, FloatDomain, IntDomain
from sweeps.spec.spec import SweepSpec
from sweeps.study.journal import sealed
from sweeps.study.records import read_history
from sweeps.study.sampling import Sampler, to_distribution
from sweeps.study.study import MAX_ATTEMPTS, Asked, Study

FROZEN = ("transfer/frozen", "transfer/frozen-augmented")


def spec_of(**changes: object) -> SweepSpec:
    """Two documented experiments and four searched trials; with changes."""
    fields = {
        "family": "transfer",
        "trials": 6,
        "experiments": FROZEN,
        "search": {
            "dropout": FloatDomain(0.0, 0.5),
            "head_lr": FloatDomain(1e-4, 1e-2, log=True),
            "weight_decay": FloatDomain(1e-6, 1e-2, log=True),
        },
        "early_stopping": EarlyStopping(min_epochs=1, reduction=3, within_kind=0.0),
    }
    return SweepSpec.model_validate({**fields, **changes})


def score(asked: Asked) -> float:
    """A smooth accuracy with its best at dropout 0.2 and head_lr 1e-3."""
    return 1.0 - (asked.config.dropout - 0.2) ** 2 - (math.log10(asked.config.head_lr) + 3) ** 2 / 10


def complete(study: Study, asked: Asked, accuracy: float | None = None) -> None:
    """Report the last epoch, at which nobody is stopped, and close the trial with it."""
    value, epochs = score(asked) if accuracy is None else accuracy, asked.config.epochs
    assert not study.report(asked.number, Measurement(epochs, {"val_accuracy": value}))
    study.tell_complete(asked.number, {"val_accuracy": value}, epochs, 0.5, {"model": "m"})


def ask(study: Study) -> Asked:
    """Ask for a trial that must be there."""
    asked = study.ask()
    assert asked is not None
    return asked


def run_all(study: Study) -> list[Asked]:
    """Complete all that the study still owes."""
    done = []
    while (asked := study.ask()) is not None:
        complete(study, asked)
        done.append(asked)
    return done


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
        assert study.record(number).stages == {"pack": 3.0, "head": None}  # that epoch was told before
        study.tell_complete(number, {"val_accuracy": 0.5}, 2, 1.0, {"stages": {"costs": 1.0}})
    (record,) = read_history(tmp_path).records
    assert record.stages == {"pack": 3.0, "head": None, "other": 4.0, "costs": 1.0}
    assert record.saved == 8.0


@pytest.mark.parametrize(
    "domain",
    [
        FloatDomain(0.0, 0.5),
        FloatDomain(1e-5, 1e-1, log=True),
        IntDomain(2, 8, step=3),
        IntDomain(1, 64, log=True),
        Choice(("adam", "sgd")),
        Choice((True, False)),
        Choice((1, 2.5, "x")),
    ],
    ids=str,
)
def test_distributions_hold_what_their_domains_draw(domain: FloatDomain | IntDomain | Choice) -> None:
    """Optuna takes the ends of a domain and whatever is drawn from it, and draws itself what fits into it."""
    distributions = {"it": to_distribution(domain)}
    assert all(fits(domain, end) for end in domain.ends())
    for value in (*domain.ends(), *(domain.draw(random.Random(seed)) for seed in range(20))):
        optuna.trial.create_trial(value=0.0, params={"it": value}, distributions=distributions)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert all(fits(domain, study.ask(distributions).params["it"]) for _ in range(20))


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (FloatDomain(1e-6, 1.0, log=True), 0.0),
        (IntDomain(2, 8, step=3), 4),
        (IntDomain(0, 1), True),
        (Choice((True, False)), 1),
        (FloatDomain(0.0, 1.0), "0.5"),
    ],
)
def test_values_that_a_domain_never_gives_do_not_fit(domain: FloatDomain | IntDomain | Choice, value: object) -> None:
    """A value outside of a range, between its steps or of another type does not fit."""
    assert not fits(domain, value)


def test_documented_experiments_come_first_in_their_order(tmp_path: Path) -> None:
    """The first trials are the documented experiments with exactly the configs that the spec gives them."""
    spec = spec_of()
    with Study.open(tmp_path, spec) as study:
        asked = run_all(study)
    assert [(a.experiment, a.config) for a in asked[:2]] == spec.experiment_configs()
    assert [a.experiment for a in asked[2:]] == [None] * 4


def test_an_experiment_outside_of_the_domains_teaches_what_fits(tmp_path: Path) -> None:
    """Weight decay 0 is in no logarithmic domain: the sampler gets the other settings, the record gets all."""
    with Study.open(tmp_path, spec_of()) as study:
        complete(study, ask(study))
        record = study.record(0)
    assert record.settings == {"dropout": 0.0, "head_lr": 1e-3, "weight_decay": 0.0}
    seen = Sampler(spec_of().search, seed=0)._trial_of(record)
    assert seen is not None
    assert seen.params == {"dropout": 0.0, "head_lr": 1e-3}


def test_the_same_seed_asks_the_same_even_over_a_restart(tmp_path: Path) -> None:
    """A study that is reopened after each trial asks what an uninterrupted one asks; another seed asks otherwise."""
    spec = spec_of(trials=14)
    with Study.open(tmp_path / "whole", spec) as study:
        whole = [a.config for a in run_all(study)]
    pieces = []
    for _ in range(14):
        with Study.open(tmp_path / "pieces", spec) as study:
            pieces.append(ask(study))
            complete(study, pieces[-1])
    with Study.open(tmp_path / "other", spec_of(trials=14, seed=1)) as study:
        other = [a.settings for a in run_all(study)]
    assert whole == [a.config for a in pieces]
    assert other[2:] != [a.settings for a in pieces][2:]


def test_the_search_learns_and_optuna_stays_quiet(tmp_path: Path) -> None:
    """Later trials score better on average than the random ones of the start; no draw is told on stderr."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with Study.open(tmp_path, spec_of(trials=40, experiments=())) as study:
        scores = [score(asked) for asked in run_all(study)]
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert sum(scores[-10:]) / 10 > sum(scores[:8]) / 8


def test_a_trial_that_others_beat_is_pruned_at_its_step(tmp_path: Path) -> None:
    """Successive halving stops a worse trial at its rung; the record keeps the step and the last measurement."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        good, bad = ask(study), ask(study)
        assert not study.report(good.number, Measurement(1, {"val_accuracy": 0.9, "val_loss": 1.0}))
        assert study.report(bad.number, Measurement(1, {"val_accuracy": 0.1, "val_loss": 3.0}), seconds=7.0)
        study.tell_pruned(bad.number)
        record = study.record(bad.number)
    assert (record.status, record.epochs, record.seconds) == ("pruned", 1, 7.0)
    assert record.metrics == {"val_accuracy": 0.1, "val_loss": 3.0}
    assert "after epoch 1" in record.reason


def test_the_scores_of_a_failed_trial_stop_nobody(tmp_path: Path) -> None:
    """A trial that led at a rung and then became NaN came to nothing: whoever is best without it goes on."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        failing, better, worse = ask(study), ask(study), ask(study)
        assert not study.report(failing.number, Measurement(1, {"val_accuracy": 0.9}))
        assert study.report(failing.number, Measurement(2, {"val_accuracy": math.nan}))
        assert not study.report(better.number, Measurement(1, {"val_accuracy": 0.8}))
        assert study.report(worse.number, Measurement(1, {"val_accuracy": 0.7}))


def test_documented_experiments_are_never_pruned_but_set_the_standard(tmp_path: Path) -> None:
    """A bad documented experiment goes on; a searched trial is measured against a good one."""
    with Study.open(tmp_path, spec_of()) as study:
        good, bad, searched = ask(study), ask(study), ask(study)
        assert not study.report(good.number, Measurement(1, {"val_accuracy": 0.9}))
        assert not any(study.report(bad.number, Measurement(epoch, {"val_accuracy": 0.01})) for epoch in range(1, 10))
        assert study.report(searched.number, Measurement(1, {"val_accuracy": 0.5}))


def test_a_trial_that_finished_its_last_epoch_is_not_pruned(tmp_path: Path) -> None:
    """However bad, a trial with nothing left to save is complete."""
    spec = spec_of(experiments=(), config={"epochs": 2})
    with Study.open(tmp_path, spec) as study:
        for accuracy in (0.9, 0.8):
            asked = ask(study)
            assert study.report(asked.number, Measurement(1, {"val_accuracy": accuracy})) == (accuracy < 0.9)
        last = ask(study)
        assert not study.report(last.number, Measurement(2, {"val_accuracy": 0.1}))


def test_without_early_stopping_nothing_is_pruned(tmp_path: Path) -> None:
    """With early stopping disabled a worse trial goes on."""
    with Study.open(tmp_path, spec_of(experiments=(), early_stopping=EarlyStopping(enabled=False))) as study:
        good, bad = ask(study), ask(study)
        study.report(good.number, Measurement(1, {"val_accuracy": 0.9}))
        assert not study.report(bad.number, Measurement(1, {"val_accuracy": 0.1}))


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


def test_reporting_an_epoch_again_changes_nothing(tmp_path: Path) -> None:
    """A trial that is computed again may report its epochs again; the first report stands."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        asked = ask(study)
        for value in (0.3, 0.7):
            assert not study.report(asked.number, Measurement(1, {"val_accuracy": value}))
        assert [measurement.metrics["val_accuracy"] for measurement in study.record(0).history] == [0.3]


def test_records_are_rebuilt_from_the_journal_alone(tmp_path: Path) -> None:
    """Another process that opens the folder sees equal records."""
    with Study.open(tmp_path, spec_of()) as study:
        run_all(study)
        before = study.records()
    with Study.open(tmp_path, spec_of()) as study:
        assert study.records() == before
        assert not study.has_work
    assert before[0].model == "m"


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


def test_a_trial_that_goes_on_outlives_any_number_of_drivers(tmp_path: Path) -> None:
    """Drivers that die cost a trial nothing as long as each leaves an epoch more than the last."""
    for epoch in range(1, 3 * MAX_ATTEMPTS):
        study = Study.open(tmp_path, spec_of())
        asked = ask(study)
        assert asked.number == 0
        for known in range(1, epoch + 1):
            study.report(asked.number, Measurement(known, {"val_accuracy": known / 10}))
        study.close()


def test_stopping_on_purpose_costs_no_attempt(tmp_path: Path) -> None:
    """Ctrl-C may be pressed any number of times."""
    for _ in range(MAX_ATTEMPTS + 2):
        with Study.open(tmp_path, spec_of()) as study:
            assert ask(study).number == 0
            study.release()


def test_a_driver_that_died_while_asking_leaves_no_trial(tmp_path: Path) -> None:
    """A trial that an older version began but never handed out is not shown and costs no budget."""
    line, _ = sealed({"op_code": 4, "study_id": 0})
    (tmp_path / "study.journal").write_bytes(line)
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        assert len(run_all(study)) == 6
        assert len(study.records()) == 6


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """A journal whose last line was not written to the end can be read and appended to."""
    with Study.open(tmp_path, spec_of()) as study:
        complete(study, ask(study))
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    with Study.open(tmp_path, spec_of()) as study:
        run_all(study)
    with Study.open(tmp_path, spec_of()) as study:
        assert len(study.records()) == 6


def test_a_config_that_was_complete_before_is_not_computed_again(tmp_path: Path) -> None:
    """A small space is exhausted: each config is handed out, listed and announced once, with those drawn again."""
    spec = spec_of(experiments=(), trials=10, search={"dropout": Choice((0.0, 0.1, 0.2))})
    with Study.open(tmp_path, spec) as study:
        asked = run_all(study)
        numbers, records = [a.number for a in asked], study.records()
        assert [record.number for record in study.take_finished()] == numbers
    assert sorted(a.config.dropout for a in asked) == [0.0, 0.1, 0.2]
    assert [record.number for record in records] == numbers
    drawn = [(twin, record) for record in records for twin in record.twins]
    assert drawn
    assert all((twin.settings, twin.near) == (record.settings, False) for twin, record in drawn)
    assert sorted([*numbers, *(twin.number for twin, _ in drawn)]) == list(range(len(numbers) + len(drawn)))


def test_an_exhausted_space_is_not_searched_again(tmp_path: Path) -> None:
    """What holds nothing new has no more work, also for the next driver; only a larger budget looks again."""
    small = spec_of(experiments=(), trials=10, search={"dropout": Choice((0.0, 0.1))})
    with Study.open(tmp_path, small) as study:
        run_all(study)
        assert not study.has_work
        drawn = study.records()
    with Study.open(tmp_path, small) as study:
        assert not study.has_work
        assert study.ask() is None
        assert study.records() == drawn
    with Study.open(tmp_path, small.model_copy(update={"trials": 11})) as study:
        assert study.has_work


def test_a_duplicate_of_a_running_trial_is_not_run(tmp_path: Path) -> None:
    """While its twin runs a duplicate is not computed; what comes of the twin, also of a failed one, is its result."""
    spec = spec_of(experiments=(), trials=10, search={"dropout": Choice((0.0, 0.1, 0.2))})
    with Study.open(tmp_path, spec) as study:
        asked = [a for a in iter(study.ask, None) if a is not None]
        assert len(asked) == 3
        assert {r.status for r in study.records()} == {"running"}
        assert not study.report(asked[0].number, Measurement(1, {"val_accuracy": 0.9}))
        assert study.report(asked[1].number, Measurement(1, {"val_accuracy": 0.1}))
        study.tell_pruned(asked[1].number)
        study.tell_failed(asked[2].number, "no memory")
        twins = [(record.config["dropout"], record.status) for record in study.records() if record.twins]
        assert twins
        assert study.ask() is None
        assert len(study.records()) == 3


def test_a_sweep_can_be_extended(tmp_path: Path) -> None:
    """The same spec with more trials runs the difference."""
    with Study.open(tmp_path, spec_of(trials=3)) as study:
        assert len(run_all(study)) == 3
    with Study.open(tmp_path, spec_of(trials=5)) as study:
        assert len(run_all(study)) == 2


def test_another_spec_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """A folder whose trials were made by another spec is refused with the remedy."""
    with Study.open(tmp_path, spec_of()):
        pass
    with pytest.raises(InputError, match=r"name must .* --name"):
        Study.open(tmp_path, spec_of(seed=7))


def test_an_epoch_costs_one_line_of_its_metrics(tmp_path: Path) -> None:
    """The journal has each epoch's whole measurement once, in one line."""
    metrics = {f"metric_{i}": 0.123456789 for i in range(20)} | {"val_accuracy": 0.5}
    with Study.open(tmp_path, spec_of(experiments=(), early_stopping=EarlyStopping(enabled=False))) as study:
        asked = ask(study)
        before = (tmp_path / "study.journal").stat().st_size
        for epoch in (*range(1, 101), 100):
            study.report(asked.number, Measurement(epoch, metrics))
        grown = (tmp_path / "study.journal").stat().st_size - before
    assert grown < 100 * (len(json.dumps(metrics)) + 200)
    lines = (tmp_path / "study.journal").read_text().splitlines()
    assert sum("measured" in json.loads(line) for line in lines) == 100


def test_a_trial_has_its_epochs_whoever_reads_it(tmp_path: Path) -> None:
    """Each epoch once and in order: in the driver that heard them, in the next one, and for those who only look."""
    told = [Measurement(epoch, {"val_accuracy": epoch / 10, "val_loss": 1.0}, trained=epoch > 1) for epoch in (1, 2, 3)]
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        first, second = ask(study), ask(study)
        for measurement in told:
            study.report(first.number, measurement)
            study.report(second.number, measurement)
        record = study.record(first.number)
        assert list(record.history) == told
        assert (record.metrics, record.epochs) == (told[-1].metrics, 3)
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        ask(study)
        study.report(first.number, told[-1])  # a process that died after its report tells it again
        assert [list(r.history) for r in study.records()] == [told, told]
        assert study.record(second.number).history[1:] == tuple(told[1:])
    seen = read_history(tmp_path).records[0].history
    assert list(seen) == told
    (tmp_path / "study.journal").write_text("another one\n")
    with pytest.raises(InputError, match="written anew"):
        list(seen)


def chained(logs: list[dict[str, Any]]) -> bytes:
    """Return the lines of a journal, each with its sum."""
    content, total = b"", 0
    for log in logs:
        line, total = sealed({name: value for name, value in log.items() if name != "sum"}, total)
        content += line
    return content


def test_a_journal_of_older_versions_has_the_accuracy_of_each_epoch(tmp_path: Path) -> None:
    """Its epochs hold the objective alone."""
    with Study.open(tmp_path, spec_of(experiments=())) as study:
        asked = ask(study)
        study.report(asked.number, Measurement(1, {"val_accuracy": 0.5, "val_loss": 1.0}))
    journal = tmp_path / "study.journal"
    logs = [json.loads(line) for line in journal.read_text().splitlines()]
    (epoch,) = [log for log in logs if "measured" in log]
    epoch["intermediate_value"] = epoch.pop("measured")["metrics"]["val_accuracy"]
    journal.write_bytes(chained(logs))
    record = read_history(tmp_path).records[0]
    assert list(record.history) == [Measurement(1, {"val_accuracy": 0.5})]
    assert (record.metrics, record.epochs) == ({"val_accuracy": 0.5}, 1)
