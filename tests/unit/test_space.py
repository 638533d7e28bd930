"""Domains: what they accept, what they draw, and how they are written."""

from __future__ import annotations

import math
from random import Random

import pytest

from carcls.errors import SpecError
from sweeps.space import Choice, FloatDomain, IntDomain, parse_domain

DOMAINS = [
    FloatDomain(0.0, 0.7),
    FloatDomain(1e-5, 3e-3, log=True),
    IntDomain(1, 9),
    IntDomain(32, 128, step=32),
    IntDomain(1, 100, log=True),
    Choice(("adam", "adamw")),
    Choice((0.0, 0.5, 1.0)),
    Choice((True, False)),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_domain_is_read_back_from_what_it_writes(domain):
    """What a domain writes is read back as an equal domain."""
    assert parse_domain(domain.plain(), "search.x") == domain


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_draws_stay_inside_the_domain_and_vary(domain):
    """Every draw lies inside the domain, and not all are the same."""
    random = Random(0)
    draws = [domain.draw(random) for _ in range(300)]
    assert len(set(draws)) > 1
    if isinstance(domain, Choice):
        assert set(draws) == set(domain.choices)
    else:
        assert min(domain.ends()) <= min(draws)
        assert max(draws) <= max(domain.ends())


def test_a_stepped_domain_draws_only_its_steps():
    """A step of 32 from 32 to 128 gives four values."""
    random = Random(0)
    assert {IntDomain(32, 128, step=32).draw(random) for _ in range(200)} == {32, 64, 96, 128}


def test_a_log_domain_draws_equally_often_below_and_above_its_geometric_middle():
    """Half of the draws of a logarithmic range lie below the geometric mean of its ends."""
    random = Random(0)
    draws = [FloatDomain(1e-4, 1e-2, log=True).draw(random) for _ in range(2000)]
    assert 0.45 < sum(draw < 1e-3 for draw in draws) / len(draws) < 0.55


def test_a_range_of_a_whole_number_setting_is_whole():
    """A range with whole ends is one of whole numbers exactly where the setting is."""
    assert parse_domain({"low": 4, "high": 9}, "search.epochs", integer=True) == IntDomain(4, 9)
    assert parse_domain({"low": 0, "high": 1}, "search.dropout") == FloatDomain(0.0, 1.0)


def test_choices_may_be_a_list_or_a_mapping():
    """A list and a mapping with choices say the same."""
    assert parse_domain([1, 2], "p") == parse_domain({"choices": [1, 2]}, "p") == Choice((1, 2))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"low": 0.8, "high": 0.2}, "p.low: must be at most high (0.2), got 0.8."),
        ({"low": 0, "high": 1, "log": True}, "p.low: must be above 0 where log is true, got 0.0."),
        ({"low": 0.0, "high": math.inf}, "p.high: must be a finite number, got inf."),
        ({"low": math.nan, "high": 1.0}, "p.low: must be a finite number, got nan."),
        ({"low": "a", "high": 1}, "p.low: must be a number, got 'a'."),
        ({"low": True, "high": 1}, "p.low: must be a number, got True."),
        ({"low": 0, "high": 1, "log": "yes"}, "p.log: must be true or false, got 'yes'."),
        ({"low": 0.0, "high": 1.0, "step": 0.1}, "p.step: must go with int: true, got 0.1."),
        ({"int": True, "low": 1.5, "high": 3}, "p.low: must be a whole number, got 1.5."),
        ({"int": True, "low": 0, "high": 5, "step": 2}, "p.step: must lead from 0 to 5 exactly, got 2."),
        ({"int": True, "low": 0, "high": 5, "step": 0}, "p.step: must be at least 1, got 0."),
        ({"int": True, "low": 0, "high": 5, "log": True}, "p.low: must be at least 1 where log is true, got 0."),
        ([], "p.choices: must name at least one value, got []."),
        ([0, 0.0], "p.choices: must differ from each other, got 0.0 twice."),
        ([[1], [2]], "p.choices: must be plain values, got [1]."),
        ({"choices": 3}, "p.choices: must be a list, got 3."),
        ({"high": 1}, "p.low: must be given, as in {low: 0.0, high: 0.7}."),
        (0.3, "p: must be a range {low: …, high: …} or a list of choices, got 0.3."),
        (None, "p: must be a range {low: …, high: …} or a list of choices, got None."),
    ],
)
def test_a_mistaken_domain_says_where_and_what(value, message):
    """A mistake in a domain is one sentence that begins with its path."""
    with pytest.raises(SpecError) as caught:
        parse_domain(value, "p")
    assert caught.value.mistakes == (message,)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({"lwo": 0, "high": 1}, "Did you mean low?"),
        ({"low": 0, "hihg": 1}, "Did you mean high?"),
        ({"choices": [1, 2], "low": 1}, "p.low: must be a known key"),
    ],
)
def test_an_unknown_key_names_the_nearest(value, hint):
    """An unknown key of a domain is answered with the nearest known one."""
    with pytest.raises(SpecError, match="must be a known key") as caught:
        parse_domain(value, "p")
    assert hint in str(caught.value)


def test_domains_validate_themselves_when_built():
    """A domain that cannot be drawn from cannot be built."""
    for build in (lambda: FloatDomain(1.0, 0.0), lambda: IntDomain(3, 1), lambda: Choice(())):
        with pytest.raises(ValueError, match="must"):
            build()
