"""What MLflow's pages are given to show: saved views and their addresses, descriptions, parameters, provenance."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from helpers import study_spec
from tracked import record

from carcls.evaluation.metrics import classification_metrics, retrieval_metrics
from sweeps.spec.loading import load_spec
from sweeps.tracking.provenance import code_tags, packages
from sweeps.tracking.updates import Ways, logged, update_of
from sweeps.tracking.views import view_of
from sweeps.tracking.words import SweepLine, best_derived, experiment_text, trial_text
from sweeps.trial import TrialRecord


def state_in(tag: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return name and state of a saved view, read as MLflow's pages read it."""
    ((name, text),) = tag.items()
    view = json.loads(text)
    assert {type(view[key]) for key in ("createdAt", "updatedAt")} == {int}
    kind, _, state = view["state"].partition(";")
    assert (kind, view["name"]) == ("deflate", "mine")
    return name, json.loads(zlib.decompress(base64.b64decode(state)))


def test_a_saved_view_sorts_by_the_score_and_shows_what_is_searched() -> None:
    """It has the sweep's runs alone, best first; a column for each metric and searched setting; curves come first."""
    name, state = state_in(view_of([study_spec()], "mine", "mine-12").tag(1000))
    assert name == "mlflow.sharedViewState.mine-12"
    assert state["searchFilter"] == "tags.`carsweep.sweep_id` = 'mine-12'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val_accuracy`", False)
    assert {"metrics.`val_top5`", "tags.`carsweep.state`", "params.`dropout`"} <= set(state["selectedColumns"])
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["LINE", "PARALLEL"]
    assert state["compareRunCharts"][0]["metricKey"] == "val_accuracy"


