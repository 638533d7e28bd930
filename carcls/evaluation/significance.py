"""How far a measured accuracy can be believed."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def wilson_interval(hits: int, images: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, both ends in [0, 1].

    Source: Wilson 1927; recommended over the normal approximation by Brown, Cai and DasGupta 2001. No images: (0, 1).

    >>> [round(end, 4) for end in wilson_interval(5933, 8041)]
    [0.7281, 0.7473]
    """
    if images == 0:
        return 0.0, 1.0
    share, spread = hits / images, z * z / images
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / images + spread / (4 * images)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
