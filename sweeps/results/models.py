"""The models of trials: which are kept, made again where they are gone, and compared.

``compare_winner`` is computed in a trial's process (see sweeps.engine.task): arguments and answers travel, and only
there are arrays and networks imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError, TrialFailure
from sweeps.results.result import Compared

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from carcls.config import TrialConfig
    from carcls.data.dataset import Dataset
    from carcls.evaluation.predictions import StoredPredictions
    from carcls.outcome import Outcome
    from carcls.stages import StageStore
    from sweeps.results.result import SweepResult
    from sweeps.trial import TrialRecord


def ranked_models(records: Iterable[TrialRecord]) -> list[str]:
    """Return the models of complete trials, the best by validation accuracy first, each once."""
    ranked = sorted(records, key=lambda record: (-record.metrics.get("val_accuracy", -1.0), record.number))
    return list(dict.fromkeys(record.model for record in ranked if record.status == "complete" and record.model))


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


def model_on_disk(
    stages: StageStore,
    dataset: Dataset,
    record: TrialRecord,
    tell: Callable[[str], None],
    micro_batch: int | None = None,
) -> str:
    """Return the path of a complete trial's model, relative to the store; made again where it is gone or damaged.

    Then it trains in parts of ``micro_batch`` images, where given.

    Raises:
        TrialFailure: it cannot be made again.
    """
    parts = parts_of(stages.root, record.model)
    if not all((stages.root / part / "key.json").is_file() for part in parts):
        tell(f"The model of trial {record.number} is not on disk any more; it is made again.")
    elif not any([stages.find_damage(part) for part in parts]):  # noqa: C419 - all of them are to be found
        return record.model
    return _run_again(stages, dataset, record, micro_batch).model


def answers_on_disk(stages: StageStore, dataset: Dataset, record: TrialRecord) -> str:
    """Return the file with a trial's validation answers, relative to the store; made again where it is damaged.

    Those of a derived trial are made now, from the embeddings and neighbours of its trial.

    Raises:
        TrialFailure: they cannot be made.
    """
    stage = Path(record.predictions).parent.as_posix() if record.predictions else record.model
    if stages.find_damage(stage):
        return _run_again(stages, dataset, record).predictions
    if record.predictions:
        return record.predictions
    from carcls.families.retrieval import RetrievalTrial

    return RetrievalTrial(record.trial_config, dataset, stages).answer_validation(stages.root / record.model)


def _run_again(stages: StageStore, dataset: Dataset, record: TrialRecord, micro_batch: int | None = None) -> Outcome:
    from carcls.families import run_trial

    config = in_parts(record, micro_batch)
    return run_trial(config, dataset, stages, lambda _: None)  # stages that are whole are used


def in_parts(record: TrialRecord, micro_batch: int | None) -> TrialConfig:
    """Return a trial's config, perhaps with other micro-batches, as its model is trained again."""
    config = record.trial_config
    return config.model_copy(update={"micro_batch": micro_batch}) if micro_batch else config


def compare_winner(
    data: Dataset, stages: StageStore, *, result: SweepResult, answers: Path | None = None
) -> tuple[Compared, ...]:
    """Compare the winner with those that it won against: is a difference shown at all?

    After ``--confirm`` all fresh seeds of each side speak, and Holm's correction is made for the number of others.
    Without it, one run stands beside the runner-up's; both were chosen by their scores on these very images, so that
    even a difference that is shown is flattered.

    Args:
        data: what the trials were validated on.
        stages: where their answers are. Those that are missing or of other images are left out.
        result: with a winner, whose trials are the journal's own records.
        answers: gets what the winner says to the validation images, as .npz: ``rows``, ``labels`` and ``predicted``,
            int64 [n], of the run that the search chose, ``confirmed``, int64 [m, n], of its m fresh seeds (0 without
            ``--confirm``), and the names of the ``classes``. It is removed where that is not known.
    """
    from carcls.evaluation.significance import compare_hits, holm

    trials = {record.number: record for record in result.trials}
    if answers is not None:
        confirmed = result.board.best_confirmed
        number, runs = (confirmed.number, confirmed.runs) if confirmed else (result.winner, ())
        _write_answers(answers, data, _read([trials[run] for run in (number, *runs) if run is not None], data, stages))
    if result.board.best_confirmed:
        sides = {one.number: one.runs for one in result.board.confirmed if one.runs}
    else:  # combinations of one network are no rivals: of each the best
        sides = {row.trial.number: (row.trial.number,) for row in result.board.networks[:2]}
    hits = {number: _hits(_read([trials[run] for run in runs], data, stages)) for number, runs in sides.items()}
    winner = hits.pop(next(iter(sides)))
    if winner is None:
        return ()
    found = {number: compare_hits(winner, other) for number, other in hits.items() if other is not None}
    adjusted = holm([pair.p_value for pair in found.values()])
    return tuple(
        Compared(number, pair.difference, pair.interval, p, pair.shows(p))
        for (number, pair), p in zip(found.items(), adjusted, strict=True)
    )


def _read(runs: Sequence[TrialRecord], data: Dataset, stages: StageStore) -> list[StoredPredictions]:
    """Return what the runs say to the validation images; nothing when it is not known of each."""
    import numpy as np

    from carcls.evaluation.predictions import read_predictions

    try:
        read = [read_predictions(stages.root / answers_on_disk(stages, data, run)) for run in runs]
    except (InputError, TrialFailure, OSError):
        return []
    rows = data.splits.validation
    whole = all(np.array_equal(answers.rows, rows) for answers in read)
    return read if whole and len(rows) else []


def _hits(read: Sequence[StoredPredictions]) -> NDArray[np.bool_] | None:
    """Return what m runs have right, bool [m, n]; None of none."""
    import numpy as np

    return np.stack([answers.hits for answers in read]) if read else None


def _write_answers(path: Path, data: Dataset, read: Sequence[StoredPredictions]) -> None:
    import numpy as np

    path.unlink(missing_ok=True)
    if read:
        first, *confirmed = read
        np.savez_compressed(
            path,
            rows=first.rows,
            labels=first.labels,
            predicted=first.predicted,
            confirmed=np.array([answers.predicted for answers in confirmed], np.int64),
            classes=np.array(data.classes),
        )
