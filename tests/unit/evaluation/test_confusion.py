"""Which classes are confused, held against counting one image after the other."""

from __future__ import annotations

import numpy as np

from carcls.evaluation.confusion import ClassScore, ConfusedPair, class_scores, confused_pairs, count_answers
from carcls.evaluation.grouping import car_groups, group_scores
from carcls.evaluation.significance import Proportion, wilson_interval

CLASSES = 7


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and answers, of which about half are right; the last class has no images, the first no answers."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES - 1, 200)
    predicted = np.where(rng.random(200) < 0.5, labels, rng.integers(1, CLASSES, 200))
    return labels, np.where(predicted == 0, 1, predicted)


def test_every_share_of_a_class_is_what_counting_its_images_gives() -> None:
    """Recall, precision, and the class that its images are taken for most often, with Wilson's intervals."""
    for seed in range(5):
        labels, predicted = drawn(seed)
        pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
        cells = count_answers(labels, predicted)
        assert {(a, b): n for a, b, n in cells} == {pair: pairs.count(pair) for pair in pairs}
        scores = class_scores(cells, CLASSES)
        assert [score.label for score in scores] == list(range(CLASSES))
        for one in scores:
            own = [said for true, said in pairs if true == one.label]
            taken = [true for true, said in pairs if said == one.label]
            assert one.recall == Proportion(own.count(one.label), len(own))
            assert one.precision == Proportion(taken.count(one.label), len(taken))
            wrong = [said for said in own if said != one.label]
            often = max(sorted(set(wrong)), key=wrong.count, default=None)
            assert (one.taken_for, one.taken) == (often, wrong.count(often) if wrong else 0)
        assert scores[0].precision.value is None
        assert scores[-1].recall == Proportion(0, 0)
        assert scores[-1].recall.interval == (0.0, 1.0)
        assert scores[1].recall.interval == wilson_interval(scores[1].recall.hits, scores[1].recall.images)


def test_pairs_count_both_directions_and_no_class_is_confused_with_itself() -> None:
    """The most confused pair comes first, of equals the one that goes more in one direction, then the lower classes."""
    for seed in range(5):
        labels, predicted = drawn(seed)
        found = confused_pairs(count_answers(labels, predicted), 99)
        wrong = [(true, said) for true, said in zip(labels.tolist(), predicted.tolist(), strict=True) if true != said]
        assert {frozenset((pair.first, pair.second)) for pair in found} == {frozenset(pair) for pair in wrong}
        for pair in found:
            assert pair.first_as_second == wrong.count((pair.first, pair.second)) >= pair.second_as_first
            assert pair.second_as_first == wrong.count((pair.second, pair.first))
        assert len(found) == len({(pair.first, pair.second) for pair in found})
        assert sum(pair.images for pair in found) == len(wrong)
        sizes = [(-pair.images, -pair.first_as_second) for pair in found]
        assert sizes == sorted(sizes)
        assert confused_pairs(count_answers(labels, predicted), 2) == found[:2]
    ties = [(0, 1, 1), (1, 0, 1), (3, 2, 2), (5, 4, 1), (4, 5, 1)]
    assert [(pair.first, pair.second) for pair in confused_pairs(ties, 9)] == [(3, 2), (0, 1), (4, 5)]


def test_a_single_class_that_is_always_right_has_no_pairs_and_is_taken_for_nothing() -> None:
    """What is on the diagonal is no confusion."""
    cells = count_answers(np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert confused_pairs(cells, 10) == ()
    assert class_scores(cells, 1) == (ClassScore(0, Proportion(3, 3), Proportion(3, 3)),)
    assert confused_pairs([(1, 0, 2)], 10) == (ConfusedPair(1, 0, 2, 0),)


def test_names_of_cars_tell_make_body_and_year() -> None:
    """Makes of two words, bodies before the year, and classes that tell less are in their places."""
    names = [
        "AM General Hummer SUV 2000",
        "Aston Martin V8 Vantage Coupe 2012",
        "Land Rover LR2 SUV 2012",
        "Ram C-V Cargo Van Minivan 2012",
        "Chevrolet Cobalt SS 2010",
        "Chevrolet_Express_Van_2007",
        "an unknown car",
    ]
    found = car_groups(names)
    makes = ("AM General", "Aston Martin", "Land Rover", "Ram", "Chevrolet", "Chevrolet", "other")
    assert found["make"] == makes
    assert found["body"] == ("SUV", "Coupe", "SUV", "Minivan", "other", "Van", "other")
    assert found["year"] == ("2000", "2012", "2012", "2012", "2010", "2007", "other")


def test_names_that_are_no_cars_are_not_read() -> None:
    """Birds, parts and a table that would have one row, or a row for each class, are left out."""
    for names in (
        ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"],
        ["bolt M8", "bolt M10", "nut M8"],
        ["tint 0", "tint 1"],
        ["2012", "2013", "2014"],
        ["Coin one cent 1899", "Coin two cents 2101"],
        [],
    ):
        assert car_groups(names) == {}
    one_each = ["BMW M3 Coupe 2010", "Audi TT Sedan 2011"]
    assert car_groups(one_each) == {}


def test_scores_of_groups_are_what_counting_their_images_gives() -> None:
    """Each image counts in the group of its class, and a mistake within it is an answer of the same group."""
    labels, predicted = drawn(1)
    groups = ["b", "a", "other", "a", "b", "a", "none of it"]
    found = group_scores(groups, labels, predicted)
    assert [one.name for one in found] == ["a", "b", "other"]
    for one in found:
        own = [(t, p) for t, p in zip(labels.tolist(), predicted.tolist(), strict=True) if groups[t] == one.name]
        assert one.accuracy == Proportion(sum(t == p for t, p in own), len(own))
        assert one.within == sum(t != p and groups[p] == one.name for t, p in own)
