"""Exact neighbours against scikit-learn's brute force: python benchmarks/neighbours.py [QUERIES GALLERY WIDTH]

Both search the same random embeddings, alternating; the table gives medians and the ratio, and whether the neighbours
are identical. scikit-learn is given float32, which is its fastest way; ours rescores in float64.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from sklearn.neighbors import NearestNeighbors

from carcls.evaluation.neighbours import find_neighbours

RUNS = 3


def main(queries: int = 1303, gallery: int = 4447, width: int = 1280) -> None:
    """Print one line for each k and distance."""
    random = np.random.default_rng(0)
    # Embeddings follow a ReLU and lie in clusters; independent noise would be harder than anything that is real.
    centres = random.gamma(1.0, 1.0, size=(196, width))
    points = np.maximum(0, centres[random.integers(0, 196, gallery + queries)] + random.normal(size=(1, width)))
    points = (points + random.normal(scale=0.5, size=points.shape)).clip(0).astype(np.float32)
    asked, held = points[gallery:], points[:gallery]
    print(f"{queries} queries, {gallery} in the gallery, {width} wide; medians of {RUNS} runs")
    for k in (10, 50):
        for distance in ("euclidean", "cosine"):
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(RUNS):
                start = time.perf_counter()
                found = find_neighbours(asked, held, k, distance)
                ours.append(time.perf_counter() - start)
                start = time.perf_counter()
                model = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=distance).fit(held)
                expected = model.kneighbors(asked, return_distance=False)
                theirs.append(time.perf_counter() - start)
            mine, other = statistics.median(ours), statistics.median(theirs)
            equal = float((found.indices == expected).mean())
            print(
                f"k={k:<3} {distance:10} ours {mine:6.2f} s  scikit-learn {other:6.2f} s  "
                f"ratio {other / mine:5.2f}  equal {equal:.4%}"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
