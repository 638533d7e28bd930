"""The benchmarks' table: its rows, how they are gathered, and what both sides of a comparison are given."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of the benchmarks as its neighbours import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The rows' module."""
    return load("rows", monkeypatch)


def a_row(**changes: Any) -> dict[str, Any]:
    """Return a whole row, changed."""
    row = {
        "what": "speed",
        "target": "≥ 2×",
        "value": "3×",
        "met": True,
        "runs": 3,
        "command": "python x",
        "reason": "",
    }
    return {**row, **changes}


@pytest.mark.parametrize("field", list(a_row()))
def test_a_row_that_lacks_a_field_is_refused_by_name(rows: ModuleType, field: str) -> None:
    """Whoever forgets a field is told which."""
    row = a_row()
    del row[field]
    with pytest.raises(ValueError, match=f"{field} is missing"):
        rows.check_rows([row])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"met": False}, "reason must say why"),
        ({"met": None}, "reason must say why"),
        ({"met": "yes"}, "met must be"),
        ({"runs": 0}, "runs must be"),
        ({"value": [1]}, "value must be"),
        ({"command": ""}, "must not be empty"),
    ],
)
def test_a_row_that_hides_something_is_refused(rows: ModuleType, changes: dict[str, Any], words: str) -> None:
    """A missed target has its reason, a verdict is one, and every row can be measured again."""
    with pytest.raises(ValueError, match=words):
        rows.check_rows([a_row(**changes)])


def test_written_rows_are_read_as_they_were(rows: ModuleType, tmp_path: Path) -> None:
    """Writing and reading lose nothing."""
    row = rows.Row("speed", "≥ 2×", "3×", None, 3, "python x", "not judged: too small")
    rows.write_rows(tmp_path / "rows.json", [row])
    assert rows.read_rows(tmp_path / "rows.json") == [a_row(met=None, reason="not judged: too small")]


def test_a_second_run_replaces_its_own_rows_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A benchmark's rows take the place of its earlier ones of the same set; all others stay."""
    gathering = load("gathering", monkeypatch)
    gathering.gather(tmp_path, "starts", "short", [a_row(what="help")])
    gathering.gather(tmp_path, "starts", "full", [a_row(what="help", value="full")])
    gathering.gather(tmp_path, "epoch", "short", [a_row(what="an epoch")])
    gathering.gather(tmp_path, "starts", "short", [a_row(what="help", value="new"), a_row(what="plan")])
    document = json.loads((tmp_path / "results.json").read_text())
    held = [(row["set"], row["benchmark"], row["what"], row["value"]) for row in document["rows"]]
    assert sorted(held) == [
        ("full", "starts", "help", "full"),
        ("short", "epoch", "an epoch", "3×"),
        ("short", "starts", "help", "new"),
        ("short", "starts", "plan", "3×"),
    ]
    assert {"torch", "ray", "optuna", "mlflow", "python"} <= set(document["versions"])
    assert all(row["machine"] and row["date"] for row in document["rows"])


def test_the_page_shows_what_was_missed_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missed target stays in the table, and the counts say so."""
    gathering = load("gathering", monkeypatch)
    missed = a_row(what="memory", met=False, reason="the driver keeps every report")
    gathering.gather(tmp_path, "orchestration", "full", [a_row(), missed, a_row(met=None, reason="no target")])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "1 met, 1 missed, 1 not judged" in page
    assert "| memory | ≥ 2× | 3× | **missed** | 3 |" in page
    assert "- memory: the driver keeps every report." in page
    assert page.count("    python x") == 1


def test_growth_is_drawn_as_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Linear growth and its dashes are the same line; the drawing is whole XML that the page links to."""
    gathering = load("gathering", monkeypatch)
    lines = {"x": "trials", "y": "seconds", "points": {"sweep & all": [[10, 2.0], [100, 20.0], [1000, 200.0]]}}
    gathering.gather(tmp_path, "growth", "full", [a_row(lines=lines)])
    (file,) = tmp_path.glob("*.svg")
    assert f"]({file.name})" in (tmp_path / "RESULTS.md").read_text()
    every = ElementTree.fromstring(file.read_text()).iter()  # noqa: S314 - we have just written it
    dashes, measured = (e.get("points", "").split() for e in every if e.tag.endswith("polyline"))
    assert (measured[0], measured[-1]) == (dashes[0], dashes[-1])
    assert len(measured) == 3


