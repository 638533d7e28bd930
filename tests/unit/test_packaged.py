"""The specs that come with carsweep: each is valid, says how it is run, and begins with its family's experiments."""

from __future__ import annotations

import shlex

import pytest
from helpers import spec_of_yaml

from sweeps.spec.documented import experiments_of
from sweeps.spec.loading import PackagedSpec, load_spec, packaged_specs
from sweeps.spec.spec import FAMILIES, SweepSpec


def spec_of(packaged: PackagedSpec) -> SweepSpec:
    """Read a packaged file as it is, with nothing laid over it."""
    return spec_of_yaml(packaged.path.read_text(encoding="utf-8"), packaged.path.name)


def test_each_family_has_a_spec_and_a_demo() -> None:
    """The names are the families', and the demos' are the same with a prefix."""
    assert {spec.name for spec in packaged_specs()} == {*FAMILIES, *(f"demo-{family}" for family in FAMILIES)}


@pytest.mark.parametrize("packaged", packaged_specs(), ids=lambda packaged: packaged.name)
def test_the_first_comment_is_the_command_that_runs_it(packaged: PackagedSpec) -> None:
    """Whoever copies it runs this spec: with data the family's own, without any its demo."""
    program, run, family, *options = shlex.split(packaged.command)
    assert (program, run) == ("carsweep", "run")
    overrides = dict(zip((option.lstrip("-") for option in options[::2]), options[1::2], strict=True))
    spec = load_spec(family, overrides=overrides)
    assert spec.model_copy(update={"data": spec_of(packaged).data}) == spec_of(packaged)


@pytest.mark.parametrize("packaged", packaged_specs(), ids=lambda packaged: packaged.name)
def test_the_documented_experiments_come_first_and_something_is_searched(packaged: PackagedSpec) -> None:
    """All experiments of the family in their order, and more trials than those."""
    spec = spec_of(packaged)
    assert spec.experiments == tuple(experiment.name for experiment in experiments_of(spec.family))
    assert spec.trials > len(spec.experiments)
    assert spec.search


@pytest.mark.parametrize("packaged", packaged_specs(), ids=lambda packaged: packaged.name)
def test_only_a_demo_changes_experiments_and_it_says_so(packaged: PackagedSpec) -> None:
    """On real data nothing differs from the documentation; a demo tells that its scores compare with nothing."""
    spec = spec_of(packaged)
    changed = [name for name in spec.experiments if spec.changed_settings(name)]
    if packaged.name.startswith("demo-"):
        assert changed == list(spec.experiments)
        assert "not comparable" in (spec.note or "")
    else:
        assert (changed, spec.note) == ([], None)


def test_the_demo_of_retrieval_trains_no_extractor_that_the_demo_of_transfer_has() -> None:
    """The two ResNet experiments embed with the network that the fine-tuned transfer experiment trained."""
    demos = {family: dict(load_spec(family).experiment_configs()) for family in ("transfer", "retrieval")}
    finetuned = demos["transfer"]["transfer/finetuned"].training().digest
    for name in ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean"):
        assert demos["retrieval"][name].training().digest == finetuned
