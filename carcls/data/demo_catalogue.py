"""The demo's fictional cars: what each class looks like.

A class is a body (proportions, roof line) and a face (lights, grille, wheels). Makes share bodies, nearly or
wholly, and classes that differ by year differ in the face only. Colour belongs to an image, never to a class.
"""

from __future__ import annotations

from typing import NamedTuple


class Body(NamedTuple):
    """Proportions in metres; ``d`` is a distance from the foremost point, towards the rear."""

    length: float
    width: float
    height: float
    wheel: float  # tyre radius
    axles: tuple[float, float]  # d
    nose: float  # height of the bonnet's leading edge
    cowl: tuple[float, float]  # d and height where the windscreen starts
    roof: tuple[float, float]  # d of its front and rear end
    glass_end: tuple[float, float]  # d and height where the rear window ends
    tail: float  # height of the tail's upper edge
    kind: str = "closed"  # "coupe" has a single door on each side, "open" no roof either, "bed" one for loads


class CarClass(NamedTuple):
    """One class of the demo: a name, a body, and its face, whose words are keys of the shapes below."""

    name: str
    body: Body
    headlight: str
    grille: str
    taillight: str
    wheel: str


# Start and end across the nose or tail (0 is its middle, 1 its corner, more is along the flank), both heights at its
# start as shares of the band of lights, how much higher they are at its end, and further apart in between (an ellipse).
Lobe = tuple[float, float, float, float, float, float]
LIGHTS: dict[str, tuple[Lobe, ...]] = {
    "block": ((0.52, 1.12, 0.10, 0.88, 0, 0),),
    "swept": ((0.50, 1.40, 0.10, 0.58, 0.40, 0),),
    "slim": ((0.44, 1.36, 0.62, 0.82, 0.14, 0),),
    "teardrop": ((0.54, 1.36, 0.24, 0.42, 0.42, 0.24),),
    "twin": ((0.44, 0.69, 0.50, 0.50, 0, 0.36), (0.72, 1.02, 0.52, 0.52, 0, 0.44)),
    "hook": ((0.48, 1.12, 0.54, 0.94, 0, 0), (0.82, 1.10, -0.16, 0.54, 0, 0)),
    "vertical": ((0.80, 1.08, -0.30, 1.05, 0, 0),),
    "round": ((0.40, 0.66, 0.50, 0.50, 0, 0.44), (0.69, 0.97, 0.50, 0.50, 0, 0.44)),
    "bar": ((0.02, 1.22, 0.52, 0.82, 0, 0),),
    "corner": ((0.60, 1.14, 0.45, 0.90, -0.30, 0),),
    "hockey": ((0.84, 1.06, -0.10, 1.20, 0, 0), (0.48, 0.84, -0.10, 0.24, 0, 0)),
}
GRILLES: dict[str, tuple[Lobe, int, int]] = {  # the area, and how many upright and level bars it has
    "bars": ((-0.46, 0.46, 0.06, 0.86, 0, 0), 0, 3),
    "slats": ((-0.34, 0.34, -0.14, 0.90, 0, 0), 7, 0),
    "mesh": ((-0.42, 0.42, 0.10, 0.80, 0, 0), 11, 4),
    "split": ((0.05, 0.40, 0.42, 0.42, 0, 0.44), 3, 0),
    "oval": ((-0.44, 0.44, 0.42, 0.42, 0, 0.44), 0, 1),
    "slot": ((-0.50, 0.50, 0.66, 0.82, 0, 0), 0, 0),
}
RIMS = {  # spokes, and in turns their half width, and how far two of them are from the middle of a pair
    "five": (5, 0.055, 0.0),
    "ten": (10, 0.020, 0.0),
    "twin": (5, 0.016, 0.030),
    "star": (5, 0.026, 0.058),
}
_SEDAN = Body(4.56, 1.82, 1.46, 0.33, (0.92, 3.62), 0.76, (1.28, 1.00), (2.00, 3.14), (3.96, 1.08), 1.05)
_SALOON = Body(5.02, 1.90, 1.48, 0.36, (0.94, 3.90), 0.83, (1.54, 1.02), (2.22, 3.44), (4.30, 1.09), 1.05)
_WAGON = Body(4.70, 1.82, 1.49, 0.33, (0.92, 3.62), 0.78, (1.32, 1.00), (2.00, 4.15), (4.58, 1.05), 0.98)
_HATCH = Body(3.92, 1.71, 1.52, 0.30, (0.76, 3.24), 0.78, (0.98, 1.02), (1.66, 3.26), (3.76, 1.06), 0.96)
_MORI = _HATCH._replace(length=4.24, height=1.40, axles=(0.84, 3.48), roof=(1.74, 3.30), glass_end=(4.08, 1.04))
_SUV = Body(4.46, 1.86, 1.69, 0.37, (0.90, 3.56), 0.93, (1.22, 1.15), (1.84, 3.75), (4.30, 1.22), 1.10)
_BOX = Body(4.74, 1.90, 1.78, 0.38, (0.94, 3.76), 1.00, (1.34, 1.19), (1.92, 4.24), (4.62, 1.21), 1.11)
_VAN = Body(4.78, 1.90, 1.92, 0.34, (0.92, 3.84), 0.90, (0.92, 1.16), (1.66, 4.56), (4.70, 1.10), 1.00)
_COUPE = Body(4.36, 1.81, 1.33, 0.34, (0.92, 3.50), 0.69, (1.42, 0.92), (2.16, 2.80), (3.88, 1.00), 0.96, "coupe")
_PICKUP = Body(5.36, 1.94, 1.80, 0.39, (0.98, 4.26), 1.03, (1.42, 1.20), (1.98, 3.28), (3.50, 1.18), 1.16, "bed")
_MODELS = (  # with the face of each year
    ("Brantor Duke Sedan", _SALOON, {2012: "block slats vertical ten", 2016: "hook mesh corner twin"}),
    ("Brantor Mesa Pickup", _PICKUP, {2011: "block bars vertical ten", 2015: "hook split round five"}),
    ("Brantor Mesa SUV", _BOX, {2015: "hook split round five"}),
    ("Kestrin Alta Sedan", _SEDAN, {2013: "teardrop oval swept five", 2017: "slim bars bar star"}),
    ("Kestrin Piko Hatchback", _HATCH, {2011: "twin oval round ten", 2015: "teardrop bars bar star"}),
    ("Kestrin Terra SUV", _SUV, {2012: "teardrop oval swept five", 2016: "slim bars corner star"}),
    ("Nordhal Fjell SUV", _BOX._replace(height=1.9), {2013: "block slats vertical twin", 2017: "slim mesh hockey ten"}),
    ("Nordhal Last Van", _VAN, {2012: "block bars vertical ten", 2016: "swept slats hockey star"}),
    ("Nordhal N70 Sedan", _SALOON._replace(nose=0.9, tail=1.14, roof=(2.1, 3.7)), {2014: "hook slats corner twin"}),
    ("Nordhal N70 Wagon", _WAGON._replace(nose=0.86, roof=(1.94, 4.3)), {2014: "hook slats hockey twin"}),
    ("Tamuro Kaze Coupe", _COUPE._replace(height=1.23), {2011: "swept slot round star", 2015: "slim mesh bar ten"}),
    ("Tamuro Mori Hatchback", _MORI, {2013: "swept bars swept twin", 2016: "slim slot hockey five"}),
    ("Veloria Corso Sedan", _SEDAN._replace(height=1.38), {2012: "slim split swept ten", 2016: "twin mesh bar five"}),
    ("Veloria Corso Wagon", _WAGON._replace(height=1.42), {2016: "twin mesh hockey five"}),
    ("Veloria Lido Convertible", _COUPE._replace(kind="open"), {2014: "twin split round star"}),
    ("Veloria Lido Coupe", _COUPE, {2014: "twin split round star"}),
)
CLASSES = tuple(
    CarClass(f"{name} {year}", body, *face.split()) for name, body, years in _MODELS for year, face in years.items()
)
