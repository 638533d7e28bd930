"""The audit of a data set as one page that needs nothing else; its size is bounded, whatever the data's is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.audit import SPLITS, rows_by_class
from carcls.stages import StageStore
from sweeps.report.audit import QUANTILES, DataAudit
from sweeps.report.pictures import pictures_of
from sweeps.report.templates import read_pages, template
from sweeps.text import DASH, percent

MOST, MOST_OF_A_CLASS, MOST_PICTURES = 50, 12, 3000
"""Pairs, suspicious labels and unreadable images that are shown; images of a class; and of all classes, about."""
EXAMPLES = 3
_SIDE, _LARGE = 80, 128
_WIDEST = 2.5


def data_page(audit: DataAudit, stages: Path, size: int) -> str:
    """Return the page.

    Args:
        audit: what it shows.
        stages: folder of the store that the data was read into.
        size: in pixels, of the pack that pictures come from.
    """
    rows, store = rows_by_class(audit.data), StageStore(stages)
    suspects = audit.labels.issues[:MOST] if audit.labels else ()
    same, doubted = audit.same[:MOST], {one.image for one in audit.labels.issues} if audit.labels else set[int]()
    examples = {label: _spread([row for row in own if row not in doubted], EXAMPLES) for label, own in rows.items()}
    sheet = {label: _spread(own, _of_a_class(len(rows))) for label, own in rows.items()}
    small = {row for own in sheet.values() for row in own}
    for one in suspects:
        small |= {row for label in (int(audit.data.labels[one.image]), one.suggested) for row in examples[label]}
    pictures = pictures_of(audit.data, store, size, sorted(small), _SIDE)
    large = [one.image for one in suspects] + [row for one in same for row in (one.first, one.second)]
    pictures |= pictures_of(audit.data, store, size, large, _LARGE)
    return template("data.html.j2").render(
        audit=audit,
        parts=_parts(audit),
        figures=_figures(audit),
        sides=_sides(audit),
        same=same,
        suspects=suspects,
        examples=examples,
        sheet=sheet,
        unreadable=audit.data.quarantined[:MOST],
        most=MOST,
        pictures=pictures,
        width=partial(_width, audit.sides),
        percent=percent,
        style="\n".join(read_pages("*.css")),
    )


def _of_a_class(classes: int) -> int:
    """Return how many pictures of each class are shown.

    >>> [_of_a_class(classes) for classes in (20, 196, 1000, 10_000)]
    [12, 12, 3, 1]
    """
    return min(MOST_OF_A_CLASS, max(1, MOST_PICTURES // classes))


def _spread(rows: Sequence[int], most: int) -> list[int]:
    """Return some of the rows, from first to last.

    >>> _spread([5, 6, 7, 8, 9], 3)
    [5, 7, 9]
    """
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)) if rows else ()
    return [rows[place] for place in places]


def _width(sides: NDArray[np.int32], row: int, height: int) -> int:
    """Return how wide a picture of this height is, which is kept as a square; a panorama is squeezed."""
    width, high = (int(side) for side in sides[row])
    ratio = width / high if width and high else 1.0
    return round(height * min(max(ratio, 1 / _WIDEST), _WIDEST))


def _parts(audit: DataAudit) -> Mapping[str, str]:
    parts = {"found": "What was found", "same": "Same pictures", "labels": "Suspicious labels"}
    return {**parts, **({"unreadable": "Unreadable"} if audit.data.quarantined else {}), "classes": "Classes"}


def _figures(audit: DataAudit) -> list[tuple[str, str, str]]:
    """Return names, values and remarks."""
    total, counts = int(audit.totals.sum()), audit.data.counts
    leaks = sum(one.leaks for one in audit.same)
    imbalance = DASH if audit.imbalance is None else f"{audit.imbalance:.1f}"
    least, most = int(audit.totals.min()), int(audit.totals.max())
    ends = f"{least:,} to {most:,} images of a class" if least < most else f"{most:,} images of each"
    pairs = f"of {len(audit.same):,} pairs of the same picture" if audit.same else "no picture is there twice"
    suspicious = DASH if audit.labels is None else f"{len(audit.labels.issues):,}"
    return [
        ("Images", f"{total:,}", ", ".join(f"{counts[name]:,} {name}" for name in SPLITS)),
        ("Classes", f"{len(audit.totals):,}", ends),
        ("Imbalance", imbalance, "images of the largest class to those of the smallest"),
        ("Pictures in two splits", f"{leaks:,}", pairs),
        (
            "Suspicious labels",
            suspicious,
            "not looked for" if audit.labels is None else "to look at, the least likely first",
        ),
        ("Unreadable", f"{len(audit.data.quarantined):,}", "in no split"),
    ]


def _sides(audit: DataAudit) -> list[list[Any]]:
    """Return rows of the table of sides."""
    names = {"width": "width", "height": "height", "ratio": "width / height"}
    return [
        [said, *(f"{audit.quantiles[name][word]:.{2 if name == 'ratio' else 0}f}" for word in QUANTILES)]
        for name, said in names.items()
    ]