def test_a_sweep_after_a_loss_has_the_lowest_first() -> None:
    """The objective that decides is the first column, and less is better in a loss."""
    state = view_of([study_spec(objectives=("loss",), constraints=())], "mine", "a").state()
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val_loss`", True)
    assert state["selectedColumns"][:2] == ("metrics.`val_loss`", "metrics.`val_accuracy`")


def test_the_address_opens_the_view_or_says_what_it_would() -> None:
    """Where the view cannot be saved, the address itself filters and sorts; a job's page has all experiments."""
    view = view_of([study_spec()], "mine", "a-1")
    asked = parse_qs(view.address(["3"], saved=True).partition("?")[2])
    assert asked == {"workflowType": ["machine_learning"], "viewStateShareKey": ["a-1"]}
    plain = view.address(["3"], saved=False)
    assert plain.startswith("#/experiments/3/runs?")
    assert parse_qs(plain.partition("?")[2])["searchFilter"] == ["tags.`carsweep.sweep_id` = 'a-1'"]
    both = view_of([load_spec(name, demo=True) for name in ("transfer", "retrieval")], "mine", "m-2", is_job=True)
    job = both.address(["3", "4"], saved=False)
    assert job.startswith("#/compare-experiments/s?")
    assert json.loads(parse_qs(job.partition("?")[2])["experiments"][0]) == ["3", "4"]
    assert both.query == "tags.`carsweep.job` = 'm-2'"
    assert {"params.`dropout`", "params.`k`", "metrics.`val_top5`", "metrics.`val_map_at_r`"} <= set(
        both.state()["selectedColumns"]
    )


def test_parameters_are_what_tells_a_trial_from_others() -> None:
    """Searched settings and what differs from the base, numbers to four digits; the description has all settings."""
    config = {"head_lr": 0.00123456, "epochs": 2, "dropout": 0.5, "backbone": "resnet50", "seed": 0}
    ways = Ways({"head_lr": 0.001, "epochs": 2, "dropout": 0.5, "backbone": "resnet18", "seed": 0}, ("dropout",))
    assert ways.params(config) == {"head_lr": 0.001235, "dropout": 0.5, "backbone": "resnet50"}
    text = update_of(replace(record(3, "complete"), config=config), "p", ways, runs_now=False).tags[
        "mlflow.note.content"
    ]
    assert "head_lr: 0.00123456\n" in text
    assert "epochs: 2\n" in text


def test_no_metric_is_logged_under_two_names() -> None:
    """Of all that validation and test images are measured by, no two numbers are equal for all answers."""
    draw, classes = np.random.default_rng(0), 7
    gallery, labels = draw.integers(0, classes, 90), draw.choice(classes, 60, p=np.arange(1, 8) / 28)
    logits = draw.normal(size=(60, classes)).astype(np.float32)
    logits[np.arange(60), labels] += 1
    near = np.array([np.argsort(gallery != label, kind="stable") for label in labels])
    near = np.array([np.where(draw.random(90) < 0.7, row, draw.permutation(90)) for row in near])
    for prefix in ("val_", "test_"):
        measured = classification_metrics(logits, labels, prefix=prefix)
        measured |= retrieval_metrics(near, labels, gallery, prefix=prefix)
        said = logged({**measured, f"{prefix}fit_seconds": 1.0, f"{prefix}predict_seconds": 2.0})
        assert len({round(value, 6) for value in said.values()}) == len(said)
        assert {name.removeprefix(prefix) for name in said} == {
            *("accuracy", "f1", "loss", "top5", "recall_at_1", "recall_at_5", "map_at_r", "r_precision")
        }


def derived(number: int, accuracy: float, **config: Any) -> TrialRecord:
    """Return a trial that another one answered."""
    return replace(record(number, "complete", accuracies=(accuracy,)), derived_from=0, config=config)


def test_a_network_shows_the_best_of_what_it_answers() -> None:
    """Accuracy and neighbours' settings of the best derived trial; nothing where there is none."""
    others = [derived(1, 0.5, k=3, vote="uniform"), derived(2, 0.75, k=9, vote="distance"), derived(3, 0.75, k=1)]
    network = derived(0, 0.5, k=3, vote="uniform")
    assert best_derived(network, others) == "75.0% as trial 2, k=9 vote=distance"
    assert best_derived(replace(network, config={"k": 9, "vote": "uniform"}), others[1:]).endswith("2, vote=distance")
    said = update_of(record(0, "complete"), "p", Ways(), runs_now=False, derived=others)
    assert said.tags["carsweep.best_derived"] == "75.0% as trial 2, k=9 vote=distance"
    assert "carsweep.best_derived" not in update_of(record(0, "complete"), "p", Ways(), runs_now=False).tags
    assert said.mark != update_of(record(0, "complete"), "p", Ways(), runs_now=False).mark


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "trial 7 · search"),
        ({"experiment": "transfer/frozen"}, "trial 7 · transfer/frozen"),
        ({"confirms": 3}, "trial 7 · confirms trial 3"),
        ({"derived_from": 2}, "trial 7 · search, by trial 2"),
    ],
)
def test_runs_are_called_by_number_and_origin(changes: dict[str, Any], name: str) -> None:
    """One way of naming for all."""
    assert update_of(replace(record(7), **changes), "p", Ways(), runs_now=True).name == name


def test_what_others_wrote_stays_text() -> None:
    """A reason with HTML, Markdown and line breaks is one code span."""
    reason = "<img src=x onerror=alert(1)> `*b*`\n# big"
    text = trial_text(record(1, "failed", reason=reason), "failed", reason, {}, ())
    assert text.splitlines()[0] == "**failed** after 2 of 2 epochs: `<img src=x onerror=alert(1)> '*b*' # big`"


def test_the_headline_of_a_family_is_its_latest_sweep() -> None:
    """State and best score first, as the page shows one line; then a list with links; no sweep, no headline."""
    line = SweepLine("mine", "#/view", "#/run", "complete", 0.5, None)
    text = experiment_text("transfer", [line]).splitlines()
    said = "complete, best 50.0% on validation, – on test"
    assert text[0] == f"**`mine`**: {said}"
    assert text[-1] == f"- [`mine`](#/view): {said} ([summary](#/run))"
    assert experiment_text("transfer", []).startswith("\n")


def test_the_note_of_many_sweeps_is_no_longer_than_mlflow_takes() -> None:
    """The latest of 50 are listed, each line whole; a run that somebody called otherwise in MLflow is text."""
    line = SweepLine("<b>" + "x" * 5000, "#/view", "#/run", "complete", 0.5, None)
    text = experiment_text("transfer", [line] * 50)
    assert 4000 < len(text) <= 5000
    assert text.splitlines()[-1].startswith("- [`<b>xxx")
    assert text.endswith("([summary](#/run))")


def test_what_a_sweep_was_made_with_is_named() -> None:
    """Packages with their versions, the lock's digest, and in a checkout the commit."""
    assert {"mlflow==3.17.2"} <= {line for line in packages().splitlines() if line.startswith("mlflow==")}
    assert len(code_tags()["carsweep.lock"]) == 16
    assert len(code_tags().get("mlflow.source.git.commit", "0" * 40)) == 40
