"""The live picture of a sweep: how it is in a few lines, then a line for each trial, as many as a terminal shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from sweeps.engine.budget import status_text
from sweeps.results.leaderboard import half_width
from sweeps.text import DASH, duration, percent, plural, size_text

if TYPE_CHECKING:
    from sweeps.cli.state import SweepState
    from sweeps.trial import TrialRecord

_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}
_LABEL = 9  # columns of what a line above the trials is about
_MOST_RUNGS = 4
# A terminal of so many lines keeps some of them for the sentences that are printed above the picture.
_TALL, _NOTES = 20, 3


class _Signs(NamedTuple):
    """What is drawn with: cells of a bar that are done, and not; heights of a curve; what stands for these words."""

    done: str
    left: str
    heights: str
    between: str
    more: str
    about: str


_UNICODE, _ASCII = _Signs("━", "─", "▁▂▃▄▅▆▇█", " · ", "…", "±"), _Signs("#", "-", "_.:-=+*#", " | ", "...", "+/-")


class _Layout(NamedTuple):
    """From how many columns on the bar, the curve and what parts columns have how many; whether there are times."""

    least: int
    bar: int
    curve: int
    gap: int = 1
    has_times: bool = False


_LAYOUTS = (
    _Layout(150, 12, 20, 2, True),
    _Layout(110, 10, 12, 2, True),
    _Layout(70, 4, 6),
    _Layout(56, 0, 6),
    _Layout(0, 0, 0),
)


def draw(state: SweepState, width: int, height: int, *, ascii_only: bool = False) -> Text:
    """Draw a sweep in at most ``height`` lines of at most ``width`` columns, both at least 1.

    Where there is little room, trials give way to what is said of all of them, down to three, then that to them. The
    trials that run are shown, the best one, and the newest others.
    """
    signs = _ASCII if ascii_only else _UNICODE
    above = [_line(label, parts, width, signs) for label, parts in _above(state) if parts]
    height = height - _NOTES if height >= _TALL else height
    above = above[: max(1, height - 5)]
    rows = _chosen(state, max(0, height - len(above) - 1))
    hidden = len(state.trials) - len(rows)
    more = [Text(f"{signs.more} and {plural(hidden, 'more trial')}", "dim")] if hidden else []
    lines = [*above, *(_table(state, rows, width, signs) if rows else []), *more]
    lines = [_cut(line, width, signs) for line in lines[:height]]
    lines[-1] = _cut(
        lines[-1], max(1, width - 2), signs
    )  # the cursor rests behind it: ^C must not wrap to a line below
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _cut(text: Text, width: int, signs: _Signs, *, pad: bool = False) -> Text:
    text.truncate(width, overflow="crop" if signs is _ASCII else "ellipsis", pad=pad)
    return text


# The lines above the trials


def _line(label: str, parts: Sequence[str], width: int, signs: _Signs) -> Text:
    """Write a line of as many parts as it has room for, of the first at least its beginning."""
    said, *others = (part.replace("±", signs.about) for part in parts)
    for part in others:
        if _LABEL + len(said) + len(signs.between) + len(part) > width:
            break
        said += signs.between + part
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), (said, "bold" if label == "best" else ""))


def _above(state: SweepState) -> Iterator[tuple[str, list[str]]]:
    running = sum(state.status_of(record) == "running" for record in state.trials)
    yield "sweep", [*trials_text(state), *([f"{running} running"] if running else [])]
    yield "best", best_text(state)
    yield "rungs", _rungs_text(state)
    yield "machine", _machine_text(state)
    yield "spent", _spent_text(state)


def trials_text(state: SweepState) -> list[str]:
    """Write how many trials have ended, how long the session has run, and how long the rest takes."""
    total = plural(state.spec.trials + state.spec.extent.runs, "trial")
    to_go = [f"about {duration(state.seconds_left)} to go"] if state.seconds_left > 0 and not state.is_over else []
    # Before the first event nobody knows how many a sweep that goes on has ended.
    return [f"{state.status.ended} of {total}" if state.status else total, duration(state.seconds), *to_go]


def best_text(state: SweepState) -> list[str]:
    """Write what is best so far by the sweep's own objective, its accuracy with half of the 95% interval."""
    best, first = state.status.best if state.status else None, state.spec.goals.first
    if best is None:
        return []
    accuracy, images = best.measured("val_accuracy"), state.data.validation if state.data else 0
    said = [f"accuracy {percent(accuracy, half_width(accuracy, images))}"]
    if first.metric != "val_accuracy":
        said = [f"{first.name} {first.write(best.metrics[first.metric])}", *said]
    return [*said, f"trial {best.number}", best.name]


def _rungs_text(state: SweepState) -> list[str]:
    """Write of each rung how many of the searched trials that came to it were stopped there."""
    spec = state.spec
    if not spec.goals.stop_early:
        return []
    came = dict.fromkeys(spec.early_stopping.rungs(spec.trial_config({}).epochs), 0)
    stopped = dict[int, int]()
    for record in state.trials:
        if record.experiment is None and record.confirms is None:
            for rung in spec.early_stopping.rungs(record.config["epochs"]):
                came[rung] = came.get(rung, 0) + (record.epochs >= rung)
                stopped[rung] = stopped.get(rung, 0) + (record.status == "pruned" and record.epochs == rung)
    said = [f"epoch {n}: {stopped[n]} of {came[n]} stopped" if came[n] else f"epoch {n}" for n in sorted(came)]
    return said[:_MOST_RUNGS]


