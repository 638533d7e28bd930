"""What the sweeps of a folder need of its stages, read from what they have written. No torch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.errors import InputError
from sweeps.disk import Needs, Training
from sweeps.holding import holder_of
from sweeps.sweep_file import sweeps_of

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.outcome import Outcome
    from carcls.stages import StageStore
    from sweeps.record import TrialRecord

KEEP = 5
_EMBEDDINGS = "embeddings/"


@dataclass(frozen=True, slots=True)
class SweepNeeds:
    """What one sweep needs.

    Attributes:
        records: of its trials.
        data, manifest: digests of its data set and of its list of images; empty where no trial has begun.
        in_use_since: as in ``Needs``; infinity when nothing runs the sweep.
    """

    records: tuple[TrialRecord, ...]
    data: str
    manifest: str
    in_use_since: float


def read_needs(out: Path, keep: int = KEEP) -> Needs:
    """Return what the sweeps under ``out`` need, those that run included.

    Args:
        out: folder of all sweeps; the stages are in ``out/stages``.
        keep: models to keep of each sweep, the best by validation accuracy; those of documented experiments are kept
            besides.

    Raises:
        InputError: a sweep cannot be read, so that nobody knows what it needs.
    """
    sweeps = [_read_sweep(folder) for folder in sweeps_of(out)]
    ranks: dict[str, int] = {}
    kept: set[str] = set()
    for sweep in sweeps:
        ranked = ranked_models(sweep.records)
        for rank, model in enumerate(ranked, start=1):
            for name in _parts_of(out / "stages", model):
                ranks[name] = min(rank, ranks.get(name, rank))
        kept |= {name for model in wanted_models(sweep.records, keep) for name in _parts_of(out / "stages", model)}
        kept |= wanted_answers(sweep.records, keep)
    return Needs(
        kept=frozenset(kept),
        going_on=tuple(_trainings(sweeps, unfinished=True)),
        known=tuple(_trainings(sweeps, unfinished=False)),
        models=ranks,
        data=frozenset(sweep.data for sweep in sweeps),
        manifests=frozenset(sweep.manifest for sweep in sweeps),
        in_use_since=min((sweep.in_use_since for sweep in sweeps), default=float("inf")),
    )


def ranked_models(records: Iterable[TrialRecord]) -> list[str]:
    """Return the models of complete trials, the best by validation accuracy first, each once."""
    complete = [record for record in records if record.status == "complete" and record.model]
    complete.sort(key=lambda record: (-record.metrics.get("val_accuracy", -1.0), record.number))
    return list(dict.fromkeys(record.model for record in complete))


def wanted_models(records: Sequence[TrialRecord], keep: int) -> set[str]:
    """Return the models that a sweep keeps: the best ``keep``, documented experiments, and what confirms the best."""
    special = {r.model for r in records if (r.experiment is not None or r.confirms is not None) and r.model}
    return set(ranked_models(records)[:keep]) | special


def wanted_answers(records: Sequence[TrialRecord], keep: int) -> set[str]:
    """Return the names of the stages with the validation answers of the trials whose models are kept."""
    models = wanted_models(records, keep)
    return {str(Path(record.predictions).parent) for record in records if record.predictions and record.model in models}


def model_on_disk(stages: StageStore, dataset: Dataset, record: TrialRecord, tell: Callable[[str], None]) -> str:
    """Return the path of a complete trial's model, relative to the store; made again where it is gone or damaged.

    Raises:
        TrialFailure: it cannot be made again.
    """
    parts = _parts_of(stages.root, record.model)
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


def _trainings(sweeps: Iterable[SweepNeeds], *, unfinished: bool) -> Iterable[Training]:
    seen = set()
    for sweep in sweeps:
        for record in sweep.records:
            if record.status == "running" or not unfinished:
                settings = json.dumps(TrialConfig.model_validate(dict(record.config)).training_settings())
                if (sweep.data, settings) not in seen:
                    seen.add((sweep.data, settings))
                    yield Training(sweep.data, json.loads(settings))


def _parts_of(stages: Path, model: str) -> list[str]:
    """Return the stages that a model consists of: embeddings know the training that they come from."""
    if not model.startswith(_EMBEDDINGS):
        return [model]
    try:
        source: dict[str, Any] = json.loads((stages / model / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [model]
    return [model, source["training"]] if source.get("training") else [model]


def _read_sweep(folder: Path) -> SweepNeeds:
    from sweeps.study_records import read_history

    try:
        records = read_history(folder).records
        data, manifest = _digests(folder / "dataset.json")
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"--out must be a folder whose sweeps can be read, got {str(folder)!r} ({type(error).__name__}: {said}), "
            "so that nobody knows which stages it needs. Repair it, or move it away."
        ) from error
    return SweepNeeds(records, data, manifest, _in_use_since(folder, records))


def _in_use_since(folder: Path, records: Iterable[TrialRecord]) -> float:
    """Return when the oldest of the trials that run began; now, where a sweep runs but no trial of it.

    A trial that began before the sweep's process has not been taken up again.
    """
    holder = holder_of(folder)
    if holder is None:
        return float("inf")
    since = datetime.fromisoformat(holder.since).timestamp() if holder.since else 0.0
    running = (record.began for record in records if record.status == "running")
    return min((began for began in running if began >= since), default=time.time())


def _digests(dataset: Path) -> tuple[str, str]:
    if not dataset.is_file():
        return "", ""
    content = dataset.read_bytes()
    return _digests_of(hashlib.sha256(content).hexdigest(), str(dataset))


@lru_cache(maxsize=64)
def _digests_of(_content: str, path: str) -> tuple[str, str]:
    from carcls.data.dataset import Dataset

    dataset = Dataset.load(Path(path))
    return dataset.digest, dataset.manifest.digest
