"""`carsweep run transfer --data` on tables, from the command line to the registered model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from helpers import run_carsweep
from pyarrow import parquet

WORDS = ["--set", "backbone=efficientnet_lite0", "image_size=32", "batch_size=8", "epochs=1", "unfreezing=frozen"]
ONE = [*WORDS, "experiments=[]", "--trials", "1", "--name", "mine", "--json"]


def test_a_sweep_on_a_csv_ends_in_a_model_and_notices_that_it_was_edited(
    tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Splits and boxes of the table are those of the sweep, rows that cannot be used are told, other labels refused."""
    images = draw_tints(tmp_path / "tints", 12, 4)
    paths = sorted(path.relative_to(images) for path in images.rglob("*.png"))
    rows = [[str(path), path.parent.name, path.parts[0], 0.1, 0.1, 0.8, 0.8] for path in paths]
    table = tmp_path / "cars.csv"

    def write(rows: list[list[object]]) -> None:
        with table.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, delimiter=";").writerows([["File", "Class", "Set", "x", "y", "width", "height"], *rows])

    write([*rows, ["none.png", "tint 0", "train", "", "", "", ""]])
    run = ["run", "transfer", "--data", "cars.csv", "--images", "tints", *ONE]
    plan = run_carsweep(tmp_path, [*run[:-1], "--dry-run"])
    assert "on cars (the table cars.csv: 48 images, 3 classes; " in plan.out
    done = run_carsweep(tmp_path, run)
    assert done.code == 0, done.err
    assert (done.value["data"]["name"], done.value["data"]["images"]) == ("cars", 48)
    assert done.value["data"]["splits"]["test"] == 12
    assert f"left out: line {len(rows) + 2} of cars.csv (there is no file 'none.png')" in done.err
    assert done.value["registered"]
    write([[*rows[0][:1], "tint 2", *rows[0][2:]], *rows[1:]])
    again = run_carsweep(tmp_path, ["resume", "mine"])
    assert again.code == 2
    assert "was begun on other images" in again.err


def test_a_sweep_on_parquet_of_the_hub_ends_in_a_model_of_its_class_names(
    tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """The images are written into the store once, and an archive of the data set goes on as the same data."""
    images = draw_tints(tmp_path / "tints", 12, 4)
    label = {"names": ["tint 0", "tint 1", "tint 2"], "_type": "ClassLabel"}
    told = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    for split in ("train", "test"):
        paths = sorted((images / split).rglob("*.png"))
        rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
        table = pa.table({"image": rows, "label": [int(path.parent.name[-1]) for path in paths]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    run = ["run", "transfer", "--data", "hub", *ONE]
    plan = run_carsweep(tmp_path, [*run[:-1], "--dry-run"])
    assert "on hub (Hugging Face: 48 images, 3 classes; " in plan.out
    done = run_carsweep(tmp_path, run)
    assert done.code == 0, done.err
    assert (done.value["data"]["name"], done.value["data"]["splits"]["test"]) == ("hub", 12)
    assert len(list((tmp_path / "runs" / "stages" / "unpacked").glob("*/files"))) == 1
    card = (tmp_path / "runs" / "mine" / "model-card.md").read_text(encoding="utf-8")
    assert "tint 2" in card or "3 classes" in card
    shutil.make_archive(str(tmp_path / "hub"), "zip", tmp_path / "hub")
    again = run_carsweep(tmp_path, ["resume", "mine", "--data", "hub.zip", "--json"])
    assert again.code == 0, again.err
    assert again.value["data"]["digest"] == done.value["data"]["digest"]
