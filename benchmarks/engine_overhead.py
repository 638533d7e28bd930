"""What the engine itself costs: trials that do nothing, timed; and the study alone, report by report.

python benchmarks/engine_overhead.py [trials] [epochs]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from sweeps.engine import run_trials
from sweeps.space import FloatDomain
from sweeps.spec import SweepSpec
from sweeps.study import Study

RUNNER = """
from carcls.outcome import Measurement, Outcome

def load(path):
    return None

def run(config, data, stages, report):
    for epoch in range(1, config.epochs + 1):
        report(Measurement(epoch, {"val_accuracy": (1 - config.dropout) * epoch / config.epochs}))
    return Outcome({"val_accuracy": 1 - config.dropout}, config.epochs, 0.0, False, "", "")
"""


class Silent:
    """Hears and says nothing."""

    def trial_started(self, *_: object) -> None:
        """Ignore it."""

    def epoch_finished(self, *_: object) -> None:
        """Ignore it."""

    def trial_finished(self, *_: object) -> None:
        """Ignore it."""


def time_study(folder: Path, spec: SweepSpec) -> None:
    """Print what one ask and one report cost, without Ray."""
    asks, reports = [], []
    with Study.open(folder, spec) as study:
        start = time.perf_counter()
        while (asked := study.ask()) is not None:
            asks.append(time.perf_counter() - start)
            for epoch in range(1, asked.config.epochs + 1):
                start = time.perf_counter()
                stop = study.report(asked.number, epoch, {"val_accuracy": (1 - asked.config.dropout) * epoch})
                reports.append(time.perf_counter() - start)
                if stop:
                    study.tell_pruned(asked.number)
                    break
            else:
                study.tell_complete(asked.number, {"val_accuracy": 1 - asked.config.dropout}, epoch, 0.0, {})
            start = time.perf_counter()
    last = sorted(reports[-100:])
    print(f"study: {len(asks)} trials, {len(reports)} reports")
    print(f"  ask    {1e3 * sum(asks) / len(asks):6.2f} ms mean, {1e3 * sum(asks[-20:]) / 20:6.2f} ms for the last 20")
    print(f"  report {1e3 * sum(reports) / len(reports):6.2f} ms mean, {1e3 * last[50]:6.2f} ms median of the last 100")
    print(f"  journal {(folder / 'study.journal').stat().st_size / len(asks) / 1024:.1f} KiB a trial")


def time_engine(folder: Path, spec: SweepSpec) -> None:
    """Print what a trial costs that does nothing."""
    (folder / "empty_runner.py").write_text(RUNNER)
    (folder / "dataset.json").write_text(json.dumps({}))
    os.environ["PYTHONPATH"] = str(folder)
    result = run_trials(
        spec,
        folder / "dataset.json",
        folder / "stages",
        folder / "sweep",
        Silent(),
        runner="empty_runner:run",
        loader="empty_runner:load",
    )
    epochs = sum(record.epochs for record in result.records)
    print(f"engine: {len(result.records)} trials, {epochs} reports in {result.seconds:.1f} s, Ray's start included")
    print(f"  {1e3 * result.seconds / len(result.records):.0f} ms a trial")


def main() -> None:
    """Time both."""
    trials, epochs = (int(text) for text in [*sys.argv[1:], "200", "5"][:2])
    spec = SweepSpec(
        family="transfer",
        trials=trials,
        config={"epochs": epochs},
        search={"dropout": FloatDomain(0.0, 0.9), "head_lr": FloatDomain(1e-4, 1e-2, log=True)},
    )
    with tempfile.TemporaryDirectory() as folder:
        time_study(Path(folder) / "alone", spec)
        time_engine(Path(folder), spec)


if __name__ == "__main__":
    main()
