"""Parts of a spec that check themselves: names, shares, prices, early stopping; messages begin with a field's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from carcls.errors import shown
from sweeps.text import parse_size
from sweeps.trial import Spent

# The output folder keeps these beside the sweeps' own folders.
_RESERVED_NAMES = ("stages", "data", "artifacts", "mlflow.db")
# Ray counts no smaller parts of a GPU.
_SMALLEST_SHARE = 1e-4
_FOLDER = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,99}")
_CONFIRM = re.compile(r"([1-9][0-9]?)x([1-9][0-9]?)")
_PRICE = re.compile(r"([$€£]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*/\s*(gpu-hour|cpu-hour|hour)")
_HIGHEST_PRICE = 1e9
_HOURS = re.compile(r"(?:([0-9.]+)\s*h)?\s*(?:([0-9.]+)\s*m(?:in)?)?")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is confirmed: the ``top`` best trials, with ``seeds`` fresh seeds each; both from 0 to 99."""

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


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour costs: of a GPU, of a CPU core, and of the whole sweep, whatever it uses."""

    gpu_hour: float = 0.0
    cpu_hour: float = 0.0
    hour: float = 0.0
    currency: str = "$"

    def cost_of(self, spent: Spent) -> float:
        """Return what trials cost, and the hours of the sweep in which they ran."""
        return (spent.gpu_seconds * self.gpu_hour + spent.cpu_seconds * self.cpu_hour + spent.wall * self.hour) / 3600.0

    def idle_notes(self, gpus: float, *, limited: bool) -> list[str]:
        """Return a sentence on a price of GPUs where no trial holds one: the sweep then seems to cost nothing.

        Args:
            gpus: that a trial holds.
            limited: whether the sweep has a ``max_cost``.
        """
        limit = ", and --max-cost never ends the sweep" if limited and not (self.cpu_hour or self.hour) else ""
        note = f"price: no trial holds a GPU, so gpu-hours cost nothing{limit}. Give a price per cpu-hour or per hour."
        return [note] if self.gpu_hour and not gpus else []


def parse_price(text: str) -> Prices:
    """Return the prices that a text names; several are joined by ``+``.

    Raises:
        ValueError: it does not look like a price, names a unit twice, or mixes currencies, or is beyond reason.

    >>> parse_price("2.5/gpu-hour + 0.05/cpu-hour")
    Prices(gpu_hour=2.5, cpu_hour=0.05, hour=0.0, currency='$')
    """
    parts = [_PRICE.fullmatch(part.strip()) for part in text.split("+")]
    found = [match.groups() for match in parts if match]
    amounts = {unit.replace("-", "_"): float(amount) for _, amount, unit in found}
    currencies = {currency for currency, _, _ in found} - {""}
    if len(found) < len(parts):
        rule = "be AMOUNT/gpu-hour, /cpu-hour or /hour, several joined by '+'"
        raise ValueError(f"price must {rule}, got {shown(text)}. Give one such as 2.5/gpu-hour.")
    if len(amounts) < len(parts):
        raise ValueError(f"price must name each unit once, got {shown(text)}. Leave one of them out.")
    if max(amounts.values()) > _HIGHEST_PRICE:
        raise ValueError(f"price must be at most {_HIGHEST_PRICE:g} each hour, got {shown(text)}.")
    if len(currencies) > 1:
        raise ValueError(f"price must be in one currency, got {shown(text)}. Convert one of them.")
    return Prices(**amounts, currency=(*currencies, "$")[0])


def parse_hours(text: str) -> float:
    """Return the hours of a duration: a number of them, or such as ``90m`` or ``1h30m``.

    Raises:
        ValueError: it is none.

    >>> [parse_hours(text) for text in ("1.5", "2h", "90m", "1h30m", "30 min")]
    [1.5, 2.0, 1.5, 1.5, 0.5]
    """
    found = _HOURS.fullmatch(text.strip())
    parts = (found[1] or 0, found[2] or 0) if found and found[0] else (text, 0)
    try:
        return float(parts[0]) + float(parts[1]) / 60
    except ValueError:
        raise ValueError(f"hours must be a number of hours such as 1.5, or 90m or 1h30m, got {shown(text)}.") from None


def usable_as_folder(name: str) -> str:
    """Return a name that a folder of runs may have, as it is.

    Raises:
        ValueError: it may not have it.
    """
    if not _FOLDER.fullmatch(name):
        raise ValueError(
            f"name must be up to 100 letters, digits, '-', '_' and '.', not beginning with a sign, got {shown(name)}."
        )
    if name in _RESERVED_NAMES:
        raise ValueError(f"name must be none of {', '.join(_RESERVED_NAMES)}, which carsweep uses, got {name!r}.")
    return name


def _usable_as_model(name: str) -> str:
    if not _FOLDER.fullmatch(name):
        raise ValueError(
            "model_name must be up to 100 letters, digits, '-', '_' and '.', not beginning with a sign, got "
            f"{shown(name)}."
        )
    return name


def _fills_gpus(gpus: float) -> float:
    if gpus > 1 and gpus % 1:
        rule = "a whole number above 1, since each of a trial's processes has a GPU of its own"
        raise ValueError(f"gpus_per_trial must be {rule}, got {gpus:g}. Give {int(gpus)} or {int(gpus) + 1}.")
    if gpus > 1:
        return gpus
    shares = round(1 / max(gpus, _SMALLEST_SHARE))
    # 0.33 is meant as a third; three times 0.34 does not fit on a GPU.
    if gpus and not 0.97 <= shares * gpus <= 1 + 1e-9:
        rule = "0, a whole number, or 1/n such as 0.5 or 0.25 so that trials fill a GPU"
        raise ValueError(f"gpus_per_trial must be {rule}, got {gpus!r}.")
    return gpus


def _readable(parse: Callable[[str], Any]) -> AfterValidator:
    """Return a check that keeps a text as it is, if ``parse`` can read it."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


