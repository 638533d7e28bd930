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

from carcls.data.config import DataConfig
from carcls.data.index import Copies, Index, group_copies
from carcls.data.manifest import Manifest
from carcls.errors import DataError

Rows = Annotated[
    NDArray[np.int64],
    PlainValidator(lambda rows: np.array(rows, np.int64)),
    PlainSerializer(lambda rows: rows.tolist()),
]


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


def split_images(manifest: Manifest, index: Index, config: DataConfig) -> Splits:
    """Cut from the readable training images what the data set has no split of: first test, then validation.

    Its own validation images are kept, unless they are to be cut anew together with the training images.
    """
    own = own_splits(manifest, config)
    is_readable = np.ones(len(own), bool)
    is_readable[[row for row, _ in index.broken]] = False
    rest, validation, test = (np.flatnonzero(is_readable & (own == split)) for split in ("train", "validation", "test"))
    groups = group_copies(index.copies, rest, manifest.contents, [image.group for image in manifest.images])
    if "test" not in own:
        rest, test = cut(manifest.labels, groups, rest, config.test_fraction, config.split_seed)
    if "validation" not in own:
        rest, validation = cut(manifest.labels, groups, rest, config.validation_fraction, config.split_seed + 1)
    return Splits(rest, validation, test)


def own_splits(manifest: Manifest, config: DataConfig) -> NDArray[np.str_]:
    """Return the split [n] that each image has in its data set; own validation images train where they are cut anew."""
    merged = {"validation": "train"} if config.validation == "cut" else {}
    return np.array([merged.get(image.split, image.split) for image in manifest.images])


def listing_notes(manifest: Manifest, config: DataConfig) -> list[str]:
    """Return what is known without reading an image, a sentence each: unusual cuts, and what the manifest notes."""
    found, own = {image.split for image in manifest.images}, own_splits(manifest, config)
    notes = []
    if "validation" in found:
        kept = "validation" in own
        notes.append(
            "Its own validation images are kept; data.validation=cut cuts others."
            if kept
            else "Its own validation images train as well; others are cut, since data.validation=cut."
        )
    if "test" not in own:
        notes.append(f"It has no test split: {config.test_fraction:.0%} of each class are cut off as test.")
    sides: dict[str, set[str]] = {}
    for image, split in zip(manifest.images, own.tolist(), strict=True):
        if image.group:
            sides.setdefault(image.group, set()).add(split)
    if apart := [group for group, splits in sides.items() if len(splits) > 1]:
        verb = "group is" if len(apart) == 1 else "groups are"
        notes.append(f"{len(apart):,} {verb} in several of its own splits, such as {apart[0]!r}.")
    return [*notes, *manifest.notes]


