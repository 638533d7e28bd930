"""The specs that come with carsweep: each is valid, says how it is run, and begins with its family's experiments."""

from __future__ import annotations

import shlex

import pytest
from helpers import spec_of_yaml

from sweeps.spec.documented import experiments_of
from sweeps.spec.loading import load_spec, packaged_specs
from sweeps.spec.spec import FAMILIES


def test_each_family_has_a_spec_and_a_demo() -> None:
    """The names are the families', and the demos' are the same with a prefix."""
    assert set(packaged_specs()) == {*FAMILIES, *(f"demo-{family}" for family in FAMILIES)}


@pytest.mark.parametrize("name", packaged_specs())
def test_a_packaged_spec_is_what_its_first_comment_runs(name: str) -> None:
    """Whoever copies the command runs this spec: all documented experiments in their order, then a search.

    On real data nothing differs from the documentation; a demo tells that its scores compare with nothing.
    """
    text = packaged_specs()[name]
    spec = spec_of_yaml(text, name)
    program, run, family, *options = shlex.split(text.splitlines()[0].lstrip("# "))
    assert (program, run) == ("carsweep", "run")
    overrides = dict(zip((option.lstrip("-") for option in options[::2]), options[1::2], strict=True))
    assert load_spec(family, overrides=overrides).model_copy(update={"data": spec.data}) == spec
    assert spec.experiments == tuple(experiment.name for experiment in experiments_of(spec.family))
    assert spec.trials > len(spec.experiments)
    assert spec.search
    changed = tuple(experiment for experiment in spec.experiments if spec.changed_settings(experiment))
    if name.startswith("demo-"):
        assert changed == spec.experiments
        assert "not comparable" in (spec.note or "")
    else:
        assert (changed, spec.note) == ((), None)


def test_the_demo_of_retrieval_trains_no_extractor_that_the_demo_of_transfer_has() -> None:
    """The two ResNet experiments embed with the network that the fine-tuned transfer experiment trained."""
    demos = {family: dict(load_spec(family).experiment_configs()) for family in ("transfer", "retrieval")}
    finetuned = demos["transfer"]["transfer/finetuned"].training().digest
    for name in ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean"):
        assert demos["retrieval"][name].training().digest == finetuned
