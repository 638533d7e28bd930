"""Parts of benchmarks/gpu.py that run sweeps: real processes of Ray, real trainings."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import carsweep, plain_tune, sweep
from endings import SETTINGS
from gpu_part import Part, memory_used, on_a_gpu
from gpu_trial import SIZE, most_at_once, sweep_of
from side_by_side import FASTER, Contest, spec_of, words_of
from soak import pids_of, title

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.evaluation.predictions import PREDICTIONS
from carcls.machine import usable_cores, visible_gpus
from carcls.stages import StageStore
from carcls.training.trained import HISTORY, KIND, read_history
from sweeps.engine.engine import EngineResult
from sweeps.engine.probing import measure
from sweeps.engine.resources import Machine
from sweeps.engine.session import RaySession
from sweeps.engine.shares import PROBER, choose

_GIVEN_BACK_MIB = 64
# Lines of trials that end together come so much apart, or not at all.
_LEAST_SECONDS = 0.001
_SETTINGS = ("backbone=efficientnet_lite0", "experiments=[]", "unfreezing=full", "early_stopping.enabled=false")
_TINY = (*(setting for setting in SETTINGS if not setting.startswith("epochs")), "early_stopping.enabled=false")


Swept = tuple[EngineResult, list[dict[str, Any]], list[str]]


def sweep_alone(part: Part, does: dict[str, Any], **changes: Any) -> Swept:
    """Do what ``gpu_trial.sweep_of`` does, with a Ray and a store of the sweep's own."""
    with RaySession() as session:
        return sweep_in(session, part, does, **changes)


def sweep_in(session: RaySession, part: Part, does: dict[str, Any], **changes: Any) -> Swept:
    """Do the same in a Ray that may have run others: starting one takes ten seconds."""
    folder = Path(tempfile.mkdtemp(dir=part.place)) / "sweep"
    data = prepare_dataset(DataConfig(path=str(part.cars.folder)), StageStore(part.place / "splitting"), SIZE)
    return sweep_of(folder, part.device, data, session, does, **changes)


@on_a_gpu
def ladder(part: Part) -> None:
    """A trial with a quarter of the GPU asks for 0.4 of its memory: it is refused, and tried again with more."""
    result, notes, said = sweep_alone(part, {"allocate": 0.4}, trials=3, gpus_per_trial=0.25)
    begun, ended = ([n["held"] for n in notes if n["event"] == event] for event in ("begin", "end"))
    part.figures(held_at_the_beginning=begun, held_at_the_end=ended, said=said)
    part.claim("a quarter refuses", 0.25 in begun and 0.25 not in ended, begun)
    part.claim("a half is enough", set(ended) == {0.5}, ended)
    fractions = [n["fraction"] for n in notes if n["event"] == "end"]
    part.claim("the part of the memory is enforced", all(abs(f - 0.5) < 1e-6 for f in fractions), fractions)
    part.claim("all trials are complete", *_complete(result.records))


def assert_(part: Part) -> None:
    """A CUDA error breaks a trial's process (on a CPU: it dies): another takes its place, and all trials complete."""
    does, gpus = ({"die": 1}, 0.0) if part.tiny else ({"assert": 1}, 1.0)
    result, notes, said = sweep_alone(part, does, trials=3, gpus_per_trial=gpus, concurrency=1)
    broken, *others = [n["pid"] for n in notes if n["event"] == "begin"]
    part.figures(broken=broken, others=others, said=said)
    part.claim("the broken process runs no other trial", broken not in others, [broken, *others])
    part.claim("all trials are complete", *_complete(result.records))


@on_a_gpu
def quarantine(part: Part) -> None:
    """Trials break the only GPU again and again: it is never put out of use, and the sweep stops with the reason."""
    result, notes, said = sweep_alone(part, {"assert": 99}, trials=6, gpus_per_trial=0.5)
    part.figures(tries=len(notes), said=said, statuses=_complete(result.records)[1])
    part.claim("the sweep stops with the reason", "on the last GPU that is in use" in result.stopped, result.stopped)
    part.claim("the GPU is not put out of use", not any("does not use it" in sentence for sentence in said), said)


