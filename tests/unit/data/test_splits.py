"""Splits are stratified, disjoint, repeatable, and keep near-duplicates on one side."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carcls.data.config import DataConfig
from carcls.data.index import Copies, Index, group_copies
from carcls.data.manifest import ImageRecord, Manifest
from carcls.data.splits import Splits, cut, large_group, listing_notes

Ints = NDArray[np.int64]


def random_world(seed: int) -> tuple[Ints, Ints]:
    """Return labels and groups of images in 12 classes of 1 to 40 images; some groups reach across classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(12), rng.integers(1, 41, size=12))
    groups = np.arange(len(labels))
    for _ in range(len(labels) // 6):
        first, second = rng.integers(len(labels), size=2)
        groups[groups == groups[second]] = groups[first]
    return labels, groups


def split(labels: Ints, groups: Ints, seed: int = 0) -> Splits:
    """Cut 15% twice, as of a data set without a test split."""
    rest, test = cut(labels, groups, np.arange(len(labels)), 0.15, seed)
    return Splits(*cut(labels, groups, rest, 0.15, seed + 1), test)


@pytest.mark.parametrize("seed", range(8))
def test_splits_are_a_partition(seed: int) -> None:
    """Every row is in exactly one, sorted; no group is on two sides, even across classes; every class can be learnt."""
    labels, groups = random_world(seed)
    splits = split(labels, groups, seed)
    sides = [splits.train, splits.validation, splits.test]
    assert np.array_equal(np.sort(np.concatenate(sides)), np.arange(len(labels)))
    assert all(np.all(np.diff(rows) > 0) for rows in sides)
    for one, other in combinations(sides, 2):
        assert not set(groups[one]) & set(groups[other])
    assert set(labels[splits.train]) == set(labels)


def test_classes_of_three_images_are_validated() -> None:
    """From three distinct images on, one of them validates; single images stay in train."""
    labels = np.append(np.repeat(np.arange(20), 3), 20)
    kept, validation = cut(labels, np.arange(61), np.arange(61), 0.15, seed=0)
    assert set(labels[validation]) == set(range(20))
    assert 60 in kept


def test_class_of_pairs_still_gets_a_validation_pair() -> None:
    """Where every group is larger than the quota, the smallest group is taken all the same."""
    labels, groups = np.zeros(4, np.int64), np.array([0, 0, 1, 1])
    kept, cut_off = cut(labels, groups, np.arange(4), 0.15, seed=3)
    assert len(kept) == len(cut_off) == 2
    assert groups[cut_off[0]] == groups[cut_off[1]]


def test_cut_is_stratified() -> None:
    """Each class loses the wanted share, to the nearest image."""
    labels = np.repeat(np.arange(3), [20, 40, 100])
    _, cut_off = cut(labels, np.arange(160), np.arange(160), 0.15, seed=0)
    assert np.bincount(labels[cut_off]).tolist() == [3, 6, 15]


def test_same_seed_same_splits_and_another_seed_others() -> None:
    """The cut depends on its seed and on nothing else that varies."""
    labels, groups = random_world(1)
    assert np.array_equal(split(labels, groups, 5).validation, split(labels, groups, 5).validation)
    assert not np.array_equal(split(labels, groups, 5).validation, split(labels, groups, 6).validation)


def copies_of(pairs: list[tuple[int, int]]) -> Copies:
    """Return some pairs as the search does."""
    return Copies(
        np.array(pairs, np.int64).reshape(-1, 2), np.ones(len(pairs), np.int8), np.ones(len(pairs), np.float32)
    )


def merged(nodes: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Merge sets pair by pair until nothing changes."""
    sets = [{node} for node in range(nodes)]
    for pair in pairs:
        left, right = (next(one for one in sets if node in one) for node in pair)
        if left is not right:
            sets.remove(right)
            left |= right
    return sorted(map(sorted, sets))


def test_groups_agree_with_pairwise_merging() -> None:
    """Groups are what chains of pairs link, as found the slow way."""
    ends = np.random.default_rng(0).integers(0, 120, size=(70, 2))
    pairs = [(min(pair), max(pair)) for pair in ends.tolist()]
    groups = group_copies(copies_of(pairs), np.arange(120), [str(row) for row in range(120)])
    found = sorted(np.flatnonzero(groups == group).tolist() for group in np.unique(groups))
    assert found == merged(120, pairs)
    assert 1 < len(found) < 120


def test_equal_files_are_one_group_whatever_they_look_like() -> None:
    """One file annotated with two boxes must not be on two sides; rows that do not count link nothing."""
    contents = ["same", "other", "same", "more", "same"]
    groups = group_copies(copies_of([(1, 4), (3, 4)]), np.array([0, 1, 2, 3]), contents)
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 4


def test_groups_that_the_data_itself_parts_are_told_of() -> None:
    """Its own splits are kept, and a group that has images in two of them is counted; one inside a split is not."""
    rows = [("train", "car 1"), ("test", "car 1"), ("train", "car 2"), ("train", "car 2"), ("test", ""), ("train", "")]
    images = tuple(ImageRecord(f"{n}.jpg", n % 2, split, None, group) for n, (split, group) in enumerate(rows))
    notes = listing_notes(Manifest(Path("cars"), ("a", "b"), images), DataConfig())
    assert notes == ["1 group is in several of its own splits, such as 'car 1'."]


@pytest.mark.parametrize(("copies", "total", "told"), [(19, 30, 0), (20, 30, 20), (20, 400, 20), (20, 401, 0)])
def test_a_group_that_holds_much_of_the_data_is_told(copies: int, total: int, told: int) -> None:
    """From 20 images and 5% of all; a chain of pairs is one group."""
    manifest = Manifest(Path("cars"), ("a",), tuple(ImageRecord(f"{n}.jpg", 0, "train", None) for n in range(total)))
    chain = copies_of([(row, row + 1) for row in range(copies - 1)])
    assert len(large_group(manifest, Index(chain, ()))) == told
    assert large_group(manifest, Index(copies_of([]), ())) == []
