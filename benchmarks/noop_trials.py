"""Trials that do nothing, as carsweep runs them and as Ray Tune alone does; used by orchestration.py.

Everything around a trial is real but early stopping: the study and its journal, the budget, and MLflow in a
database on disk. What a trial would compute takes no time. Raw Tune keeps its processes too, and logs nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carcls.config import TrialConfig
from carcls.outcome import Measurement, Outcome
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice, Domain, Range
from sweeps.spec.spec import SweepSpec
from sweeps.trial import TrialRecord

# The space of sweeps/spec/presets/transfer.yaml: nine settings, of which five are ranges of numbers.
SPACE: dict[str, Domain] = {
    "dropout": Range(0.0, 0.7),
    "unfreezing": Choice(("frozen", "progressive", "full")),
    "optimizer": Choice(("adam", "adamw")),
    "head_lr": Range(1e-4, 1e-2, log=True),
    "backbone_lr": Range(1e-5, 3e-3, log=True),
    "weight_decay": Range(1e-6, 1e-2, log=True),
    "lr_schedule": Choice(("step", "cosine", "onecycle")),
    "label_smoothing": Range(0.0, 0.2),
    "augmentation_strength": Choice((0.0, 0.5, 1.0, 1.5)),
}


def load(_path: Path) -> None:
    """Stand for reading the data set."""


def run(config: TrialConfig, _data: object, _stages: object, report: Callable[[Measurement], None]) -> Outcome:
    """Report an accuracy for every epoch, as ``carcls.families.run_trial`` would."""
    best = 1 - abs(config.dropout - 0.3)
    for epoch in range(1, config.epochs + 1):
        value = best * epoch / config.epochs
        report(Measurement(epoch, {"train_loss": 1 - value, "val_loss": 1 - value, "val_accuracy": value}))
    return Outcome({"val_accuracy": best, "val_loss": 1 - best}, config.epochs, 0.0, False, "", "")


@dataclass
class Watched:
    """Hears of every trial, and notes when one ends and how much memory the driver then has."""

    began: float = field(default_factory=time.perf_counter)
    ended: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def trial_changed(self, record: TrialRecord) -> None:
        """Note the time and the memory."""
        if record.status == "running":
            return
        self.ended.append(time.perf_counter() - self.began)
        self.resident.append(resident_bytes())


def resident_bytes() -> int:
    """Return this process's memory, from /proc."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def noop_spec(trials: int, epochs: int) -> SweepSpec:
    """Return a sweep in which every trial comes to its last epoch, and none answers another."""
    return SweepSpec(
        family="transfer",
        trials=trials,
        config={"epochs": epochs, "warmup_epochs": 0},
        search=SPACE,
        near=0.0,
        early_stopping=EarlyStopping(enabled=False),  # it would leave few trials to count
    )


def time_carsweep(trials: int, epochs: int, folder: Path) -> tuple[float, Watched]:
    """Return the seconds of a sweep from an open Ray to the last line in MLflow, and what was seen on the way."""
    from sweeps.engine.engine import run_trials
    from sweeps.engine.session import RaySession
    from sweeps.engine.task import Work
    from sweeps.tracking.mirror import Mirror
    from sweeps.tracking.runs import SweepRuns
    from sweeps.tracking.store import check_tracking
    from sweeps.tracking.updates import Update

    spec, tracking = noop_spec(trials, epochs), check_tracking(None, folder)
    (folder / "dataset.json").write_text("{}")
    tracking.client()  # loads MLflow and makes its database
    start = time.perf_counter()
    runs = SweepRuns(tracking, family="transfer", sweep_id="noop", name="noop")
    mirror = Mirror(runs, Update("noop", files={"spec.yaml": spec.to_yaml()}), print)
    watched = Watched()
    with RaySession() as session:
        where = (folder / "sweep", folder / "dataset.json", folder / "stages")
        work = Work(spec, *where, session, runner="noop_trials:run", loader="noop_trials:load")
        result = run_trials(work, [mirror, watched])
    mirror.bring_in_line(result.records)
    written = mirror.close("complete", seconds=600.0)
    seconds = time.perf_counter() - start
    complete = sum(record.status == "complete" and record.epochs == epochs for record in result.records)
    assert complete == trials, f"{complete} of {trials} trials are complete"
    assert written, "MLflow has not got everything"
    return seconds, watched


def time_tune(trials: int, epochs: int, folder: Path, concurrency: int) -> float:
    """Return the seconds in which Tune runs as many trials that report as often."""
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(_report_to_tune, {"cpu": 1}),
        param_space={**{name: _tune_domain(domain) for name, domain in SPACE.items()}, "epochs": epochs},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=concurrency, reuse_actors=True),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    )
    start = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - start
    complete = sum(result.metrics["training_iteration"] == epochs for result in results)
    assert complete == trials, f"{complete} of {trials} trials are complete"
    return seconds


def _report_to_tune(config: Mapping[str, Any]) -> None:
    from ray import tune

    best = 1 - abs(config["dropout"] - 0.3)
    for epoch in range(1, config["epochs"] + 1):
        value = best * epoch / config["epochs"]
        tune.report({"train_loss": 1 - value, "val_loss": 1 - value, "val_accuracy": value})


def _tune_domain(domain: Domain) -> Any:
    from ray import tune

    if isinstance(domain, Choice):
        return tune.choice(list(domain.choices))
    assert isinstance(domain, Range)
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)
