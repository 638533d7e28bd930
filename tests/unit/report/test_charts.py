"""The charts of the report: what they draw is what the records say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from helpers import study_spec, trial_record

from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.report import charts
from sweeps.report.advice import advice_of
from sweeps.report.charts import Chart, ChartsPart, charts_part
from sweeps.report.curves import rung_counts
from sweeps.report.facts import Facts
from sweeps.report.svg import Scale
from sweeps.report.timeline import bars_of, rows_of
from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Range
from sweeps.study.importance import importances_of
from sweeps.tables import Grid
from sweeps.text import percent
from sweeps.trial import NOTHING, Spent, TrialRecord

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


def table_of(chart: Chart) -> Grid:
    """Return the table of a chart that has one."""
    assert chart.table is not None
    return chart.table


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
    assert [(x - drawn[0][0]) / (drawn[3][0] - drawn[0][0]) for x, _ in drawn] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [title.text for title in marked(drawing, 1).iter("title")] == [
        "trial 1 (search), pruned, accuracy 15.0% after 1 epoch"
    ]
    assert marked(drawing, 0).get("class") == "trial complete winner"


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
    trial = replace(ran(0, 0, 9, HOSTILE), history=[Measurement(1, {"val_accuracy": 0.5})], settings={"dropout": 0.1})
    figures = charts_part(facts_of(replace(trial, experiment=HOSTILE))).figures
    assert list(figures) == ["curves", "slices", "parallel", "timeline"]
    for figure in figures.values():
        whole = fromstring(figure)  # noqa: S314  # it is our own
        assert whole.tag == "{http://www.w3.org/2000/svg}svg"
        assert "<script" not in figure
        assert "http" not in figure.replace("http://www.w3.org/2000/svg", "")
    for figure in figures.values():
        assert HOSTILE in "".join(fromstring(figure).itertext())  # noqa: S314


def test_a_sweep_without_trials_says_so() -> None:
    """There is no drawing of nothing."""
    part = charts_part(facts_of())
    assert chart(part, "curves").drawings == ()
    assert [one.notes for one in part.charts] == [
        ("No trial has measured an epoch.",),
        ("No importances: fewer than 10 trials (0).",),
        ("No trial with a searched setting has a score.",),
        ("No trial with a searched setting has a score.",),
        ("The journal does not tell when a trial ran.",),
    ]
    assert part.figures == {}


def test_failures_alone_have_curves_and_no_score() -> None:
    """A sweep in which nothing ended well shows how far its trials came."""
    part = charts_part(facts_of(trained(0, 0.1, 0.2, status="failed"), trial_record(1, None, status="failed")))
    assert list(part.figures) == ["curves"]
    (drawing,) = chart(part, "curves").drawings
    assert [one.get("class") for one in drawing.iter("g")] == ["trial failed"]


def test_slices_lie_where_the_records_say() -> None:
    """A number is in proportion to its range, a factor on a logarithmic axis; of equal scores the heights are equal."""
    search = {"dropout": Range(0.0, 0.5), "head_lr": Range(1e-4, 1e-2, log=True), "crop": ["random", "resized"]}
    trials = [
        trained(0, 0.2, settings={"dropout": 0.0, "head_lr": 1e-4, "crop": "random"}),
        trained(1, 0.4, settings={"dropout": 0.1, "head_lr": 1e-3, "crop": "resized"}),
        trained(2, 0.3, settings={"dropout": 0.5, "head_lr": 1e-2}),
        trained(3, 0.3, settings={"dropout": 0.0, "head_lr": 0.0, "crop": "none"}),  # outside of the search space
    ]
    dropout, head_lr, crop = chart(charts_part(facts_of(*trials, search=search)), "slices").drawings
    across = [places(marked(dropout, number), "mark")[0] for number in range(3)]
    assert (across[1][0] - across[0][0]) / (across[2][0] - across[0][0]) == pytest.approx(0.2, abs=0.001)
    assert (across[1][1] - across[0][1]) / (across[2][1] - across[0][1]) == pytest.approx(2, abs=0.01)
    factors = [places(marked(head_lr, number), "mark")[0][0] for number in (3, 0, 1, 2)]
    assert factors == sorted(factors)  # nothing has no logarithm, and stands before the least factor
    assert factors[2] - factors[1] == pytest.approx(factors[3] - factors[2], abs=0.1)
    assert [text.text for text in crop.iter("text") if text.get("class") == "middle small"] == [
        "random",
        "resized",
        "none",
    ]
    assert [one.get("data-trial") for one in crop.iter("g")] == ["0", "3", "1"]  # the best on top; one has no crop
    assert "crop=resized" in "".join(marked(crop, 1).itertext())


def test_nothing_where_factors_are_searched_harms_no_part_of_the_report() -> None:
    """A documented experiment without weight decay is outside of a range of factors, whose logarithm 0 has not."""
    search = {"weight_decay": Range(1e-6, 1e-2, log=True)}
    trials = [trained(n, 0.5 + n / 20, settings={"weight_decay": 0.0}) for n in range(5)]
    facts = facts_of(*trials, search=search, experiments=["transfer/frozen"])
    assert any("low end" in one.why for one in advice_of(facts))
    assert list(charts_part(facts).figures) == ["curves", "slices", "parallel"]


def test_parallel_lines_end_at_the_score() -> None:
    """Each line goes through a place of each setting; what a trial lacks has a place of its own."""
    search = {"dropout": Range(0.0, 0.5), "backbone_lr": Range(1e-5, 1e-3, log=True)}
    settings = [{"dropout": 0.0}, {"dropout": 0.25, "backbone_lr": 1e-3}, {"dropout": 0.5, "backbone_lr": 1e-5}]
    trials = [
        trained(n, accuracy, settings=own)
        for n, (accuracy, own) in enumerate(zip((0.2, 0.3, 0.6), settings, strict=True))
    ]
    (drawing,) = chart(charts_part(facts_of(*trials, search=search)), "parallel").drawings
    lines = [places(marked(drawing, number), "line") for number in range(3)]
    ends = [line[-1][1] for line in lines]
    assert (ends[1] - ends[0]) / (ends[2] - ends[0]) == pytest.approx(0.25, abs=0.001)
    assert lines[1][0][1] - lines[0][0][1] == pytest.approx(lines[2][0][1] - lines[1][0][1], abs=0.1)
    assert lines[0][1][1] > lines[2][1][1] > lines[1][1][1]  # without, the least, the greatest


def test_the_front_is_that_of_the_goals() -> None:
    """The trials that no other one beats have rings, are joined and listed with their values."""
    trials = [
        trial_record(n, None, metrics={"val_accuracy": accuracy, "predict_ms": time})
        for n, (accuracy, time) in enumerate([(0.9, 8.0), (0.5, 2.0), (0.4, 4.0), (0.7, 4.0)])
    ]
    found = chart(charts_part(facts_of(*trials, objectives=["accuracy", "predict_time"])), "front")
    (drawing,) = found.drawings
    ringed = {one.get("data-trial") for one in drawing.iter("g") if "ring" in [path.get("class") for path in one]}
    assert ringed == {"0", "1", "3"}
    joined = places(drawing, "front")
    assert joined == [places(marked(drawing, number), "mark")[0] for number in (1, 3, 0)]
    assert [row[0] for row in table_of(found).rows] == ["0", "3", "1"]
    assert table_of(found).rows[1][2:] == ("70.0%", "4 ms")
    assert "front" not in [one.key for one in charts_part(facts_of(*trials)).charts]


def ran(number: int, start: float, end: float, worker: str = "", **changes: Any) -> TrialRecord:
    """Return a trial that ran between two seconds of its sweep."""
    spent = Spent(end - start, 1, wall=end)
    return trial_record(number, 0.5, seconds=end - start, spent=spent, began=1e9 + start, worker=worker, **changes)


def test_trials_lie_in_the_rows_of_their_processes() -> None:
    """A process that came after another one in its place shares its row; bars last as long as the trials did."""
    trials = [
        ran(0, 0, 10, "a GPU 0 pid 1"),
        ran(1, 10, 30, "a GPU 0 pid 1"),
        ran(2, 0, 20, "b pid 2"),
        ran(3, 32, 40, "a GPU 0 pid 3"),
        ran(4, 5, 8, "b pid 4"),
    ]
    rows = rows_of(bars_of(trials))
    assert {name: [bar.trial.number for bar in own] for name, own in rows.items()} == {
        "a GPU 0": [0, 1, 3],
        "b 1": [2],
        "b 2": [4],
    }
    found = chart(charts_part(facts_of(*trials)), "timeline")
    assert table_of(found).rows == [
        ("a GPU 0", "3", "38.0 s", "95%"),
        ("b 1", "1", "20.0 s", "50%"),
        ("b 2", "1", "3.0 s", "8%"),
    ]
    assert "trials ran in these 3 rows for 51% of the time" in " ".join(found.notes)
    (drawing,) = found.drawings
    widths = [float(re.findall("h([0-9.]+)v", marked(drawing, n).findall("path")[0].get("d", ""))[0]) for n in (0, 1)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.1)


def test_older_journals_have_slots_in_the_place_of_processes() -> None:
    """As many as trials ran at a time, by the clock where the sweep's own time is not known."""
    trials = [replace(ran(n, start, end), spent=NOTHING) for n, (start, end) in enumerate([(0, 10), (5, 15), (10, 20)])]
    rows = rows_of(bars_of(trials))
    assert {name: [(bar.trial.number, bar.start) for bar in own] for name, own in rows.items()} == {
        "slot 1": [(0, 0.0), (2, 10.0)],
        "slot 2": [(1, 5.0)],
    }