def placement(part: Part) -> None:
    """Trials with a whole GPU, a half, a quarter and none: where they compute, how many at once, with which memory."""
    with RaySession() as session:
        for share in (0.0,) if part.tiny else (1.0, 0.5, 0.25, 0.0):
            _place(session, part, share)


def _place(session: RaySession, part: Part, share: float) -> None:
    at_once = min(round(1 / share) if share else 2, usable_cores())
    size = {"trials": at_once, "concurrency": at_once, "gpus_per_trial": share}
    result, notes, _ = sweep_in(session, part, {"meet": at_once}, **size)
    ended = [note for note in notes if note["event"] == "end"]
    where = f"{share:g} GPU a trial"
    part.claim(f"{where}: trials at a time", most_at_once(notes) == at_once, most_at_once(notes), str(at_once))
    devices = sorted({note["device"] for note in ended})
    part.claim(f"{where}: where they compute", devices == ["cuda" if share else "cpu"], devices)
    if share:
        fractions = [note.get("fraction") for note in ended]
        part.claim(f"{where}: their part of the memory", set(fractions) == {share}, fractions)
    else:
        pids = [note["pid"] for note in ended]
        part.claim(f"{where}: CUDA is left alone", not any(note["initialized"] for note in ended), pids)
    part.claim(f"{where}: all are complete", *_complete(result.records))
    part.figures(**{f"peak_bytes_at_{share:g}": [note.get("peak", 0) for note in ended]})


def _training(part: Part, size: int) -> tuple[str, tuple[str, ...]]:
    """Return the family and the settings of a training at so many pixels; of a tiny one where the script is tried."""
    return ("scratch", _TINY) if part.tiny else ("transfer", (*_SETTINGS, f"image_size={size}"))


def _complete(records: Any) -> tuple[bool, list[str]]:
    statuses = [f"{record.status} {record.failure}".strip() for record in records]
    return set(statuses) == {"complete"}, statuses


