"""A reproduction as Markdown: the documentation's tables, documented numbers beside measured ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sweeps.documented import LEAK_MARK, experiments_of
from sweeps.text import NOTHING, changes_text, images_of, markdown_table, percent, percent_range, shared_changes

if TYPE_CHECKING:
    from sweeps.reproduction import Reproduced, Reproduction

TITLES = {"transfer": "Transfer", "retrieval": "Retrieval", "scratch": "Scratch"}
# The tables describe what stands in for them; a family's measures in the order of the documentation.
_SHARES = (("accuracy", "accuracy"), ("f1", "F1"), ("precision", "precision"), ("recall", "recall"))
_LOSS = (("loss", "loss"),)
_TIMES = (("fit_seconds", "fit"), ("predict_seconds", "predict"))
_MEASURES = {"transfer": _LOSS + _SHARES, "retrieval": _SHARES + _TIMES, "scratch": _LOSS + _SHARES}


def markdown_of(reproduction: Reproduction) -> str:
    """Return the whole report."""
    families = list(dict.fromkeys(comparison.family for comparison in reproduction.comparisons))
    parts = [f"# Documented experiments, reproduced: {reproduction.name}", _setting(reproduction)]
    for family in families:
        rows = [comparison for comparison in reproduction.comparisons if comparison.family == family]
        parts += [f"## {TITLES[family]}", _scale(rows), family_table(rows), _notes(rows)]
    parts += ["## Final comparison", final_table(reproduction), _protocol(reproduction)]
    return "\n\n".join(part for part in parts if part) + "\n"


def family_table(rows: Sequence[Reproduced]) -> str:
    """Return one family's table; each cell reads documented / measured."""
    measures = _MEASURES[rows[0].family]
    header = ["experiment", *(title for _, title in measures), "95% interval of the measured accuracy"]
    body = [[row.name, *(_cell(row, key) for key, _ in measures), _interval(row)] for row in rows]
    return markdown_table(header, body)


def final_table(reproduction: Reproduction) -> str:
    """Return the best of each family: as documented by the documented accuracy, as measured by validation."""
    header = ["family", "best", *(title for _, title in _SHARES), "95% interval"]
    body = []
    for family in dict.fromkeys(comparison.family for comparison in reproduction.comparisons):
        documented = max(experiments_of(family), key=lambda experiment: experiment.documented["accuracy"])
        mark = LEAK_MARK if documented.leaked else ""
        shares = [_share(documented.documented.get(key)) + mark for key, _ in _SHARES]
        body.append([f"{TITLES[family]}, documented", documented.name, *shares, NOTHING])
        best = reproduction.best.get(family)
        row = next((c for c in reproduction.comparisons if c.name == best), None)
        if row is None:
            body.append([f"{TITLES[family]}, measured", "none finished", *(NOTHING for _ in _SHARES), NOTHING])
        else:
            measured = [_share(row.measured.get(key)) for key, _ in _SHARES]
            body.append([f"{TITLES[family]}, measured", row.name, *measured, _interval(row)])
    return markdown_table(header, body)


def _share(value: float | None) -> str:
    return percent(value, digits=2)  # as documented


_WRITE: Mapping[str, Callable[[float], str]] = {
    "loss": lambda value: f"{value:.4f}",
    "fit_seconds": lambda value: f"{value:.4f} s",
    "predict_seconds": lambda value: f"{value:.4f} s",
}


def _cell(row: Reproduced, measure: str) -> str:
    write = _WRITE.get(measure, _share)
    documented = NOTHING if measure not in row.documented else write(row.documented[measure])
    measured = NOTHING if measure not in row.measured else write(row.measured[measure])
    about = "~" if row.approximate and measure in row.documented else ""
    mark = LEAK_MARK if row.leaked and measure in row.documented else ""
    return f"{about}{documented}{mark} / {measured}"


def _interval(row: Reproduced) -> str:
    return percent_range(row.interval) if row.interval else row.status


def _setting(reproduction: Reproduction) -> str:
    lines = [
        f"Data: {reproduction.data}, {reproduction.classes} classes, images: {images_of(reproduction.images)}.",
        "Each cell reads documented / measured. Measured numbers are of the test images, which were read once for each "
        "experiment. Nothing was chosen on them: the best of a family is the best on the validation images.",
    ]
    if reproduction.demo:
        lines.append("**These are drawn demo cars: no measured number can be compared with a documented one.**")
    return "\n\n".join(lines)


def _scale(rows: Sequence[Reproduced]) -> str:
    """Say what all experiments of a table run otherwise than documented."""
    shared = shared_changes(row.changed for row in rows)
    stand_ins = {tuple(row.changed["backbone"]) for row in rows if "backbone" in row.changed}
    lines = [f"**{used} stands in for {documented}.**" for documented, used in sorted(stand_ins)]
    scaled = {name: change for name, change in shared.items() if name != "backbone"}
    if scaled:
        lines.append(f"**Not at the documented scale: {changes_text(scaled)}.**")
    return "\n\n".join(lines)


def _notes(rows: Sequence[Reproduced]) -> str:
    shared = shared_changes(row.changed for row in rows)
    lines = []
    for row in rows:
        own = {name: change for name, change in row.changed.items() if name not in shared and name != "backbone"}
        if own:
            lines.append(f"- {row.name}: {changes_text(own)}.")
        if not row.measured:
            lines.append(f"- {row.name} has no result: {_sentence(row.reason or row.status)}")
    notes: dict[str, list[str]] = {}
    for row in rows:
        notes.setdefault(row.note, []).append(row.name.partition("/")[2] + (f" {LEAK_MARK}" if row.leaked else ""))
    lines += [f"- {', '.join(names)}: {note}" for note, names in notes.items()]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _protocol(reproduction: Reproduction) -> str:
    cut = "cut to their bounding boxes" if reproduction.cut else "as they are"
    images = reproduction.images
    lines = [
        f"- Pictures were used {cut} here; the documented runs used whole pictures.",
        f"- Our test split has {images['test']:,} images, our training split {images['train']:,}; the published ones "
        "have 8,041 and 8,144, and the documented transfer score is of 2,681 images.",
        "- ~: the documented number was rounded.",
    ]
    if any(comparison.leaked for comparison in reproduction.comparisons):
        lines.append(f"- {LEAK_MARK}: the documented number is not comparable; see the note in its family's table.")
    return "\n".join(lines)