def test_bars_tell_of_cached_stages() -> None:
    """What was found made, what that saved, and what was made."""
    stages = {"pack/a": 4.0, "features/b": 8.5, "training/c": None}
    part = charts_part(facts_of(ran(0, 0, 60, "a pid 1", late_stages=stages)))
    (drawing,) = chart(part, "timeline").drawings
    bar = marked(drawing, 0)
    assert [path.get("class") for path in bar.iter("path")] == ["bar", "hit", "made"]
    assert "found 2 stages made, which saved 12.5 s, made 1 stage" in "".join(bar.itertext())


def test_importances_are_drawn_as_they_were_found() -> None:
    """Bars are in proportion to the shares, and the table has them."""
    trials = [trained(n, 1 - n / 50, settings={"dropout": n / 100, "k": n % 3 + 1}) for n in range(40)]
    facts = facts_of(*trials, search={"dropout": Range(0.0, 0.5), "k": Range(1, 3, step=1)})
    found, known = chart(charts_part(facts), "importance"), importances_of(trials, facts.spec.search)
    (drawing,) = found.drawings
    bars = [float(bar.get("width", "")) for bar in drawing.iter("rect") if bar.get("class") == "ped"][1:]
    shares = [one.ped_anova or 0 for one in known.settings]
    assert bars[1] / bars[0] == pytest.approx(shares[1] / shares[0], abs=0.001)
    assert [row[:4] for row in table_of(found).rows] == [
        (one.setting, percent(one.ped_anova), percent(one.f_anova), "40") for one in known.settings
    ]


