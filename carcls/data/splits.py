"""Train, validation and test: stratified by class, near-duplicates on one side, the same for the same seed.

And what is found in a data set once it is cut: lost images, empty splits, near-duplicates, what is worth a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from carcls.data.fingerprints import near_duplicate_groups, near_pairs
from carcls.data.manifest import Manifest
from carcls.data.pack import Index
from carcls.errors import DataError

Rows = Annotated[
    NDArray[np.int64],
    PlainValidator(lambda rows: np.array(rows, np.int64)),
    PlainSerializer(lambda rows: rows.tolist()),
]
SAME_PICTURE = 2
"""Bits in which the fingerprints of one picture's copies may differ, where nothing but their classes tells them apart.

Of 14 pairs of different classes in 6,515 crops of Stanford Cars, the 11 up to 2 bits are the same photograph; of the
three at 4, one is.
"""


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of ``Manifest.images`` per split, int64, sorted, disjoint; unreadable images are in none."""

    train: Rows
    validation: Rows
    test: Rows


def quota(images: int, fraction: float) -> int:
    """Return how many of a class's images are cut off.

    The nearest whole number, but at least one from three images on, and never all.

    >>> [quota(n, 0.15) for n in (1, 2, 3, 10, 40)]
    [0, 0, 1, 2, 6]
    """
    least = 1 if images >= 3 else 0
    return min(max(least, round(images * fraction)), max(0, images - 1))


