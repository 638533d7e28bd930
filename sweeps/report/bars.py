"""The chart of importances: two bars a setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from sweeps.report.svg import drawing, node, shortened, text
from sweeps.text import percent

if TYPE_CHECKING:
    from sweeps.study.importance import Importance

WIDTH, ROW = 480.0, 34.0
LEFT, RIGHT, TOP = 164.0, 430.0, 26.0


def draw_importance(settings: Sequence[Importance]) -> Element:
    """Return the drawing of settings with shares, at least one; all bars have one scale, from 0 to the greatest."""
    most = max(max(one.ped_anova or 0.0, one.f_anova or 0.0) for one in settings)
    inside = [_bar("ped", LEFT, 4.0, 20), text(LEFT + 26, 13, "PED-ANOVA")]
    inside += [_bar("fan", LEFT + 120, 4.0, 20), text(LEFT + 146, 13, "f-ANOVA")]
    for place, one in enumerate(settings):
        y = TOP + place * ROW
        inside.append(text(LEFT - 8, y + 17, shortened(one.setting + "*" * one.conditional, LEFT - 8), "end"))
        for below, kind, share in ((4.0, "ped", one.ped_anova), (17.0, "fan", one.f_anova)):
            if share is not None:
                width = share / most * (RIGHT - LEFT)
                bar = _bar(kind, LEFT, y + below, width)
                inside += [bar, text(LEFT + width + 5, y + below + 9, percent(share), "small")]
    words = f"Importance of {len(settings)} settings by PED-ANOVA and f-ANOVA."
    return drawing(WIDTH, TOP + ROW * len(settings) + 6, words, *inside)


def _bar(kind: str, x: float, y: float, width: float) -> Element:
    return node("rect", {"class": kind, "x": x, "y": y, "width": width, "height": 10.0})