def test_a_derived_winner_has_the_curve_of_its_network() -> None:
    """Whoever highlights it highlights what trained it; among the settings each has a mark of its own."""
    trials = [
        trained(0, 0.2, 0.3, settings={"k": 1}),
        trained(1, 0.1, 0.2, settings={"k": 1}),
        trial_record(2, 0.5, derived_from=1, settings={"k": 5}),
    ]
    part = charts_part(facts_of(*trials, search={"k": Range(1, 10, step=1)}))
    (curves,), (slices,) = chart(part, "curves").drawings, chart(part, "slices").drawings
    assert {one.get("data-trial"): one.get("class") for one in curves.iter("g")} == {
        "0": "trial complete top",
        "1 2": "trial complete winner",
    }
    assert {one.get("data-trial"): one.get("class") for one in slices.iter("g")} == {
        "0": "trial complete top",
        "1": "trial complete",
        "2": "trial complete winner",
    }


def test_curves_of_many_trials_say_what_they_leave_out() -> None:
    """With 2,000 trials of 40 epochs the background shows one epoch in four, and none of it answers; 3 MB suffice."""
    search, dice = (
        {name: Range(0.0, 0.9) for name in ("dropout", "label_smoothing", "momentum", "clip_norm")},
        Random(0),
    )
    trials = [
        replace(
            trained(n, *(n / 4000 + e / 100 for e in range(40)), config=EPOCHS),
            settings={name: domain.draw(dice) for name, domain in search.items()},
            worker=f"node pid {n % 16}",
            spent=Spent(9.0, 40, wall=10.0 * (n // 16 + 1)),
        )
        for n in range(2000)
    ]
    part = charts_part(facts_of(*trials, search=search))
    assert chart(part, "curves").notes == (
        "1,800 of 2,000 curves are drawn, and do not answer to the pointer.",
        "Those show one epoch in 4.",
    )
    assert sum(map(len, part.figures.values())) < 1_500_000
    assert "of 2,000 trials are drawn" in " ".join(chart(part, "slices").notes)


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


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``, by WCAG 2.2."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_mark_is_seen_in_both_themes() -> None:
    """Colours of marks have a contrast of 3:1 and more on the page's paper, white or near black."""
    style = (Path(charts.__file__).parent / "pages" / "charts.css").read_text(encoding="utf-8")
    colours = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", style))
    assert len(colours) == 5
    for colour in colours:
        for paper in ("#ffffff", "#14171a"):
            low, high = sorted(map(luminance, (colour, paper)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, paper)
