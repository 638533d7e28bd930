"""Accuracy by make, body and year of cars, where the names of the classes tell them ("BMW M3 Coupe 2012")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.evaluation.significance import Proportion

OTHER = "other"
ENOUGH = 0.8
"""The share of the classes whose names must end with a year, as names of cars do; else nothing is read into names."""
_YEAR = re.compile(r"19\d\d|20\d\d|2100")
_BODY = re.compile("cab|convertible|coupe|crossover|hatchback|minivan|pickup|roadster|sedan|suv|truck|van|wagon", re.I)
# Only what a group is called depends on it: no two makes begin with the same word.
_TWO_WORDS = re.compile(r"(alfa romeo|am general|aston martin|great wall|land rover|mercedes benz|rolls royce) ", re.I)


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The images of the classes of one make, body or year.

    Attributes:
        name: what these classes share; OTHER for those whose names do not tell.
        accuracy: of its images, at least 1, those that were recognised by their class.
        within: images that were taken for another class of the group.
    """

    name: str
    accuracy: Proportion
    within: int


def car_groups(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return ``make``, ``body`` and ``year`` of each class, as far as its name tells; else OTHER.

    The year is the last word, from 1900 to 2100; the body is the word before it, if bodies are called so; the make is
    the first word, or the first two of the few makes that have two. A part is left out where it puts all classes into
    one group, or each into its own. Names of other things, of which fewer than 80% end with a year, have no part.

    >>> car_groups(["BMW M3 Coupe 2012", "BMW X3 SUV 2012", "Land Rover LR2 SUV 2012"])
    {'make': ('BMW', 'BMW', 'Land Rover'), 'body': ('Coupe', 'SUV', 'SUV')}
    >>> car_groups(["001.Black_footed_Albatross", "002.Laysan_Albatross"])
    {}
    """
    parts = [_parts(name) for name in classes]
    if not parts or sum(part is not None for part in parts) < ENOUGH * len(parts):
        return {}
    columns = zip(*(part or (OTHER, OTHER, OTHER) for part in parts), strict=True)
    groups = dict(zip(("make", "body", "year"), columns, strict=True))
    return {what: names for what, names in groups.items() if 1 < len({*names} - {OTHER}) < len(classes)}


def _parts(name: str) -> tuple[str, str, str] | None:
    words = re.split(r"[\s_]+", name.strip())
    if len(words) < 3 or not _YEAR.fullmatch(words[-1]):
        return None
    two = _TWO_WORDS.match(" ".join(words[:-1]))
    return two[1] if two else words[0], words[-2] if _BODY.fullmatch(words[-2]) else OTHER, words[-1]


def group_scores(
    groups: Sequence[str], labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[GroupScore, ...]:
    """Return the score of each group that has images, by name, OTHER last.

    Args:
        groups: of each class the name of its group.
        labels, predicted: int64 [n].
    """
    names, places = np.unique(np.array(groups), return_inverse=True)
    true, said, right = places[labels], places[predicted], labels == predicted
    found = []
    for place in np.unique(true).tolist():
        ours, name = true == place, str(names[place])
        within = int((ours & ~right & (said == place)).sum())
        found.append(GroupScore(name, Proportion(int(right[ours].sum()), int(ours.sum())), within))
    return tuple(sorted(found, key=lambda one: (one.name == OTHER, one.name)))