@pytest.mark.parametrize(("last", "met"), [(101.0, True), (140.0, False)])
def test_growth_is_judged_between_neighbouring_sizes(monkeypatch: pytest.MonkeyPatch, last: float, met: bool) -> None:
    """Ten times the images may take ten times as long, however dear the smallest size was."""
    row = load("growth", monkeypatch).row_of("x", [(1000, 9.0), (5000, 10.0), (50000, last)], "python x", judged=True)
    assert row.met is met
    assert row.value.startswith(f"{last / 100:.2f}×")


def test_the_results_that_are_kept_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table in the repository has every field in every row, and the page is written from it."""
    file = BENCHMARKS / "results.json"
    if not file.exists():
        pytest.skip("no results have been gathered yet")
    document = json.loads(file.read_text())
    load("rows", monkeypatch).check_rows(document["rows"])
    gathering = load("gathering", monkeypatch)
    monkeypatch.setattr(gathering, "draw", lambda *_: "")
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)
    assert gathering.page(document, BENCHMARKS) == (BENCHMARKS / "RESULTS.md").read_text()


def test_the_baseline_is_short_and_imports_the_backbone_alone() -> None:
    """What is compared with is a script that somebody would write: 150 lines, and of ours nothing but the network."""
    source = (BENCHMARKS / "plain_tune.py").read_text()
    assert len(source.splitlines()) <= 150
    froms = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = {node.module for node in froms if node.module and node.module.split(".")[0] in ("carcls", "sweeps")}
    assert ours == {"carcls.config", "carcls.models.backbones", "carcls.models.classifier"}


@pytest.mark.parametrize("kind", ["retrieval", "frozen", "finetune"])
def test_both_sides_search_the_same_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """What carsweep plans to search, and nothing more, are the domains in the baseline's source; so are the trials."""
    side_by_side = load("side_by_side", monkeypatch)
    contest = side_by_side.Contest(kind, 24, 5, 128, (96, 128), early_stopping=kind == "finetune")
    images = draw_classes(tmp_path / "images", {"train": 6, "test": 2})
    spec = side_by_side.spec_of(contest, seed=1)
    plan = load("commands", monkeypatch).sweep(spec, images, tmp_path / "runs", "plan", "--dry-run").answer
    assert {_theirs(name): domain for name, domain in plan["search"].items()} == _domains_of_the_baseline(kind)
    assert (plan["trials"], plan["experiments"]) == (24, [])
    assert plan["early_stopping"]["enabled"] is (kind == "finetune")


def draw_classes(folder: Path, counts: dict[str, int]) -> Path:
    """Write four classes of noise, so many images of each in each split."""
    for part, count in counts.items():
        for label in range(4):
            (folder / part / f"make {label}").mkdir(parents=True)
            for number in range(count):
                noise = Image.effect_noise((80, 60), 20 + 50 * label + 3 * number + (part == "test"))
                noise.convert("RGB").save(folder / part / f"make {label}" / f"{number}.png")
    return folder


def _theirs(name: str) -> str:
    return "size" if name == "image_size" else name


def _domains_of_the_baseline(kind: str) -> dict[str, Any]:
    """Read the domains out of plain_tune.py, which does not import where Ray Tune is not wanted."""
    source = (BENCHMARKS / "plain_tune.py").read_text()
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Call):
                    domain = _domain(value)
                    if domain is not None:
                        found[str(key.value)] = domain
    of_retrieval = {"k", "distance", "vote", "size"}
    if kind == "retrieval":
        return {name: domain for name, domain in found.items() if name in of_retrieval}
    unwanted = of_retrieval | ({"backbone_lr"} if kind == "frozen" else set())
    return {name: domain for name, domain in found.items() if name not in unwanted}


