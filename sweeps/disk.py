"""Which stages may go, and in which order. Pure: from a listing and what the sweeps need, to a list of what goes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from carcls.stages_disk import Stored

# Why something may go, the readiest first. What is ``kept`` never goes.
Reason = Literal["leftover", "stopped", "unclaimed", "model", "unused", "kept"]
_ORDER = {reason: place for place, reason in enumerate(get_args(Reason))}
# Of no use to anybody; the others only go for the sake of a budget.
USELESS: tuple[Reason, ...] = ("leftover", "stopped", "unclaimed")
# What decides the splits of a data set, and the number format: a sweep could not go on with others, and they are small.
_NEVER = ("index", "precision")
# How exactly clocks of machines that share a folder agree, in seconds.
SLACK = 60.0


@dataclass(frozen=True, slots=True)
class Training:
    """What a trial trains, or would: settings that its model depends on, and the digest of its data."""

    data: str
    settings: Mapping[str, Any]

    def is_of(self, key: Mapping[str, Any]) -> bool:
        """Tell whether a training stage of this key may be this trial's.

        The number format, and settings of other versions of carsweep, are not compared: in doubt it is.
        """
        if key.get("data") != self.data:
            return False
        return all(key[name] == value for name, value in self.settings.items() if name in key and name != "precision")


@dataclass(frozen=True, slots=True)
class Needs:
    """What all the sweeps of a folder need of its stages.

    Attributes:
        kept: names (``kind/digest``) of the stages that models worth keeping consist of.
        going_on: trainings of trials that run, or that a sweep will go on with.
        known: trainings of all trials.
        models: names of the stages of all complete trials -> the best rank, from 1, of a trial that has it.
        data: digests of the sweeps' data sets.
        manifests: digests of their lists of images.
        in_use_since: seconds since 1970; what was used later may be open in a running trial.
    """

    kept: frozenset[str] = frozenset()
    going_on: tuple[Training, ...] = ()
    known: tuple[Training, ...] = ()
    models: Mapping[str, int] = field(default_factory=dict)
    data: frozenset[str] = frozenset()
    manifests: frozenset[str] = frozenset()
    in_use_since: float = math.inf


@dataclass(frozen=True, slots=True)
class Judged:
    """Something in the store, why it may go, and the rank of its model, if it is one."""

    stored: Stored
    reason: Reason
    rank: int = 0


def judge(listing: Iterable[tuple[Stored, Mapping[str, Any]]], needs: Needs) -> list[Judged]:
    """Say of everything in a store whether it may go, and why.

    Args:
        listing: what is there, each with its key; an empty key is one that could not be read.
        needs: of the sweeps.
    """
    things = list(listing)
    claimed = _claimed_embeddings(things, needs)
    return [
        Judged(stored, _reason(stored, key, needs, claimed), needs.models.get(stored.name, 0)) for stored, key in things
    ]


def choose(judged: Sequence[Judged], budget: int | None, *, useless_too: bool) -> list[Judged]:
    """Return what goes: what is of no use, if wanted, and then so much more that the rest fits the budget.

    Useless things go first, then models, the worst first, then what was not used for longest.

    Args:
        judged: everything in the store.
        budget: bytes; None is no limit.
        useless_too: whether what is of no use goes although the budget would hold it.
    """
    left = sum(one.stored.size for one in judged)
    chosen = []
    for one in sorted((one for one in judged if one.reason != "kept"), key=_readiness):
        over = budget is not None and left > budget
        if over or (useless_too and one.reason in USELESS):
            chosen.append(one)
            left -= one.stored.size
    return chosen


def _readiness(one: Judged) -> tuple[int, int, float, str]:
    return _ORDER[one.reason], -one.rank, one.stored.used, one.stored.name


def _reason(stored: Stored, key: Mapping[str, Any], needs: Needs, claimed: set[str]) -> Reason:
    if stored.state in ("making", "trash"):
        return "leftover"
    if stored.kind in _NEVER or stored.name in needs.kept:
        return "kept"
    if stored.kind == "training" and any(training.is_of(key) for training in needs.going_on):
        return "kept"
    if stored.state == "unfinished":  # nobody but its maker, who holds its lock, has it open
        return "stopped" if key or not needs.going_on else "kept"
    if stored.used >= needs.in_use_since - SLACK:
        return "kept"
    if not key:
        return "unused"
    if not _is_claimed(stored, key, needs, claimed):
        return "unclaimed"
    return "model" if stored.name in needs.models else "unused"


def _is_claimed(stored: Stored, key: Mapping[str, Any], needs: Needs, claimed: set[str]) -> bool:
    """Tell whether a trial of any sweep made this stage, or would look for it."""
    if stored.name in needs.models:
        return True
    match stored.kind:
        case "training":
            return any(training.is_of(key) for training in needs.known)
        case "embeddings":
            return stored.digest in claimed
        case "features" | "heads":
            return key.get("data") in needs.data
        case "neighbours" | "votes" | "test-embeddings" | "embedding-parts":
            return key.get("embeddings", key.get("of")) in claimed
        case "pack":
            return key.get("manifest") in needs.manifests
    return True


def _claimed_embeddings(things: Sequence[tuple[Stored, Mapping[str, Any]]], needs: Needs) -> set[str]:
    """Return the digests of the embeddings that a trial of any sweep made, or would look for."""
    claimed = set()
    for stored, key in things:
        if stored.kind != "embeddings":
            continue
        of = key.get("training")
        own = any(training.is_of(of) for training in needs.known) if isinstance(of, dict) else key.get("data")
        if stored.name in needs.models or own is True or own in needs.data:
            claimed.add(stored.digest)
    return claimed
