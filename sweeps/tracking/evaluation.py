"""What a registered model says to the test images of a data set that has grown since it was registered."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.families import label_test
from sweeps.tracking.names import PREDICTIONS, TEST_IMAGES, TEST_READINGS
from sweeps.tracking.store import Tracking, explained, patience

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.tracking.found import FoundModel


def answers_on(tracking: Tracking, model: FoundModel, data: Dataset, stages: StageStore) -> StoredPredictions:
    """Return a version's answers to the test images of ``data``: stored ones, else evaluated now, counted and stored.

    It is counted in the version's tag ``test_readings`` before it happens, and stored in its run, so that the same
    images are evaluated once. A class that the data does not have is -1.

    Args:
        tracking: where the version is.
        model: a registered one, from ``find_model``.
        data: as its ``dataset.json`` is read.
        stages: of the folder of runs with the images.

    Raises:
        InputError: the model's files, the images or the stored answers are damaged.
        TrackingError: the store does not answer.
    """
    own = model.tags.get(TEST_IMAGES) == data.test_digest
    file = PREDICTIONS if own else f"{Path(PREDICTIONS).stem}-{data.test_digest}.npz"
    rows = data.splits.test
    with explained(tracking), patience(), tempfile.TemporaryDirectory() as folder:
        client = tracking.client()
        run = client.get_model_version(model.name, model.version).run_id
        found = stored_answers(client, run, file)
        if found is None:
            count = int(client.get_model_version(model.name, model.version).tags.get(TEST_READINGS, 1)) + 1
            client.set_model_version_tag(model.name, model.version, TEST_READINGS, str(count))
            found = StoredPredictions(rows, data.labels[rows], *label_test(model.folder, data, stages))
            path = Path(folder) / file
            np.savez_compressed(path, **asdict(found))
            client.log_artifact(run, str(path))
    return found


def stored_answers(client: MlflowClient, run: str, file: str) -> StoredPredictions | None:
    """Return the answers in a run's artifact; None where there is none.

    Raises:
        InputError: they are damaged.
    """
    if all(one.path != file for one in client.list_artifacts(run)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return read_predictions(Path(client.download_artifacts(run, file, folder)))