def _domain(call: ast.Call) -> Any:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("uniform", "loguniform"):
        low, high = (ast.literal_eval(argument) for argument in call.args)
        return {"low": low, "high": high} | ({"log": True} if name == "loguniform" else {})
    if name in ("grid", "choice"):
        return [96, 128] if "sizes" in ast.dump(call) else ast.literal_eval(call.args[0])
    return None


def test_both_sides_get_the_same_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The baseline's folders are links to the images that carsweep trains and validates on, and to no test image."""
    source = draw_classes(tmp_path / "source", {"train": 12, "test": 3})
    cars = load("cars", monkeypatch).lay_out(source, 2, tmp_path / "place")
    links = {part: list((cars.split / part).glob("*/*")) for part in ("train", "val")}
    assert (cars.classes, cars.train, cars.validation) == (2, len(links["train"]), len(links["val"]))
    assert cars.train + cars.validation == 24
    assert cars.validation > 0
    originals = [link.resolve() for part in links.values() for link in part]
    assert len(set(originals)) == 24
    assert all(source / "train" in original.parents for original in originals)
    assert sorted(path.name for path in (cars.split / "val").iterdir()) == ["make 0", "make 2"]


def test_the_timeline_is_when_something_better_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only lines of epochs count, and only those that beat what was before."""
    told = load("commands", monkeypatch).Told
    lines = [(1.0, "trial 0 started: search"), (2.0, "trial 0 epoch 1/5: val accuracy 20.0%")]
    lines += [(3.0, "trial 1 epoch 1/5: val accuracy 19.5%"), (4.0, "trial 0 epoch 2/5: val accuracy 31.4%")]
    run = told(5.0, {}, lines)
    assert run.timeline() == [(2.0, pytest.approx(0.2)), (4.0, pytest.approx(0.314))]
    assert (run.first("epoch"), run.last("epoch")) == (2.0, 4.0)
    with pytest.raises(LookupError, match="no line holds 'complete'"):
        run.last("complete")


def some_cars(monkeypatch: pytest.MonkeyPatch, train: int = 4000) -> Any:
    """Return a data set of so many training images that nobody reads."""
    return load("cars", monkeypatch).Cars("cars", Path("folder"), Path("split"), 196, train, 700)


@pytest.mark.parametrize(("ours", "met"), [(40.0, True), (60.0, False)])
def test_time_to_the_best_is_judged_against_when_the_baseline_had_it(
    monkeypatch: pytest.MonkeyPatch, ours: float, met: bool
) -> None:
    """The share is of the seconds until the baseline's best accuracy, not of all its seconds."""
    side_by_side, commands = load("side_by_side", monkeypatch), load("commands", monkeypatch)
    plain = commands.Told(500.0, {"timeline": [[50.0, 0.1], [100.0, 44 / 765]]})
    lines = [(1.0, "trial 0 started"), (ours, "trial 0 epoch 1/5: val accuracy 5.8%"), (70.0, "trial 0 complete:")]
    told = commands.Told(80.0, {"best": {"metrics": {"val_accuracy": 0.3}}}, lines)
    contest = side_by_side.Contest("finetune", 16, 5, 128, (96, 128), early_stopping=True)
    row = side_by_side.row_of(contest, some_cars(monkeypatch), [side_by_side.Pair(plain, told)] * 3, "python x")
    assert row.met is met
    assert row.value.startswith(f"{ours / 100:.2f}×")


@pytest.mark.parametrize(
    ("kind", "trials", "train", "words"),
    [
        ("frozen", 24, 4000, "the target is for 64 trials"),
        ("retrieval", 24, 300, "fewer than 1,000 images"),
        ("finetune", 16, 4000, "16 trials and 3 seeds"),
    ],
)
def test_a_smaller_comparison_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, kind: str, trials: int, train: int, words: str
) -> None:
    """Thirty times is asked of 64 trials; of less nothing is said, however fast it was."""
    side_by_side, commands = load("side_by_side", monkeypatch), load("commands", monkeypatch)
    plain = commands.Told(4000.0, {"timeline": [[50.0, 0.3]]})
    told = commands.Told(40.0, {"best": {"metrics": {"val_accuracy": 0.3}}}, [])
    contest = side_by_side.Contest(kind, trials, 3, 64, (64, 96), early_stopping=kind == "finetune")
    pairs = [side_by_side.Pair(plain, told)]
    row = side_by_side.row_of(contest, some_cars(monkeypatch, train), pairs, "python x")
    assert row.met is None
    assert words in row.reason


