"""Domains: what they accept, what they draw, and how they are written."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from carcls.errors import SpecError
from sweeps.spec.space import Choice, Domain, Range, fits
from sweeps.spec.spec import SweepSpec

DOMAINS: dict[str, Domain] = {
    "dropout": Range(0.0, 0.7),
    "head_lr": Range(1e-5, 3e-3, log=True),
    "rotation": Range(1, 9, step=1),
    "image_size": Range(32, 128, step=32),
    "k": Range(1, 100, step=1, log=True),
    "optimizer": Choice(("adam", "adamw")),
    "augmentation_strength": Choice((0.0, 0.5, 1.0)),
    "flip": Choice((True, False)),
}


WHOLE = "this setting takes whole numbers"
KEYS = "high, int, log, low, step, when."


def read(name: str, value: Any) -> Domain:
    """Read what YAML says of a setting's domain."""
    return SweepSpec.from_tree({"family": "transfer", "search": {name: value}}).search[name]


def test_domains_are_read_back_from_what_they_write() -> None:
    """What a domain writes is read back as an equal domain, in the order in which they were said."""
    search = {name: domain.plain() for name, domain in DOMAINS.items()}
    found = SweepSpec.from_tree({"family": "transfer", "search": search}).search
    assert list(found.items()) == list(DOMAINS.items())


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=str)
def test_draws_stay_inside_the_domain_and_vary(domain: Domain) -> None:
    """Each draw is one that the domain gives, on its steps, and not all are the same; of few values each is drawn."""
    random = Random(0)
    draws = {domain.draw(random) for _ in range(300)}
    assert all(fits(domain, draw) for draw in draws)
    assert len(draws) > 1
    assert not isinstance(domain, Choice) or draws == set(domain.choices)
    assert domain != DOMAINS["image_size"] or draws == {32, 64, 96, 128}


def test_a_log_domain_draws_equally_often_below_and_above_its_geometric_middle():
    """Half of the draws of a logarithmic range lie below the geometric mean of its ends."""
    random = Random(0)
    draws = [Range(1e-4, 1e-2, log=True).draw(random) for _ in range(2000)]
    assert 0.45 < sum(draw < 1e-3 for draw in draws) / len(draws) < 0.55


def test_a_range_of_a_whole_number_setting_is_whole() -> None:
    """A range with whole ends is one of whole numbers where the setting is or a step says so; a null says nothing."""
    assert read("epochs", {"low": 4, "high": 9}) == Range(4, 9, step=1)
    assert read("dropout", {"low": 0, "high": 0.5, "int": None, "step": None, "log": None}) == Range(0.0, 0.5)
    assert read("rotation", {"low": 0, "high": 9, "step": 3}) == Range(0, 9, step=3)


def test_choices_may_be_a_list_or_a_mapping() -> None:
    """A list and a mapping with choices say the same."""
    assert read("k", [1, 2]) == read("k", {"choices": [1, 2]}) == Choice((1, 2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropout", {"low": 0.8, "high": 0.2}, ".low: must be at most high (0.2), got 0.8."),
        ("dropout", {"low": 0, "high": 0.5, "log": True}, ".low: must be above 0 where log is true, got 0.0."),
        ("clip_norm", {"low": 0.0, "high": math.inf}, ".high: must be a finite number, got inf."),
        ("clip_norm", {"low": math.nan, "high": 1.0}, ".low: must be a finite number, got nan."),
        ("dropout", {"low": "a", "high": 0.5}, ".low: must be a number, got 'a'."),
        ("dropout", {"low": True, "high": 0.5}, ".low: must be a number, got True."),
        ("dropout", {"low": 0, "high": 0.5, "log": "yes"}, ".log: must be true or false, got 'yes'."),
        ("dropout", {"low": 0, "high": 0.5, "int": "yes"}, ".int: must be true or false, got 'yes'."),
        (
            "rotation",
            {"low": 0, "high": 9, "step": 3, "int": False},
            ".int: must be true where there is a step, got False.",
        ),
        ("dropout", {"low": 0.0, "high": 0.5, "step": 0.1}, ".step: must be a whole number, got 0.1."),
        ("dropout", {"low": 0.0, "high": None}, ".high: must be given, as in {low: 0.0, high: 0.7}."),
        ("rotation", {"int": True, "low": 1.5, "high": 3}, ".low: must be a whole number, got 1.5."),
        ("k", {"low": 1, "high": 6, "step": 2}, ".step: must lead from 1 to 6 exactly, got 2."),
        ("k", {"low": 1, "high": 5, "step": 0}, ".step: must be at least 1, got 0."),
        ("k", {"low": 1, "int": False, "high": 5}, f".int: must be true, since {WHOLE}, got False."),
        ("warmup_epochs", {"low": 0, "high": 5, "log": True}, ".low: must be above 0 where log is true, got 0."),
        ("k", [], ".choices: must name at least one value, got []."),
        ("dropout", [0, 0.0], ".choices: must differ from each other, got 0.0 twice."),
        ("k", [[1], 2], "[0]: must be a whole number, got [1]."),
        ("micro_batch", [None, 8], "[0]: must be a whole number, got None."),
        ("k", {"choices": 3}, ".choices: must be a list, got 3."),
        ("k", {"high": 1}, ".low: must be given, as in {low: 0.0, high: 0.7}."),
        ("k", 0.3, ": must be a range {low: …, high: …} or a list of choices, got 0.3."),
        ("k", None, ": must be a range {low: …, high: …} or a list of choices, got None."),
        ("k", {"lwo": 1, "high": 3}, ".lwo: must be a known key, got 'lwo'. Did you mean low? Known: " + KEYS),
        ("k", {"low": 1, "stpe": 1}, ".stpe: must be a known key, got 'stpe'. Did you mean step? Known: " + KEYS),
        ("k", {"choices": [1, 2], "low": 1}, ".low: must be a known key, got 'low'. Known: choices, when."),
    ],
)
def test_a_mistaken_domain_says_where_and_what(name: str, value: Any, message: str) -> None:
    """A mistake in a domain is one sentence that begins with its path; an unknown key is answered with the nearest."""
    with pytest.raises(SpecError) as caught:
        read(name, value)
    assert caught.value.mistakes == (f"search.{name}{message}",)


def test_domains_validate_themselves_when_built():
    """A domain that cannot be drawn from cannot be built."""
    for build in (lambda: Range(1.0, 0.0), lambda: Range(3, 1, step=1), lambda: Choice(())):
        with pytest.raises(ValueError, match="must"):
            build()
