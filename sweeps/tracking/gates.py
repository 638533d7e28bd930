"""What a challenger must pass to become champion, a row of ``GATES`` each (docs/promotion.md).

What is cheap to ask comes first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from mlflow.models import ModelSignature

from carcls.errors import InputError
from carcls.evaluation.calibration import calibration
from carcls.evaluation.predictions import StoredPredictions
from carcls.evaluation.significance import LEVEL, compare_hits, difference_interval
from sweeps.text import one_line, percent, points
from sweeps.tracking.contest import ANEW, BY_HAND, FILES_TAG, Contest, NotAsked, Refusal, checksums

PROBE_SECONDS = 300
CALIBRATION_MARGIN = 0.02
"""By how much the expected calibration error may be greater than the champion's."""
# For a process of its own: a registered model brings its own copy of carcls, which must not meet the installed one.
_PROBE = """
import json, statistics, sys, time
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(np.zeros((64, 64, 3), np.uint8))
photo, seconds = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8), []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    model.predict(photo)
    seconds.append(time.perf_counter() - began)
speed = 1000 * statistics.median(seconds or [0])
print(json.dumps([list(answer.columns), len(answer), float(answer["probability"].iloc[0]), speed]))
"""
_TIMED = 20


class Gate(NamedTuple):
    """Something that is asked of a challenger.

    Attributes:
        name: in JSON and in docs/promotion.md.
        asks: the same in words.
        check: raises a ``Refusal`` or a ``NotAsked``, or lets the challenger pass and returns its figures, if any.
        of_first: whether it is asked also where there is no champion.
        always: whether it refuses also who forces the promotion.
    """

    name: str
    asks: str
    check: Callable[[Contest], str | None]
    of_first: bool = False
    always: bool = False


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What a gate says.

    Attributes:
        gate: its name.
        state: ``passed``, ``refused`` or ``not asked``.
        said: its figures, or why.
        verdict: of a refusal, ``refused`` or ``worse``; empty otherwise.
        always: whether its refusal cannot be forced.
    """

    gate: str
    state: str
    said: str
    verdict: str = ""
    always: bool = False


def ask(contest: Contest, gates: list[Gate]) -> Iterator[GateAnswer]:
    """Yield what each gate says of the challenger, in their order; errors of the store are raised."""
    for gate in gates:
        try:
            if not gate.of_first and contest.champion is None:
                raise NotAsked("There is no champion yet.")
            yield GateAnswer(gate.name, "passed", gate.check(contest) or "")
        except NotAsked as why:
            yield GateAnswer(gate.name, "not asked", str(why))
        except Refusal as why:
            yield GateAnswer(gate.name, "refused", str(why), why.verdict, gate.always)
        except InputError as why:  # files or images that are damaged
            yield GateAnswer(gate.name, "refused", str(why), "refused", gate.always)


def _same_files(contest: Contest) -> str:
    known = contest.tags_of(contest.challenger).get(FILES_TAG)
    root = contest.export_of(contest.challenger).parents[1]
    if known is None:
        raise NotAsked("An older carsweep registered it without checksums of its files.")
    files = json.loads(known)
    lost = [name for name in files if not (root / name).is_file()]
    now = json.loads(checksums((name, root / name) for name in files if name not in lost))
    changed = lost + [name for name in now if now[name] != files[name]]
    own = {path.relative_to(root).as_posix() for part in ("artifacts", "code") for path in (root / part).rglob("*")}
    changed += sorted(name for name in own - files.keys() if (root / name).is_file() and "__pycache__" not in name)
    if changed:
        raise Refusal(
            f"The files of version {contest.challenger} must be those that were registered, but {_listed(changed)} "
            f"changed since. Put them back, or run its sweep again under another --name; nothing is trained twice."
        )
    return f"{len(files)} files, SHA-256 of each whole file"


def _champions_columns(contest: Contest) -> str:
    ours, theirs = map(contest.signature_of, (contest.challenger, str(contest.champion)))
    has = {column.name: column.type for column in ours.outputs}
    lacks = [column.name for column in theirs.outputs if has.get(column.name) != column.type]
    if lacks or (ours.inputs is not None and ours.inputs != theirs.inputs):
        raise Refusal(
            f"Version {contest.challenger} answers {_written(ours)}, the champion, version {contest.champion}, answers "
            f"{_written(theirs)}: whoever uses the champion could not use it. {BY_HAND}"
        )
    more = len(has) - len(theirs.outputs.inputs)
    return f"all {len(theirs.outputs.inputs)} columns of the champion" + (f", and {more} more" if more else "")


def _written(signature: ModelSignature) -> str:
    takes = "" if signature.inputs is None else f" to {signature.inputs.to_dict()}"
    return ", ".join(f"{column.name} ({column.type})" for column in signature.outputs) + takes


def _every_class(contest: Contest) -> str:
    ours, theirs = (
        contest.description_of(version).get("classes", []) for version in (contest.challenger, str(contest.champion))
    )
    gone, added = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    if gone:
        raise Refusal(
            f"Version {contest.challenger} must know each class of the champion, but {_listed(gone)} "
            f"{'is' if len(gone) == 1 else 'are'} gone. Sweep on data that has them, or promote with --force."
        )
    return f"{len(ours)} classes" + (f"; added: {_listed(added)}" if added else "")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _not_worse(contest: Contest) -> str:
    compared, margin = contest.comparison, contest.limits.margin
    low, high = compared.interval
    said = (
        f"{percent(compared.first_accuracy, digits=2)} against {percent(compared.second_accuracy, digits=2)} of "
        f"{compared.images} images; difference {points(compared.difference, digits=2)} points "
        f"({points(low, digits=2)} to {points(high, digits=2)})"
    )
    shown = compared.p_value <= LEVEL and compared.difference < 0
    if margin is None and shown:
        raise Refusal(
            f"The champion, version {contest.champion}, has significantly more of the test images right than version "
            f"{contest.challenger}. Sweep on, with more trials or other settings.",
            "worse",
        )
    if margin is not None and low * 100 < -margin:
        raise Refusal(
            f"Version {contest.challenger} may be worse than the champion by {-low * 100:.2f} points (the lower end of "
            f"the interval), more than --margin {margin:g}. Sweep on, or test on more images.",
            "worse" if shown else "refused",
        )
    return (
        said
        + ("" if margin is None else f", within {margin:g}")
        + ("; the champion evaluated on new images" if contest.was_evaluated else "")
    )


def _each_class(contest: Contest) -> str:
    ours, theirs = _compared(contest)
    names, margin = contest.description_of(contest.challenger).get("classes", []), contest.limits.per_class_margin / 100
    tested = np.unique(ours.labels)
    z = NormalDist().inv_cdf(1 - LEVEL / 2 / len(tested))
    falls = []
    for label in tested.tolist():
        at = ours.labels == label
        pair = compare_hits(ours.hits[at], theirs.hits[at])
        low, high = difference_interval(pair.first_only, pair.second_only, pair.images, z)
        name = names[label] if label < len(names) else f"class {label}"
        figures = f"{name} {points(pair.difference)} ({points(low)} to {points(high)}, {pair.images} images)"
        falls.append((high < -margin and pair.p_value * len(tested) <= LEVEL, pair.difference, figures))
    shown = [figures for is_shown, _, figures in falls if is_shown]
    if shown:
        raise Refusal(
            f"The recall of {len(shown)} of {len(tested)} classes is shown to fall by more than "
            f"{contest.limits.per_class_margin:g} points: {'; '.join(shown[:3])}. Look at their images, sweep on, or "
            "give a larger --per-class-margin."
        )
    return f"most: {min(falls, key=lambda one: one[1])[2]}; no fall is shown, {len(tested)} classes together"


def _compared(contest: Contest) -> tuple[StoredPredictions, StoredPredictions]:
    try:
        return contest.pair
    except (Refusal, InputError):
        raise NotAsked("The two have no answers to the same images.") from None


def _calibrated(contest: Contest) -> str:
    errors = []
    for version, one in zip((contest.challenger, contest.champion), _compared(contest), strict=True):
        if one.sure is None:
            raise NotAsked(f"The stored answers of version {version} have no probabilities.")
        errors.append(calibration(one.sure, one.hits))
    ours, theirs = errors
    said = f"{ours.error:.3f} against {theirs.error:.3f} (expected calibration error)"
    if ours.error > theirs.error + CALIBRATION_MARGIN and ours.error > ours.chance:
        raise Refusal(
            f"Its probabilities are off by {said}, more than {CALIBRATION_MARGIN} worse and more than chance "
            f"({ours.chance:.3f}). Sweep again with more validation images, on which they are scaled."
        )
    return said


def _small_enough(contest: Contest) -> str:
    size = sum(file.stat().st_size for file in contest.export_of(contest.challenger).rglob("*") if file.is_file()) / 1e6
    return _within("--max-mb", size, contest.limits.max_mb, "MB")


def _within(option: str, value: float, limit: float | None, unit: str) -> str:
    if limit is None:
        raise NotAsked(f"Give {option} to ask it.")
    if value > limit:
        raise Refusal(f"It must have at most {option} {limit:g}, got {value:.1f} {unit}. Choose a smaller network.")
    return f"{value:.1f} {unit} of at most {limit:g}"


def _loads(contest: Contest) -> str:
    """Load the challenger in a clean process, and measure how fast it answers where a limit is given."""
    uri, timed = f"models:/{contest.model}/{contest.challenger}", 0 if contest.limits.max_ms is None else _TIMED
    wanted = [column.name for column in contest.signature_of(contest.challenger).outputs]
    root = contest.export_of(contest.challenger).parents[1]
    command = [sys.executable, "-P", "-c", _PROBE, str(root), str(timed)]
    run = partial(subprocess.run, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            # What it is loaded from stays as it is: no compiled code is written beside it.
            done = run(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, cwd=folder)
        columns, rows, probability, milliseconds = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Refusal(f"{uri} must load and answer an image within {PROBE_SECONDS} s. {ANEW}") from None
    except (IndexError, ValueError, TypeError):
        said = one_line(Exception((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]))
        raise Refusal(f"{uri} must load and answer an image, got: {said}. {ANEW}") from None
    if (columns, rows) != (wanted, 1) or not 0.0 <= probability <= 1.0:
        raise Refusal(
            f"{uri} must answer one image with one row of {', '.join(wanted)} and a probability in 0..1, got {rows} of "
            f"{', '.join(map(str, columns))} and {probability}. {ANEW}"
        )
    contest.milliseconds = milliseconds if timed else None
    return f"one row of {len(columns)} columns, in a process of its own"


def _fast_enough(contest: Contest) -> str:
    if contest.limits.max_ms is not None and contest.milliseconds is None:
        raise NotAsked("It does not load.")
    return _within("--max-ms", contest.milliseconds or 0.0, contest.limits.max_ms, "ms")


GATES: list[Gate] = [
    Gate("files", "Each of its files is what was registered, byte by byte.", _same_files, of_first=True, always=True),
    Gate("signature", "It answers with all of the champion's columns, of the same types.", _champions_columns),
    Gate("classes", "It knows every class that the champion knows.", _every_class),
    Gate("not worse", "It is not shown to be worse than the champion on the same test images.", _not_worse),
    Gate("each class", "No class's recall is shown to fall by more than `--per-class-margin`.", _each_class),
    Gate("calibration", "Its probabilities are not further off than the champion's.", _calibrated),
    Gate("size", "Its files have at most `--max-mb`.", _small_enough, of_first=True),
    Gate(
        "loads", "It loads in a clean process, and answers as its signature says.", _loads, of_first=True, always=True
    ),
    Gate("latency", "It answers within `--max-ms` on this machine.", _fast_enough, of_first=True),
]
