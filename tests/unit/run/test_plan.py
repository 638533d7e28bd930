"""Plans: what is shared, and how time and space follow the numbers."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from carcls.architecture import architecture_of
from carcls.config import TrialConfig
from carcls.data.config import DataConfig, DataSummary
from carcls.errors import DataError
from sweeps.engine.resources import Machine, Share, rates_of, this_machine
from sweeps.run.data import list_images, wanted_sizes
from sweeps.run.plan import Plan
from sweeps.spec.loading import load_spec

TWO_CORES = Machine(cores=2)


def summary_of(name="stanford_cars", classes=196, train=6_922, validation=1_222, test=8_041):
    """Return the numbers of a data set."""
    splits = {"train": train, "validation": validation, "test": test}
    return DataSummary(name, "", 16_185 if name == "stanford_cars" else sum(splits.values()), classes, splits)


DEMO = summary_of("demo cars", classes=24, train=700, validation=120, test=280)


def plan_of(*sets, family="transfer", summary=None, machine=TWO_CORES, **overrides):
    """Plan a sweep of real data at the documented scale."""
    spec = load_spec(family, sets=sets, overrides={"data": "/cars", **overrides})
    return Plan(spec, summary or summary_of(), machine)


def work_of(*sets, **options):
    """Return what a plan computes by kind."""
    return {work.kind: work for work in plan_of(*sets, **options).work}


@pytest.mark.parametrize(
    ("sets", "trials", "sizes"),
    [
        (("image_size=96",), 4, [96]),
        (("search.image_size=[96,128]",), 8, [224, 96, 128]),
        (("search.image_size=[96,128]",), 2, [224]),
        (("search.image_size=[96,128]", "experiments=[]"), 8, [96, 128]),
        (("starts=[{image_size: 96}]", "experiments=[]"), 1, [96]),
        (("search.image_size={low: 128, high: 224, step: 32}", "starts=[{image_size: 96}]"), 8, [224, 96]),
        (("search.image_size={low: 96, high: 224, step: 32}",), 8, [224]),
        (("search.image_size={low: 96, high: 224, step: 32}", "experiments=[]"), 8, [96]),
    ],
)
def test_images_are_decoded_at_the_sizes_that_trials_will_need(sets, trials, sizes):
    """Documented ones, starts and every choice; not what a range might give. A plan counts a pack for each."""
    assert wanted_sizes(load_spec("transfer", sets=sets, overrides={"data": "/cars", "trials": trials})) == sizes


def test_a_plan_says_what_trains_a_trial_where_that_is_more_than_one_process():
    """Several GPUs of its share, or processes on a CPU; otherwise nothing."""
    lines = [
        line
        for sets, share in (((), Share(8, 2, 1)), (("processes=3",), Share(8, 0, 1)), ((), Share(8, 1, 1)))
        for line in replace(plan_of(*sets), share=share).lines()
        if "DistributedDataParallel" in line
    ]
    assert [line.partition(" does so ")[2] for line in lines] == [
        "on 2 GPUs (DistributedDataParallel).",
        "in 3 processes (DistributedDataParallel).",
    ]


def test_trials_share_packs_views_and_trainings():
    """All have one pack of three bytes a pixel, two sizes two; frozen ones that augment alike one view an epoch."""
    assert (work_of()["pack"].count, work_of()["pack"].disk_bytes) == (1, 16_185 * 224 * 224 * 3)
    two = work_of("search.image_size=[96, 128]", "experiments=[]", "fixed.image_size=null", trials=30)
    assert two["pack"].count == 2
    alike = ("augmentation_strength=1.0", "crop=random", "jitter=0.0", "flip=true", "rotation=15")
    features = work_of("unfreezing=frozen", *alike)["features"]
    assert features.count == 11  # of plain validation images, and of ten epochs
    assert features.disk_bytes == (10 * 6_922 + 1_222) * 2048 * 4
    assert features.seconds == pytest.approx((10 * 6_922 + 1_222) / 51.0)


def test_a_fine_tuning_takes_the_measured_time_and_caches_no_features():
    """One full fine-tuning of ResNet-50 is its images over the measured rates of two cores; fewer stages take less."""
    work = work_of("experiments=[transfer/finetuned]", trials=1)
    assert set(work) == {"pack", "training", "test"}
    assert work["training"].seconds == pytest.approx(10 * (6_922 / 18.5 + 1_222 / 51.0))
    schedules = ("frozen", "progressive", "full")
    frozen, progressive, full = (work_of(f"unfreezing={n}", trials=4)["training"].seconds for n in schedules)
    assert frozen < progressive < full


def test_early_stopping_saves_time_on_searched_trials_only():
    """Stopping shortens a sweep with searched trials, and not one of documented experiments alone."""
    off = "early_stopping.enabled=false"
    assert plan_of().seconds < 0.7 * plan_of(off).seconds
    assert plan_of(trials=3).seconds == plan_of(off, trials=3).seconds


def test_more_machine_is_less_time():
    """Twice the cores take half the time, small images less, a GPU that trials take far less, no bf16 longer."""
    seconds = {machine: plan_of(machine=machine).seconds for machine in (TWO_CORES, Machine(4), Machine(2, gpus=1))}
    assert seconds[Machine(4)] == pytest.approx(seconds[TWO_CORES] / 2, rel=0.02)
    assert seconds[Machine(2, gpus=1)] < seconds[TWO_CORES] / 50
    assert plan_of(machine=Machine(2, gpus=1), gpus_per_trial=0.0).seconds == seconds[TWO_CORES]
    assert plan_of(machine=Machine(2, amx=False)).seconds > 2 * seconds[TWO_CORES]
    assert plan_of("image_size=112").seconds < 0.3 * seconds[TWO_CORES]


@pytest.mark.parametrize(
    ("settings", "machine", "train"),
    [
        ({}, TWO_CORES, 18.5),
        ({"backbone": "efficientnet_lite0", "image_size": 128}, TWO_CORES, 18.0 * (224 / 128) ** 2),
        ({"backbone": "timm:convnext_tiny"}, TWO_CORES, 18.5 * 4.09 / 4.0),
        ({}, Machine(8, gpus=1), 2_500),
    ],
)
def test_rates_follow_the_documented_table(settings, machine, train):
    """Known backbones have their measured rates, others follow from their arithmetic, a GPU trains 2,500 images/s."""
    assert rates_of(TrialConfig(**settings), machine).train == pytest.approx(train)


@pytest.mark.parametrize(
    ("settings", "train", "infer"),
    [
        ({"depth": 3}, 33.4, 95.6),
        ({"depth": 4, "batch_norm": True}, 22.4, 82.8),
        ({"depth": 5, "batch_norm": True, "residual": True, "head_pooling": "average"}, 4.7, 21.3),
        ({"depth": 4, "width": 64, "residual": True, "stem": "resnet", "head_pooling": "average"}, 33.4, 106.8),
        ({"depth": 3, "image_size": 64}, 536.4, 1904.4),
    ],
)
def test_estimates_are_within_a_factor_of_two_of_measurements(settings, train, infer):
    """On two cores without AMX, scratch networks were measured to train and infer so many images a second."""
    rates = rates_of(TrialConfig(backbone="scratch", **settings), Machine(2, amx=False))
    assert 0.5 < rates.train / train < 2
    assert 0.5 < rates.infer / infer < 2


def test_lines_say_what_is_run_shared_and_guessed():
    """The printed plan names experiments, their changes, the search, what is shared, disk and time, and calls it rough.

    Where all trials are documented ones, none is searched, and no estimate comes of what might be drawn.
    """
    text = "\n".join(Plan(load_spec("transfer"), DEMO, TWO_CORES).lines())
    for expected in (
        "demo cars (1,100 images, 24 classes; 700 train, 120 validation, 280 test)",
        "Trials: 8 (3 documented experiments, then 5 searched)",
        "all with backbone efficientnet_lite0 instead of resnet50",
        "  transfer/finetuned",
        "scaled down",
        "frozen | progressive | full",
        "or found in the store: 1 image pack, ",
        "Disk: about",
        "on 2 CPU cores. A rough estimate, from an example",
    ):
        assert expected in text
    text = "\n".join(plan_of(trials=1).lines())
    assert "Trials: 1 (1 documented experiment)\n  transfer/frozen, as documented\n" in text
    assert "A rough estimate: expect half to twice of it." in text
    assert "The limit of 0.5 hours comes first" in plan_of(hours=0.5).lines()[-1]
    assert plan_of(hours=500.0).lines()[-1].endswith("half to twice of it. No new trial starts after 500 hours.")


def test_plan_is_plain_json_and_the_same_every_time():
    """The plan can be written as JSON, adds up, does not change from call to call, begins with documented trials."""
    written, again = (json.loads(json.dumps(plan_of(trials=2, summary=summary_of(test=0)).to_dict())) for _ in "12")
    assert written == again
    assert (written["data"]["train"], written["data"]["test"]) == (6_922, 0)
    assert written["disk_bytes"] == sum(stage["disk_bytes"] for stage in written["stages"])
    assert written["experiments"] == ["transfer/frozen", "transfer/frozen-augmented"]


def test_this_machine_has_the_gpus_that_may_be_used(monkeypatch):
    """At least one core; a process that is allowed no GPU plans without."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = this_machine()
    assert (machine.cores >= 1, machine.gpus) == (True, 0)