def killed(part: Part) -> None:
    """kill -9 of a trial's process, then of the command, then resume: nothing is lost, and the memory is given back."""
    mark, before = os.environ["CARSWEEP_ENDINGS"], memory_used()
    out, said = part.place / "runs", part.place / "said.txt"
    family, settings = _training(part, 224)
    epochs, gpus = (60, "0") if part.tiny else (20, "0.5")
    words = ["run", family, "--data", str(part.cars.folder), "--out", str(out), "--name", "s", "--trials", "2"]
    words += ["--gpus-per-trial", gpus, "--set", *settings, f"epochs={epochs}"]
    with said.open("w", encoding="utf-8") as errors:
        command = subprocess.Popen(
            [sys.executable, "-m", "sweeps.cli", *words], stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
        seen = _wait_for_epochs(command, said, 2)
        trial = next(pid for pid in pids_of(mark) if title(pid).startswith("ray::Impl"))
        os.kill(trial, signal.SIGKILL)
        during, seen = memory_used(), _wait_for_epochs(command, said, seen + 2)
        part.claim("the sweep goes on without the killed process", command.poll() is None, seen)
        command.kill()
        command.wait()
    last = _epochs_in(said.read_text(encoding="utf-8").splitlines())
    end = time.monotonic() + 30
    while len(pids_of(mark)) > 1 and time.monotonic() < end:  # this process has the mark, too
        time.sleep(0.2)
    after = memory_used()
    part.figures(memory_mib={"before": before, "during": during, "after": after})
    back = None if before is None or after is None else after <= before + _GIVEN_BACK_MIB
    part.claim("the memory is given back, MiB", back, after, f"≤ {before} + {_GIVEN_BACK_MIB}")
    told = carsweep("resume", "s", "--out", out, "--json")
    first = {trial: epochs[0] for trial, epochs in _epochs_of([line for _, line in told.lines]).items()}
    again = {trial: (last[trial], epoch) for trial, epoch in first.items() if epoch <= last.get(trial, 0)}
    part.figures(last_epochs_before=last, first_epochs_after=first)
    part.claim("no epoch that was reported is trained again", not again, again)
    trials = {trial["number"]: (trial["status"], trial["epochs"]) for trial in told.answer["trials"]}
    whole = all(found == ("complete", epochs) for found in trials.values())
    part.claim("all trials are complete", whole, trials)


def _wait_for_epochs(command: subprocess.Popen[str], said: Path, count: int) -> int:
    """Wait until the command has printed so many epochs, or has ended; return how many it has."""
    while (seen := said.read_text(encoding="utf-8").count(" epoch ")) < count and command.poll() is None:
        time.sleep(0.1)
    return seen


def _epochs_of(lines: list[str]) -> dict[str, list[int]]:
    """Return the epochs that were printed, by trial."""
    found: dict[str, list[int]] = {}
    for words in (line.split() for line in lines if " epoch " in line):
        place = words.index("epoch")
        found.setdefault(words[place - 1], []).append(int(words[place + 1].partition("/")[0]))
    return found


def _epochs_in(lines: list[str]) -> dict[str, int]:
    return {trial: max(epochs) for trial, epochs in _epochs_of(lines).items()}


def twice(part: Part) -> None:
    """The same trial in two sweeps of their own: every metric of every epoch is equal; those that are not are named."""
    found = []
    for number in range(2):
        words = ["--seed", "3", "--set", "epochs=3", "rotation=15", "jitter=0.2"]
        training = _train_once(part, f"runs-{number}", 128, words)
        with np.load(training / PREDICTIONS) as kept:
            found.append((read_history(training), kept["probabilities"]))
    (first, one), (second, other) = found
    differ = {
        f"{metric} in epoch {number + 1}": (value, again[metric])
        for number, (epoch, again) in enumerate(zip(first, second, strict=True))
        for metric, value in epoch.items()
        if metric != "seconds" and value != again[metric]
    }
    part.claim("every metric of every epoch is equal", not differ, differ or f"{len(first)} epochs")
    part.claim("all probabilities are equal", np.array_equal(one, other), float(np.abs(one - other).max()))


def _train_once(part: Part, name: str, size: int, words: Sequence[str]) -> Path:
    """Run a sweep of one training in a folder of runs of its own; return the stage that it leaves."""
    out, (family, settings) = part.place / name, _training(part, size)
    where = ("--data", part.cars.folder, "--out", out, "--name", "s", "--trials", "1")
    carsweep("run", family, *where, "--set", *settings, *words)
    (file,) = out.glob(f"stages/{KIND}/*/{HISTORY}")
    return file.parent


def beside(part: Part) -> None:
    """Images/s of 1, 2, 4 and 8 trainings on one GPU, as --gpus-per-trial auto measures them, and what that chooses."""
    load: dict[str, Any] = {"backbone": "efficientnet_lite0", "image_size": 224, "batch_size": 32, "unfreezing": "full"}
    if part.tiny:  # Ray is to believe that there is a GPU
        del os.environ["CUDA_VISIBLE_DEVICES"]
        load |= {"backbone": "scratch", "depth": 2, "width": 4, "image_size": 32}
    most, prober = (2, "gpu_trial:steps_on_the_cpu") if part.tiny else (min(8, usable_cores()), PROBER)
    machine = Machine(usable_cores(), 1) if part.tiny else None
    with RaySession(machine=machine) as session:
        session.connect(part.place / "ray.log")
        for batch in (32,) if part.tiny else (32, 128):
            asked = {**load, "batch_size": batch}
            readings = measure(asked, part.place / "stages", most=most, prober=prober, all_counts=True)
            fastest = max(reading.images_per_second for reading in readings.values())
            chosen = choose(readings, most).processes
            part.figures(**{f"at_{batch}": {count: reading._asdict() for count, reading in readings.items()}})
            part.figures(**{f"chosen_at_{batch}": chosen})
            share = round(readings[chosen].images_per_second / fastest, 3)
            part.speed(f"what auto chooses at {batch} images a batch, against the fastest", share, "≥", 0.95)


def frozen(part: Part) -> None:
    """The frozen sweep against plain_tune.py: seconds of a further trial, and of the whole commands."""
    ours, few = (4, 2) if part.tiny else (64, 16)
    contest = Contest("frozen", ours, *((2, 64) if part.tiny else (3, 128)), (96, 128), early_stopping=False)
    _compare(part, contest, few, replace(contest, trials=2 * _plain_at_once()[1]))


def retrieval(part: Part) -> None:
    """The retrieval sweep against plain_tune.py, which tries 12 settings for a size: seconds of a further trial."""
    sizes = (64, 96) if part.tiny else (96, 128)
    contest = Contest("retrieval", 8 if part.tiny else 64, 1, sizes[0], sizes, early_stopping=False)
    more = {} if part.tiny else {"k": [1, 2, 3, 5, 7, 10, 15, 20]}
    _compare(part, contest, 1, replace(contest, trials=12, sizes=sizes[:1]), more)


def _plain_at_once() -> tuple[int, int]:
    """Return the cores, and decoding processes, of a trial of the baseline, and how many it has at a time on a GPU.

    Decoding is what it waits for, so all cores decode, and four trials share the GPU where there are 16 of them.
    """
    cores = usable_cores()
    cpus = max(1, min(4, cores // 2))
    return cpus, cores // cpus


def _compare(part: Part, ours: Contest, few: int, plain: Contest, more: Mapping[str, Any] | None = None) -> None:
    """Run both sides, each from an empty folder, and judge what passes between the ends of their trials.

    Args:
        part: what is given.
        ours: four trials at a time on a GPU.
        few: of our trials, after which the clock begins; the first of retrieval embeds for others, of the same size.
        plain: the baseline's, whose clock begins after as many as it has at a time (``_plain_at_once``).
        more: domains of our search.
    """
    kind, spec = ours.kind, spec_of(ours, 0)
    spec["search"] |= more or {}
    share = ["--gpus-per-trial", "0" if part.tiny else "0.25"]
    told = sweep(spec, part.cars.folder, part.place / "ours", "sweep", *share)
    ends = [second for second, line in told.lines if re.search(r"trial \d+ (complete|pruned)", line)]
    further = (ends[-1] - ends[few - 1]) / (ours.trials - few)
    best, first = told.answer["best"]["metrics"]["val_accuracy"], told.first(r"trial \d+ started")
    whole = {"seconds": round(told.seconds, 1), "first_trial_at": round(first, 1), "best": best}
    part.figures(ours={"trials": ours.trials, "further_trial_s": round(further, 3), **whole})

    (cpus, first_ones), out = _plain_at_once(), part.place / "plain"
    told = plain_tune([*words_of(plain, part.cars, 0, out), "--cpus", str(cpus), "--workers", str(cpus)])
    with closing(sqlite3.connect(out / "mlflow.db")) as connection:
        ends = [end / 1000 for (end,) in connection.execute("SELECT end_time FROM runs ORDER BY end_time")]
    slower = (ends[-1] - ends[first_ones - 1]) / (len(ends) - first_ones)
    whole = {"seconds": round(told.seconds, 1), "best": told.answer["best_accuracy"]}
    part.figures(plain={"trials": plain.trials, "further_trial_s": round(slower, 3), **whole})
    gain = round(slower / max(further, _LEAST_SECONDS), 1)
    part.speed(f"{kind}: a further trial, against plain_tune.py", gain, "≥", FASTER[kind])


@on_a_gpu
def several(part: Part) -> None:
    """One trial on two GPUs (DistributedDataParallel) against one on one GPU; not run where there is one GPU."""
    if visible_gpus() < 2:
        part.skip(f"needs two GPUs, there is {visible_gpus()}: not run")
        return
    seconds, accuracy = {}, {}
    for gpus in (1, 2):
        words = ["--gpus-per-trial", str(gpus), "--set", "batch_size=256", "epochs=4"]
        history = read_history(_train_once(part, f"gpus-{gpus}", 224, words))
        seconds[gpus], accuracy[gpus] = min(epoch["seconds"] for epoch in history), history[-1]["val_accuracy"]
    part.figures(seconds_of_an_epoch=seconds, val_accuracy=accuracy)
    part.claim("an epoch on two GPUs, against one", seconds[2] < seconds[1], f"{seconds[1] / seconds[2]:.2f}×")
