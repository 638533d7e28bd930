"""How much each searched setting matters, by Optuna's PED-ANOVA and f-ANOVA.

PED-ANOVA asks which settings distinguish the best tenth of the trials from all of them (Watanabe et al. 2023, with
conditions 2026); f-ANOVA how much of the variance of the score a setting explains alone (Hutter et al. 2014). They
answer different questions, so both are given. PED-ANOVA may overrate a setting that only some trials have.

Both see trials with values from inside of the search space, and scores after equally many epochs: complete trials, or,
where there are too few, what trials scored after the last epoch that enough of them came to. Derived trials count; all
those of one network say together as much of how it was trained as one does.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.spec.space import Domain, fits
from sweeps.study.sampling import to_distribution
from sweeps.trial import TrialRecord

LEAST = 10
# f-ANOVA takes seconds for so many; of more, so many are drawn by lot.
MOST = 200
# Of f-ANOVA's forest. Optuna's 64 take four times as long and change shares by about a hundredth.
TREES = 16


@dataclass(frozen=True, slots=True)
class Importance:
    """How much one setting matters.

    Attributes:
        setting: its name.
        trials: how many observations it rests on: trials, where those of one network with the same value are one.
        conditional: whether some trials lack it; then f-ANOVA compares it with the others among those that have it.
        ped_anova, f_anova: shares of all settings in [0, 1]; None where ``why_not`` says why.
        why_not: a reason in words; empty where there are shares.
    """

    setting: str
    trials: int
    conditional: bool
    ped_anova: float | None = None
    f_anova: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Importances:
    """What ``importances_of`` found.

    Attributes:
        settings: each searched setting, those that matter most first.
        trials, networks: trials that were seen, and how many trainings they come from.
        outside: trials that were not, since a value of theirs lies outside of the search space.
        thinned: trials that were not: of more than MOST, so many are drawn by lot.
        epoch: after which all were scored, since fewer than LEAST are complete; 0 where complete ones are seen.
    """

    settings: tuple[Importance, ...]
    trials: int
    networks: int
    outside: int = 0
    thinned: int = 0
    epoch: int = 0


def importances_of(
    records: Sequence[TrialRecord], search: Mapping[str, Domain], goals: Goals = ACCURACY_ALONE, seed: int = 0
) -> Importances:
    """Return how much each setting matters for the first objective; the same records and seed give the same shares.

    Args:
        records: of one sweep; runs with fresh seeds repeat others, and are not seen.
        search: domains by setting.
        goals: of the sweep.
        seed: of f-ANOVA's forest.
    """
    searched = [record for record in records if record.confirms is None]
    told = [r for r in searched if all(fits(search[n], value) for n, value in r.settings.items() if n in search)]
    epoch, scores = _scores(told, goals.first.metric)
    inside = [record for record in told if record.number in scores]
    drawn = sorted(Random(seed).sample(range(len(inside)), MOST)) if len(inside) > MOST else range(len(inside))
    seen = [inside[place] for place in drawn]
    found = [_look_at(name, domain, seen, scores) for name, domain in search.items()]
    usable = [one for one in found if not one.why_not]
    shares = (
        _shares(seen, scores, {one.setting: one.conditional for one in usable}, search, goals, seed) if usable else {}
    )
    rated = [
        Importance(one.setting, one.trials, one.conditional, *shares[one.setting]) if one in usable else one
        for one in found
    ]
    rated.sort(key=lambda one: (-(one.ped_anova or 0.0) - (one.f_anova or 0.0), one.setting))
    networks = len({record.network for record in seen})
    outside = sum(record.status == "complete" for record in searched) - sum(r.status == "complete" for r in told)
    return Importances(tuple(rated), len(seen), networks, outside, len(inside) - len(seen), epoch)


def _scores(records: Sequence[TrialRecord], metric: str) -> tuple[int, dict[int, float]]:
    """Return the scores of trials by number, and the epoch after which they had them; 0 for those of complete ones."""
    complete = {
        r.number: r.metrics[metric] for r in records if r.status == "complete" and r.measured(metric) is not None
    }
    # neighbours' votes are measured at the end alone; before it stands the classifier's score
    by_neighbours = any(record.trial_config.has_neighbours for record in records[:1])
    if len(complete) >= LEAST or by_neighbours:
        return 0, complete
    by_epoch = defaultdict[int, dict[int, float]](dict)
    for record in records:
        for said in record.history:
            by_epoch[said.epoch] |= {record.number: said.metrics[metric]} if metric in said.metrics else {}
    last = max((epoch for epoch, scores in by_epoch.items() if len(scores) >= LEAST), default=0)
    return last, by_epoch[last] if last else complete


def _look_at(name: str, domain: Domain, seen: Sequence[TrialRecord], scores: Mapping[int, float]) -> Importance:
    """Return what a setting's importance would rest on, and why there is none, if so."""
    having = [record for record in seen if name in record.settings]
    observed = {(record.network, record.settings[name]) for record in having}
    why = ""
    if len(observed) < LEAST:
        why = f"fewer than {LEAST} trials"
    elif len({value for _, value in observed}) < 2 or to_distribution(domain).single():
        why = "one value only"
    elif len({scores[record.number] for record in having}) < 2:
        why = "all trials scored the same"
    return Importance(name, len(observed), len(having) < len(seen), why_not=why)


def _shares(
    seen: Sequence[TrialRecord],
    scores: Mapping[int, float],
    usable: Mapping[str, bool],
    search: Mapping[str, Domain],
    goals: Goals,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Return both shares of each usable setting; ``usable`` tells which are conditional."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=goals.first.direction)
    distributions = {name: to_distribution(search[name]) for name in usable}
    for record in seen:
        own = {name: record.settings[name] for name in usable if name in record.settings}
        named = {name: distributions[name] for name in own}
        study.add_trial(create_trial(value=scores[record.number], params=own, distributions=named))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials in a regime, which ``trials`` tells
        ped = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=list(usable))
    f_anova = dict[str, float]()
    everywhere = [name for name, conditional in usable.items() if not conditional]
    for names in ([], *_found_together(seen, [name for name in usable if name not in everywhere])):
        f_anova = {**_f_anova(study, [*everywhere, *names], seed), **f_anova}
    return {name: (float(ped[name]), float(f_anova[name])) for name in usable}


def _found_together(seen: Sequence[TrialRecord], names: Sequence[str]) -> list[list[str]]:
    """Return the settings in groups, each of which the same trials have."""
    groups = defaultdict[tuple[int, ...], list[str]](list)
    for name in names:
        groups[tuple(record.number for record in seen if name in record.settings)].append(name)
    return list(groups.values())


def _f_anova(study: optuna.Study, names: list[str], seed: int) -> dict[str, float]:
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    return get_param_importances(study, evaluator=evaluator, params=names) if names else {}