FolderName = Annotated[str, AfterValidator(usable_as_folder)]
ModelName = Annotated[str, AfterValidator(_usable_as_model)]
Hours = Annotated[
    Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)],
    BeforeValidator(lambda said: parse_hours(said) if isinstance(said, str) else said),
    Field(examples=["1.5", "90m", "1h30m"]),
]
GpuShare = Annotated[float, Field(strict=True, ge=0, le=1e4, allow_inf_nan=False), AfterValidator(_fills_gpus)]
AUTO = "auto"
"""Is said for what the machine decides, which a spec keeps as None."""
GpuShareOrAuto = Annotated[
    GpuShare | None,
    BeforeValidator(lambda said: None if said == AUTO else said),
    Field(examples=[AUTO, "0.5", "1", "2"]),
]
Confirmation = Annotated[str, _readable(parse_confirm), Field(examples=["3x3"])]
Price = Annotated[str, _readable(parse_price), Field(examples=["2.5/gpu-hour", "0.05/cpu-hour", "3/hour"])]
Size = Annotated[str, _readable(lambda text: parse_size("disk", text)), Field(examples=["20GB"])]


class EarlyStopping(BaseModel):
    """Successive halving of the searched trials; documented experiments are never stopped.

    benchmarks/early_stopping.md has what the defaults are worth, and where others are better.

    Attributes:
        enabled: whether trials are stopped at all.
        min_epochs: every trial runs this long; None is a fifth of its own epochs.
        reduction: of the trials that come to a rung, the best one in this many goes on; rungs are at min_epochs times
            the powers of this.
        within_kind: up to this share of its epochs a trial is compared with those of its own unfreezing schedule only,
            since those that unfreeze the backbone start slower. The named schedules have unfrozen all by a half.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: Annotated[bool, Field(strict=True)] = True
    min_epochs: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    reduction: Annotated[int, Field(strict=True, ge=2, le=10_000)] = 3
    within_kind: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] = 0.5

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs (from 1) after which a trial of ``epochs`` epochs may be stopped.

        >>> EarlyStopping().rungs(10)
        (2, 6)
        """
        rungs = []
        rung = self.min_epochs or max(1, epochs // 5)
        while self.enabled and rung < epochs:
            rungs.append(rung)
            rung *= self.reduction
        return tuple(rungs)

    def plain(self) -> dict[str, Any]:
        """Return what distinguishes sweeps; the later setting where it is not the default."""
        first = self.model_dump(include={"enabled", "min_epochs", "reduction"})
        return first | self.model_dump(include={"within_kind"}, exclude_defaults=True)


@lru_cache(maxsize=10_000)
def survival(stopping: EarlyStopping, epochs: int, done: int = 0) -> tuple[float, ...]:
    """Return the chances that a trial which came to epoch ``done`` of ``epochs`` trains each of those that follow.

    They add up to the epochs that are expected of it.

    >>> survival(EarlyStopping(min_epochs=1, reduction=2), 5)  # rungs at 1, 2 and 4
    (1.0, 0.5, 0.25, 0.25, 0.125)
    """
    rungs = [rung for rung in stopping.rungs(epochs) if rung > done]
    return tuple(stopping.reduction ** -float(sum(rung <= epoch for rung in rungs)) for epoch in range(done, epochs))
