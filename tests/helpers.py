"""What several tests read."""

from __future__ import annotations

import json
from types import SimpleNamespace

from carcls.stages import LOG, StageStore
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree


def events_of(store: StageStore) -> list[SimpleNamespace]:
    """Return the lines of a store's log, oldest first: ``kind``, ``digest``, ``event``, ``seconds``, ``pid``."""
    log = store.root / LOG
    return [SimpleNamespace(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def spec_of_yaml(text: str, source: str = "spec.yaml") -> SweepSpec:
    """Return the spec that ``SweepSpec.to_yaml`` wrote."""
    return SweepSpec.from_tree(read_tree(text, source))
