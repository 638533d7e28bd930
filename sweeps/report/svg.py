"""Drawings as SVG: scales, axes and marks, as plain functions from numbers to elements.

Text goes into elements as it is, and is escaped when they are written. Places are pixels of a drawing's own size, from
its upper left corner; whoever shows it scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

# What follows a place in a path. Statuses differ by shape, not by colour alone: ● ○ × ◇, and a star.
MARKS: Mapping[str, str] = {
    "complete": "h0",  # a dot, since lines have round ends
    "pruned": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "failed": "m-3-3l6 6m0-6l-6 6",
    "running": "m-4 0l4-4 4 4-4 4z",
    "winner": "m0-8l2.1 5.1 5.5 .4-4.2 3.5 1.3 5.4-4.7-2.9-4.7 2.9 1.3-5.4-4.2-3.5 5.5-.4z",
}


def px(place: float) -> str:
    """Return a number of pixels, to a tenth.

    >>> [px(place) for place in (12.04, 3.16, -0.01)]
    ['12', '3.2', '0']
    """
    text = f"{place:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def node(tag: str, attributes: Mapping[str, str | float], *inside: Element | str) -> Element:
    """Return an element; numbers among its attributes are pixels, a text inside comes first."""
    made = Element(tag, {name: said if isinstance(said, str) else px(said) for name, said in attributes.items()})
    for part in inside:
        if isinstance(part, str):
            made.text = part
        else:
            made.append(part)
    return made


def text(x: float, y: float, said: str, kind: str = "") -> Element:
    """Return words at a place; ``kind`` is their CSS class."""
    return node("text", {"x": x, "y": y, **({"class": kind} if kind else {})}, said)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    """Return a straight line of a CSS class."""
    return node("path", {"class": kind, "d": path([(x1, y1), (x2, y2)])})


def path(places: Iterable[tuple[float, float]]) -> str:
    """Return the data of a path through places.

    >>> path([(0, 1.26), (10, 2)])
    'M0 1.3L10 2'
    """
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in places)


def mark(kind: str, x: float, y: float) -> str:
    """Return the data of a path that is one of ``MARKS`` at a place."""
    return f"M{px(x)} {px(y)}{MARKS[kind]}"


def drawing(width: float, height: float, words: str, *inside: Element) -> Element:
    """Return a whole drawing, which a screen reader reads as ``words``."""
    box = {"viewBox": f"0 0 {px(width)} {px(height)}", "role": "img", "aria-label": words, "class": "chart"}
    return node("svg", {**box, "style": f"--width:{px(width)}px"}, *inside)


def written(element: Element) -> str:
    """Return an element as text that HTML and SVG files take."""
    return tostring(element, encoding="unicode")


@dataclass(frozen=True, slots=True)
class Scale:
    """Places of values along an axis.

    Attributes:
        low, high: the least and the greatest value, low < high; both above 0 where ``log``.
        start, end: where these are, in pixels.
        log: whether equal factors are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
        """Return the scale of values, one or more; a single one is in its middle."""
        low, high = min(values := list(values)), max(values)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1))
        return cls(low, high, start, end, log)

    def __call__(self, value: float) -> float:
        """Return where a value is."""
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 5, *, whole: bool = False) -> list[float]:
        """Return round values on the axis, about ``most`` of them; only whole numbers if asked."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [part * 10.0**power for power in powers for part in (1, 2, 5)]
            found = [float(f"{value:.1g}") for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            tens = [value for value in found if f"{value:e}".startswith("1")]
            found = tens if len(tens) > 1 else found
            return found[:: math.ceil(len(found) / most)] if found else [self.low, self.high]
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(part * unit for part in (1, 2, 5, 10) if part * unit >= rough * 0.75)
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of numbers: its scale, its name, and how a person reads a value."""

    scale: Scale
    title: str
    write: Callable[[float], str]
    whole: bool = False

    def across(self, y: float) -> list[Element]:
        """Return it as a horizontal axis at the height ``y``."""
        ticks = self.scale.ticks(7, whole=self.whole)
        words = [text(self.scale(value), y + 16, self.write(value), "middle") for value in ticks]
        middle = (self.scale.start + self.scale.end) / 2
        return [
            line(self.scale.start, y, self.scale.end, y, "axis"),
            *words,
            text(middle, y + 34, self.title, "middle"),
        ]

    def upward(self, x: float, right: float) -> list[Element]:
        """Return it as a vertical axis at ``x``, with faint lines to ``right``."""
        ticks = self.scale.ticks()
        lines = [line(x, self.scale(value), right, self.scale(value), "grid") for value in ticks]
        words = [text(x - 6, self.scale(value) + 4, self.write(value), "end") for value in ticks]
        return [*lines, *words, text(0, 12, self.title)]
