"""Nothing is repeated on the way in: a spec, the machine, the images and the lock are each asked once."""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from filelock import FileLock
from helpers import draw_pictures, events_of
from pydantic import BaseModel

from carcls.config import TrialConfig
from carcls.data.layouts import read_layout
from carcls.errors import InputError, SpecError
from carcls.machine import usable_cores, visible_gpus
from carcls.stages import StageStore
from sweeps.cli.app import carsweep
from sweeps.cli.exits import DONE, run_command
from sweeps.engine.resources import Machine, Share
from sweeps.engine.session import RaySession
from sweeps.run.check import check_sweeps, require_processes
from sweeps.run.command import Command, specs_of_all
from sweeps.run.data import prepare_data
from sweeps.run.remembered import recall
from sweeps.run.several import run_sweeps
from sweeps.run.status import sweep_status, sweeps_in
from sweeps.run.sweep import open_session
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import read_file, text_with_id, write_file
from sweeps.spec.yaml_text import read_packaged, read_tree
from sweeps.study.study import Study

ROOT = Path(__file__).resolve().parents[3]
_BUILDS: tuple[CodeType, ...] = (BaseModel.model_validate.__func__.__code__, BaseModel.__init__.__code__)  # type: ignore[attr-defined]


@contextmanager
def counted(*functions: Callable[..., Any]) -> Iterator[Counter[str]]:
    """Count the calls of functions by name, wherever they were imported, and the models that are built, by class."""
    names = {function.__code__: function.__name__ for function in functions}
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1
        elif event == "call" and frame.f_code in _BUILDS:
            first = frame.f_locals.get("cls") or type(frame.f_locals["self"])
            calls[first.__name__] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return class folders of pictures, each another one."""
    return draw_pictures(tmp_path / "pictures", classes=2, train=20, test=10)


class Quiet:
    """Somebody who is told and says nothing."""

    def note(self, text: str) -> None:
        """Hear a sentence."""

    def packing(self, done: int, total: int, what: str = "") -> None:
        """Hear how far it is."""

    def on_data(self, data: object) -> None:
        """Hear what they are."""

    def on_status(self, status: object) -> None:
        """Hear what is spent."""


_SET = ["--set", "dropout=0.3", "weights=random"]
_MORE = ["search.head_lr={low: 0.001, high: 0.003}", "epochs=2"]


@pytest.mark.parametrize(
    ("words", "most", "specs"),
    [
        (["run", "transfer", "--trials", "8", *_SET], 10, 1),
        (["run", "transfer", "--trials", "8", *_SET, *_MORE], 10, 1),
        (["run", "all", "--trials", "12", *_SET, "k=3"], 30, 3),
        (["reproduce", "--weights", "random"], 0, 3),
        (["reproduce", "scratch/basic", "--weights", "random"], 0, 1),
    ],
)
def test_a_plan_asks_everything_once(
    words: list[str], most: int, specs: int, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Few trials are built, each family is read and checked once; one look at the machine, one listing for all."""
    places = ["--data", str(pictures), "--out", str(tmp_path / "runs"), "--dry-run", "--name", "planned"]
    with counted(usable_cores, visible_gpus, read_layout, load_spec, check_sweeps, read_packaged) as calls:
        assert run_command(carsweep, [*words, *places]) == DONE, capfd.readouterr().err
    assert calls["TrialConfig"] <= most
    once = ("usable_cores", "visible_gpus", "read_layout", "check_sweeps")
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert [calls[name] for name in ("SweepSpec", "load_spec", "read_packaged")] == [specs] * 3


