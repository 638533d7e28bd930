"""Several objectives at once: who is beaten by nobody, and who is the fairest compromise. Pure functions on losses.

A loss is a value of which less is better. One point has one loss for each objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the positions, ascending, of points that no other one dominates.

    One point dominates another when it is nowhere worse and somewhere better; equal points do not dominate each other.

    >>> pareto_front([(0, 3), (1, 1), (2, 2), (3, 0)])
    [0, 1, 3]
    """
    order = sorted(range(len(points)), key=lambda place: tuple(points[place]))
    front: list[int] = []
    # Whoever dominates a point stands before it in this order, and is on the front or dominated by one who is.
    for place in order:
        if not any(_dominates(points[other], points[place]) for other in front):
            front.append(place)
    return sorted(front)


def _dominates(one: Point, other: Point) -> bool:
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))


def compromise(points: Sequence[Point]) -> int:
    """Return the position of the point nearest to the best of every objective, each scaled to [0, 1] over the points.

    The distance is Euclidean (the compromise solution of Yu 1973); the first of equals.

    >>> compromise([(0, 10), (1, 1), (10, 0)])
    1
    """
    axes = list(zip(*points, strict=True))
    least = [min(axis) for axis in axes]
    spans = [max(axis) - low or 1.0 for axis, low in zip(axes, least, strict=True)]

    def distance(place: int) -> float:
        scaled = ((x - low) / span for x, low, span in zip(points[place], least, spans, strict=True))
        return math.hypot(*scaled)

    return min(range(len(points)), key=distance)