def _machine_text(state: SweepState) -> list[str]:
    use, said = state.use, [f"{state.images_per_second:,.0f} images/s"] if state.images_per_second else []
    if use is None or state.is_over:
        return said
    said += [f"making {', '.join(use.making)}"] if use.making else []
    said += [f"CPU {use.cpu:.0%}", f"memory {size_text(use.memory)} of {size_text(use.memory_total)}"]
    for gpu in use.gpus:
        busy = "" if gpu.use is None else f" {gpu.use:.0%},"
        said.append(f"GPU {gpu.number}{busy} {(gpu.total - gpu.free) / 1024:.1f} of {gpu.total / 1024:.0f} GiB")
    return said


def _spent_text(state: SweepState) -> list[str]:
    if state.status is None:
        return []
    spent, saved = state.status.spent, sum(one.saved for one in state.facts.values())
    said = status_text(state.status, state.spec)
    said += [f"{plural(spent.epochs, 'epoch')} trained"] if state.spec.epochs_budget is None else []
    said += [f"cached stages saved {duration(saved)}"] if saved else []
    seconds = spent.seconds + sum(state.seconds_of(record) - record.seconds for record in state.trials)
    return [*said, f"{duration(seconds)} of trials"]


# The trials


def _chosen(state: SweepState, most: int) -> list[TrialRecord]:
    """Return the trials that have a line, in the order of their numbers; one line less where some are left out."""
    best = state.status.best.network if state.status and state.status.best else None

    def order(record: TrialRecord) -> tuple[bool, bool, int]:
        return record.number != best, state.status_of(record) != "running", -record.number

    trials = sorted(state.trials, key=order)
    shown = trials if len(trials) <= most else trials[: max(0, most - 1)]
    return sorted(shown, key=lambda record: record.number)


def _table(state: SweepState, rows: Sequence[TrialRecord], width: int, signs: _Signs) -> list[Text]:
    """Draw a line for each trial below the names of the columns; the settings get the room that is left."""
    layout, goal, facts = (
        next(layout for layout in _LAYOUTS if width >= layout.least),
        state.spec.goals.first,
        state.facts,
    )
    best, by_trial = state.status.best if state.status else None, state.deciding
    deciding = [by_trial[row.number] for row in rows]
    is_best = [best is not None and row.number == best.network for row in rows]
    values = [record.measured(goal.metric) for record in deciding]
    words = [DASH if value is None else goal.write(value) for value in values]
    columns = [
        _column("trial", [Text(str(row.number)) for row in rows], right=True),
        _column("status", [Text(word, _COLOURS.get(word, "dim")) for word in map(state.status_of, rows)]),
        _column("epochs", [_bar(row, layout.bar, signs) for row in rows]),
        _column(
            goal.name, [Text(f"{word} {'*' if b else ' '}") for word, b in zip(words, is_best, strict=True)], right=True
        ),
    ]
    if layout.curve:
        curves = [facts[row.number].curve for row in rows]
        span = [value for curve in curves for value in curve] or [0.0]
        drawn = [sparkline(curve, layout.curve, min(span), max(span), signs.heights) for curve in curves]
        columns.append(_column("curve", [Text(curve) for curve in drawn]))
    if layout.has_times:
        columns.append(_column("time", [Text(duration(state.seconds_of(row))) for row in rows], right=True))
    room = width - sum(column[0].cell_len + layout.gap for column in columns)
    settings = [_words(row, facts[by.number].settings, room) for row, by in zip(rows, deciding, strict=True)]
    columns.append([Text("settings"), *map(Text, settings)])
    lines = [Text(" " * layout.gap).join(cells) for cells in zip(*columns, strict=True)]
    for line, is_bold in zip(lines, [True, *is_best], strict=True):
        line.stylize("bold" if is_bold else "")
    return lines


def _column(name: str, cells: Sequence[Text], *, right: bool = False) -> list[Text]:
    """Return cells below their name, as wide as the widest of them."""
    column = [Text(name), *cells]
    width = max(cell.cell_len for cell in column)
    for cell in column:
        cell.align("right" if right else "left", width)
    return column


def _bar(record: TrialRecord, length: int, signs: _Signs) -> Text:
    """Draw how many of its epochs a trial has finished."""
    planned = record.config["epochs"]
    done = length if record.epochs == planned else max(0, min(round(length * record.epochs / planned), length - 1))
    drawn = Text.assemble((signs.done * done, "green"), (signs.left * (length - done), "dim"), " " * bool(length))
    return drawn.append(f"{record.epochs}/{planned}".rjust(2 * len(str(planned)) + 1))


def sparkline(values: Sequence[float], length: int, low: float, high: float, heights: str = _UNICODE.heights) -> str:
    """Draw values as a curve of at most so many columns, from ``low`` at the bottom to ``high`` at the top.

    >>> sparkline([0.1, 0.4, 0.8, 0.8], 6, 0.1, 0.8), sparkline(range(100), 5, 0, 99)
    ('▁▄██', '▁▃▅▆█')
    """
    last = len(values) - 1
    places = range(last + 1) if last < length else [round(n * last / (length - 1)) for n in range(length)]
    steps = (len(heights) - 1) / ((high - low) or 1)
    return "".join(heights[round((values[place] - low) * steps)] for place in places)


def _words(record: TrialRecord, settings: Sequence[str], room: int) -> str:
    """Write what a trial is: its name if it has one, then settings; two of these in all, and what else has room."""
    named = [record.name.rpartition("/")[2]] if record.experiment or record.confirms is not None else []
    first, second, *others = (*named, *settings, "", "")
    said = f"{first} {second}"
    for word in others:
        if len(said) + 1 + len(word) > room:
            break
        said += f" {word}"
    return said.rstrip()
