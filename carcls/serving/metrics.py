"""What a server counts, in the text format that Prometheus reads (its exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the ranges of seconds that answers are counted in."""


class Metrics:
    """Counts requests, seconds and images; used by the server's own thread alone.

    Attributes:
        in_flight: requests that are worked on or wait.
        held: bytes of their bodies.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.held = 0
        self._requests, self._images = Counter[tuple[str, int]](), Counter[str]()
        self._seconds, self._total = [0] * (len(BUCKETS) + 1), 0.0

    def note(self, path: str, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests[path, code] += 1
        self._seconds[bisect_left(BUCKETS, seconds)] += 1
        self._total += seconds

    def note_image(self, *, readable: bool) -> None:
        """Count an image that was asked about."""
        self._images["answered" if readable else "unreadable"] += 1

    def text(self) -> str:
        """Return all counts."""
        lines = ["# TYPE carsweep_requests_total counter"]
        lines += [
            f'carsweep_requests_total{{path="{p}",code="{c}"}} {n}' for (p, c), n in sorted(self._requests.items())
        ]
        lines.append("# TYPE carsweep_images_total counter")
        lines += [f'carsweep_images_total{{outcome="{name}"}} {n}' for name, n in sorted(self._images.items())]
        lines += ["# TYPE carsweep_in_flight gauge", f"carsweep_in_flight {self.in_flight}"]
        lines += ["# TYPE carsweep_held_bytes gauge", f"carsweep_held_bytes {self.held}"]
        lines.append("# TYPE carsweep_request_seconds histogram")
        below = 0
        for end, count in zip((*BUCKETS, "+Inf"), self._seconds, strict=True):
            below += count
            lines.append(f'carsweep_request_seconds_bucket{{le="{end}"}} {below}')
        lines += [f"carsweep_request_seconds_sum {self._total:.6f}", f"carsweep_request_seconds_count {below}"]
        return "\n".join(lines) + "\n"
