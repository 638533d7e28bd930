"""A plan is the first half of a run: the same checks, the same words, the same exit code."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_pictures

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.data.splits import cut
from carcls.errors import InputError
from carcls.families import preflight
from carcls.stages import StageStore
from sweeps.engine.resources import Machine
from sweeps.run.check import claim_folder, fit_to_data, require_same_data
from sweeps.run.data import expected_demo
from sweeps.run.plan import Plan
from sweeps.spec.loading import load_spec

SMALL = ("--set", "backbone=efficientnet_lite0", "image_size=32", "epochs=1")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``carsweep`` beside a folder ``base`` of 56 pictures, without internet."""
    monkeypatch.delenv("CARSWEEP_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    draw_pictures(tmp_path / "base")
    return run


MISTAKES = {
    "weights that are not there": (["transfer", "--weights", "/nope", *SMALL], "'/nope', which does not exist"),
    "weights that cannot be had": (["transfer"], "weights of resnet50 cannot be had"),
    "a model that timm lacks": (["transfer", "--set", "backbone=timm:resnet81"], "Did you mean timm:resnet"),
    "an image size of other patches": (
        ["transfer", "--set", "backbone=timm:vit_tiny_patch16_224", "image_size=40", "weights=random"],
        "image_size must be one that timm:vit_tiny_patch16_224 takes, got 40",
    ),
    "an image that is too small": (
        ["transfer", "--set", "backbone=timm:inception_v3", "image_size=32", "weights=random"],
        "image_size must be one that timm:inception_v3 takes, got 32",
    ),
    "a network that halves images away": (
        ["scratch", "--set", "depth=6", "image_size=32", "stem=none"],
        "Use --set image_size=64 or --set depth=5",
    ),
    "more neighbours than images": (["retrieval", *SMALL, "k=60"], "k must be at most 32, the training images"),
    "more cores than there are": (["transfer", *SMALL, "--cpus-per-trial", "9000"], "cpus_per_trial must be at most"),
    "a tracking store of no kind": (["transfer", *SMALL, "--tracking-uri", "ftp://x"], "tracking URI must be"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_plan_refuses_what_the_run_refuses_in_the_same_words(case: str, run: Run, tmp_path: Path) -> None:
    """Both say one sentence and end with 2; the run starts no Ray for it, the plan leaves at most what networks are."""
    words, told = MISTAKES[case]
    planned = run("run", *words, "--data", "base", "--dry-run")
    assert {path.name for path in tmp_path.glob("runs/*")} <= {"stages"}
    assert planned == run("run", *words, "--data", "base", "--name", "mine")
    code, out, err = planned
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert not list(tmp_path.glob("runs/*/ray.log"))


@pytest.mark.parametrize("command", [["run", "transfer"], ["run", "all"], ["reproduce"]])
def test_jobs_of_several_sweeps_are_checked_as_one_sweep_is(command: list[str], run: Run, tmp_path: Path) -> None:
    """Their plans refuse what their runs refuse; of two images a class none is left to validate on."""
    draw_pictures(tmp_path / "two", train=2, test=2)
    planned = run(*command, "--data", "two", *SMALL, "--dry-run")
    assert planned == run(*command, "--data", "two", *SMALL, "--name", "mine")
    assert planned[0] == 2
    assert "validation split must hold at least one image, got none of the 16" in planned[2]
    assert not list(tmp_path.glob("runs/*/ray.log"))


def test_all_mistakes_of_all_families_are_told_at_once(run: Run, tmp_path: Path) -> None:
    """Each is one line, however many families have it; weights are not asked for where something else is wrong."""
    wrong = ["--tracking-uri", "ftp://x", "--cpus-per-trial", "9000", "--weights", "/nope"]
    code, out, err = run("run", "all", "--data", "base", *wrong, *SMALL, "k=60", "--name", "mine")
    told = ("tracking URI must be", "cpus_per_trial must be at most", "k must be at most 32, the training images")
    assert (code, out) == (2, "")
    assert [line.count(words) for line, words in zip(err.splitlines(), told, strict=True)] == [1] * 3
    assert not list(tmp_path.glob("runs/mine*"))


def test_images_that_were_not_read_are_counted_by_their_listing(run: Run, tmp_path: Path) -> None:
    """The plan says that counts may fall; with --read they are exact, and from then on without it too."""
    (tmp_path / "base" / "train" / "Make Model 0" / "00003.jpg").write_bytes(b"no picture")
    words = ("run", "transfer", *SMALL, "--data", "base", "--dry-run", "--name", "mine", "--set", "data.max_loss=0.1")
    code, listed, _ = run(*words)
    assert code == 0
    assert "32 train, 8 validation, 16 test" in listed
    assert "images not read yet: counts may fall" in listed
    code, read, err = run(*words, "--read")
    assert code == 0
    assert "reading images: 56 of 56" in err
    assert "4 classes; 32 train, 7 validation, 16 test" in read
    assert read.count("7 validation") == 1
    assert "left out, unreadable: train/Make Model 0/00003.jpg" in read
    assert "not read yet" not in read
    assert run(*words) == (0, read, "")
    assert not (tmp_path / "runs" / "mine").exists()
    plan = json.loads(run(*words, "--json")[1])
    assert (plan["images_read"], plan["data"]["validation"]) == (True, 7)


def test_a_plan_counts_the_demo_as_its_run_does() -> None:
    """Before the demo cars are drawn their splits are counted class by class, as they will be cut."""
    expected = expected_demo(DataConfig())
    per_class = (expected.train + expected.validation) // expected.classes
    labels = np.repeat(np.arange(expected.classes), per_class)
    rows = np.arange(len(labels))
    train, validation = cut(labels, rows, rows, DataConfig().validation_fraction, seed=0)
    assert (len(train), len(validation)) == (expected.train, expected.validation)


def test_a_sweep_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    """Be they changed, or demo cars that an older version drew: nothing but a new sweep helps."""
    stages, folder = StageStore(tmp_path / "stages"), tmp_path / "old"
    before = prepare_dataset(DataConfig(path=str(draw_pictures(tmp_path / "cars", classes=2))), stages, 32)
    folder.mkdir()
    before.save(folder / "dataset.json")
    require_same_data(folder, before)
    after = prepare_dataset(DataConfig(path=str(draw_pictures(tmp_path / "redrawn", classes=3))), stages, 32)
    with pytest.raises(InputError, match=r"'old' was begun on other images.* start a new sweep with another --name"):
        require_same_data(folder, after)


def test_neighbours_that_nobody_asked_for_are_cut_to_the_gallery() -> None:
    """Of the packaged choices of k those stay that the gallery has, with a note; what was given is refused."""
    spec = load_spec("retrieval", overrides={"data": "/cars"})
    fitted, notes = fit_to_data(spec, 32)
    assert fitted.search["k"].choices == (1, 3, 5, 7, 10, 15, 20, 30)
    assert notes == ["k is searched over 1 | 3 | 5 | 7 | 10 | 15 | 20 | 30 only: the gallery has 32 images."]
    assert fit_to_data(spec, 50) == (spec, [])
    # However few trials there are at first: more may follow under the same name.
    assert fit_to_data(spec.model_copy(update={"trials": 1}), 32)[0].search == fitted.search
    assert fit_to_data(load_spec("retrieval", sets=["k=32"], overrides={"data": "/cars"}), 32)[1] == []
    for given in ("k=50", "search.k=[1,50]", "search.k={low: 1, high: 50}"):
        with pytest.raises(InputError, match="k must be at most 32, the training images that form the gallery, got 50"):
            fit_to_data(load_spec("retrieval", sets=[given], overrides={"data": "/cars"}), 32)


def test_a_name_belongs_to_one_spec(run: Run, tmp_path: Path) -> None:
    """Cut neighbours are what a sweep was begun with; another search is refused, and the plan ends as its run would."""
    given = {"data": str(tmp_path / "base"), "name": "mine"}
    spec = load_spec("retrieval", overrides=given)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "spec.yaml").write_text(fit_to_data(spec, 32)[0].to_yaml())
    (tmp_path / "runs" / "mine" / "dataset.json").touch()  # its images were read
    claim_folder(spec, tmp_path / "runs")
    for other in (["search.k=[1,5]"], ["dropout=0.5"]):
        with pytest.raises(InputError, match="--name must be new"):
            claim_folder(load_spec("retrieval", sets=other, overrides=given), tmp_path / "runs")
    code, _, err = run("run", "retrieval", *SMALL, "--data", "base", "--name", "mine", "--dry-run")
    assert code == 2
    assert "--name must be new or belong to a sweep of the same spec, got 'mine'" in err


@pytest.mark.parametrize(
    ("price", "more", "told"),
    [
        ("2.5/gpu-hour", [], "price: no trial holds a GPU, so gpu-hours cost nothing."),
        ("2.5/gpu-hour", ["--max-cost", "3"], "cost nothing, and --max-cost never ends the sweep."),
        ("2.5/gpu-hour+1/hour", ["--max-cost", "3"], "price: no trial holds a GPU, so gpu-hours cost nothing."),
        ("1/hour", [], ""),
    ],
)
def test_a_price_of_gpus_that_no_trial_holds_is_said(price: str, more: list[str], told: str, run: Run) -> None:
    """A sweep that seems to cost nothing says why."""
    words = ("--data", "base", "--dry-run", "--gpus-per-trial", "0", "--price", price, *more)
    code, out, _ = run("run", "transfer", *SMALL, *words)
    assert code == 0
    assert told in out
    assert bool(told) == ("gpu-hours cost nothing" in out)


def without_torch(code: str, *words: str, cwd: Path) -> str:
    """Run code in a process of its own; return what it prints, and whether it loaded torch."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint('torch' in sys.modules)", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_big_networks_of_timm_are_planned_to_take_longer_than_small_ones(tmp_path: Path) -> None:
    """The forecast goes by what building the network told; it is kept, so that the next plan loads no torch."""
    seconds = []
    for name in ("timm:mobilenetv3_small_050", "timm:resnet18", "timm:convnext_tiny"):
        config = TrialConfig(backbone=name, weights="random", image_size=64)
        _, networks = preflight([config], tmp_path)
        spec = load_spec("transfer", sets=[f"backbone={name}", "weights=random"], overrides={"data": "/cars"})
        seconds.append(Plan(spec, expected_demo(DataConfig()), Machine(2), networks=networks).seconds)
    assert 1.5 * seconds[0] < seconds[1] < seconds[2]
    assert networks[name].gmacs == pytest.approx(4.45, rel=0.02)
    assert networks[name].parameters == pytest.approx(27.8, rel=0.02)
    code = (
        "from pathlib import Path; from carcls.config import TrialConfig; from carcls.families import preflight\n"
        "config = TrialConfig(backbone=sys.argv[1], weights='random', image_size=64)\n"
        "print(preflight([config], Path())[1].popitem()[1].embedding)"
    )
    assert without_torch(code, name, cwd=tmp_path) == "768\nFalse\n"


@pytest.mark.parametrize("family", ["transfer", "scratch"])
def test_a_plan_loads_no_torch_for_networks_that_are_known(family: str, tmp_path: Path) -> None:
    """Neither the catalog's networks nor those that settings describe are built for a plan."""
    draw_pictures(tmp_path / "base")
    code = (
        "from sweeps.cli.app import carsweep; from sweeps.cli.exits import run_command\n"
        "print('END', run_command(carsweep, sys.argv[1:]))"
    )
    own = "weights=random" if family == "transfer" else "depth=3"
    words = ("run", family, "--dry-run", "--data", "base", "--set", "image_size=32", own)
    assert without_torch(code, *words, cwd=tmp_path).endswith("END 0\nFalse\n")


def test_a_plan_refuses_a_database_without_its_files(run: Run, tmp_path: Path) -> None:
    """It says so in the words of the run, since a database that is there is looked at before it is written to."""
    (tmp_path / "runs").mkdir()
    with closing(sqlite3.connect(tmp_path / "runs" / "mlflow.db")) as database:
        database.execute("CREATE TABLE experiments (name, artifact_location)")
        database.execute("INSERT INTO experiments VALUES ('carsweep-x', '/gone/artifacts/carsweep-x')")
        database.commit()
    words = ("run", "transfer", "--data", "base", *SMALL)
    planned = run(*words, "--dry-run")
    assert planned == run(*words)
    assert (planned[0], planned[2].count("\n"), "must lie beside the models and files" in planned[2]) == (2, 1, True)
