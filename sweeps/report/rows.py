"""The leaderboard as a report shows it: every trial a row, every number a number, and a command that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from carcls.config import TrialConfig
from sweeps.report.facts import Facts
from sweeps.results.leaderboard import COLUMNS, Row, varying_settings
from sweeps.spec.loading import load_spec
from sweeps.tables import Column, Grid
from sweeps.text import DASH, command_text
from sweeps.trial import TrialRecord

# A page has so many rows at most; the others are in leaderboard.json.
MOST_ROWS = 5000
_ALWAYS = ("rank", "number", "experiment", "accuracy")


@dataclass(frozen=True, slots=True)
class ReportCell:
    """A cell: what it shows, and the number or text that it is sorted by; None, which comes last, without a value."""

    text: str
    value: float | str | None = None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A trial of the leaderboard.

    Attributes:
        number, status: of the trial.
        cells: one a column.
        note: why it failed, was stopped or may not win.
        is_sibling: whether another trial with the same network stands above it, so that few want to see it.
        command: runs a trial with this one's settings as a sweep of its own.
    """

    number: int
    status: str
    cells: tuple[ReportCell, ...]
    note: str
    is_sibling: bool
    command: str


@dataclass(frozen=True, slots=True)
class ReportBoard:
    """The leaderboard.

    Attributes:
        titles: of the columns.
        words: titles of those that hold words, not numbers.
        rows: best first.
        left_out: rows that are not among them.
        same: what all trials that measured it have in common, and so has no column: names with texts.
    """

    titles: tuple[str, ...]
    words: frozenset[str]
    rows: tuple[ReportRow, ...]
    left_out: int = 0
    same: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The rows without siblings as a table of texts."""
        return Grid(self.titles, [[cell.text for cell in row.cells] for row in self.rows if not row.is_sibling])


def board_of(facts: Facts) -> ReportBoard:
    """Return the leaderboard of a sweep: those rows with ranks that a terminal shows, and all others."""
    board, shown = facts.board, {row.trial.number: row for row in facts.board.shown}
    rows = [shown.get(row.trial.number, row) for row in board.rows]
    found = {c: {c.text(row) for row in rows} - {DASH} for c in COLUMNS if c.title}
    columns = [c for c, texts in found.items() if len(texts) > 1 or (texts and (len(rows) < 2 or c.key in _ALWAYS))]
    settings, repeat = varying_settings([board]), repeating(facts)
    made = tuple(
        ReportRow(
            number=row.trial.number,
            status=row.trial.status,
            cells=(*_cells(columns, row), *_settings(settings, row.trial.trial_config)),
            note=row.infeasible or row.trial.reason,
            is_sibling=row.trial.number not in shown,
            command=repeat(row.trial),
        )
        for row in rows[:MOST_ROWS]
    )
    titles = (*(column.title for column in columns), *settings)
    words = {
        title for row in made for title, cell in zip(titles, row.cells, strict=True) if isinstance(cell.value, str)
    }
    same = tuple(f"{c.title} {min(texts)}" for c, texts in found.items() if texts and c not in columns)
    return ReportBoard(titles, frozenset(words), made, len(rows) - len(made), same)


def _cells(columns: list[Column[Row]], row: Row) -> Iterator[ReportCell]:
    for column in columns:
        value = column.value(row)
        yield ReportCell(
            column.text(row), value if isinstance(value, int | float) else str(value) if column.is_word else None
        )


def _settings(names: tuple[str, ...], config: TrialConfig) -> Iterator[ReportCell]:
    neutral = config.neutral()
    for name in names:
        value = None if name in neutral else getattr(config, name)
        text = DASH if value is None else f"{value:.3g}" if isinstance(value, float) else _word(value)
        yield ReportCell(text, value if value is None or isinstance(value, int | float) else str(value))


def repeating(facts: Facts) -> Callable[[TrialRecord], str]:
    """Return what writes the command, as a shell reads it, that runs a trial of a sweep again.

    It is run on the sweep's images and out of the same cached stages; the command sets what the packaged spec has
    otherwise.
    """
    spec, data = facts.spec, facts.spec.data
    own = data.model_dump(exclude_defaults=True, exclude={"path"})
    said = ["experiments=[]", *(f"data.{name}={_word(value)}" for name, value in own.items())]
    packaged = load_spec(spec.family, sets=said, overrides={"data": data.path, "trials": 1})
    base, searched = packaged.trial_config({}), packaged.search
    of_base, where = base.canonical(), ["--data", data.path] if data.path else []

    def command(trial: TrialRecord) -> str:
        config = trial.trial_config
        canonical, neutral = config.canonical(), config.neutral()
        wanted = [
            name
            for name in TrialConfig.model_fields
            if name not in ("family", "seed", "processes")
            if name in searched
            or canonical.get(name) != of_base.get(name)
            or (name not in neutral and getattr(config, name) != getattr(base, name))
        ]
        sets = [*said, *(f"{name}={_word(getattr(config, name))}" for name in wanted)]
        several = ["--gpus-per-trial", str(config.processes)] if config.processes > 1 else []
        seed = ["--seed", str(config.seed)] if config.seed else []
        words = ["run", spec.family, *where, "--trials", "1", "--set", *sets, *seed, *several]
        return command_text(*words, out=facts.out)

    return command


def _word(value: Any) -> str:
    """Write a value as ``--set`` reads it."""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)
