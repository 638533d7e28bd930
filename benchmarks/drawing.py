"""Growth as lines: an SVG with logarithmic axes, and the straight line that linear growth would be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 64, 40, 150, 48
_COLOURS = ("#0b6e99", "#b3541e", "#3d7a37", "#7a3d78", "#555555")

Points = Sequence[tuple[float, float]]


def draw(title: str, lines: Mapping[str, Any]) -> str:
    """Return an SVG.

    Args:
        title: what grows.
        lines: ``x`` and ``y`` name the axes with their units; ``points`` has, by name, pairs of positive numbers.
            The dashes beside each line start at its first point and grow linearly.
    """
    series: dict[str, Points] = {name: [tuple(p) for p in points] for name, points in lines["points"].items()}
    linear = {
        name: [points[0], (points[-1][0], points[0][1] * points[-1][0] / points[0][0])]
        for name, points in series.items()
    }
    every = [point for points in (*series.values(), *linear.values()) for point in points]
    across, up = ([math.log10(point[axis]) for point in every] for axis in (0, 1))
    frame = (math.floor(min(across)), max(across), math.floor(min(up)), math.ceil(max(up)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        '  font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        *_axes(frame, lines["x"], lines["y"]),
    ]
    heights = _apart({name: _place(points[-1], frame)[1] for name, points in series.items()})
    for (name, points), colour in zip(series.items(), _COLOURS * len(series), strict=False):
        x, _ = _place(points[-1], frame)
        parts.append(
            f'<polyline points="{_path(linear[name], frame)}" fill="none" stroke="{colour}" stroke-dasharray="2 4"/>'
        )
        parts.append(f'<polyline points="{_path(points, frame)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in (_place(p, frame) for p in points)
        ]
        parts.append(f'<text x="{x + 8:.1f}" y="{heights[name] + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _apart(heights: dict[str, float], least: float = 14.0) -> dict[str, float]:
    """Return the heights of the names, moved up where two would overlap."""
    below, apart = math.inf, {}
    for name in sorted(heights, key=heights.__getitem__, reverse=True):
        below = apart[name] = min(heights[name], below - least)
    return apart


def _place(point: tuple[float, float], frame: tuple[float, float, float, float]) -> tuple[float, float]:
    left, right, low, high = frame
    x = LEFT + (math.log10(point[0]) - left) / (right - left or 1) * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - (math.log10(point[1]) - low) / (high - low or 1) * (HEIGHT - TOP - BOTTOM)
    return x, y


def _path(points: Points, frame: tuple[float, float, float, float]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(point, frame) for point in points))


def _axes(frame: tuple[float, float, float, float], across: str, up: str) -> list[str]:
    left, right, low, high = frame
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path d="M{LEFT},{TOP} V{floor} H{wall}" fill="none" stroke="#333"/>']
    for power in range(int(left), math.floor(right) + 1):
        x, _ = _place((10.0**power, 10.0**low), frame)
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(int(low), int(high) + 1):
        _, y = _place((10.0**left, 10.0**power), frame)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
        parts.append(f'<path d="M{LEFT},{y:.1f} H{wall}" stroke="#ddd"/>')
    parts.append(f'<text x="{(LEFT + wall) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>')
    return [*parts, f'<text x="14" y="{TOP - 8}">{escape(up)}</text>']