@pytest.mark.parametrize(
    ("family", "sets", "gpus", "mistake"),
    [
        ("transfer", ["experiments=[transfer/finetuned]"], 2.0, ""),
        ("transfer", ["unfreezing=frozen"], 1.0, ""),
        ("transfer", ["unfreezing=frozen"], 2.0, "gpus_per_trial must be at most 1 where no trial trains its backbone"),
        ("transfer", ["unfreezing=frozen", "processes=2"], 0.0, ""),
        ("scratch", ["batch_size=8"], 8.0, ""),
        ("scratch", ["batch_size=7"], 8.0, r"batch_size must be at least the processes .*\(8\), got 7"),
        ("scratch", ["search.batch_size=[2,64]", "processes=3"], 0.0, r"processes .*\(3\), got 2.*batch_size=3"),
        ("scratch", ["processes=5"], 0.0, r"processes must be at most the cores of a machine \(4\).*processes=1"),
        ("scratch", ["starts=[{processes: 5}]"], 0.0, r"processes must be at most the cores"),
        ("scratch", ["processes=2"], 2.0, ""),
        ("scratch", ["processes=2"], 1.0, r"processes must be the GPUs of a trial \(1\).*--gpus-per-trial 2"),
        ("scratch", ["processes=2", "sync_batch_norm=true"], 0.0, "sync_batch_norm must be false"),
        ("scratch", ["sync_batch_norm=true"], 2.0, ""),
        ("scratch", ["sync_batch_norm=true"], 1.0, ""),
    ],
)
def test_processes_that_cannot_train_together_are_refused(
    family: str, sets: list[str], gpus: float, mistake: str
) -> None:
    """Before anything starts: idle GPUs, more processes than cores, batches that cannot be divided, GPUs not there."""
    spec, share = load_spec(family, sets=sets, overrides={"data": "/cars"}), Share(2.0, gpus, 1)
    with pytest.raises(InputError, match=mistake) if mistake else nullcontext():
        require_processes(spec, share, [Machine(4, int(gpus))])


def test_a_sweep_lists_its_images_and_takes_its_lock_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checks until the study is open."""
    taken: list[str] = []
    acquire = FileLock.acquire

    def note(lock: FileLock, *given: Any, **options: Any) -> Any:
        taken.append(Path(lock.lock_file).name)
        return acquire(lock, *given, **options)

    monkeypatch.setattr(FileLock, "acquire", note)
    sets = ["image_size=32", "depth=2", "width=4"]
    overrides = {"data": str(pictures), "name": "mine", "trials": 4}
    command = Command("sweep", "mine", (load_spec("scratch", sets=sets, overrides=overrides),), out=tmp_path / "runs")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "result.json").write_text("{}")  # with one, no Ray is started ahead
    with (
        counted(read_layout) as calls,
        open_session(check_sweeps(command)[0], command, RaySession(), Quiet()) as session,
        Study.open(session.folder, session.spec) as study,
    ):
        assert study.ask() is not None
    assert calls["read_layout"] == 1
    assert taken.count(".mine.lock") == 1


def test_images_are_decoded_once_at_the_sizes_of_all_sweeps(pictures: Path, tmp_path: Path) -> None:
    """The second sweep of a job finds its images made, though it trains on another size."""
    sizes = {"transfer": 32, "scratch": 48}
    overrides = {"data": str(pictures)}
    specs = [load_spec(name, sets=[f"image_size={size}"], overrides=overrides) for name, size in sizes.items()]
    stages = StageStore(tmp_path / "stages")
    for wanted in (specs, specs[1:]):
        prepare_data(wanted, tmp_path, stages, Quiet(), None)
        assert [event.kind for event in events_of(stages) if event.event == "made"].count("pack") == 2


def test_a_job_that_is_begun_again_keeps_what_its_sweeps_keep(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``confirm`` that is not said again stays in the job's file, too, by which it is resumed."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeps.run.several.run_sweep", stop)
    out, sets = tmp_path / "runs", ["backbone=efficientnet_lite0", "image_size=128"]
    given = {"data": str(pictures), "weights": "random"}
    specs = specs_of_all(name="job", sets=sets, overrides=given, trials=None)
    for spec in specs:
        write_file(out / str(spec.name), "sweep", None, [spec.model_copy(update={"confirm": "2x2"})])
    with pytest.raises(KeyboardInterrupt):
        run_sweeps(Command("all", "job", specs, out=out), lambda _: nullcontext(Quiet()), lambda _: None)
    assert [spec.confirm for spec in read_file(out / "job").read_specs()] == ["2x2"] * 3


def test_only_the_door_takes_the_lock() -> None:
    """What runs inside of a sweep need not ask whether it may; what goes through no run asks for itself."""
    users = set()
    for path in (ROOT / "sweeps").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "sweeps.lock":
                users |= {path.name for alias in node.names if alias.name == "locked"}
    assert users == {"sweep.py", "tracked.py"}


def test_a_spec_is_checked_as_a_whole_by_one_pass() -> None:
    """Mistakes of fields, settings, domains and experiments come together, though the spec is built once."""
    tree = {
        "family": "transfer",
        "trials": 0,
        "config": {"epochs": 0},
        "search": {"dropout": {"low": 0.0, "high": 2.0}},
        "experiments": ["transfer/none"],
        "starts": [{"k": 0}],
    }
    with counted() as calls, pytest.raises(SpecError) as caught:
        SweepSpec.from_tree(tree)
    beginnings = [mistake.split(":")[0] for mistake in caught.value.mistakes]
    assert sorted(beginnings) == ["config.epochs", "experiments[0]", "search.dropout.high", "starts[0].k", "trials"]
    assert calls["SweepSpec"] == 1
    assert calls["TrialConfig"] == 0


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").rglob("*.yaml")), ids=lambda path: path.name)
def test_what_comes_with_carsweep_reads_alike(path: Path) -> None:
    """The fast reader of our own files and the careful one of a user's agree, types included."""
    assert repr(read_packaged(path)) == repr(read_tree(path.read_text(encoding="utf-8"), path.name))


