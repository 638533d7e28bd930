"""The model card, held against the files that it tells of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reported import noisy_cars, write_sweep

from carcls.stages import StageStore
from sweeps.report.card import LAST_PART, model_card, short_card
from sweeps.report.facts import Facts
from sweeps.results.result import SweepResult, TestEvaluation
from sweeps.text import percent

NAMES = ["Aero <script>Coupe", "Boxer | Van", "Corsa *Wagon*"]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A sweep that has ended."""
    home = tmp_path_factory.mktemp("home")
    data = noisy_cars(home / "cars", NAMES, StageStore(home / "out" / "stages"))
    return write_sweep(home / "out", "mine", data, 12)


def _card(facts: Facts, **changes: object) -> str:
    result, data = facts.result, facts.dataset
    assert isinstance(result, SweepResult)
    assert data is not None
    assert result.test is not None
    return model_card(replace(result, test=replace(result.test, **changes)), data, facts.folder, 3 * 2**20)


def test_every_number_is_that_of_the_files(facts: Facts) -> None:
    """Scores with intervals, counts, the classes' recalls, and what confused most."""
    card, result, data = _card(facts), facts.result, facts.dataset
    assert result is not None
    assert data is not None
    assert isinstance(result.test, TestEvaluation)
    assert result.best is not None
    accuracy = percent(result.test.metrics["test_accuracy"])
    assert f"- {accuracy} of {len(data.splits.test)} test images; 95% interval 40.0% to 60.0%\n" in card
    assert percent(result.best.metrics["val_accuracy"]) in card
    assert f"digest `{result.data.digest}`" in card
    assert "best of 12 trials (1 seed)" in card
    stored = np.load(facts.folder / "test-predictions.npz")
    for label in range(len(NAMES)):
        of_class = stored["labels"] == label
        assert f"{percent((stored['predicted'] == label)[of_class].mean())}, " in card.partition(LAST_PART)[2]
    wrong = int(((stored["labels"] == 0) & (stored["predicted"] == 1)).sum())
    assert f"taken for Boxer \\| Van: {wrong};" in card


def test_no_name_of_a_class_becomes_markup(facts: Facts) -> None:
    """Neither HTML nor Markdown."""
    card = _card(facts)
    assert "<script" not in card.replace("\\<script", "")
    assert "*Wagon*" not in card.replace("\\*Wagon\\*", "")


def test_a_card_says_what_is_known_and_nothing_else(facts: Facts, tmp_path: Path) -> None:
    """Of calibration, of a refit, of more than one test evaluation; without stored answers no classes are listed."""
    assert "calibrated" not in _card(facts)
    fitted = {"temperature": 1.6, "smoothing": 0.0, "images": 30, "error_before": 0.2, "error_after": 0.05}
    errors = {"test_accuracy": 0.5, "test_raw_calibration_error": 0.21, "test_calibration_error": 0.07}
    assert "was 20.0% and is 5.0%; on the test images it is 7.0% instead of 21.0%" in _card(
        facts, metrics=errors, confidence=fitted
    )
    told = _card(facts, refit=True, evaluations=3, models=2)
    assert "a refit has none" in told
    assert "evaluated 3 times, of 2 models" in told
    assert LAST_PART not in model_card(facts.result, facts.dataset, tmp_path, 1)  # type: ignore[arg-type]


def test_a_card_has_no_path_of_the_machine(facts: Facts, tmp_path: Path) -> None:
    """Notes quote links and images outside the folder, and commands to copy name the folder of runs; a card travels."""
    assert facts.dataset is not None
    notes = (
        "1 link was followed, such as 'a/b' to '/home/ann/x y/cars'.",
        "It is \"/home/ann/d'or/1.jpg\", or 'a/b'.",
        "2 pictures are in more than one class: /home/ann/x y/2.jpg = /home/ann/3.jpg, /home/ann/4.jpg = x/5.jpg.",
    )
    card = model_card(facts.result, replace(facts.dataset, notes=notes), tmp_path, 1)  # type: ignore[arg-type]
    assert "such as 'a/b' to '…/cars'." in card
    assert "It is \"…/1.jpg\", or 'a/b'." in card
    assert ": …/2.jpg = …/3.jpg, …/4.jpg = x/5.jpg." in card
    assert "/home" not in card
    assert str(facts.folder.parent) not in card


def test_a_short_card_has_whole_parts_in_its_room(facts: Facts) -> None:
    """It leaves out the table of classes, then what comes last."""
    card = _card(facts)
    for most in (4000, 900, 200):
        short = short_card(card, most)
        assert len(short) <= most
        assert card.startswith(short)
        assert LAST_PART not in short
