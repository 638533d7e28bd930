"""How the searched trials are stopped early: a part of the spec."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class EarlyStopping(BaseModel):
    """Successive halving of the searched trials; documented experiments are never stopped.

    benchmarks/early_stopping.md has what the defaults are worth, and where others are better.

    Attributes:
        enabled: whether trials are stopped at all.
        min_epochs: every trial runs this long; None is a fifth of its own epochs.
        reduction: of the trials that come to a rung, the best one in this many goes on; rungs are at min_epochs times
            the powers of this.
        within_kind: up to this share of its epochs a trial is compared with those of its own unfreezing schedule only,
            since those that open the backbone start slower. The named schedules have opened all of it by a half.
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
        """Return what sweeps are told apart by; the later setting where it is not the default."""
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
