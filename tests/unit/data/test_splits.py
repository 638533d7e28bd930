"""Splits are stratified, disjoint, repeatable, and keep near-duplicates on one side."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from carcls.data.fingerprints import fingerprint, near_duplicate_groups, near_pairs
from carcls.data.splits import Splits, cut

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


def naive_groups(prints: NDArray[np.uint64], threshold: int) -> list[set[int]]:
    """Merge sets pair by pair until nothing changes."""
    sets = [{i} for i in range(len(prints))]
    for i in range(len(prints)):
        for j in range(i):
            if int(prints[i] ^ prints[j]).bit_count() <= threshold:
                left, right = (next(s for s in sets if k in s) for k in (i, j))
                if left is not right:
                    sets.remove(right)
                    left |= right
    return sets


def test_groups_agree_with_pairwise_merging() -> None:
    """Groups are the connected components of nearness, as found the slow way."""
    rng = np.random.default_rng(0)
    roots = rng.integers(2**63, size=30, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(64, size=(120, 3), dtype=np.uint64)
    prints = roots[rng.integers(30, size=120)] ^ np.bitwise_xor.reduce(flips, axis=1)
    groups = near_duplicate_groups(prints, threshold=4)
    found = [set(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, naive_groups(prints, 4)))
    assert len(found) < 120


def test_equal_files_are_one_group_whatever_their_fingerprints() -> None:
    """One file annotated with two boxes must not be on two sides."""
    prints = np.array([0, 2**40 - 1, 2**63], np.uint64)
    groups = near_duplicate_groups(prints, ["same", "other", "same"])
    assert groups[0] == groups[2] != groups[1]


def test_distances_agree_with_counting_bits_one_by_one() -> None:
    """Pairs match Python's own bit count, of far, of hardly differing and of equal fingerprints."""
    rng = np.random.default_rng(1)
    prints = rng.integers(2**63, size=300, dtype=np.uint64)
    flips = 1 << rng.integers(0, 64, size=(6, 150), dtype=np.uint64)
    prints[:150] = prints[150:] ^ np.bitwise_or.reduce(flips, axis=0)
    prints[200:203] = prints[0]
    for threshold in (0, 4, 5, 20):
        near = [(a, b) for a, b in combinations(range(300), 2) if int(prints[a] ^ prints[b]).bit_count() <= threshold]
        found = np.sort(np.stack(near_pairs(prints, threshold)), axis=0)
        assert sorted(set(zip(*found.tolist(), strict=True))) == near


def test_near_duplicates_are_found_without_comparing_all_with_all() -> None:
    """Those of 60,000 images take less than a tenth of the time of all comparisons.

    A thousand equal images among them are no work either.
    """
    prints = np.random.default_rng(3).integers(2**63, size=60_000, dtype=np.uint64)
    start = time.perf_counter()
    near_duplicate_groups(prints)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    np.count_nonzero(np.bitwise_count(prints[:3000, None] ^ prints[None, :3000]) <= 4)
    assert ours < 20**2 * (time.perf_counter() - start) / 10
    prints[:1000] = 0
    assert len(np.unique(near_duplicate_groups(prints))) == 59_001


def test_fingerprint_survives_brightness_and_noise_but_not_another_picture() -> None:
    """A brighter, noisier copy is near; an unrelated thumbnail is far."""
    rng = np.random.default_rng(2)
    smooth = np.kron(rng.integers(40, 200, size=(2, 8, 8)), np.ones((1, 4, 4)))
    copy = smooth[0] * 1.1 + 10 + rng.normal(0, 2, size=(32, 32))
    thumbnails = np.stack([*smooth, copy]).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    original, other, changed = fingerprint(thumbnails)
    assert int(original ^ changed).bit_count() <= 4
    assert int(original ^ other).bit_count() >= 16


def test_flat_pictures_have_one_fingerprint() -> None:
    """Rounding noise of a picture without structure decides no bit."""
    flat = np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in (0, 1, 77, 255)])
    assert len(set(fingerprint(flat).tolist()) - {0}) <= 1
