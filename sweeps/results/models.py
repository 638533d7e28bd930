"""The models of trials in the store: which of them a sweep wants to keep, and making one again that is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.config import TrialConfig

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.outcome import Outcome
    from carcls.stages import StageStore
    from sweeps.trial import TrialRecord


def ranked_models(records: Iterable[TrialRecord]) -> list[str]:
    """Return the models of complete trials, the best by validation accuracy first, each once."""
    complete = [record for record in records if record.status == "complete" and record.model]
    complete.sort(key=lambda record: (-record.metrics.get("val_accuracy", -1.0), record.number))
    return list(dict.fromkeys(record.model for record in complete))


def wanted_models(records: Sequence[TrialRecord], keep: int) -> set[str]:
    """Return the models that a sweep keeps: the best ``keep``, documented experiments, and what confirms the best."""
    special = {r.model for r in records if (r.experiment is not None or r.confirms is not None) and r.model}
    return set(ranked_models(records)[:keep]) | special


def parts_of(stages: Path, model: str) -> list[str]:
    """Return the stages that a model consists of: embeddings name the training that they come from."""
    try:
        source = json.loads((stages / model / "source.json").read_text(encoding="utf-8"))
        return [model, source["training"]] if source["training"] else [model]
    except (OSError, ValueError, KeyError, TypeError):
        return [model]


def model_on_disk(stages: StageStore, dataset: Dataset, record: TrialRecord, tell: Callable[[str], None]) -> str:
    """Return the path of a complete trial's model, relative to the store; made again where it is gone or damaged.

    Raises:
        TrialFailure: it cannot be made again.
    """
    parts = parts_of(stages.root, record.model)
    if not all((stages.root / part / "key.json").is_file() for part in parts):
        tell(f"The model of trial {record.number} is not on disk any more; it is made again.")
    elif not any([stages.find_damage(part) for part in parts]):  # noqa: C419 - all of them are to be found
        return record.model
    return _run_again(stages, dataset, record).model


def answers_on_disk(stages: StageStore, dataset: Dataset, record: TrialRecord) -> str:
    """Return the file with a trial's validation answers, relative to the store; made again where it is damaged.

    Those of a sibling are made now, from the embeddings and neighbours of its trial.

    Raises:
        TrialFailure: they cannot be made.
    """
    stage = Path(record.predictions).parent.as_posix() if record.predictions else record.model
    if stages.find_damage(stage):
        return _run_again(stages, dataset, record).predictions
    if record.predictions:
        return record.predictions
    from carcls.families.retrieval import answer_sibling

    return answer_sibling(TrialConfig.model_validate(dict(record.config)), dataset, stages, record.model)


def _run_again(stages: StageStore, dataset: Dataset, record: TrialRecord) -> Outcome:
    """Run a trial whose stages are gone or damaged; those that are whole are used."""
    from carcls.families import run_trial

    return run_trial(TrialConfig.model_validate(dict(record.config)), dataset, stages, lambda _: None)
