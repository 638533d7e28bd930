"""What the report tells of answers, held against the stored answers themselves."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pytest
from answered import NAMES, SIZE, noisy_cars, write_answers
from helpers import trial_record
from PIL import Image

import sweeps.report
from carcls.data.config import DataSummary
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from carcls.evaluation.calibration import calibration
from carcls.evaluation.significance import Proportion
from carcls.stages import StageStore, write_json
from sweeps.report.answers import LOOK, AnswersPart, answers_part, confusion_csv, why_no_answers
from sweeps.report.facts import Facts
from sweeps.report.mistakes import MISTAKES, _key
from sweeps.report.pictures import MOST_BYTES
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult, TestEvaluation
from sweeps.spec.spec import SweepSpec


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, StageStore]:
    """Cars of noise in four classes, packed."""
    return noisy_cars(tmp_path_factory.mktemp("home"))


@pytest.fixture
def facts(home: tuple[Dataset, StageStore], tmp_path: Path) -> Facts:
    """A sweep whose trial 1 won, with answers to both splits."""
    data, stages = home[0], StageStore(tmp_path / "stages")
    (stages.root / "pack").symlink_to(home[1].root / "pack")
    folder = tmp_path / "mine"
    write_answers(stages.root / "training" / "one" / "validation.npz", data, data.splits.validation)
    tested = write_answers(folder / "test-predictions.npz", data, data.splits.test, seed=1)
    one = {"model": "training/one", "predictions": "training/one/validation.npz", "config": {"image_size": SIZE}}
    board = Leaderboard((trial_record(0, 0.1), trial_record(1, 0.5, **one)), images=len(data.splits.validation))
    right = float((tested["predicted"] == tested["labels"]).mean())
    test = TestEvaluation({"test_accuracy": right}, (0.0, 1.0), len(data.splits.test))
    summary = DataSummary("cars", data.digest, 80, 4, data.counts)
    result = SweepResult("mine", "transfer", "/runs", summary, board, 1, test, None, "", 100.0)
    spec = SweepSpec.model_validate({"family": "transfer"})
    return Facts(folder, spec, board, result, data, stages)


def shown(facts: Facts, compute: Any = None) -> AnswersPart:
    """Return the part, which must be there."""
    part = answers_part(facts, compute)
    assert part is not None
    return part


def data_of(facts: Facts) -> Dataset:
    """Return the data set, which must be there."""
    assert facts.dataset is not None
    return facts.dataset


def rendered(part: AnswersPart | None, missing: str = "") -> str:
    """Return the page's part as a browser gets it."""
    pages = jinja2.FileSystemLoader(Path(sweeps.report.__path__[0]) / "pages")
    template = jinja2.Environment(loader=pages, autoescape=True).get_template("answers.html.j2")
    return template.render(report=SimpleNamespace(answers=part, answers_missing=missing))


def test_every_number_is_that_of_the_stored_answers(facts: Facts) -> None:
    """Accuracy, matrix, classes, groups, calibration and mistakes, of both splits, counted image by image."""
    part = shown(facts)
    assert (part.trial, part.wins) == (1, True)
    files = {
        "validation": facts.stages.root / "training/one/validation.npz",
        "test": facts.folder / "test-predictions.npz",
    }
    for answers in (part.validation, part.test):
        assert answers is not None
        with np.load(files[answers.split]) as stored:
            labels, said, shares = stored["labels"], stored["predicted"], stored["probabilities"]
        hits = labels == said
        assert answers.accuracy == Proportion(int(hits.sum()), len(hits))
        assert sum(count for *_, count in answers.cells) == len(hits)
        assert sum(pair.images for pair in answers.pairs) == (~hits).sum()
        for one in answers.classes:
            assert one.recall == Proportion(int((hits & (labels == one.label)).sum()), int((labels == one.label).sum()))
        recalls = [one.recall.value for one in answers.classes]
        assert recalls == sorted(recalls, key=float)  # type: ignore[arg-type]
        assert answers.calibration == calibration(shares.max(axis=1), hits)
        bmw = [label for label, name in enumerate(NAMES) if name.startswith("BMW")]
        score = next(one for one in answers.groups["make"] if one.name == "BMW")
        assert score.accuracy == Proportion(int(hits[np.isin(labels, bmw)].sum()), int(np.isin(labels, bmw).sum()))
        assert set(answers.groups) == {"make", "body", "year"}
    with np.load(files["validation"]) as stored:
        wrong = np.flatnonzero(stored["labels"] != stored["predicted"])
        sure = stored["probabilities"].max(axis=1)
        worst = sorted(wrong, key=lambda place: -sure[place])[:MISTAKES]
        assert [one.row for one in part.validation.mistakes] == stored["rows"][worst].tolist()
        assert [one.confidence for one in part.validation.mistakes] == [float(sure[place]) for place in worst]
    assert part.test is not None
    assert part.test.mistakes == ()


def test_pictures_are_small_and_of_the_images_they_say(facts: Facts) -> None:
    """Each is an image of the pack in less than 4 kB; examples are training images of the classes in the pairs."""
    part, data = shown(facts), data_of(facts)
    for label, rows in part.examples.items():
        assert len(rows) == 2
        assert set(rows) <= set(data.splits.train.tolist())
        assert data.labels[list(rows)].tolist() == [label, label]
    wanted = {row for rows in part.examples.values() for row in rows} | {one.row for one in part.validation.mistakes}
    assert set(part.pictures) == wanted
    for row, uri in part.pictures.items():
        content = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
        assert len(content) <= MOST_BYTES
        pixels = np.asarray(Image.open(io.BytesIO(content)), float)
        assert np.abs(pixels - data.square(facts.stages, row, SIZE)).mean() < 60  # noise, in few bytes


