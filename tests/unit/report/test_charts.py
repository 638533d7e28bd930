"""The charts of the report: what they draw is what the records say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from helpers import study_spec, trial_record

from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.report.charts import Chart, ChartsPart, charts_part
from sweeps.report.curves import rung_counts
from sweeps.report.facts import Facts
from sweeps.report.svg import Scale
from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.fields import EarlyStopping
from sweeps.trial import TrialRecord

EPOCHS = {"epochs": 40, "dropout": 0.1}
HOSTILE = "<script>alert(1)</script>&\"'"


def facts_of(*trials: TrialRecord, **spec: Any) -> Facts:
    """Return what a sweep with these trials has left."""
    asked = study_spec(**spec)
    board = Leaderboard(trials, asked.trial_config({}).model_dump(), 100, asked.goals)
    return Facts(Path("sweep"), asked, board, None, None, StageStore(Path("stages")))


def trained(number: int, *accuracies: float, **changes: Any) -> TrialRecord:
    """Return a trial with a measurement for each accuracy, planned for four epochs."""
    history = [Measurement(epoch, {"val_accuracy": said}) for epoch, said in enumerate(accuracies, start=1)]
    return trial_record(
        number, accuracies[-1], **{"epochs": len(history), "history": history, "config": {"epochs": 4}, **changes}
    )


def chart(part: ChartsPart, key: str) -> Chart:
    """Return the chart of a name."""
    return next(one for one in part.charts if one.key == key)


def marked(drawing: Element, trial: int) -> Element:
    """Return what is drawn for a trial."""
    return next(one for one in drawing.iter("g") if one.get("data-trial", "").split()[:1] == [str(trial)])


def places(element: Element, kind: str) -> list[tuple[float, float]]:
    """Return the places that the path of a CSS class goes through."""
    data = next(path.get("d", "") for path in element.iter("path") if path.get("class") == kind)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", data)]


def test_curves_lie_where_the_records_say() -> None:
    """Each epoch of each trial is drawn in proportion to its accuracy, and said in words."""
    part = charts_part(facts_of(trained(0, 0.1, 0.2, 0.3, 0.5), trained(1, 0.15, status="pruned")))
    (drawing,) = chart(part, "curves").drawings
    drawn = places(marked(drawing, 0), "line")
    heights = [(y - drawn[0][1]) / (drawn[3][1] - drawn[0][1]) for _, y in drawn]
    assert heights == pytest.approx([0, 0.25, 0.5, 1], abs=0.001)
    assert [x - drawn[0][0] for x, _ in drawn] == pytest.approx([0, 137, 274, 411], abs=0.2)
    assert [title.text for title in marked(drawing, 1).iter("title")] == [
        "trial 1 (search), pruned, accuracy 15.0% after 1 epoch"
    ]
    assert marked(drawing, 0).get("class") == "trial complete winner"
    assert chart(part, "curves").rows == (
        ("0", "search", "complete", "4", "50.0%"),
        ("1", "search", "pruned", "1", "15.0%"),
    )


def test_rungs_count_searched_trials() -> None:
    """A rung tells how many went on and how many were stopped there; documented experiments are never judged."""
    trials = [
        trained(0, 0.1, 0.2, 0.3, 0.5),
        trained(1, 0.1, status="pruned"),
        trained(2, 0.1, 0.2, status="pruned"),
        trained(3, 0.1, 0.2, 0.3, 0.4, experiment="transfer/frozen"),
        trained(4, 0.1, status="running"),
    ]
    assert rung_counts(trials, EarlyStopping(min_epochs=1, reduction=2)) == {1: (2, 1), 2: (1, 1)}
    assert rung_counts(trials, EarlyStopping(enabled=False)) == {}


def test_figures_stand_alone_and_text_stays_text() -> None:
    """Each figure is one SVG file without scripts or foreign addresses, whatever a trial is called."""
    figures = charts_part(facts_of(trained(0, 0.1, experiment=HOSTILE))).figures
    for figure in figures.values():
        whole = fromstring(figure)  # noqa: S314  # it is our own
        assert whole.tag == "{http://www.w3.org/2000/svg}svg"
        assert "<script" not in figure
        assert "http" not in figure.replace("http://www.w3.org/2000/svg", "")
    assert HOSTILE in "".join(fromstring(figures["curves"]).itertext())  # noqa: S314


def test_a_sweep_without_trials_says_so() -> None:
    """There is no drawing of nothing."""
    part = charts_part(facts_of())
    assert chart(part, "curves").drawings == ()
    assert chart(part, "curves").notes == ("No trial has measured an epoch.",)
    assert part.figures == {}


def test_curves_of_many_trials_say_what_they_leave_out() -> None:
    """With 2,000 trials of 40 epochs the background shows each fourth epoch, and no curve of it answers."""
    trials = [trained(n, *(n / 4000 + e / 100 for e in range(40)), config=EPOCHS) for n in range(2000)]
    facts = facts_of(*trials)
    part = charts_part(facts)
    assert chart(part, "curves").notes[:2] == (
        "1,800 of 2,000 curves are drawn, and do not answer to the pointer.",
        "These show each 4th epoch.",
    )
    assert len(part.figures["curves"]) < 600_000


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0.0, 1.0, 0, 100), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(1e-5, 3e-3, 0, 100, log=True), [1e-5, 1e-4, 1e-3]),
        (Scale(2.0, 6.0, 0, 100, log=True), [2.0, 5.0]),
    ],
)
def test_ticks_are_round(scale: Scale, ticks: list[float]) -> None:
    """An axis is marked at values that people read at a glance."""
    assert scale.ticks() == ticks