def test_trials_of_a_spec_are_as_valid_as_checked_ones() -> None:
    """What is put together of settings that were read is what a check of all of it gives, types and digest included."""
    sets = ["head_lr=1", "epochs=4", "config.rotation=15", "search.weight_decay=[0, 0.1]"]
    spec = load_spec("transfer", sets=sets, overrides={"data": "/cars"})
    for config in (spec.trial_config({}), *(config for _, config in spec.experiment_configs())):
        checked = TrialConfig.model_validate(config.model_dump())
        assert (config, config.digest) == (checked, checked.digest)
        assert list(map(type, config.model_dump().values())) == list(map(type, checked.model_dump().values()))
        for made in (config.training(), checked.training()):
            assert made == TrialConfig.model_validate(made.model_dump())


def test_the_files_of_older_versions_are_read_and_replaced(tmp_path: Path) -> None:
    """Of sweeps and jobs; the next run writes one file, with the id that MLflow knows.

    A sweep that was hardly begun had a command without a spec: its name is free.
    """
    spec, folder, job = SweepSpec(family="transfer", name="job-transfer"), tmp_path / "job-transfer", tmp_path / "job"
    folder.mkdir()
    job.mkdir()
    command = {"kind": "sweep", "tracking_uri": "http://host:5000", "tracking_uri_is_secret": False, "specs": []}
    (folder / "command.json").write_text(json.dumps(command))
    assert sweeps_in(tmp_path) == []
    (folder / "spec.yaml").write_text(spec.to_yaml())
    (folder / "sweep_id").write_text("job-transfer-0123456789ab\n")
    before = recall(tmp_path, "job-transfer")
    assert (before.specs, before.tracking_uri, before.changes) == ((spec,), "http://host:5000", ())
    assert sweep_status(tmp_path, "job-transfer").spec == spec
    write_file(folder, "sweep", "http://host:5000", [spec])
    assert [path.name for path in folder.iterdir()] == ["sweep.json"]
    assert read_file(folder).id == "job-transfer-0123456789ab"
    assert recall(tmp_path, "job-transfer") == before
    of_all = {**command, "kind": "all", "tracking_uri_is_secret": True, "specs": [spec.to_yaml()]}
    (job / "command.json").write_text(json.dumps(of_all))
    assert sweeps_in(tmp_path, "job") == ["job-transfer"]
    assert recall(tmp_path, "job", "http://b").specs == (spec,)
    assert read_file(job).is_secret


def test_a_spec_that_is_put_in_place_of_a_damaged_file_keeps_the_sweep_s_runs(tmp_path: Path) -> None:
    """The copy among the artifacts of the sweep's run says by which id MLflow knows the sweep."""
    spec, folder = SweepSpec(family="transfer", name="mine"), tmp_path / "mine"
    folder.mkdir()
    (folder / "spec.yaml").write_text(text_with_id(spec, "mine-0123456789ab"))
    assert read_file(folder).read_specs() == (spec,)
    write_file(folder, "sweep", None, [spec])
    assert read_file(folder).id == "mine-0123456789ab"