def test_the_runner_leaves_out_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark whose script is missing, or that the short set leaves out, has no command."""
    run = load("run", monkeypatch)
    assert run.command_of(run.Benchmark("none", "not_written.py"), "full", None) is None
    only_full = run.Benchmark("starts", "starts.py", None, ("--runs", "9"), pictures=True)
    assert run.command_of(only_full, "short", None) is None
    words = run.command_of(only_full, "full", Path("cars"))
    assert words == ["benchmarks/starts.py", "--data", "cars", "--runs", "9"]


def test_the_parts_on_a_card_are_listed_with_what_they_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has a function with a description of one line; what is not there would not be found on the card."""
    gpu, part = load("gpu", monkeypatch), load("gpu_part", monkeypatch)
    described = {name: part.description_of(name, module) for name, module in gpu.PARTS.items()}
    assert len(described) == 16
    assert all(line.endswith(".") and len(line) < 120 for line in described.values()), described


def test_a_part_prints_one_json_object(tmp_path: Path) -> None:
    """Without a GPU a part that needs none is measured on tiny sizes, and one that needs it says so; neither fails."""
    words = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--part", "neighbours", "--part", "pack"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment, check=True)
    measured, skipped = (json.loads(line) for line in done.stdout.splitlines())
    assert {"part", "device", "card", "torch", "cuda", "seconds", "figures", "claims", "error"} <= set(measured)
    assert [claim["ok"] for claim in measured["claims"]] == [True] * 3
    assert all({"what", "ok", "value", "target"} == set(claim) for claim in measured["claims"])
    assert (skipped["skipped"], skipped["figures"]) == ("needs a GPU: not run", {})


def test_a_part_that_fails_keeps_what_it_measured_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its object has what it had written until then and why it ended; what it has left running is ended and counted."""
    gpu = load("gpu", monkeypatch)
    code = """
import subprocess, sys
def failing(part):
    part.figures(one=1)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    raise ZeroDivisionError("oh")
"""
    (tmp_path / "failing_part.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(gpu.PARTS, "failing", "failing_part")
    monkeypatch.setattr(gpu, "PATIENCE", 0.2)
    found = gpu.run("failing", "cpu", None, limit=300.0)
    assert found["figures"] == {"one": 1}
    assert found["error"].endswith("ZeroDivisionError: oh")
    (claim,) = found["claims"]
    assert (claim["ok"], len(claim["value"])) == (False, 1)
    assert gpu.processes_of(f"gpu-{os.getpid()}-failing", 5.0) == []


def test_a_part_is_ended_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not even begun by then says so, and nothing of it is left."""
    gpu = load("gpu", monkeypatch)
    found = gpu.run("placement", "cpu", None, limit=0.1)
    assert found["error"].startswith("ended at its limit of 0.1 s")
    assert gpu.processes_of(f"gpu-{os.getpid()}-placement", 5.0) == []


def test_what_nvidia_smi_says_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The utilisation is the mean of the samples after the first three; memory is that of the first card, in MiB."""
    part, smi = load("gpu_part", monkeypatch), tmp_path / "nvidia-smi"
    samples = "echo 0; echo 0; echo 0; echo 90; echo 100; exec sleep 60"
    smi.write_text(f'#!/bin/sh\ncase "$1" in *memory*) echo 1234; echo 9;; *) {samples};; esac\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert part.memory_used() == 1234
    with part.utilisation() as mean:
        time.sleep(1.0)
    assert mean() == 95.0
    smi.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with part.utilisation() as mean:
        pass
    assert (mean(), part.memory_used()) == (None, None)