def test_a_scratch_sweep_trains_everything_and_caches_nothing():
    """Trials from scratch have packs, trainings and a test score; the documented ones run all their epochs."""
    work = work_of(family="scratch")
    assert set(work) == {"pack", "training", "test"}
    assert work["training"].count == 20
    basic = work_of("experiments=[scratch/basic]", family="scratch", trials=1)["training"]
    rates = rates_of(TrialConfig(backbone="scratch", depth=3), TWO_CORES)
    assert basic.seconds == pytest.approx(40 * (6_922 / rates.train + 1_222 / rates.infer))
    flat = 128 * 28 * 28 * 196
    assert basic.disk_bytes == pytest.approx(flat * 4 * 3, rel=0.01)


@pytest.mark.parametrize("family", ["transfer", "retrieval", "scratch"])
def test_the_demo_presets_of_all_families_are_planned_to_take_minutes(family):
    """The default run of each family is planned to fit into four minutes on two cores."""
    assert 30 < Plan(load_spec(family), DEMO, TWO_CORES).seconds < 240


def test_no_network_of_the_packaged_searches_is_too_large_for_its_images():
    """Every depth, stem and image size that a packaged search can combine leaves a pixel at the end."""
    for spec in (load_spec("scratch"), load_spec("scratch", overrides={"data": "/cars"})):
        for config in spec.configs_to_check("depth", "stem", "image_size"):
            assert config.image_size >= architecture_of(config).least_image_size


