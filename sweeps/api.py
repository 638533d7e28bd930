"""Sweeps from Python and notebooks: run one, or load what one has left, as frames, figures, a report, a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from carcls.config import TrialConfig
from carcls.errors import InputError, shown
from sweeps.cli.folder import status_lines
from sweeps.interrupts import interruptible
from sweeps.report.facts import Facts, read_facts
from sweeps.results.leaderboard import Row, shown_columns, varying_settings
from sweeps.results.result import SweepResult
from sweeps.run.command import Command, default_name, specs_of_all
from sweeps.run.remembered import recall
from sweeps.run.status import SweepStatus, sweep_status, sweeps_in
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import is_sweep
from sweeps.tables import lines_of, table_of
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20
_DTYPES = {bool: "boolean", int: "Int64", float: "float64", str: "string"}


def run_sweep(
    family: str,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    search: Mapping[str, Any] | None = None,
    objectives: Sequence[str] | None = None,
    constraints: Sequence[str] | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    spec: str | Path | None = None,
    tracking_uri: str | None = None,
    address: str | None = None,
    notify: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Sweep:
    """Run a sweep, or go on with it, as ``carsweep run FAMILY`` does, and return what it has left.

    Interrupted (Ctrl-C, a notebook's stop button, SIGTERM, ``carsweep stop``) it keeps everything, says how it goes on
    and raises KeyboardInterrupt. In other threads than the main one only ``carsweep stop`` interrupts it.

    Args:
        family: ``transfer``, ``retrieval`` or ``scratch``.
        data: folder of the images, or a mapping of what a spec says of them; None draws the demo cars.
        trials: how many, the documented experiments included.
        hours: no trial starts after so many.
        search: domains by setting: choices as a list, ``{"low": 1e-4, "high": 1e-2, "log": True}``, or None for what
            is not to be searched.
        objectives, constraints: such as ``["accuracy", "predict_time"]`` and ``["parameters <= 10M"]``.
        name: of the sweep; an existing one goes on.
        out: folder of all sweeps.
        spec: a YAML file with the sweep or a part of it.
        tracking_uri: MLflow's store or server; None is a database in ``out``.
        address: of a Ray cluster; None runs the trials here, in a Ray of this process where there is one already.
        notify: an address on the web that hears of the end.
        quiet: whether nothing is shown meanwhile.
        settings: whatever else a spec has (``seed``, ``sampler``, ``confirm``, ``early_stopping``, …), and settings
            that all trials have (``dropout=0.3``); ``carsweep list`` and docs/cli.md name them.

    Raises:
        SpecError: all mistakes in these, together; an InputError, as the next.
        InputError: something cannot be used. No trial has started.
        SweepStopped: trials kept failing; nothing is lost.
    """
    _require_text("family", family)
    given = {**settings, "data": data, "trials": trials, "hours": hours, "search": search}
    given |= {"objectives": objectives, "constraints": constraints, "name": name}
    asked = load_spec(family, spec_file=Path(spec) if spec else None, overrides=_plain_values(given))
    name = asked.name or default_name(family)
    asked = asked.model_copy(update={"name": name})
    _run(Command("sweep", name, (asked,), tracking_uri, out=Path(out), address=address, notify=notify), quiet)
    return load_sweep(name, out=out)


def run_all(
    *,
    trials: int | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    tracking_uri: str | None = None,
    address: str | None = None,
    notify: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Sweep]:
    """Run the sweeps of all families as one job, or go on with it, as ``carsweep run all`` does.

    Return what each has left, by family; ``OUT/NAME/comparison.json`` compares their winners. Arguments and errors are
    those of ``run_sweep``, but ``spec``.

    Args:
        trials: of all together.
        name: of the job; its sweeps are ``NAME-FAMILY``.
        out, tracking_uri, address, notify, quiet: as of ``run_sweep``.
        settings: whatever else it takes (``data``, ``hours``, ``search``, ``dropout=0.3``, …). A setting reaches the
            families that it means something in.
    """
    name = name or default_name("all")
    _require_text("name", name)
    given = {setting: value for setting, value in _plain_values(settings).items() if value is not None}
    specs = specs_of_all(name=name, sets=(), overrides=given, trials=trials)
    _run(Command("all", name, specs, tracking_uri, out=Path(out), address=address, notify=notify), quiet)
    return {spec.family: load_sweep(str(spec.name), out=out) for spec in specs}


def _require_text(argument: str, value: object) -> None:
    if not isinstance(value, str):
        raise InputError(f"{argument} must be text, got {shown(value)}.")


def _plain_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given as plain values; a set has no order that a sweep which goes on would find again."""
    search = given.get("search")
    if isinstance(search, Mapping):
        ordered = {name: sorted(d, key=repr) if isinstance(d, set | frozenset) else d for name, d in search.items()}
        given = {**given, "search": ordered}
    return dict(to_jsonable_python(given, fallback=_plain))


def _plain(value: Any) -> Any:
    """Return what a number or an array of NumPy means."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def _run(command: Command, quiet: bool) -> None:
    from sweeps.cli.notebook import progress_console
    from sweeps.cli.output import say
    from sweeps.cli.view import open_view
    from sweeps.run.several import run_sweeps

    _require_text("notify", command.notify or "")
    console, outcome = progress_console(quiet=quiet), None
    with suppress(KeyboardInterrupt), interruptible():
        view = partial(open_view, console=console, stages=command.root / "stages")
        outcome = run_sweeps(command, view, partial(say, console))
    if outcome is None or outcome.interrupted:
        begun = ", ".join(
            f"load_sweep({one.name!r})" for one in command.specs if is_sweep(command.root / str(one.name))
        )
        say(console, f"Interrupted. What there is: {begun or 'nothing yet'}. To go on: name={command.name!r}.")
        raise KeyboardInterrupt


def _dtype(values: Sequence[Any]) -> str:
    """Return the pandas type of plain values among which some may be missing."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return _DTYPES.get(next(iter(kinds), int), "object")
    return "float64" if kinds == {int, float} else "object"


def load_sweep(name: str, *, out: str | Path = "runs") -> Sweep:
    """Return what a sweep has left so far; it may run meanwhile.

    Raises:
        InputError: there is none of that name, it is a job of several, or a file of it is damaged.
    """
    _require_text("name", name)
    folder = Path(out).expanduser().absolute()
    members = sweeps_in(folder, name)
    if members != [name]:
        several = ", ".join(map(repr, members)) or "none that has begun"
        raise InputError(
            f"name must be of one sweep, got {name!r}, a job of several: {several}. Load these one by one."
        )
    return Sweep(sweep_status(folder, name), read_facts(folder / name))


@dataclass(frozen=True)
class SweepFigure:
    """A drawing that a notebook shows: ``svg`` is a file that needs nothing else."""

    title: str
    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What a sweep had left when it was loaded.

    Attributes:
        status: its state, its trials by how they ended, who runs it.
        facts: its spec, its trials on their leaderboard, its data set.
    """

    status: SweepStatus
    facts: Facts

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.facts.name

    @property
    def out(self) -> Path:
        """The folder of all sweeps, absolute."""
        return self.facts.folder.parent

    @property
    def result(self) -> SweepResult | None:
        """What it left when it ended last: winner, test, registered model; None before."""
        return self.facts.result

    @property
    def best(self) -> TrialRecord | None:
        """The trial that leads by the sweep's first objective; None before one is complete."""
        return self.facts.board.best

    def frame(self) -> pd.DataFrame:
        """Return a row for each trial, best first, by its number.

        Columns are ``name``, ``status``, ``rank``, the metrics (``val_accuracy`` in [0, 1], …), each setting that is
        searched or differs, by its own type and NA where it cannot matter, ``epochs_done``, ``seconds``, ``reason``,
        ``derived_from`` and ``confirms``.
        """
        import pandas as pd

        board = self.facts.board
        ranks = {row.trial.number: row.rank for row in board.rows}
        trials = {trial.number: trial for trial in board.trials}
        searched = {*self.facts.spec.search, *varying_settings([board])}
        names = [name for name in TrialConfig.model_fields if name in searched]
        rows = [self._row(trials[number], ranks.get(number), names) for number in dict.fromkeys((*ranks, *trials))]
        columns = {
            name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
        }
        frame = pd.DataFrame({name: pd.Series(own, dtype=_dtype(own)) for name, own in columns.items()})
        return frame.set_index("number") if rows else frame

    def _row(self, trial: TrialRecord, rank: int | None, names: Sequence[str]) -> dict[str, Any]:
        idle = trial.trial_config.neutral()
        return {
            "number": trial.number,
            "name": trial.name,
            "status": trial.status,
            "rank": rank,
            **{metric: value for metric, value in trial.metrics.items() if metric != "seconds"},
            **{name: None if name in idle else trial.config[name] for name in names},
            "epochs_done": trial.epochs,
            "seconds": trial.seconds,
            "reason": trial.reason,
            "derived_from": trial.derived_from,
            "confirms": trial.confirms,
        }

    def epochs(self) -> pd.DataFrame:
        """Return the learning curves, a row for each epoch of each trial: ``number``, ``epoch`` and the metrics."""
        import pandas as pd

        return pd.DataFrame(
            {"number": trial.number, "epoch": measured.epoch, **measured.metrics}
            for trial in self.facts.board.trials
            for measured in trial.history
        )

    @property
    def figures(self) -> dict[str, SweepFigure]:
        """The charts of the report, by name."""
        from sweeps.report.charts import charts_part

        part = charts_part(self.facts)
        titles = {chart.key: chart.title for chart in part.charts}
        return {key: SweepFigure(titles[key], svg) for key, svg in part.figures.items()}

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one HTML page, to ``path`` or else into the sweep's folder, and return where it is."""
        from sweeps.report.page import REPORT, write_report

        page = Path(path).expanduser().absolute() if path else self.facts.folder / REPORT
        write_report([self.facts.folder], page, title=self.name)
        return page

    def model(self, *, tracking_uri: str | None = None) -> Any:
        """Return the registered model, MLflow's pyfunc: ``predict`` takes paths of images.

        Args:
            tracking_uri: of MLflow, where the one that the sweep was run with holds a password.

        Raises:
            InputError: none is registered, or MLflow does not have it.
        """
        registered = self.result and self.result.registered
        if not registered:
            raise InputError(f"sweep must have a registered model, got {self.name!r}, which is {self.status.state}.")
        from sweeps.tracking.registry import load_model
        from sweeps.tracking.store import check_tracking

        uri = recall(self.out, self.name, tracking_uri).tracking_uri
        return load_model(check_tracking(uri, self.out), registered)

    def __repr__(self) -> str:
        return "\n".join([*status_lines(self.status, self.out), "", *lines_of(table_of(*self._table()), width=120)])

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        import pandas as pd

        columns, rows = self._table()
        table = pd.DataFrame([{column.title: column.text(row) for column in columns} for row in rows])
        said = escape("\n".join(status_lines(self.status, self.out)))
        return f"<pre>{said}</pre>{table.to_html(index=False)}"

    def _table(self) -> tuple[Sequence[Any], Sequence[Row]]:
        """Return the columns and rows of its leaderboard."""
        rows = self.facts.board.shown[:_SHOWN]
        return shown_columns(rows, wide=True, goals=self.facts.board.goals), rows