def cut_splits(
    labels: Rows,
    groups: Rows,
    train: Rows,
    test: Rows | None,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Splits:
    """Cut validation from ``train``, and before it test where the data set has none.

    Args:
        labels, groups: of all images, int64 [n]; images of one group are near-duplicates and stay on one side.
        train: rows to cut from, int64.
        test: rows of the data set's own test split; None cuts one from ``train``.
        validation_fraction, test_fraction: share of each class that is cut off, in (0, 0.9).
        seed: of the order in which groups are considered.
    """
    rest = np.sort(train)
    if test is None:
        rest, test = cut(labels, groups, rest, test_fraction, seed)
    kept, validation = cut(labels, groups, rest, validation_fraction, seed + 1)
    return Splits(kept, validation, np.sort(test))


def cut(labels: Rows, groups: Rows, rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Cut about ``fraction`` of each class off ``rows`` in whole groups; return what is kept and what is cut, sorted.

    Groups are taken in random order as long as no class gets more than its quota. A class that got nothing that way
    then takes its smallest group, if every class in that group keeps an image.
    """
    members = _members(groups, rows, seed)
    held = Counter(labels[rows].tolist())
    quotas = {label: quota(count, fraction) for label, count in held.items()}
    taken: Counter[int] = Counter()
    chosen: list[Rows] = []
    for group in members:
        counts = Counter(labels[group].tolist())
        if all(taken[label] + count <= quotas[label] for label, count in counts.items()):
            chosen.append(group)
            taken += counts
    chosen += _for_the_empty_handed(members, labels, quotas, held, taken)
    cut_off = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    return np.setdiff1d(rows, cut_off), cut_off


def _members(groups: Rows, rows: Rows, seed: int) -> list[Rows]:
    """Return the rows of each group, groups in random order."""
    order = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, starts)
    shuffled = np.random.default_rng(seed).permutation(len(members))
    return [members[position] for position in shuffled]


def _for_the_empty_handed(
    members: list[Rows], labels: Rows, quotas: dict[int, int], held: Counter[int], taken: Counter[int]
) -> list[Rows]:
    """Return one group for each class whose quota is not zero and that got none; updates ``taken``."""
    extra = []
    for label in sorted(label for label, wanted in quotas.items() if wanted and not taken[label]):
        if taken[label]:
            continue  # got one with an earlier class
        for group in sorted((group for group in members if label in labels[group]), key=len):
            counts = Counter(labels[group].tolist())
            if all(taken[other] + count < held[other] for other, count in counts.items()):
                extra.append(group)
                taken.update(counts)
                break
    return extra


def require_few_losses(manifest: Manifest, index: Index, max_loss: float) -> None:
    """Check that no split loses more than a share of its images, or all of them.

    Raises:
        DataError: one does; the first files are named with their reasons.
    """
    totals = Counter(image.split for image in manifest.images)
    for split, total in totals.items():
        lost = [(row, reason) for row, reason in index.broken if manifest.images[row].split == split]
        if len(lost) > max_loss * total or len(lost) == total:
            shown = "; ".join(f"{manifest.images[row].path}: {reason}" for row, reason in lost[:3])
            more = f" (and {len(lost) - 3} more)" if len(lost) > 3 else ""
            raise DataError(
                f"{split} split must lose at most {100 * max_loss:g}% of its images, "
                f"got {len(lost)} unreadable of {total} in {str(manifest.root)!r}: {shown}{more}. "
                "Repair or remove these files, or raise data.max_loss."
            )


def require_images(counts: Mapping[str, int], manifest: Manifest) -> None:
    """Check that no split is empty; ``counts`` are the images of ``train``, ``validation`` and ``test``.

    Raises:
        DataError: one is.
    """
    for split, name in (("train", "training"), ("validation", "validation"), ("test", "test")):
        if not counts[split]:
            raise DataError(
                f"{name} split must hold at least one image, got none of the {len(manifest.images)} in "
                f"{str(manifest.root)!r}. Add images, or set data.validation_fraction and data.test_fraction."
            )


def duplicates_of(manifest: Manifest, index: Index, splits: Splits) -> tuple[tuple[str, str], ...]:
    """Pair every test image with the training or validation image that it equals or nearly equals, if there is one."""
    seen = np.sort(np.concatenate([splits.train, splits.validation]))
    tested, near = near_pairs(index.fingerprints[splits.test], index.fingerprints[seen])
    # Of several it is the first one, so the others are overwritten.
    twins = {int(splits.test[query]): int(seen[twin]) for query, twin in zip(tested[::-1], near[::-1], strict=True)}
    by_content = {manifest.contents[row]: int(row) for row in seen[::-1]}
    equal = {int(row): by_content.get(manifest.contents[row]) for row in splits.test}
    twins |= {row: twin for row, twin in equal.items() if twin is not None}
    paths = [image.path for image in manifest.images]
    return tuple((paths[row], paths[twin]) for row, twin in sorted(twins.items()))


def ambiguous_pictures(manifest: Manifest, index: Index, splits: Splits) -> list[tuple[str, str]]:
    """Return for each picture that is in several classes two of its paths, of different classes.

    A file whose boxes differ shows several cars, and may well be in several classes.
    """
    rows = np.sort(np.concatenate([splits.train, splits.validation, splits.test]))
    images, contents = manifest.images, manifest.contents
    crops = [f"{contents[row]} {images[row].box}" for row in rows]
    groups = near_duplicate_groups(index.fingerprints[rows], crops, SAME_PICTURE)
    first: dict[int, int] = {}
    found: dict[int, tuple[str, str]] = {}
    for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
        other = first.setdefault(group, row)
        if images[other].label != images[row].label:
            found.setdefault(group, (images[other].path, images[row].path))
    return sorted(found.values())


def notes_of(manifest: Manifest, index: Index, splits: Splits) -> list[str]:
    """Return a sentence each about what the user should know of the classes' images."""
    trained, validated = ({manifest.images[row].label for row in rows} for rows in (splits.train, splits.validation))
    untrained = [name for label, name in enumerate(manifest.classes) if label not in trained]
    unvalidated = [name for label, name in enumerate(manifest.classes) if label in trained - validated]
    ambiguous = [f"{first} = {second}" for first, second in ambiguous_pictures(manifest, index, splits)]
    found = (
        (ambiguous, "picture is", "pictures are", "in more than one class"),
        (untrained, "class has", "classes have", "no readable training image"),
        (unvalidated, "class has", "classes have", "too few distinct images to validate on"),
    )
    return [
        f"{len(names)} {one if len(names) == 1 else many} {what}: {', '.join(names[:3])}{' …' * (len(names) > 3)}."
        for names, one, many, what in found
        if names
    ]
