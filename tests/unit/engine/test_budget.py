"""Prices, costs, and the budgets of sweeps that share them."""

from __future__ import annotations

import pytest

from carcls.errors import SpecError
from sweeps.engine.resources import Share
from sweeps.spec.fields import Prices, parse_price
from sweeps.spec.loading import load_spec


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        ("2.5/gpu-hour", Prices(gpu_hour=2.5)),
        (" .05 / cpu-hour", Prices(cpu_hour=0.05)),
        ("€3/hour", Prices(hour=3.0, currency="€")),
        ("2/gpu-hour+0.1/cpu-hour+1/hour", Prices(2.0, 0.1, 1.0)),
    ],
)
def test_prices_are_read(text: str, prices: Prices) -> None:
    """Amount, unit and currency are what the text says; several prices add up."""
    assert parse_price(text) == prices


@pytest.mark.parametrize(
    "text", ["2.5", "2.5/day", "-1/hour", "1e3/hour", "x/gpu-hour", "", "1/hour+2/hour", "$1/hour+€1/gpu-hour"]
)
def test_what_is_no_price_is_a_mistake(text: str) -> None:
    """A mistake in a price is told with what it should look like, not taken for another price."""
    with pytest.raises(ValueError, match="price must"):
        parse_price(text)


def test_a_trial_costs_its_share_and_a_sweep_its_hours() -> None:
    """Half an hour on half a GPU and four cores, in a sweep of two hours: 0.25, 2 and 2 hours are paid."""
    spent = Share(cpus=4, gpus=0.5, concurrency=2).spend(1800, epochs=3, wall=7200)
    assert Prices(gpu_hour=8, cpu_hour=0.5, hour=10).cost_of(spent) == pytest.approx(0.25 * 8 + 2 * 0.5 + 2 * 10)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"max_cost": 40.0}, "must come with a price"),
        ({"price": "2/day"}, "AMOUNT/gpu-hour"),
        ({"disk": "20"}, "a size in kB, MB, GB or TB"),
        ({"epochs_budget": -1}, "at least 0"),
    ],
)
def test_budgets_that_cannot_be_meant_are_mistakes_of_the_spec(overrides: dict[str, object], words: str) -> None:
    """Each is told in one sentence before anything starts."""
    with pytest.raises(SpecError, match=words):
        load_spec("transfer", overrides=overrides)


def test_budgets_are_no_part_of_what_a_sweep_is() -> None:
    """A sweep may be given other budgets: its digest stays."""
    bare = load_spec("transfer")
    spec = load_spec("transfer", overrides={"epochs_budget": 9, "price": "2/gpu-hour", "max_cost": 5.0, "disk": "20GB"})
    assert spec.digest == bare.digest
    assert (spec.epochs_budget, spec.max_cost, spec.prices) == (9, 5.0, Prices(gpu_hour=2.0))


@pytest.mark.parametrize(
    ("price", "gpus", "is_said"),
    [
        ("2.5/gpu-hour", 0.0, True),
        ("2.5/gpu-hour + 1/hour", 0.0, True),
        ("2.5/gpu-hour", 0.5, False),
        ("0.05/cpu-hour", 0.0, False),
    ],
)
def test_a_price_of_gpus_that_are_not_used_is_said(price: str, gpus: float, is_said: bool) -> None:
    """Whoever prices GPUs that no trial uses is told that their sweep will seem to cost nothing."""
    assert bool(parse_price(price).idle_notes(gpus, limited=True)) == is_said
