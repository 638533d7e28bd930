"""What to try next: rules over the records of a study, each with its evidence and the command that follows it.

No rule looks at a test image. One that the numbers do not support says nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from carcls.errors import SpecError
from carcls.evaluation.significance import LEVEL
from sweeps.failures import NO_FAULT, POLICIES
from sweeps.report.facts import Facts
from sweeps.results.leaderboard import Row
from sweeps.spec.loading import edit_spec
from sweeps.spec.space import Range
from sweeps.text import command_text, plural, points
from sweeps.trial import OBJECTIVE

# Of so many of the best, so many must lie within this share of an end of a range: by chance 5 in 10,000 do.
_BEST, _AGREE, _NEAR = 5, 4, 0.1
# Schedules that end at a rate of zero climb to their last epoch whatever their length.
_STILL_MOVING = ("step", "constant")
_CLIMB = 0.01


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Something to try: what, why as the numbers have it, and the command."""

    what: str
    why: str
    command: str


def advice_of(facts: Facts) -> list[Suggestion]:
    """Return what the sweep's own numbers suggest to try, the surest first."""
    rules = (_unfinished, _failing, _seeds, _edges, _climbing, _more, _promote)
    return [found for rule in rules for found in rule(facts)]


def _resume(facts: Facts, *words: str) -> str:
    return command_text("resume", facts.name, *words, out=facts.out)


def _change(facts: Facts, setting: str) -> str:
    """Return the command that goes on with another setting, with trials to see it by where none is left."""
    return _resume(facts, "--set", setting, *(["--trials", "+10"] if facts.ended else []))


def _ran(facts: Facts) -> list[Row]:
    """Return the best row of each network that finished, without documented experiments, best first."""
    return [row for row in facts.board.networks if row.trial.experiment is None]


def _unfinished(facts: Facts) -> Iterator[Suggestion]:
    left = [trial for trial in facts.board.trials if trial.status == "running"]
    if facts.state == "unfinished":
        why = f"{plural(len(left), 'trial')} had begun and not ended when it was stopped" if left else "It was stopped"
        yield Suggestion("Go on", f"{why}; nothing is computed twice.", _resume(facts))


def _failing(facts: Facts) -> Iterator[Suggestion]:
    run = [trial for trial in facts.board.trials if trial.derived_from is None]
    for kind, count in Counter(trial.failure for trial in run if trial.status == "failed").most_common():
        if kind in POLICIES and (count >= 3 or count >= len(run) / 10):
            goes_on = _resume(facts) if kind in NO_FAULT else ""
            yield Suggestion(
                POLICIES[kind].remedy.rstrip("."), f"{count} of {plural(len(run), 'trial')} failed as {kind}.", goes_on
            )


def _seeds(facts: Facts) -> Iterator[Suggestion]:
    compared = facts.ended.comparison if facts.ended else ()
    if compared and not any(one.shown for one in compared) and not facts.board.confirmed:
        trials = " and ".join(f"trial {one.against}" for one in compared)
        why = f"No difference is shown between the winner and {trials}; fresh seeds tell luck from skill."
        if facts.board.goals.first.name == "accuracy":
            yield Suggestion("Run the best again with fresh seeds", why, _resume(facts, "--set", "confirm=3x3"))


def _edges(facts: Facts) -> Iterator[Suggestion]:
    """Yield ranges to be widened, since the best lie at an end of them."""
    best = [row.trial.settings for row in _ran(facts)[:_BEST]]
    for name, domain in facts.spec.search.items():
        if not isinstance(domain, Range) or domain.low == domain.high:
            continue
        places = [_place(domain, float(settings[name])) for settings in best if name in settings]
        ends = {"low": sum(p <= _NEAR for p in places), "high": sum(p >= 1 - _NEAR for p in places)}
        for end, count in ends.items():
            if count >= _AGREE and (setting := _wider(facts, name, domain, end)):
                where = f"the outer tenth of its range ({domain}), at its {end} end"
                why = f"{count} of the best {len(places)} have {name} in {where}."
                yield Suggestion(f"Widen the range of {name}", why, _change(facts, setting))