def test_names_that_try_html_stay_text(facts: Facts) -> None:
    """No class name becomes a tag, in text or in an attribute."""
    html = rendered(shown(facts))
    assert "<img src=x" not in html
    assert 'image of &lt;img src=x onerror=alert(1)&gt; &#34;&amp;&#34;, Coupe 2012"' in html
    assert html.count("<img ") == html.count('<img src="data:image/webp;base64,')
    assert "seen once, choose nothing by them" in html


def test_the_matrix_is_written_as_csv(facts: Facts) -> None:
    """Names with commas and quotation marks come back as they are, with as many images as were answered."""
    answers = shown(facts).validation
    read = list(csv.DictReader(io.StringIO(confusion_csv(answers))))
    assert [(one["true"], one["answered"], int(one["count"])) for one in read] == [
        (NAMES[true], NAMES[said], count) for true, said, count in answers.cells
    ]


def test_old_answers_without_probabilities_give_all_but_calibration(facts: Facts) -> None:
    """There is no calibration and no confidence; mistakes are the first ones, and the page says so."""
    before, data = shown(facts), data_of(facts)
    write_answers(facts.stages.root / "training/one/validation.npz", data, data.splits.validation, shares=False)
    part = shown(facts)
    assert part.validation.calibration is None
    assert [one.confidence for one in part.validation.mistakes] == [None] * len(part.validation.mistakes)
    assert replace(part.validation, mistakes=(), calibration=None) == replace(
        before.validation, mistakes=(), calibration=None
    )
    assert "No probabilities were stored" in rendered(part)


def test_test_answers_are_shown_only_where_they_gave_the_score(facts: Facts) -> None:
    """Answers of another model, of none yet, or of a trial that does not win, are not shown beside the winner's."""
    assert facts.result is not None
    for result in (None, replace(facts.result, test=None), replace(facts.result, winner=0)):
        part = shown(replace(facts, result=result))
        assert part.test is None
        assert "when the sweep is over" in part.test_missing
        assert part.wins == (result is not None and result.winner == 1)
    other = TestEvaluation({"test_accuracy": 0.123}, (0.0, 1.0), 20)
    part = shown(replace(facts, result=replace(facts.result, test=other)))
    assert (part.test, part.test_missing) == (None, "The answers that gave the test score are not kept any more.")


def test_there_may_be_nothing_to_show(facts: Facts) -> None:
    """Without a complete trial, or with its answers gone, damaged or of other images, the page says why."""
    empty = replace(facts, board=Leaderboard((trial_record(0, None, status="failed"),)))
    assert answers_part(empty) is None
    assert "No trial is complete" in rendered(None, why_no_answers(empty))
    data, path = data_of(facts), facts.stages.root / "training/one/validation.npz"
    write_answers(path, data, data.splits.train)
    assert answers_part(facts) is None
    path.write_bytes(b"PK no zip")
    assert answers_part(facts) is None
    path.unlink()
    assert answers_part(facts) is None
    assert why_no_answers(facts) == "The answers of trial 1 to the validation images are not kept (any more)."


def test_the_nearest_images_are_asked_for_once_and_only_with_time(facts: Facts) -> None:
    """It may take 5% of the sweep's time; what is in the store is not asked for again; a failure is told."""
    asked: list[dict[str, Any]] = []

    def fail(function: str, **arguments: Any) -> None:
        asked.append({"function": function, **arguments})
        raise TrialFailure("Embedding 90 images would take 70 s, of 5.0 s at most.")

    part = shown(facts, fail)
    assert asked == [{"function": LOOK, "record": facts.board.best, "seconds": 5.0}]
    assert "would take 70 s" in part.nearest
    row, train = part.validation.mistakes[0].row, data_of(facts).splits.train[:2].tolist()

    def answer(_: str, **arguments: Any) -> None:
        near = {"said": "The nearest of all.", "images": {row: [[train[0], 0.25], [train[1], 0.5]]}}
        key = _key(data_of(facts), arguments["record"])
        facts.stages.get_or_make("nearest", key, lambda folder: write_json(folder / "nearest.json", near))

    for compute in (answer, None, fail):
        part = shown(facts, compute)
        assert [(one.row, one.distance) for one in part.validation.mistakes[0].nearest] == [
            (train[0], 0.25),
            (train[1], 0.5),
        ]
        assert part.nearest == "The nearest of all."
    assert set(train) <= set(part.pictures)
    assert len(asked) == 1


def test_a_picture_that_is_gone_is_told(facts: Facts) -> None:
    """Without the pack and the files the page has its numbers and says that images cannot be read."""
    data = data_of(facts)
    moved = replace(data, manifest=replace(data.manifest, root=Path("/nowhere")))
    (facts.stages.root / "pack").unlink()
    part = shown(replace(facts, dataset=moved))
    assert part.pictures == {}
    assert "cannot be read any more" in rendered(part)
    assert set(shown(facts).pictures) != set()