def cut(labels: Rows, groups: Rows, rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Cut about ``fraction`` of each class off ``rows`` in whole groups; return what is kept and what is cut, sorted.

    Groups are taken in random order as long as no class gets more than its quota. A class that got nothing that way
    then takes its smallest group, if every class in that group keeps an image.

    Args:
        labels, groups: of all images, int64 [n]; images of one group are near-duplicates and stay on one side.
        rows: to cut from, int64, sorted.
        fraction: share of each class that is cut off, in (0, 0.9).
        seed: of the order in which groups are considered.
    """
    members = [(group, Counter(labels[group].tolist())) for group in _members(groups, rows, seed)]
    held = Counter(labels[rows].tolist())
    quotas = {label: quota(count, fraction) for label, count in held.items()}
    taken: Counter[int] = Counter()
    chosen = [np.zeros(0, np.int64)]
    for group, counts in members:
        if all(taken[label] + count <= quotas[label] for label, count in counts.items()):
            chosen.append(group)
            taken += counts
    members.sort(key=lambda member: len(member[0]))
    for label in sorted(quotas):
        if quotas[label] and not taken[label]:
            for group, counts in members:
                if counts[label] and all(taken[other] + count < held[other] for other, count in counts.items()):
                    chosen.append(group)
                    taken += counts
                    break
    cut_off = np.sort(np.concatenate(chosen))
    return np.setdiff1d(rows, cut_off), cut_off


def _members(groups: Rows, rows: Rows, seed: int) -> list[Rows]:
    """Return the rows of each group, groups in random order."""
    order = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, starts)
    shuffled = np.random.default_rng(seed).permutation(len(members))
    return [members[position] for position in shuffled]


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


def duplicates_of(manifest: Manifest, index: Index, of: Rows, among: Rows) -> tuple[tuple[str, str], ...]:
    """Pair every image ``of`` some rows with the first one ``among`` others that it equals, or else is a copy of.

    Images without one are left out.
    """
    nobody = len(manifest.images)
    groups = group_copies(index.copies, np.concatenate([of, among]), manifest.contents)
    first = np.full(nobody, nobody)
    np.minimum.at(first, groups[among], among)
    equal = {manifest.contents[row]: row for row in sorted(among.tolist(), reverse=True)}
    found = ((row, equal.get(manifest.contents[row], first[groups[row]])) for row in of.tolist())
    return tuple((manifest.images[row].path, manifest.images[other].path) for row, other in found if other < nobody)


def drop_leaks(manifest: Manifest, index: Index, splits: Splits) -> tuple[Splits, list[str]]:
    """Take out of training what test or validation images are copies of, and out of validation what test images are.

    Returns:
        What is left, and a sentence about what is not.
    """
    groups = group_copies(
        index.copies, np.concatenate([splits.train, splits.validation, splits.test]), manifest.contents
    )
    train, validation, test = (groups[rows] for rows in (splits.train, splits.validation, splits.test))
    is_leak = np.isin(train, np.concatenate([validation, test])), np.isin(validation, test)
    left = Splits(splits.train[~is_leak[0]], splits.validation[~is_leak[1]], splits.test)
    trained, validated = (int(leaks.sum()) for leaks in is_leak)
    return left, [
        "Left out as copies of test or validation images, since data.leaks=drop-from-train: "
        f"{trained:,} from training, {validated:,} from validation."
    ]


def ambiguous_pictures(manifest: Manifest, index: Index, splits: Splits) -> list[tuple[str, str]]:
    """Return for each picture that is in several classes two of its paths, of different classes.

    A file whose boxes differ shows several cars, and may well be in several classes.
    """
    rows = np.sort(np.concatenate([splits.train, splits.validation, splits.test]))
    images, contents = manifest.images, np.array(manifest.contents)
    one_file = np.equal(*contents[index.copies.pairs].T)
    copies = Copies(*(each[~one_file] for each in (index.copies.pairs, index.copies.kinds, index.copies.scores)))
    crops = [f"{content} {image.box}" for content, image in zip(contents, images, strict=True)]
    groups = group_copies(copies, rows, crops)
    first: dict[int, int] = {}
    found: dict[int, tuple[str, str]] = {}
    for row, group in zip(rows.tolist(), groups[rows].tolist(), strict=True):
        other = first.setdefault(group, row)
        if images[other].label != images[row].label:
            found.setdefault(group, (images[other].path, images[row].path))
    return sorted(found.values())


_LARGE, _LARGE_SHARE = 20, 0.05
"""Images, and share of all, from which a group of copies is told."""


def large_group(manifest: Manifest, index: Index) -> list[str]:
    """Return the images of the largest group of copies, if it is large enough to spoil a cut."""
    groups = group_copies(index.copies, np.unique(index.copies.pairs), [""] * len(manifest.images))
    sizes = np.bincount(groups, minlength=1)
    if sizes.max() < max(_LARGE, _LARGE_SHARE * len(groups)):
        return []
    return [manifest.images[row].path for row in np.flatnonzero(groups == sizes.argmax()).tolist()]


def notes_of(manifest: Manifest, index: Index, splits: Splits) -> list[str]:
    """Return a sentence each about what the user should know of the classes' images."""
    trained, validated = ({manifest.images[row].label for row in rows} for rows in (splits.train, splits.validation))
    untrained = [name for label, name in enumerate(manifest.classes) if label not in trained]
    unvalidated = [name for label, name in enumerate(manifest.classes) if label in trained - validated]
    ambiguous = [f"{first} = {second}" for first, second in ambiguous_pictures(manifest, index, splits)]
    leaks = [f"{first} = {second}" for first, second in duplicates_of(manifest, index, splits.validation, splits.train)]
    found = (
        (large_group(manifest, index), "image is", "images are", "copies of one picture, or look alike"),
        (leaks, "validation image is a copy", "validation images are copies", "of training images"),
        (ambiguous, "picture is", "pictures are", "in more than one class"),
        (untrained, "class has", "classes have", "no readable training image"),
        (unvalidated, "class has", "classes have", "too few distinct images to validate on"),
    )
    return [
        f"{len(names)} {one if len(names) == 1 else many} {what}: {', '.join(names[:3])}{' …' * (len(names) > 3)}."
        for names, one, many, what in found
        if names
    ]
