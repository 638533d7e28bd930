"""The answer of a sweep in words and numbers: who won, against what, and how far that can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carcls.evaluation.significance import NO_DIFFERENCE, PairedComparison, compare_hits, wilson_interval
from sweeps.report.facts import Facts
from sweeps.report.luck import disagreement, hits_of, luck_of
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Champion, Compared, Registered, TestEvaluation
from sweeps.spec.documented import LEAK_MARK, find_experiment
from sweeps.study.confirmation import Confirmed
from sweeps.text import DASH, percent, percent_range, plural, points
from sweeps.trial import TrialRecord

# Words in names of metrics that are times: the same model takes others each time.
_TIMES = {"ms", "seconds"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the answer: what it is, the number as text, and what it rests on."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a sweep.

    Attributes:
        headline: one sentence.
        figures: the numbers that matter.
        belief: sentences on how far they can be believed.
    """

    headline: str
    figures: tuple[Figure, ...]
    belief: tuple[str, ...]


def verdict_of(facts: Facts) -> Verdict:
    """Return the answer of a sweep as its records have it now; reads stored answers, computes none."""
    best = facts.board.best
    if best is None:
        return Verdict(why_no_winner(facts.board) if facts.state != "running" else "No trial has finished yet.", (), ())
    return Verdict(_headline(facts, best), tuple(_figures(facts, best)), tuple(_belief(facts, best)))


def _headline(facts: Facts, best: TrialRecord) -> str:
    winner, goals = facts.board.best_confirmed, facts.board.goals
    number = best.number if winner is None else winner.number
    value = percent(winner.mean) if winner else goals.first.write(best.metrics[goals.first.metric])
    verb = "wins with" if facts.ended else "leads so far with"
    what = "validation accuracy" if goals.first.name == "accuracy" else goals.first.name
    return f"Trial {number} {verb} {value} {what}"


def _figures(facts: Facts, best: TrialRecord) -> Iterator[Figure]:
    board, winner, tested = facts.board, facts.board.best_confirmed, facts.ended and facts.ended.test
    accuracy = best.measured("val_accuracy")
    low_high = wilson_interval(round((accuracy or 0.0) * board.images), board.images)
    if winner is not None:
        note = f"mean of {plural(len(winner.runs), 'fresh seed')}; ± is their deviation"
        yield Figure("Validation accuracy", percent(winner.mean, winner.spread), note)
    else:
        note = f"95% interval {percent_range(low_high)}, {plural(board.images, 'image')}"
        yield Figure("Validation accuracy", percent(accuracy), note)
    for goal in board.goals.objectives:
        if goal.name != "accuracy" and goal.metric in best.metrics:
            yield Figure(
                goal.name.replace("_", " ").capitalize(), goal.write(best.metrics[goal.metric]), "an objective"
            )
    if tested:
        yield Figure("Test accuracy", percent(tested.metrics.get("test_accuracy")), _test_note(tested))
    elif not facts.ended:
        yield Figure("Test accuracy", DASH, "the test images are evaluated once, when the sweep is done")
    yield from _baseline(facts, best)
    if facts.ended and facts.ended.registered and facts.ended.registered.champion:
        yield _champion(facts.ended.registered, facts.ended.registered.champion)


def _champion(ours: Registered, its: Champion) -> Figure:
    """Return the champion's score, and the winner beside it, as the registry had both when the sweep ended."""
    name, shares, pair = (
        f"{ours.name} {its.version}, on {'its own' if its.apart else 'the'} test images",
        its.interval,
        its.comparison,
    )
    notes = [f"{name}, 95% interval {percent_range(shares)}" if shares else name]
    if its.version == ours.version:
        notes.append("this winner is it")
    else:
        notes.append(
            f"not comparable: {its.apart}"
            if pair is None
            else f"the winner has {points(pair.difference)} points {_pair_text(pair)}"
        )
    return Figure("The family's champion", percent(its.accuracy), "; ".join(notes))


