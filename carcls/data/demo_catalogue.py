"""The demo's fictional cars: what each class looks like.

A class is a body (proportions, roof line, windows) and a face (lights, grille, wheels, trim). Siblings that
differ by year share the body and differ in the face only. Colour belongs to an image, never to a class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Body:
    """Proportions in metres; ``d`` in a comment is a distance from the foremost point, towards the rear."""

    length: float = 4.6
    width: float = 1.82
    height: float = 1.45
    clearance: float = 0.20
    front_axle: float = 0.92  # d
    wheelbase: float = 2.7
    wheel: float = 0.33  # tyre radius
    bumper: float = 0.48  # height of the foremost point
    nose: tuple[float, float] = (0.10, 0.76)  # d and height of the bonnet's leading edge
    cowl: tuple[float, float] = (1.30, 1.00)  # d and height where the windscreen starts
    roof_front: float = 2.02  # d
    roof_rear: float = 3.20  # d
    roof_drop: float = 0.06
    glass_end: tuple[float, float] = (3.95, 1.08)  # d and height where the rear window ends
    tail: tuple[float, float] = (0.06, 1.04)  # distance from the rear end and height of the tail's upper edge
    belt: float = 0.95
    belt_rise: float = 0.06
    tumble: float = 0.20  # how much narrower the roof is than the belt
    taper: tuple[float, float] = (0.20, 0.16)  # how much narrower the front and rear ends are
    pillars: tuple[float, ...] = (2.25, 3.10)  # d of the pillars between side windows, at the belt
    windows: tuple[float, float] = (1.62, 3.72)  # d of the first and last corner at the belt
    window_top_end: float = 3.32  # d of the last corner under the roof
    seams: tuple[float, ...] = (1.42, 2.28, 3.18)  # d of the door seams
    crease: float = 0.78  # height of the character line
    roof_open: bool = False
    bed: bool = False
    cladding: bool = False
    rails: bool = False


@dataclass(frozen=True)
class Face:
    """What a facelift changes. Each name is a shape that `demo_details` and `demo_wheels` draw."""

    headlight: str
    grille: str
    taillight: str
    wheel: str
    intake: str = "wide"
    chrome: bool = False
    moulding: bool = False


@dataclass(frozen=True)
class CarClass:
    """One class of the demo."""

    name: str
    body: Body
    face: Face


_CORSO = Body()
_CORSO_WAGON = replace(
    _CORSO, length=4.68, height=1.49, roof_rear=4.02, roof_drop=0.09, glass_end=(4.50, 1.06), tail=(0.05, 0.98),
    pillars=(2.25, 3.12), windows=(1.62, 4.22), window_top_end=3.95, rails=True,
)  # fmt: skip
_LIDO = replace(
    _CORSO, length=4.42, height=1.36, wheelbase=2.58, wheel=0.34, nose=(0.14, 0.72), cowl=(1.38, 0.95),
    roof_front=2.14, roof_rear=2.85, roof_drop=0.05, glass_end=(3.82, 1.02), tail=(0.05, 0.98), belt=0.92,
    belt_rise=0.07, pillars=(2.78,), windows=(1.72, 3.36), window_top_end=3.0, seams=(1.50, 2.84), crease=0.74,
)  # fmt: skip
_LIDO_OPEN = replace(_LIDO, roof_open=True, glass_end=(3.55, 0.98))
_PIKO = replace(
    _CORSO, length=3.88, width=1.70, height=1.50, front_axle=0.76, wheelbase=2.46, wheel=0.30, nose=(0.10, 0.78),
    cowl=(0.98, 1.02), roof_front=1.66, roof_rear=3.22, roof_drop=0.08, glass_end=(3.74, 1.06), tail=(0.04, 0.96),
    belt=0.95, belt_rise=0.10, pillars=(1.98, 2.80), windows=(1.32, 3.36), window_top_end=3.10,
    seams=(1.14, 2.00, 2.80), crease=0.80,
)  # fmt: skip
_ALTA = replace(
    _CORSO, length=4.52, height=1.47, roof_front=1.94, roof_rear=3.08, cowl=(1.22, 1.01), glass_end=(3.98, 1.09),
    pillars=(2.18, 3.02), windows=(1.54, 3.66), window_top_end=3.24, seams=(1.36, 2.20, 3.08), tail=(0.10, 1.06),
    belt_rise=0.04,
)  # fmt: skip
_TERRA = replace(
    _CORSO, length=4.46, width=1.86, height=1.69, clearance=0.27, front_axle=0.90, wheelbase=2.66, wheel=0.37,
    bumper=0.56, nose=(0.08, 0.93), cowl=(1.22, 1.15), roof_front=1.84, roof_rear=3.75, roof_drop=0.07,
    glass_end=(4.30, 1.22), tail=(0.05, 1.10), belt=1.10, belt_rise=0.07, tumble=0.16, pillars=(2.14, 2.98),
    windows=(1.52, 3.92), window_top_end=3.62, seams=(1.34, 2.16, 3.00), crease=0.92, cladding=True, rails=True,
)  # fmt: skip
_N70 = replace(
    _CORSO, length=4.72, height=1.46, nose=(0.05, 0.80), cowl=(1.36, 1.00), roof_front=1.98, roof_rear=3.26,
    tumble=0.17, roof_drop=0.03, glass_end=(3.92, 1.05), tail=(0.03, 1.02), belt=0.95, belt_rise=0.01,
    pillars=(2.24, 3.12), windows=(1.64, 3.66), window_top_end=3.34, taper=(0.13, 0.10), crease=0.84,
)  # fmt: skip
_N70_WAGON = replace(
    _N70, length=4.76, height=1.49, roof_rear=4.32, glass_end=(4.66, 1.04), tail=(0.03, 0.98), windows=(1.64, 4.44),
    window_top_end=4.22, rails=True,
)  # fmt: skip
_FJELL = replace(
    _TERRA, length=4.64, height=1.74, nose=(0.05, 0.98), cowl=(1.28, 1.17), roof_front=1.86, roof_rear=4.06,
    roof_drop=0.04, glass_end=(4.52, 1.20), windows=(1.56, 4.24), window_top_end=4.00, belt_rise=0.02,
    taper=(0.14, 0.10), wheelbase=2.78, pillars=(2.18, 3.06), seams=(1.38, 2.22, 3.10), cladding=False,
)  # fmt: skip
_LAST = replace(
    _CORSO, length=4.78, width=1.90, height=1.92, clearance=0.22, front_axle=0.92, wheelbase=2.92, wheel=0.34,
    bumper=0.50, nose=(0.12, 0.90), cowl=(0.92, 1.16), roof_front=1.66, roof_rear=4.56, roof_drop=0.03,
    glass_end=(4.72, 1.10), tail=(0.02, 1.0), belt=1.10, belt_rise=0.0, tumble=0.12, pillars=(2.16, 3.28),
    windows=(1.18, 4.52), window_top_end=4.46, seams=(1.16, 2.18, 3.34), taper=(0.16, 0.06), crease=0.88,
)  # fmt: skip
_KAZE = replace(
    _LIDO, length=4.30, width=1.80, height=1.29, clearance=0.16, nose=(0.22, 0.66), cowl=(1.46, 0.88),
    roof_front=2.20, roof_rear=2.72, glass_end=(3.96, 0.98), tail=(0.06, 0.94), belt=0.86, belt_rise=0.12,
    pillars=(2.86,), windows=(1.80, 3.42), window_top_end=2.92, seams=(1.56, 2.88), taper=(0.24, 0.17), crease=0.70,
    bumper=0.42,
)  # fmt: skip
_MORI = replace(
    _PIKO, length=4.20, width=1.77, height=1.47, front_axle=0.84, wheelbase=2.60, wheel=0.32, cowl=(1.10, 1.0),
    roof_front=1.80, roof_rear=3.36, roof_drop=0.10, glass_end=(3.98, 1.06), belt_rise=0.08, pillars=(2.10, 2.92),
    windows=(1.44, 3.56), window_top_end=3.22, seams=(1.24, 2.12, 2.94), nose=(0.14, 0.75),
)  # fmt: skip
_MESA_PICKUP = replace(
    _CORSO, length=5.36, width=1.94, height=1.80, clearance=0.31, front_axle=0.98, wheelbase=3.28, wheel=0.39,
    bumper=0.62, nose=(0.06, 1.03), cowl=(1.42, 1.20), roof_front=1.98, roof_rear=3.28, roof_drop=0.03,
    glass_end=(3.50, 1.18), tail=(0.03, 1.16), belt=1.13, belt_rise=0.0, tumble=0.15, pillars=(2.38,),
    windows=(1.66, 3.38), window_top_end=3.22, seams=(1.48, 2.40, 3.36), taper=(0.12, 0.04), crease=0.96, bed=True,
)  # fmt: skip
_MESA_SUV = replace(
    _MESA_PICKUP, length=4.86, wheelbase=2.86, roof_rear=4.40, glass_end=(4.76, 1.22), tail=(0.03, 1.12), bed=False,
    rails=True, pillars=(2.38, 3.24), windows=(1.66, 4.56), window_top_end=4.34, seams=(1.48, 2.40, 3.28),
    taper=(0.12, 0.08),
)  # fmt: skip
_DUKE = replace(
    _CORSO, length=5.02, width=1.90, height=1.48, front_axle=0.94, wheelbase=2.96, wheel=0.36, nose=(0.06, 0.83),
    cowl=(1.54, 1.02), roof_front=2.22, roof_rear=3.44, glass_end=(4.30, 1.09), tail=(0.08, 1.05), belt=0.98,
    belt_rise=0.04, pillars=(2.48, 3.34), windows=(1.86, 4.00), window_top_end=3.58, seams=(1.66, 2.50, 3.44),
    taper=(0.16, 0.13), crease=0.84,
)  # fmt: skip
CLASSES: tuple[CarClass, ...] = (
    CarClass("Brantor Duke Sedan 2012", _DUKE, Face("block", "slats", "vertical", "ten", chrome=True)),
    CarClass("Brantor Duke Sedan 2016", _DUKE, Face("hook", "mesh", "corner", "twin", chrome=True)),
    CarClass("Brantor Mesa Pickup 2011", _MESA_PICKUP, Face("block", "bars", "vertical", "six", "bar")),
    CarClass("Brantor Mesa Pickup 2015", _MESA_PICKUP, Face("hook", "split", "clasp", "five", "bar")),
    CarClass("Brantor Mesa SUV 2015", _MESA_SUV, Face("hook", "split", "clasp", "five", "bar", chrome=True)),
    CarClass("Kestrin Alta Sedan 2013", _ALTA, Face("teardrop", "oval", "swept", "seven")),
    CarClass("Kestrin Alta Sedan 2017", _ALTA, Face("slim", "smile", "bar", "star")),
    CarClass("Kestrin Piko Hatchback 2011", _PIKO, Face("oval", "oval", "round", "seven", "pods")),
    CarClass("Kestrin Piko Hatchback 2015", _PIKO, Face("teardrop", "smile", "clasp", "turbine", "pods")),
    CarClass("Kestrin Terra SUV 2012", _TERRA, Face("teardrop", "oval", "swept", "six", "pods")),
    CarClass("Kestrin Terra SUV 2016", _TERRA, Face("slim", "smile", "corner", "star", "pods")),
    CarClass("Nordhal Fjell SUV 2013", _FJELL, Face("block", "slats", "vertical", "five", moulding=True)),
    CarClass("Nordhal Fjell SUV 2017", _FJELL, Face("slim", "frame", "hockey", "ten", moulding=True)),
    CarClass("Nordhal Last Van 2012", _LAST, Face("block", "bars", "vertical", "disc", moulding=True)),
    CarClass("Nordhal Last Van 2016", _LAST, Face("swept", "frame", "hockey", "seven", moulding=True)),
    CarClass("Nordhal N70 Sedan 2014", _N70, Face("hook", "frame", "corner", "twin", moulding=True)),
    CarClass("Nordhal N70 Wagon 2014", _N70_WAGON, Face("hook", "frame", "hockey", "twin", moulding=True)),
    CarClass("Tamuro Kaze Coupe 2011", _KAZE, Face("swept", "none", "round", "star")),
    CarClass("Tamuro Kaze Coupe 2015", _KAZE, Face("slim", "mesh", "bar", "turbine", "pods")),
    CarClass("Tamuro Mori Hatchback 2013", _MORI, Face("swept", "bars", "swept", "twin")),
    CarClass("Tamuro Mori Hatchback 2016", _MORI, Face("slim", "none", "hockey", "five")),
    CarClass("Veloria Corso Sedan 2012", _CORSO, Face("swept", "split", "swept", "ten", chrome=True)),
    CarClass("Veloria Corso Sedan 2016", _CORSO, Face("twin", "mesh", "corner", "five", chrome=True)),
    CarClass("Veloria Corso Wagon 2016", _CORSO_WAGON, Face("twin", "mesh", "hockey", "five", chrome=True)),
    CarClass("Veloria Lido Convertible 2014", _LIDO_OPEN, Face("twin", "split", "round", "star", chrome=True)),
    CarClass("Veloria Lido Coupe 2014", _LIDO, Face("twin", "split", "round", "star", chrome=True)),
)
