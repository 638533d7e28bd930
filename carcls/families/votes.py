"""Where the answers of retrieval trials are kept, which follows from their settings and their embeddings. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carcls.config import NEIGHBOUR_SETTINGS, TrialConfig
from carcls.evaluation.predictions import PREDICTIONS
from carcls.stages import StageStore

VOTES, VOTES_VERSION = "votes", 1


def votes_key(config: TrialConfig, embeddings: Path) -> dict[str, Any]:
    """Return the key of the stage with a trial's answers to the validation images.

    Args:
        config: of the trial.
        embeddings: folder of their stage.
    """
    settings = config.canonical()
    own = {name: settings[name] for name in NEIGHBOUR_SETTINGS}
    return {"embeddings": embeddings.name, **own, "version": VOTES_VERSION}


def kept_answers(config: TrialConfig, stages: StageStore, embeddings: Path) -> Path:
    """Return the file with a trial's answers to the validation images, or where it would be; else as ``votes_key``."""
    return stages.folder(VOTES, votes_key(config, embeddings)) / PREDICTIONS
