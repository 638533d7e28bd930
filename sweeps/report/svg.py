"""Drawings as SVG: scales, axes, marks and shapes of trials, as plain functions from numbers to elements.

Text goes into elements as it is, and is escaped when they are written. Places are pixels of a drawing's own size, from
its upper left corner; whoever shows it scales it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, tostring

# What follows a place in a path. Statuses differ by shape, not by colour alone: ● ○ × ◇, and a star.
MARKS: Mapping[str, str] = {
    "complete": "h0",  # a dot, since lines have round ends
    "pruned": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "failed": "m-3-3l6 6m0-6l-6 6",
    "running": "m-4 0l4-4 4 4-4 4z",
    "ring": "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0",
    "hit": "m-3-3h6l-3 6z",
    "made": "m-3 0h6m-3-3v6",
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


def side_by_side(drawings: Sequence[Element], across: int = 3) -> Element:
    """Return one drawing of one or more of equal size, in rows of ``across`` or fewer."""
    _, _, width, height = (float(part) for part in drawings[0].get("viewBox", "").split())
    columns = min(across, len(drawings))
    box = {"viewBox": f"0 0 {px(width * columns)} {px(height * -(-len(drawings) // columns))}", "class": "chart alone"}
    whole = node("svg", {**box, "xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    for place, one in enumerate(drawings):
        x, y = place % columns * width, place // columns * height
        part = node("svg", {**one.attrib, "x": x, "y": y, "width": width, "height": height})
        part.extend(one)
        whole.append(part)
    return whole


def legend() -> Element:
    """Return how trials are marked."""
    words = {"winner": "winner", "complete": "complete", "pruned": "stopped early", "failed": "failed"}
    inside, x = list[Element](), 10.0
    for kind, said in {**words, "running": "unfinished"}.items():
        inside.append(node("g", {"class": kind}, node("path", {"class": "mark", "d": mark(kind, x, 12)})))
        inside.append(text(x + 12, 16, said))
        x += 28 + 7.0 * len(said)
    return drawing(x, 24, "Marks: ★ winner, ● complete, ○ stopped early, × failed, ◇ unfinished.", *inside)


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

    def across(self, y: float, most: int = 7) -> list[Element]:
        """Return it as a horizontal axis at the height ``y``."""
        ticks = self.scale.ticks(most, whole=self.whole)
        words = [text(self.scale(value), y + 16, self.write(value), "middle") for value in ticks]
        words.append(text((self.scale.start + self.scale.end) / 2, y + 34, self.title, "middle"))
        return [line(self.scale.start, y, self.scale.end, y, "axis"), *words]

    def upward(self, x: float, right: float, most: int = 5) -> list[Element]:
        """Return it as a vertical axis at ``x``, with faint lines to ``right``."""
        ticks = self.scale.ticks(most)
        lines = [line(x, self.scale(value), right, self.scale(value), "grid") for value in ticks]
        words = [text(x - 6, self.scale(value) + 4, self.write(value), "end") for value in ticks]
        return [*lines, *words, text(0, 12, self.title)]


@dataclass(frozen=True, slots=True)
class Slots:
    """Places along an axis of values of any kind: those in ``names`` have a slot each, numbers a scale beside them.

    Attributes:
        names: values with slots; None is the slot of what a trial lacks.
        start, end: of the axis, in pixels.
        scale: of the other values; None where there are none.
    """

    names: tuple[Any, ...]
    start: float
    end: float
    scale: Scale | None = None

    @classmethod
    def of(cls, values: Iterable[Any], choices: Iterable[Any], start: float, end: float, *, log: bool = False) -> Slots:
        """Return the slots of all ``choices``, of None and, where ``log``, of numbers that have no logarithm.

        Without choices the other values are numbers, two of which may be the ends of what is searched.
        """
        values, names = list(values), list(choices)
        is_scaled = not names
        apart = [v for v in values if v is None or not is_scaled or (log and v <= 0)]
        names += [value for value in dict.fromkeys(apart) if value not in names]
        if not is_scaled:
            return cls(tuple(names), start, end)
        far = start + (end - start) * 0.16 * len(names)
        return cls(tuple(names), start, end, Scale.over([v for v in values if v not in names], far, end, log=log))

    def __call__(self, value: Any, jitter: float = 0.0) -> float:
        """Return where a value is; ``jitter``, in [-1, 1], moves it within a third of its slot."""
        if value not in self.names and self.scale is not None:
            return self.scale(value)
        width = self.width
        return self.start + (self.names.index(value) + 0.5 + jitter / 3) * width

    @property
    def width(self) -> float:
        """Of a slot, in pixels."""
        return ((self.end if self.scale is None else self.scale.start) - self.start) / max(1, len(self.names))

    def ticks(self, most: int = 3, apart: float = 34.0) -> list[tuple[float, str]]:
        """Return what is written along the axis, and where; numbers so far, in pixels, from the slots' names."""
        words = [(self(name), "–" if name is None else str(name)) for name in self.names]
        numbers = self.scale.ticks(most) if self.scale is not None else []
        clear = [value for value in numbers if all(abs(self(value) - place) >= apart for place, _ in words)]
        return words + [(self(value), f"{value:g}") for value in clear]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a chart draws of a trial.

    Attributes:
        kind: its CSS classes.
        trials: numbers of the trials that it stands for; none for one of many that are drawn together.
        words: what it says.
        paths: data of paths by their CSS class.
    """

    kind: str
    trials: tuple[int, ...]
    words: str
    paths: Mapping[str, str]


def drawn(shapes: Iterable[Shape]) -> list[Element]:
    """Return the elements of shapes; the first is on top, and those that stand for no trial are one path a kind."""
    alone, rest = list[Element](), defaultdict[str, dict[str, None]](dict)
    for shape in shapes:
        if not shape.trials:
            for kind, data in shape.paths.items():
                rest[f"{shape.kind} {kind}"][data] = None
            continue
        paths = [node("path", {"class": kind, "d": data}) for kind, data in shape.paths.items()]
        named = {"class": shape.kind, "data-trial": " ".join(map(str, shape.trials))}
        alone.append(node("g", named, node("title", {}, shape.words), *paths))
    return [*(node("path", {"class": kind, "d": "".join(all_of)}) for kind, all_of in rest.items()), *alone[::-1]]


def shortened(said: str, width: float) -> str:
    """Return words that fit into a width, by a font of 11 pixels."""
    most = max(1, int(width / 6.2))
    return said if len(said) <= most else f"{said[: most - 1]}…"