def _baseline(facts: Facts, best: TrialRecord) -> Iterator[Figure]:
    """Yield the winner beside the best documented experiment that was run, and what was reported of that."""
    runs = [row.trial for row in facts.board.rows if row.trial.experiment and row.trial.status == "complete"]
    if not runs:
        return
    base, label = runs[0], "Over the best documented experiment"
    means = {one.number: one.mean for one in facts.board.confirmed}
    own = means.get(best.confirms or best.number) or best.measured("val_accuracy") or 0.0
    other = means.get(base.number) or base.measured("val_accuracy") or 0.0
    said = find_experiment(str(base.experiment))
    if base.number in (best.number, best.confirms):
        yield Figure(label, "±0", f"the winner is one: {base.experiment}")
    else:
        yield Figure(label, f"{points(own - other)} points", _against(facts, best, base))
    about, mark = "about " if said.approximate else "", LEAK_MARK if said.leaked else ""
    changed = ", ".join(facts.spec.changed_settings(said.name))
    note = f"reported for {said.name} on other images" + (f"; run here with another {changed}" if changed else "")
    leak = f"; {mark} measured on images whose like had been trained on" if mark else ""
    yield Figure("As documented", f"{about}{percent(said.documented['accuracy'], digits=2)}{mark}", note + leak)


def _against(facts: Facts, best: TrialRecord, base: TrialRecord) -> str:
    said = f"{base.experiment}, trial {base.number}: {percent(base.measured('val_accuracy'))}"
    first, second = hits_of(facts, best), hits_of(facts, base)
    if first is None or second is None or facts.board.confirmed:
        return f"{said} on the same images"
    return f"{said} on the same images {_pair_text(compare_hits(first, second))}"


def _belief(facts: Facts, best: TrialRecord) -> Iterator[str]:
    board, ended = facts.board, facts.ended
    refit = bool(ended and ended.test and ended.test.refit)
    if ended and (board.confirmed or board.goals.constraints or board.goals.are_several or refit):
        yield winner_text(board, refit=refit)
    yield from _luck(facts, best)
    for compared in ended.comparison if ended else ():
        yield compared_text(compared, board, several=len(ended.comparison) > 1 if ended else False)
    if winner := board.best_confirmed:
        fell = f"The search had promised {percent(winner.search)}, {points(winner.shrinkage)} points off."
        yield f"Seeds: {plural(len(winner.runs), 'fresh one')} beside the search's. {fell}"
    else:
        yield f"Seeds: one ({best.config['seed']}), so how much another would change is not known."
    yield from idle_seeds_text(board)


def _luck(facts: Facts, best: TrialRecord) -> Iterator[str]:
    """Yield what the choice among many may add to the score, and what fresh images would then likely show."""
    board, images = facts.board, facts.board.images
    rivals, accuracy = [row.trial for row in board.networks], best.measured("val_accuracy")
    if not images or accuracy is None:
        return
    stopped = sum(t.status == "pruned" and t.measured("val_accuracy") is not None for t in board.trials)
    derived = sum(trial.derived_from is not None for trial in board.trials)
    trials = {trial.number: trial for trial in board.trials}
    count, found = len(rivals) + stopped, disagreement(facts, [trials[rival.network] for rival in rivals])
    sharing = 2 * accuracy * (1 - accuracy) if found is None else found
    luck = luck_of(count, sharing, images) if count > 1 and board.goals.first.name == "accuracy" else 0.0
    if luck:
        early = f", {stopped} of them stopped early," if stopped else ""
        how = "if they answered independently, two would" if found is None else "two of the best"
        more = f" The choice among {plural(derived, 'derived trial')} adds to that." if derived else ""
        seeds = " Fresh seeds take away a part of that, not the images' part." if board.confirmed else ""
        yield (
            f"Chosen as the best of {count} networks{early} on {plural(images, 'image')}: were they equally good, it "
            f"would look up to {points(luck)[1:]} points better than it is ({how} disagree on {percent(sharing)} of "
            f"the images).{more}{seeds}"
        )
    low, high = wilson_interval(round(accuracy * images), images)
    yield f"On many fresh images it would likely score {percent(max(0.0, low - luck))} to {percent(high)}" + (
        ": the 95% interval, with that luck taken from its lower end." if luck else ", the 95% interval."
    )