def test_retrieval_trials_share_what_they_have_in_common():
    """Trials that differ in k train and embed once; frozen ones train nothing."""
    experiments = "experiments=[retrieval/resnet50-k3-euclidean, retrieval/resnet50-k10-euclidean]"
    work = work_of(experiments, family="retrieval", trials=2)
    assert [work[kind].count for kind in ("training", "embeddings")] == [1, 1]
    alone = work_of("experiments=[transfer/finetuned]", "batch_size=64", trials=1)
    assert work["training"].seconds == alone["training"].seconds
    assert work["embeddings"].seconds == pytest.approx((6_922 + 1_222) / 51.0)
    assert work["embeddings"].disk_bytes == 3 * (6_922 + 1_222) * 2048 * 4
    sets = ("unfreezing=frozen", "experiments=[]", "backbone=resnet50", "flip=true", "augmentation_strength=1.0")
    frozen = work_of(*sets, family="retrieval", trials=12)
    assert set(frozen) == {"pack", "embeddings", "test"}
    assert frozen["embeddings"].count == 1


def test_confirmation_and_refit_are_counted():
    """3x3 is nine trainings more, a refit one, of the longest trials; the plan says so in words."""
    bare, confirmed = plan_of(), plan_of(confirm="3x3", refit=True)
    trainings = [sum(work.count for work in plan.work if work.kind == "training") for plan in (bare, confirmed)]
    assert trainings[1] == trainings[0] + 10
    assert (confirmed.spec.trials, confirmed.seconds > bare.seconds) == (bare.spec.trials, True)
    assert "Then the 3 best, with 3 fresh seeds each: 9 more trainings, which choose the winner." in confirmed.lines()
    assert (confirmed.to_dict()["confirming_runs"], confirmed.to_dict()["refit"]) == (9, True)


def test_of_an_archive_without_a_data_set_messages_name_the_archive(tmp_path: Path) -> None:
    """Not the folder in the store that it was unpacked to, which nobody has seen."""
    with zipfile.ZipFile(tmp_path / "cars.zip", "w") as file:
        file.writestr("readme.txt", "cars")
    with pytest.raises(DataError) as caught:
        list_images(DataConfig(path=str(tmp_path / "cars.zip")), tmp_path / "out")
    assert f"got '{tmp_path / 'cars.zip'}' with readme.txt" in str(caught.value)
    assert "stages" not in str(caught.value)
