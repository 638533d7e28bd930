"""What else a report tells of a sweep: failures, what it took, images, changes, environment; each with its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.failures import POLICIES
from sweeps.report.facts import Facts
from sweeps.results.evaluations import find_evaluation
from sweeps.results.result import saved_text, spent_dict, spent_text
from sweeps.spec.documented import LEAK_MARK, find_experiment
from sweeps.study.confirmation import Confirmed
from sweeps.tables import Column, Grid, table_of
from sweeps.text import DASH, counts_text, duration, minute, money_text, percent, percent_range, plural, points
from sweeps.trial import stage_use

_MOST = 20
_SAID = {"running": "unfinished"}
CONFIRMED: tuple[Column[Confirmed], ...] = (
    Column("number", lambda one: one.number, "trial"),
    Column("runs", lambda one: one.asked if one.is_whole else f"{len(one.runs)} of {one.asked}", "fresh seeds"),
    Column("mean", lambda one: percent(one.mean, one.spread), "mean ± spread"),
    Column("search", lambda one: one.search, "search score", percent),
    Column("shrinkage", lambda one: one.shrinkage, "shrinkage", points),
)


@dataclass(frozen=True, slots=True)
class Detail:
    """A part of a report: what its address ends with, its title, sentences, and a table."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    table: Grid | None = None


def details_of(facts: Facts) -> list[Detail]:
    """Return the parts that the sweep has something for, in their order."""
    parts = (_confirmed, _tests, _failures, _cost, _data, _changes, _environment)
    return [found for part in parts if (found := part(facts)).lines or found.table]


def _confirmed(facts: Facts) -> Detail:
    table = table_of(CONFIRMED, facts.board.confirmed) if facts.board.confirmed else None
    return Detail("confirmed", "Confirmed with fresh seeds", (), table)


def _tests(facts: Facts) -> Detail:
    """Return the documented experiments that were evaluated on the test images each, as a reproduction does."""
    rows = []
    for trial in (trial for trial in facts.board.trials if trial.experiment):
        path, said = facts.folder / f"test-{trial.number:04d}.json", find_experiment(str(trial.experiment))
        if facts.dataset and (test := find_evaluation(trial, facts.dataset, path, refit=False)):
            accuracy = percent(test.metrics.get("test_accuracy"), digits=2)
            mark = LEAK_MARK if said.leaked else ""
            documented = f"{'~' if said.approximate else ''}{percent(said.documented['accuracy'], digits=2)}{mark}"
            rows.append([said.name, documented, accuracy, percent_range(test.interval), str(test.images)])
    words = ["experiment", "documented", "test accuracy", "95% interval", "test images"]
    lines = (f"~: rounded. {LEAK_MARK}: measured on images whose like had been trained on.",) if rows else ()
    table = Grid(words, rows, words[:1]) if rows else None
    return Detail("tests", "Documented experiments on the test images", lines, table)


def _failures(facts: Facts) -> Detail:
    failed = [trial for trial in facts.board.trials if trial.status == "failed"]
    kinds = sorted({trial.failure for trial in failed})
    of_kind = {kind: [trial.number for trial in failed if trial.failure == kind] for kind in kinds}
    rows = [
        [kind or DASH, str(len(numbers)), _listed(numbers), POLICIES[kind].remedy if kind in POLICIES else DASH]
        for kind, numbers in of_kind.items()
    ]
    words = ["kind", "trials", "what helps"]
    lines = [f"Trial {trial.number}: {trial.reason}" for trial in failed[:_MOST]]
    more = [f"… and {len(failed) - _MOST} more."] if len(failed) > _MOST else []
    table = Grid(["kind", "count", "trials", "what helps"], rows, words) if rows else None
    return Detail("failures", "Failures", (*lines, *more), table)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:_MOST])) + (" …" if len(numbers) > _MOST else "")


def _cost(facts: Facts) -> Detail:
    """Return what trials took, by how they ended; what they found made already took nothing."""
    spent, has_price = spent_dict(facts.board.trials, facts.spec.prices), bool(facts.spec.price)

    def cost(amount: float | None) -> str:
        return DASH if amount is None else money_text(amount, spent["currency"])

    rows = [
        [_SAID.get(status, status), duration(of["seconds"]), str(of["epochs"]), *[cost(of["cost"])] * has_price]
        for status, of in (*spent["by_status"].items(), ("all", spent))
    ]
    header = ["trials", "time", "epochs trained", *["cost"] * has_price]
    price = [f"Prices: {facts.spec.price}."] if facts.spec.price else []
    lines = filter(None, (spent_text(spent), saved_text(**stage_use(facts.board.trials)), *price))
    return Detail("cost", "Cost", tuple(lines), Grid(header, rows, ["trials"]))


def _data(facts: Facts) -> Detail:
    data = facts.dataset
    if data is None:
        return Detail("data", "Data")
    layout = data.manifest.layout
    lines = [
        f"{data.name}: {len(data.classes):,} classes, {counts_text(data.counts)} images; digest {data.digest}.",
        f"From {data.manifest.root}{f', read as {layout}' if layout else ''}.",
        *data.notes,
    ]
    lines += [f"Not read: {plural(len(data.quarantined), 'image')}."] if data.quarantined else []
    return Detail("data", "Data", tuple(lines))


def _changes(facts: Facts) -> Detail:
    rows = [[minute(one["at"]), str(one["after"]), "; ".join(one["changes"])] for one in facts.edits]
    table = Grid(["changed", "after trials", "what"], rows, ["changed", "what"]) if rows else None
    return Detail("changes", "Changes since it was begun", (), table)


def _environment(facts: Facts) -> Detail:
    known = facts.result.environment if facts.result else {}
    table = Grid(["what", "version"], [[name, said] for name, said in known.items()], ["what", "version"])
    return Detail("environment", "Environment", *(((), table) if known else (("It was not recorded.",),)))