def winner_text(board: Leaderboard, *, refit: bool) -> str:
    """Say who won, by what, and whose model is registered; of a board with a winner."""
    assert board.best is not None
    goals, winner, number = board.goals, board.best_confirmed, board.best.number
    by = f" by {goals.first.name}, the first objective" if goals.first.name != "accuracy" or goals.are_several else ""
    kept = ", among the trials that keep all constraints" if goals.constraints else ""
    line = f"Trial {winner.number if winner else number} won on the validation images{by}{kept}"
    if winner is None:
        line += "."
    else:
        line += f": {percent(winner.mean, winner.spread)} over {len(winner.runs)} fresh seeds."
        line += f" The model is of trial {number}, the run nearest to that mean."
    if refit:
        line += " The model is a refit: trained anew on training and validation images, so it has no validation score."
    return line


def test_text(test: TestEvaluation) -> str:
    """Say what the winner scores on the test images, and how often these were evaluated."""
    return f"Test accuracy {percent(test.metrics.get('test_accuracy'))} ({_test_note(test)})."


def _test_note(test: TestEvaluation) -> str:
    times = (
        "once"
        if test.evaluations == 1
        else f"{test.evaluations} times, for {plural(test.models, 'model')} of this sweep"
    )
    return f"95% interval {percent_range(test.interval)}, {test.images} images, evaluated {times}"


def idle_seeds_text(board: Leaderboard) -> Iterator[str]:
    """Yield a sentence where fresh seeds say nothing: none finished, or all measured the same."""
    winner = board.best_confirmed
    if board.confirmed and winner is None:
        yield "No run with a fresh seed finished, so that nothing is confirmed: the search chose the winner."
    if winner is not None and _seeds_are_idle(winner, board):
        yield f"The seed changes nothing in trial {winner.number}: all its runs are the same model."


def _seeds_are_idle(one: Confirmed, board: Leaderboard) -> bool:
    """Tell whether all runs measured the same to the last digit, as they do where nothing is trained."""
    runs = [trial.metrics for trial in board.trials if trial.number in one.runs]
    timeless = [{name: x for name, x in metrics.items() if not _TIMES & set(name.split("_"))} for metrics in runs]
    return len(runs) > 1 and all(metrics == timeless[0] for metrics in timeless)


def compared_text(compared: Compared, board: Leaderboard, *, several: bool) -> str:
    """Set the winner beside another trial, in the words of a test: what is not shown may still be there.

    Args:
        compared: the two.
        board: with a winner.
        several: whether it was compared with others too.
    """
    winner = board.best_confirmed
    assert board.best is not None
    if winner is None:
        sides = f"Trial {board.best.number} against the runner-up, trial {compared.against}"
    else:
        sides = f"Trial {winner.number} against trial {compared.against}, both with fresh seeds"
    said = _chance_text(compared.interval, compared.p, shown=compared.shown, how=", by Holm" if several else "")
    return f"{sides}, on {board.images} validation images: {points(compared.difference)} points {said}."


def _pair_text(pair: PairedComparison) -> str:
    return _chance_text(pair.interval, pair.p_value, shown=pair.shows(pair.p_value))


def _chance_text(interval: tuple[float, float], p: float, *, shown: bool, how: str = "") -> str:
    """Say what a test tells of a difference."""
    low, high = map(points, interval)
    chance = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return f"(95% {low} to {high}), p {chance}{how}: {'a difference is shown' if shown else NO_DIFFERENCE}"


def why_no_winner(board: Leaderboard) -> str:
    """Say why a sweep has none; where constraints are the reason, with the trial that came nearest."""
    goals = board.goals
    broken = [row for row in board.rows if row.infeasible and row.trial.status in ("complete", "pruned")]
    if not broken:
        return "No trial finished, so there is no winner."
    trials = {row.trial.number: row for row in broken}
    near = min(trials, key=lambda n: (trials[n].trial.status != "complete", goals.excess(trials[n].trial.metrics), n))
    return (
        f"No trial keeps the constraints ({', '.join(map(str, goals.constraints))}), so there is no winner and nothing "
        f"is registered. The nearest was trial {near}: {trials[near].infeasible}."
    )
