"""The search of a sweep on optuna-dashboard's pages: a study of Optuna's own in memory, made of the journal's records.

The journal is not in Optuna's own form, so the pages cannot open it. ``python -m sweeps.study.dashboard FOLDER HOST
PORT`` serves them, and follows a sweep that runs.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Iterable
from datetime import datetime
from importlib import import_module
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.spec.space import fits
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import read_spec
from sweeps.study.records import History
from sweeps.study.sampling import to_distribution
from sweeps.trial import TrialRecord

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_LOOK_SECONDS = 5.0


def optuna_trial(record: TrialRecord, spec: SweepSpec) -> FrozenTrial:
    """Return an ended trial as Optuna has it; values that the search does not have any more are left out."""
    domains = {name: spec.search[name] for name in record.settings if name in spec.search}
    params = {name: record.settings[name] for name, domain in domains.items() if fits(domain, record.settings[name])}
    values = spec.goals.values(record.metrics) if record.status == "complete" else None
    first = spec.goals.first.metric
    measured = {one.epoch: one.metrics[first] for one in record.history if first in one.metrics}
    trial = create_trial(
        state=TrialState.FAIL if record.status == "complete" and values is None else _STATES[record.status],
        values=values,
        params=params,
        distributions={name: to_distribution(domains[name]) for name in params},
        intermediate_values={} if spec.goals.are_several else measured,
        user_attrs={"trial": record.number, "name": record.name, "reason": record.reason},
    )
    trial.datetime_start = datetime.fromtimestamp(record.began)
    trial.datetime_complete = datetime.fromtimestamp(record.began + record.seconds)
    return trial


def add_ended(study: optuna.Study, records: Iterable[TrialRecord], spec: SweepSpec, known: set[int]) -> None:
    """Add the trials that have ended, and are not ``known`` by their numbers, to the study; ``known`` gets them."""
    for record in records:
        if record.number not in known and record.status != "running":
            study.add_trial(optuna_trial(record, spec))
            known.add(record.number)


def main(folder: Path, host: str, port: int) -> None:
    """Serve the pages until the process is ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec, known = read_spec(folder), set[int]()
    directions = [objective.direction for objective in spec.goals.objectives]
    study = optuna.create_study(study_name=folder.name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([objective.name for objective in spec.goals.objectives])
    add_ended(study, History(folder).records, spec, known)

    def follow() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            add_ended(study, History(folder).records, spec, known)

    threading.Thread(target=follow, daemon=True).start()
    import_module("optuna_dashboard").run_server(study._storage, host, port)  # which only this needs


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
