"""How much settings matter: Optuna's own numbers, on what the journal tells."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import optuna
import pytest
from helpers import trial_record
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

from carcls.outcome import Measurement
from sweeps.spec.space import Choice, Domain, Range
from sweeps.study.importance import MOST, TREES, importances_of
from sweeps.study.sampling import to_distribution
from sweeps.trial import TrialRecord

SEARCH: dict[str, Domain] = {
    "dropout": Range(0.0, 0.7),
    "head_lr": Range(1e-4, 1e-2, log=True),
    "unfreezing": Choice(("frozen", "full")),
    "backbone_lr": Range(1e-5, 1e-3, log=True),
}


def trials(count: int) -> list[TrialRecord]:
    """Return trials whose accuracy is 1 - dropout, and more when unfrozen; the frozen have no backbone_lr."""
    dice, found = Random(1), []
    for number in range(count):
        settings = {name: domain.draw(dice) for name, domain in SEARCH.items()}
        is_frozen = settings["unfreezing"] == "frozen"
        settings |= {"backbone_lr": None} if is_frozen else {}
        own = {name: value for name, value in settings.items() if value is not None}
        found.append(trial_record(number, 1 - own["dropout"] + 0.2 * (not is_frozen), settings=own, config=own))
    return found


def test_importances_are_those_of_optuna() -> None:
    """Shares of settings that all trials have are those of one study; of others, among the trials that have them."""
    records = trials(40)
    study = optuna.create_study(direction="maximize")
    for record in records:
        distributions = {name: to_distribution(SEARCH[name]) for name in record.settings}
        study.add_trial(
            optuna.create_trial(
                value=record.metrics["val_accuracy"], params=dict(record.settings), distributions=distributions
            )
        )
    found = importances_of(records, SEARCH, seed=3)
    ped = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    assert {one.setting: one.ped_anova for one in found.settings} == pytest.approx(ped)
    forest = FanovaImportanceEvaluator(n_trees=TREES, seed=3)
    always = get_param_importances(study, evaluator=forest, params=["dropout", "head_lr", "unfreezing"])
    some = get_param_importances(study, evaluator=forest, params=[*SEARCH])
    expected = {**always, "backbone_lr": some["backbone_lr"]}
    assert {one.setting: one.f_anova for one in found.settings} == pytest.approx(expected)
    unfrozen = sum(record.settings["unfreezing"] == "full" for record in records)
    assert {one.setting: one.trials for one in found.settings} == {**dict.fromkeys(always, 40), "backbone_lr": unfrozen}
    assert [one.setting for one in found.settings if one.conditional] == ["backbone_lr"]
    assert found == importances_of(records, SEARCH, seed=3)


def test_only_complete_trials_of_the_search_inside_of_it_are_seen() -> None:
    """A stopped trial has the score of fewer epochs; one from outside of the space has a value nobody searches."""
    records = trials(20)
    outside = trial_record(20, 0.1, settings={**records[0].settings, "dropout": 0.9})
    others = [replace(records[0], number=21, status="pruned"), replace(records[0], number=22, confirms=0)]
    found = importances_of([*records, outside, *others], SEARCH)
    assert (found.settings, found.trials, found.outside) == (importances_of(records, SEARCH).settings, 20, 1)


def test_where_few_are_complete_all_are_compared_after_an_equal_number_of_epochs() -> None:
    """The last epoch that ten trials came to; what they scored later, or that they were stopped, does not count."""
    records = trials(20)
    early = [
        replace(
            record,
            status="complete" if record.number < 5 else "pruned",
            metrics={"val_accuracy": 0.9},
            history=[
                Measurement(1, {"val_accuracy": 0.1}),
                Measurement(2, record.metrics),
                *([Measurement(3, {"val_accuracy": 0.9})] if record.number < 5 else []),
            ],
        )
        for record in records
    ]
    found = importances_of(early, SEARCH)
    assert (found.epoch, found.trials) == (2, 20)
    assert found.settings == importances_of(records, SEARCH).settings
    assert found.settings[0].ped_anova is not None


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (trials(9), "fewer than 10 trials"),
        ([replace(one, settings={"dropout": 0.1}) for one in trials(20)], "one value only"),
        ([replace(one, metrics={"val_accuracy": 0.5}) for one in trials(20)], "all trials scored the same"),
        ([], "fewer than 10 trials"),
    ],
)
def test_where_a_setting_has_no_importance(records: list[TrialRecord], why: str) -> None:
    """Words say why, in the place of shares that mean nothing."""
    (dropout,) = importances_of(records, {"dropout": SEARCH["dropout"]}).settings
    assert (dropout.why_not, dropout.ped_anova, dropout.f_anova) == (why, None, None)


def test_derived_trials_of_one_network_tell_as_much_of_its_training_as_one() -> None:
    """Two networks with ten answers each say something of k, and nothing of dropout."""
    search: dict[str, Domain] = {"dropout": SEARCH["dropout"], "k": Range(1, 20, step=1)}
    records = [
        trial_record(
            20 * network + k, 0.5 + k / 100, settings={"dropout": network / 10, "k": k}, derived_from=20 * network
        )
        for network in (0, 1)
        for k in range(1, 11)
    ]
    found = importances_of(records, search)
    assert (found.trials, found.networks) == (20, 2)
    assert {one.setting: (one.trials, one.why_not) for one in found.settings} == {
        "k": (20, ""),
        "dropout": (2, "fewer than 10 trials"),
    }


def test_of_many_trials_some_are_seen() -> None:
    """The same ones each time, and how many are left out is said."""
    records = [trial_record(n, n / 1000, settings={"dropout": n / 1000}, config={"dropout": 0.1}) for n in range(500)]
    found = importances_of(records, {"dropout": SEARCH["dropout"]})
    assert (found.trials, found.thinned) == (MOST, 500 - MOST)
    assert found == importances_of(records, {"dropout": SEARCH["dropout"]})
