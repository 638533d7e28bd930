"""Exact neighbours against scikit-learn's brute force.

    python benchmarks/neighbours.py [--short] [--runs N] [--json FILE]

Both search the same made-up embeddings, alternating; the table gives medians and the ratio. scikit-learn is given
float32, which is its fastest way. Its own rounding puts near ties of the cosine into another order; what decides
whether ours are right is scikit-learn in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rows import Row, write_rows
from sklearn.neighbors import NearestNeighbors

from carcls.config import Distance
from carcls.neighbours.search import find_neighbours

Vectors = NDArray[np.float32]
TARGET, K = 3.0, 10
# Queries, gallery and their width: all of Stanford Cars with a ResNet-50, and a part of it with a smaller network.
FULL, SHORT = (8041, 8144, 2048), (1303, 4447, 1280)


def main() -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"{SHORT} instead of {FULL}; judges no target")
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    shape = SHORT if asked.short else FULL
    queries, gallery = embeddings(*shape)
    command = f"python benchmarks/neighbours.py{' --short' if asked.short else ''} --runs {asked.runs}"
    rows = [compare(queries, gallery, distance, asked.runs, command) for distance in get_args(Distance)]
    for row in rows:
        print(f"{row.what}: {row.value} {row.reason}")
    if asked.json:
        write_rows(asked.json, rows)


def embeddings(queries: int, gallery: int, width: int) -> tuple[Vectors, Vectors]:
    """Return made-up embeddings, float32 [q, d] and [g, d].

    As those of networks they follow a ReLU and lie in clusters; independent noise is harder than anything real.
    """
    random = np.random.default_rng(0)
    centres = random.gamma(1.0, 1.0, size=(196, width))
    points = np.maximum(0, centres[random.integers(0, 196, gallery + queries)] + random.normal(size=(1, width)))
    points = (points + random.normal(scale=0.5, size=points.shape)).clip(0).astype(np.float32)
    return points[gallery:], points[:gallery]


def compare(queries: Vectors, gallery: Vectors, distance: Distance, runs: int, command: str) -> Row:
    """Time both, alternating, and hold our neighbours against float64."""
    find_neighbours(queries[:64], gallery, K, distance)
    ours, theirs = [], []
    for _ in range(runs):
        start = time.perf_counter()
        found = find_neighbours(queries, gallery, K, distance)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        single = search_plainly(queries, gallery, distance)
        theirs.append(time.perf_counter() - start)
    exact = search_plainly(queries.astype(np.float64), gallery.astype(np.float64), distance)
    ratio = statistics.median(theirs) / statistics.median(ours)
    wrong, other = int((found.indices != exact).sum()), int((found.indices != single).sum())
    shape = (len(queries), *gallery.shape)
    reasons = [f"{wrong} neighbours are wrong"] if wrong else []
    if ratio < TARGET:
        reasons.append(
            f"the product of all pairs alone takes {product_seconds(queries, gallery):.2f} s in bf16, "
            "the rest is choosing candidates and computing their distances in float64"
        )
    return Row(
        "neighbours {:,} × {:,} × {}, ".format(*shape) + f"k = {K}, {distance}, against scikit-learn brute force",
        f"≥ {TARGET:g} ×, identical neighbours",
        f"{ratio:.2f} × ({statistics.median(ours):.2f} s against {statistics.median(theirs):.2f} s); "
        f"{wrong} of {found.indices.size} differ from its float64, {other} from its float32",
        None if shape != FULL else ratio >= TARGET and not wrong,
        runs,
        command,
        "not the size that the target is for" if shape != FULL else "; ".join(reasons),
    )


def product_seconds(queries: Vectors, gallery: Vectors, block: int = 1024) -> float:
    """Return how long the inner products of all pairs take in bf16, the best of three."""
    first, second = (torch.from_numpy(vectors).bfloat16() for vectors in (queries, gallery))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for rows in first.split(block):
            rows @ second.T
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def search_plainly(queries: NDArray[Any], gallery: NDArray[Any], distance: Distance) -> NDArray[np.int64]:
    """Return scikit-learn's neighbours, int64 [q, k]."""
    model = NearestNeighbors(n_neighbors=K, algorithm="brute", metric=distance).fit(gallery)
    found: NDArray[np.int64] = model.kneighbors(queries, return_distance=False)
    return found


if __name__ == "__main__":
    main()
