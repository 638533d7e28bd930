"""Two sweeps, or two jobs by family, beside each other: what their specs have otherwise, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carcls.data.config import DataSummary
from carcls.errors import InputError
from sweeps.report.facts import Facts, read_facts
from sweeps.results.result import SweepResult, spent_dict
from sweeps.run.comparison import Pair, columns_of, compare_sweeps, sweep_json
from sweeps.run.status import sweeps_in
from sweeps.spec.settings import differences
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import write_value
from sweeps.tables import Column, Grid
from sweeps.text import DASH, duration, money_text, settings_text


def _settings_of_winner(result: SweepResult) -> str:
    return next((settings_text(row.settings) for row in result.board.rows if row.trial.number == result.winner), "")


def _cost(result: SweepResult) -> str:
    cost = result.spent.get("cost")
    return "" if cost is None else money_text(cost, result.spent["currency"])


# What came of two sweeps, a row each.
_RESULTS: tuple[Column[SweepResult], ...] = (
    *columns_of("model", "val_accuracy", "test_accuracy", "test_f1"),
    Column("settings", _settings_of_winner, "its settings"),
    *columns_of("trials", "seconds"),
    Column("trial_seconds", lambda r: r.spent.get("seconds"), "time of trials", duration),
    Column("epochs", lambda r: r.spent.get("epochs"), "epochs trained"),
    Column("cost", _cost, "cost"),
    *columns_of("registered"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sweeps beside each other.

    Attributes:
        names, states: of both, as they are now.
        results: what came of both; so far, where one has not ended.
        settings: path of each setting that they have otherwise and a trial would notice -> its two values.
        same_images: whether both have the same images, cut and split alike; None before both have read them.
        pair: their winners on the same test images; None where there are no two.
    """

    names: tuple[str, str]
    states: tuple[str, str]
    results: tuple[SweepResult, SweepResult]
    settings: Mapping[str, tuple[Any, Any]]
    same_images: bool | None
    pair: Pair | None

    def grids(self) -> tuple[Grid, Grid]:
        """Return tables of the settings, as YAML has them, and of what came of both."""
        settings = [(path, *map(_written, both)) for path, both in self.settings.items()]
        results = [(column.title, *map(column.text, self.results)) for column in _RESULTS]
        told = [("status", *self.states), *(row for row in results if {*row[1:]} != {DASH})]
        header = ("", *self.names)
        return Grid(header, settings, header, self.names), Grid(header, told, header, self.names)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        own = {"names": list(self.names), "states": list(self.states), "same_images": self.same_images}
        results = [{**sweep_json(result), "spent": dict(result.spent)} for result in self.results]
        settings = {path: list(both) for path, both in self.settings.items()}
        return {**own, "settings": settings, "results": results, "pair": asdict(self.pair) if self.pair else None}


def _written(value: Any) -> str:
    return DASH if value is None else write_value(value)


def compare_two(out: Path, first: str, second: str) -> tuple[list[Difference], list[str]]:
    """Return two sweeps beside each other, or those of jobs by family, and the sweeps that only one side has.

    Raises:
        InputError: a name is of neither, a file is damaged, or two jobs have no family in common.
    """
    sides = [[read_facts(out / sweep) for sweep in sweeps_in(out, name)] for name in (first, second)]
    if len(sides[0]) == len(sides[1]) == 1:
        return [_difference(out, sides[0][0], sides[1][0])], []
    by_family = [{facts.spec.family: facts for facts in side} for side in sides]
    common = [family for family in by_family[0] if family in by_family[1]]
    if not common:
        raise InputError(f"NAMES must be of sweeps with a family in common, got {first!r} and {second!r}.")
    alone = [facts.name for side in by_family for family, facts in side.items() if family not in common]
    return [_difference(out, by_family[0][family], by_family[1][family]) for family in common], alone


def _difference(out: Path, one: Facts, other: Facts) -> Difference:
    results = one.ended or _so_far(one), other.ended or _so_far(other)
    digests = [result.data.digest for result in results]
    groups = compare_sweeps(out, [one.name, other.name]).groups if one.name != other.name else ()
    return Difference(
        (one.name, other.name),
        (one.state, other.state),
        results,
        dict(_noticed(one.spec, other.spec)),
        digests[0] == digests[1] if all(digests) else None,
        next((pair for group in groups for pair in group.pairs), None),
    )


def _noticed(one: SweepSpec, other: SweepSpec) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what two specs have otherwise but names, notes, and base values that both fix, search or have anyway."""
    bases = [spec.trial_config({}).model_dump() for spec in (one, other)]
    for path, both in differences(one, other).items():
        section, _, name = path.partition(".")
        if section == "config":
            both = bases[0][name], bases[1][name]
            if both[0] == both[1] or all(name in {**spec.fixed, **spec.search} for spec in (one, other)):
                continue
        if path not in ("name", "note"):
            yield path, both


def _so_far(facts: Facts) -> SweepResult:
    """Return what has come of a sweep that has not ended: neither tested nor registered."""
    best, records = facts.board.best, facts.board.trials
    return SweepResult(
        sweep=facts.name,
        family=facts.spec.family,
        out=str(facts.folder.parent),
        data=facts.dataset.summary if facts.dataset else DataSummary("", "", 0, 0, {}),
        board=facts.board,
        winner=best.number if best else None,
        test=None,
        registered=None,
        tracking_uri="",
        seconds=max((record.spent.wall for record in records), default=0.0),
        interrupted=True,
        spent=spent_dict(records, facts.spec.prices),
    )
