"""Objectives and constraints: what they are called, who is on the front, and how a mistake is answered."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import Study
from optuna.trial import create_trial

from sweeps.spec.objectives import QUANTITIES, Goals, find_quantity, parse_constraint, parse_objectives

POINTS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * width), min_size=1, max_size=25)
)


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("predict_ms <= 5", "predict_ms", 5.0),
        ("predict_ms<=5ms", "predict_ms", 5.0),
        ("predict_time < 0.005s", "predict_ms", 5.0),
        ("parameters <= 10M", "parameters", 1e7),
        ("parameters < 1.5k", "parameters", 1500.0),
        ("accuracy >= 70%", "val_accuracy", 0.7),
        ("val_accuracy > .7", "val_accuracy", 0.7),
        ("loss <= 1e0", "val_loss", 1.0),
    ],
)
def test_limits_are_read_with_their_units(text: str, metric: str, bound: float) -> None:
    """A limit may be written with the unit that suits, and is kept in the unit of the metric."""
    constraint = parse_constraint(text)
    assert (constraint.quantity.metric, constraint.bound) == (metric, bound)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("parameters<=10000k", "parameters <= 10M"),
        ("val_accuracy >= 0.7", "accuracy >= 70%"),
        ("predict_time < 0.005s", "predict_ms < 5"),
    ],
)
def test_equal_limits_make_equal_sweeps(one: str, other: str) -> None:
    """Whatever unit a limit is given in: the same command goes on with a sweep of another version, too."""
    assert str(parse_constraint(one)) == str(parse_constraint(other)) == other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("predict_ms", "must be NAME <= NUMBER"),
        ("parmeters <= 5", "Did you mean parameters?"),
        ("parameters <= 5ms", "must have a unit of parameters"),
        ("accuracy >= 70", "a share in \\[0, 1\\] or a percentage"),
        ("predict_ms <= 0", "a finite number above 0"),
        ("predict_ms <= 1e999", "a finite number above 0"),
        ("predict_ms <= 1.2.3", "must compare with a number"),
    ],
)
def test_mistakes_in_limits_are_named(text: str, said: str) -> None:
    """What is no limit is answered in a sentence that says what one looks like."""
    with pytest.raises(ValueError, match=said):
        parse_constraint(text)


@given(st.text(max_size=40) | st.from_regex(r"(accuracy|predict_ms|parameters|x) (<=?|>=?|=) [0-9.eE+-]*[Mk%msq]*"))
def test_any_text_is_a_limit_or_a_mistake(text: str) -> None:
    """No text ends in anything but a limit that reads back, or one sentence."""
    try:
        constraint = parse_constraint(text)
    except ValueError as error:
        assert str(error).startswith("must ")  # noqa: PT017 - either this or a limit
    else:
        assert parse_constraint(str(constraint)) == constraint


@given(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12), st.sampled_from(["<=", "<", ">=", ">"]))
def test_excess_is_above_zero_exactly_where_the_limit_is_broken(bound: float, value: float, operator: str) -> None:
    """The sampler's number and python's comparison agree, at equality too."""
    constraint = parse_constraint(f"predict_ms {operator} {bound!r}")
    for seen in (value, bound):
        kept = {"<=": seen <= bound, "<": seen < bound, ">=": seen >= bound, ">": seen > bound}[operator]
        assert (constraint.excess(seen) <= 0) == kept
        assert (constraint.broken_by({"predict_ms": seen}) == "") == kept


@given(POINTS)
def test_the_front_is_that_of_optuna(points: list[tuple[float, ...]]) -> None:
    """Of equal points it has the first one; the compromise is on it."""
    objectives = [quantity for quantity in QUANTITIES if quantity.direction == "minimize"][: len(points[0])]
    names = [objective.metric for objective in objectives]
    goals = Goals(tuple(objectives))
    metrics = {number: dict(zip(names, point, strict=True)) for number, point in enumerate(points)}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study: Study = optuna.create_study(directions=["minimize"] * len(names))
    study.add_trials([create_trial(values=list(point)) for point in points])
    theirs = sorted(trial.number for trial in study.best_trials)
    front = goals.front(metrics)
    assert front == tuple(place for place in theirs if points[place] not in points[:place])
    assert goals.compromise(metrics) in front


def test_the_compromise_is_the_nearest_to_the_best_of_everything() -> None:
    """Each objective counts by its span over the front; without a front there is none."""
    goals = Goals.parse(["loss", "parameters"], [])
    points = {7: (0.0, 1e6), 8: (1.0, 1e5), 9: (10.0, 0.0)}
    assert goals.compromise({n: {"val_loss": loss, "parameters": size} for n, (loss, size) in points.items()}) == 8
    assert goals.compromise({}) is None


def test_objectives_have_one_name_each_and_the_nearest_is_offered() -> None:
    """A metric's own name is understood; a misspelt one is answered with the nearest."""
    assert [q.name for q in parse_objectives(["val_accuracy", "predict_ms"])] == ["accuracy", "predict_time"]
    with pytest.raises(ValueError, match="Did you mean predict_time"):
        find_quantity("predict_tme")
    with pytest.raises(ValueError, match="each once"):
        parse_objectives(["accuracy", "val_accuracy"])
    names = [name for quantity in QUANTITIES for name in {quantity.name, quantity.metric}]
    assert len(set(names)) == len(names)


def test_the_winner_is_on_the_front() -> None:
    """Of equals in the first objective the next one decides; of equals in all of them the one with less loss does."""
    goals = Goals.parse(["accuracy", "parameters"], [])
    metrics = {
        0: {"val_accuracy": 0.8, "parameters": 9e6, "val_loss": 0.1},
        1: {"val_accuracy": 0.8, "parameters": 5e6, "val_loss": 0.9},
        2: {"val_accuracy": 0.8, "parameters": 5e6, "val_loss": 0.5},
    }
    assert min(metrics, key=lambda number: goals.order(number, metrics[number])) == 2
    assert goals.front(metrics) == (2,)


def test_the_front_knows_directions_limits_and_noise() -> None:
    """More accuracy and less time are better; what breaks a limit is not on the front, nor is a time's third digit."""
    goals = Goals.parse(["accuracy", "predict_time"], ["parameters <= 10M"])
    metrics = {
        0: {"val_accuracy": 0.8, "predict_ms": 9.01, "parameters": 5e6},
        1: {"val_accuracy": 0.7, "predict_ms": 9.0, "parameters": 5e6},  # as fast as 0, and less accurate
        2: {"val_accuracy": 0.6, "predict_ms": 2.0, "parameters": 5e6},
        3: {"val_accuracy": 0.9, "predict_ms": 1.0, "parameters": 2e7},  # the best of all, too large
        4: {"val_accuracy": 0.9, "parameters": 5e6},  # never measured
    }
    assert goals.front(metrics) == (0, 2)
    assert goals.infeasible(metrics[3]) == "parameters 20.0M > 10.0M"
    assert goals.excess(metrics[3]) == pytest.approx(1.0)