def _place(domain: Range[float], value: float) -> float:
    """Return where a value lies in its range, on the range's own scale: in [0, 1], if it does at all."""
    if domain.log and value <= 0:  # a documented experiment's, which lies outside
        return 0.0
    scale = math.log if domain.log else float
    return (scale(value) - scale(domain.low)) / (scale(domain.high) - scale(domain.low))


def _wider(facts: Facts, name: str, domain: Range[float], end: str) -> str:
    """Return the setting that widens a range by as much as the setting itself allows; empty where it allows nothing."""
    old, up = getattr(domain, end), end == "high"
    for share in (0.5, 0.25, 0.1):
        factor, step = (domain.high / domain.low) ** share if domain.log else 1.0, (domain.high - domain.low) * share
        new = (old * factor if up else old / factor) if domain.log else (old + step if up else old - step)
        said = f"{round(new) if domain.step else float(f'{new:.2g}')}"
        try:
            edit_spec(facts.spec, [f"search.{name}.{end}={said}"], {})
        except SpecError:
            continue
        return "" if float(said) == old else f"search.{name}.{end}={said}"
    return ""


def _climbing(facts: Facts) -> Iterator[Suggestion]:
    """Yield longer trainings, where the best were still getting better at the end."""
    gains, epochs = [], 0
    for trial in [row.trial for row in facts.board.networks][:_BEST]:
        curve = [measurement.metrics[OBJECTIVE] for measurement in trial.history]
        if len(curve) == trial.config["epochs"] >= 4 and trial.config["lr_schedule"] in _STILL_MOVING:
            gains.append(curve[-1] - curve[-1 - math.ceil(len(curve) / 4)])
            epochs = max(epochs, 2 * len(curve))
    if len(gains) >= 3 and fmean(gains) >= _CLIMB and min(gains) > 0:
        which = f"The best {len(gains)} whose learning rate does not end at zero"
        why = f"{which} gained {points(fmean(gains))} points on average in the last quarter of their epochs."
        yield Suggestion("Train longer", why, _change(facts, f"epochs={epochs}"))


def _more(facts: Facts) -> Iterator[Suggestion]:
    """Yield more trials, where the search had not come to rest."""
    asked = [t for t in facts.board.trials if t.experiment is None and t.derived_from is None and t.confirms is None]
    best, ran, ended = facts.board.best, _ran(facts), [t for t in asked if t.status != "running"]
    if best is None or not facts.spec.search or not facts.ended or not ended:
        return
    number = best.number if best.confirms is None else best.confirms
    place = [trial.number for trial in asked].index(number) + 1 if number in [t.number for t in asked] else 0
    if best.experiment and len(ended) >= len(facts.spec.search):
        why = f"None of {plural(len(ended), 'searched trial')} beats {best.experiment}."
    elif place > 0.75 * len(asked) and len(asked) >= 8:
        why = f"The best was the {place}th of {len(asked)} searched trials: the search was still finding better ones."
    elif len(ran) < len(facts.spec.search):
        settings = plural(len(facts.spec.search), "searched setting")
        why = f"{plural(len(ran), 'searched network')} finished, for {settings}."
    else:
        return
    yield Suggestion("Search on", why, _resume(facts, "--trials", f"+{max(10, len(asked) // 2)}"))


def _promote(facts: Facts) -> Iterator[Suggestion]:
    model = facts.ended and facts.ended.registered
    if not model or not model.alias:
        return
    # Where promote would refuse or has nothing to do, the figures say why.
    its, pair = model.champion, model.champion.comparison if model.champion else None
    if its is None or (pair is not None and not (pair.difference < 0 and pair.p_value <= LEVEL)):
        why = f"{model} is the {model.alias}; this judges whether it may be champion, and changes nothing."
        command = command_text("promote", facts.spec.family, "--dry-run", out=facts.out)
        yield Suggestion("Ask whether it may be champion", why, command)
