"""What single fields of a spec may be: types that check themselves. Messages begin with the field's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from carcls.errors import shown
from sweeps.spec.documented import find_experiment
from sweeps.spec.prices import parse_price
from sweeps.text import parse_size

# The output folder keeps these beside the sweeps' own folders.
RESERVED_NAMES = ("stages", "data", "artifacts", "mlflow.db")
# Ray counts no smaller parts of a GPU.
_SMALLEST_SHARE = 1e-4
_CONFIRM = re.compile(r"([1-9][0-9]?)x([1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is confirmed: the ``top`` best trials, with ``seeds`` fresh seeds each; both from 1 to 99."""

    top: int
    seeds: int

    @property
    def runs(self) -> int:
        """Trainings in all."""
        return self.top * self.seeds


def parse_confirm(text: str) -> Extent:
    """Read ``NxM``: the N best trials, M fresh seeds each.

    Raises:
        ValueError: it is not of this form.

    >>> parse_confirm("3x5")
    Extent(top=3, seeds=5)
    """
    found = _CONFIRM.fullmatch(text)
    if found is None:
        raise ValueError(f"confirm must be NxM, the N best trials with M fresh seeds each, got {shown(text)}. Say 3x3.")
    return Extent(int(found[1]), int(found[2]))


def usable_as_folder(name: str) -> str:
    """Return a name that a folder of runs may have, as it is.

    Raises:
        ValueError: it may not have it.
    """
    letters = all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in name)
    if not letters or not name[:1].isalnum() or len(name) > 100:
        raise ValueError(
            f"name must be up to 100 letters, digits, '-', '_' and '.', not beginning with a sign, got {shown(name)}."
        )
    if name in RESERVED_NAMES:
        raise ValueError(f"name must be none of {', '.join(RESERVED_NAMES)}, which carsweep uses, got {name!r}.")
    return name


def _fills_gpus(gpus: float) -> float:
    if gpus in (0, 1):
        return gpus
    if gpus > 1:
        raise ValueError(
            f"gpus_per_trial must be at most 1, since a trial computes on one GPU, got {gpus:g}. "
            "Give 1; more GPUs run more trials at a time."
        )
    shares = round(1 / max(gpus, _SMALLEST_SHARE))
    # 0.33 is meant as a third; three times 0.34 does not fit on a GPU.
    if not 0.97 <= shares * gpus <= 1 + 1e-9:
        raise ValueError(
            f"gpus_per_trial must be 0, 1, or 1/n such as 0.5 or 0.25 so that trials fill a GPU, got {gpus!r}."
        )
    return gpus


def _readable(parse: Callable[[str], Any]) -> AfterValidator:
    """Return a check that keeps a text as it is, if ``parse`` can read it."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


def _documented(name: str) -> str:
    try:
        return find_experiment(name).name
    except ValueError as error:
        raise ValueError(str(error).removeprefix("experiment ")) from None


FolderName = Annotated[str, AfterValidator(usable_as_folder)]
GpuShare = Annotated[float, Field(strict=True, ge=0, le=1e4, allow_inf_nan=False), AfterValidator(_fills_gpus)]
Confirmation = Annotated[str, _readable(parse_confirm)]
Price = Annotated[str, _readable(parse_price)]
Size = Annotated[str, _readable(lambda text: parse_size("disk", text))]
Experiment = Annotated[str, AfterValidator(_documented)]
