"""A reproduction as Markdown: the documentation's tables, documented numbers beside measured ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sweeps.spec.documented import LEAK_MARK, experiments_of
from sweeps.text import DASH, Grid, changes_text, counts_text, markdown_table, percent, percent_range

if TYPE_CHECKING:
    from sweeps.run.reproduction import Reproduced, Reproduction
    from sweeps.spec.documented import DocumentedExperiment

# The tables are those of the documentation; a family's measures in its order.
_SHARES = ("accuracy", "f1", "precision", "recall")
_MEASURES = {
    "transfer": ("loss", *_SHARES),
    "retrieval": (*_SHARES, "fit_seconds", "predict_seconds"),
    "scratch": ("loss", *_SHARES),
}
_WORDS = ("family", "experiment", "best")
_TITLES = {"f1": "F1", "fit_seconds": "fit", "predict_seconds": "predict"}


def markdown_of(blocks: Iterable[str | Grid]) -> str:
    """Return a report as Markdown."""
    return "\n\n".join(block if isinstance(block, str) else markdown_table(block) for block in blocks) + "\n"


def blocks_of(reproduction: Reproduction) -> list[str | Grid]:
    """Return the whole report: texts in Markdown, and tables."""
    families: dict[str, list[Reproduced]] = {}
    for row in reproduction.comparisons:
        families.setdefault(row.experiment.family, []).append(row)
    title = f"# Documented experiments, reproduced: {reproduction.name}"
    blocks: list[str | Grid] = [title, *_setting(reproduction)]
    for family, rows in families.items():
        blocks += [f"## {family.title()}", _family_table(rows), "\n".join(_notes(rows))]
    blocks += ["## Final comparison", _final_table(reproduction, families), "\n".join(_protocol(reproduction))]
    return blocks


def _family_table(rows: Sequence[Reproduced]) -> Grid:
    """Return one family's table; each cell reads documented / measured."""
    measures = _MEASURES[rows[0].experiment.family]
    header = ["experiment", *map(_title, measures), "95% interval"]
    cells = [[_short(row), *(_cell(row, one) for one in measures), _interval(row)] for row in rows]
    return Grid(header, cells, _WORDS, header[1:])


def _final_table(reproduction: Reproduction, families: Iterable[str]) -> Grid:
    """Return the best of each family: as documented by the documented accuracy, as measured by validation."""
    rows = {row.experiment.name: row for row in reproduction.comparisons}
    body = []
    for family in families:
        documented = max(experiments_of(family), key=lambda experiment: experiment.documented["accuracy"])
        best = rows.get(reproduction.best.get(family, ""))
        reported = [_reported(documented, share) for share in _SHARES]
        measured = [_number(share, best.measured.get(share) if best else None) for share in _SHARES]
        body.append([f"{family.title()}, documented", documented.name.partition("/")[2], *reported, DASH])
        name, interval = (_short(best), _interval(best)) if best else ("none finished", DASH)
        body.append([f"{family.title()}, measured", name, *measured, interval])
    header = ["family", "best", *map(_title, _SHARES), "95% interval"]
    return Grid(header, body, _WORDS, header[1:])


def _short(row: Reproduced) -> str:
    """Return the name of an experiment where its family is known."""
    return row.experiment.name.partition("/")[2]


def _title(measure: str) -> str:
    return _TITLES.get(measure, measure)


def _number(measure: str, value: float | None) -> str:
    if value is None:
        return DASH
    if measure in _SHARES:
        return percent(value, digits=2)  # as documented
    return f"{value:.4f}" + (" s" if measure.endswith("seconds") else "")


def _reported(experiment: DocumentedExperiment, measure: str) -> str:
    """Write a documented number, marked where it was rounded or compares with nothing."""
    if measure not in experiment.documented:
        return DASH
    about, mark = "~" if experiment.approximate else "", LEAK_MARK if experiment.leaked else ""
    return f"{about}{_number(measure, experiment.documented[measure])}{mark}"


def _cell(row: Reproduced, measure: str) -> str:
    return f"{_reported(row.experiment, measure)} / {_number(measure, row.measured.get(measure))}"


def _interval(row: Reproduced) -> str:
    return row.status if isinstance(row.test, str) else percent_range(row.test.interval)


def _setting(reproduction: Reproduction) -> list[str]:
    data = reproduction.data
    lines = [
        f"Data: {data.name}, {data.classes} classes, images: {counts_text(data.splits)}.",
        "Each cell reads documented / measured. Measured numbers are of the test images, which were read once for each "
        "experiment. Nothing was chosen on them: the best of a family is the best on the validation images.",
    ]
    if reproduction.demo:
        lines.append("**These are drawn demo cars: no measured number can be compared with a documented one.**")
    return lines


def _notes(rows: Sequence[Reproduced]) -> list[str]:
    """Say what was run otherwise than documented, what has no result, and how the documented numbers were made."""
    changes, failures, notes = [], [], []
    for row in rows:
        experiment, name = row.experiment, _short(row)
        changes += [(name, f"{changes_text({setting: change})}.") for setting, change in row.changed.items()]
        if isinstance(row.test, str):
            failures.append((name, f"no result: {_sentence(row.test or row.status)}"))
        notes.append((f"{name} {LEAK_MARK}" if experiment.leaked else name, experiment.note))
    return [line for said in (changes, failures, notes) for line in _bullets(said, len(rows))]


def _bullets(said: Iterable[tuple[str, str]], most: int) -> list[str]:
    """Return a line for each text, with the names of the experiments that it is said of; all of several are ``all``."""
    names: dict[str, list[str]] = {}
    for name, text in said:
        names.setdefault(text, []).append(name)
    return [f"- {'all' if len(of) == most > 1 else ', '.join(of)}: {text}" for text, of in names.items()]


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _protocol(reproduction: Reproduction) -> list[str]:
    cut = "cut to their bounding boxes" if reproduction.cut else "as they are"
    splits = reproduction.data.splits
    lines = [
        f"- Pictures were used {cut} here; the documented runs used whole pictures.",
        f"- Our test split has {splits['test']:,} images, our training split {splits['train']:,}; the published ones "
        "have 8,041 and 8,144, and the documented transfer score is of 2,681 images.",
        "- ~: the documented number was rounded.",
    ]
    if any(row.experiment.leaked for row in reproduction.comparisons):
        lines.append(f"- {LEAK_MARK}: the documented number is not comparable; see the note in its family's table.")
    return lines
