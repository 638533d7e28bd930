"""What several tests read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from carcls.outcome import Measurement
from carcls.stages import LOG, StageStore
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree
from sweeps.study.journal import JOURNAL, sealed

if TYPE_CHECKING:
    from sweeps.study.study import Asked, Study


def events_of(store: StageStore) -> list[SimpleNamespace]:
    """Return the lines of a store's log, oldest first: ``kind``, ``digest``, ``event``, ``seconds``, ``pid``."""
    log = store.root / LOG
    return [SimpleNamespace(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def spec_of_yaml(text: str, source: str = "spec.yaml") -> SweepSpec:
    """Return the spec that ``SweepSpec.to_yaml`` wrote."""
    return SweepSpec.from_tree(read_tree(text, source))


def study_spec(**changes: Any) -> SweepSpec:
    """Return a sweep over the dropout in which no trial is stopped early; with changes."""
    fields = {"family": "transfer", "search": {"dropout": Range(0.0, 0.5)}, "early_stopping": {"enabled": False}}
    return SweepSpec.model_validate({**fields, **changes})


def ask(study: Study) -> Asked:
    """Ask for a trial that must be there."""
    asked = study.ask()
    assert asked is not None
    return asked


def asked_of(study: Study) -> Iterator[Asked]:
    """Yield what the study hands out until it has nothing."""
    while (asked := study.ask()) is not None:
        yield asked


def complete(study: Study, asked: Asked, metrics: Mapping[str, float], **more: Any) -> None:
    """Report the last epoch of a trial, at which nobody is stopped, and close the trial with it."""
    assert not study.report(asked.number, Measurement(asked.config.epochs, metrics))
    study.tell_complete(asked.number, metrics, asked.config.epochs, 0.5, {"model": "m", **more})


def run_study(study: Study, measure: Callable[[Asked], Mapping[str, float]]) -> list[Asked]:
    """Complete all that the study still owes; return it."""
    done = []
    for asked in asked_of(study):
        complete(study, asked, measure(asked))
        done.append(asked)
    return done


def rewrite_journal(folder: Path, change: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]) -> None:
    """Write a study's journal anew, with what ``change`` makes of its lines; each gets its sum."""
    content, total = b"", 0
    for log in change([json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]):
        line, total = sealed({name: value for name, value in log.items() if name != "sum"}, total)
        content += line
    (folder / JOURNAL).write_bytes(content)
