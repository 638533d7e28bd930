"""Plans: what is shared, and how time and space follow the numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from carcls.config import TrialConfig
from sweeps.plan import make_plan
from sweeps.rates import Machine, detect_machine, rates_of
from sweeps.spec import load_spec

TWO_CORES = Machine(cores=2)


@dataclass(frozen=True)
class Summary:
    """The numbers of a data set."""

    name: str = "stanford_cars"
    images: int = 16_185
    classes: int = 196
    train: int = 6_922
    validation: int = 1_222
    test: int = 8_041


DEMO = Summary("demo cars", images=1_100, classes=24, train=700, validation=120, test=280)


def plan_of(*sets, summary=None, machine=TWO_CORES, **overrides):
    """Plan a sweep of real data at the documented scale."""
    spec = load_spec("transfer", sets=sets, overrides={"data": "/cars", **overrides})
    return make_plan(spec, summary or Summary(), machine)


def stages_of(plan):
    """Return the plan's stages by kind."""
    return {stage.kind: stage for stage in plan.stages}


def test_all_trials_share_one_pack_of_known_size():
    """Images are decoded once for all trials, at three bytes a pixel."""
    pack = stages_of(plan_of())["pack of decoded images"]
    assert (pack.count, pack.trials, pack.disk_bytes) == (1, 20, 16_185 * 224 * 224 * 3)


def test_each_image_size_needs_a_pack_of_its_own():
    """Searching two image sizes decodes twice."""
    plan = plan_of("search.image_size=[96, 128]", "experiments=[]", "fixed.image_size=null", trials=30)
    assert stages_of(plan)["pack of decoded images"].count == 2


def test_frozen_trials_that_augment_equally_share_their_views():
    """Twenty frozen trials with one augmentation compute as many views as there are epochs, and no more."""
    plan = plan_of(
        "unfreezing=frozen", "augmentation_strength=1.0", "crop=random", "jitter=0.0", "flip=true", "rotation=15"
    )
    views = stages_of(plan)["features of augmented views"]
    assert (views.count, views.trials) == (10, 20)
    assert views.disk_bytes == 10 * 6_922 * 2048 * 4
    assert views.seconds == pytest.approx(10 * 6_922 / 51.0)


def test_a_sweep_without_frozen_trials_caches_no_features():
    """Stages that nobody needs are not in the plan."""
    kinds = stages_of(plan_of("unfreezing=full"))
    assert "features of augmented views" not in kinds
    assert "features of plain images" not in kinds


def test_a_fine_tuning_takes_the_measured_time():
    """One full fine-tuning of ResNet-50 is its images over the measured rates of two cores."""
    plan = plan_of("experiments=[transfer/finetuned]", trials=1)
    expected = 10 * (6_922 / 18.5 + 1_222 / 51.0)
    assert stages_of(plan)["training"].seconds == pytest.approx(expected)


def test_opening_fewer_stages_takes_less_time():
    """A progressive schedule costs less than a full one and more than a frozen one."""
    times = [plan_of(f"unfreezing={name}", trials=4) for name in ("frozen", "progressive", "full")]
    frozen, progressive, full = (stages_of(plan)["training"].seconds for plan in times)
    assert frozen < progressive < full


def test_early_stopping_saves_time_on_searched_trials_only():
    """Stopping shortens a sweep with searched trials, and not one of documented experiments alone."""
    off = "early_stopping.enabled=false"
    assert plan_of().seconds < 0.7 * plan_of(off).seconds
    assert plan_of(trials=3).seconds == plan_of(off, trials=3).seconds


def test_more_machine_is_less_time():
    """Twice the cores take half the computing time, smaller images less, a GPU far less, no bf16 more."""
    seconds = {machine: plan_of(machine=machine).seconds for machine in (TWO_CORES, Machine(4), Machine(2, gpus=1))}
    assert seconds[Machine(4)] == pytest.approx(seconds[TWO_CORES] / 2, rel=0.02)
    assert seconds[Machine(2, gpus=1)] < seconds[TWO_CORES] / 50
    assert plan_of(machine=Machine(2, amx=False)).seconds > 2 * seconds[TWO_CORES]
    assert plan_of("image_size=112").seconds < 0.3 * seconds[TWO_CORES]


def test_trials_without_gpus_are_planned_on_the_cores():
    """--gpus-per-trial 0 plans on the CPU even where there is a GPU."""
    machine = Machine(2, gpus=1)
    assert plan_of(machine=machine, gpus_per_trial=0.0).seconds == plan_of().seconds


def test_rates_follow_the_documented_table():
    """Known backbones have their measured rates, others follow from their arithmetic, a GPU trains 2,500 images/s."""
    assert rates_of(TrialConfig(), TWO_CORES).train == 18.5
    assert rates_of(TrialConfig(backbone="efficientnet_lite0"), TWO_CORES).infer == 55.0
    assert rates_of(TrialConfig(backbone="efficientnet_lite0", image_size=128), TWO_CORES).train == pytest.approx(
        55, 0.01
    )
    assert rates_of(TrialConfig(backbone="timm:convnext_tiny"), TWO_CORES).train == pytest.approx(18.5 * 4.09 / 4.0)
    assert rates_of(TrialConfig(), Machine(8, gpus=1)).train == pytest.approx(2_500)


def test_the_demo_preset_is_planned_to_take_minutes():
    """The default run is planned to fit into four minutes on two cores."""
    plan = make_plan(load_spec("transfer"), DEMO, TWO_CORES)
    assert 30 < plan.seconds < 240


def test_lines_say_what_is_run_shared_and_guessed():
    """The printed plan names experiments, their changes, the search, the stages, disk and time, and calls it rough."""
    text = "\n".join(make_plan(load_spec("transfer"), DEMO, TWO_CORES).lines())
    for expected in (
        "demo cars (1,100 images, 24 classes; 700 train, 120 validation, 280 test)",
        "Trials: 8 (3 documented experiments, then 5 searched)",
        "transfer/finetuned with backbone efficientnet_lite0 instead of resnet50",
        "scaled down",
        "frozen | progressive | full",
        "pack of decoded images",
        "Disk: about",
        "on 2 CPU cores. A rough estimate",
    ):
        assert expected in text
    assert "transfer/frozen, as documented" in "\n".join(plan_of().lines())


def test_a_limit_that_comes_first_is_said():
    """A plan that takes longer than --hours says that the limit ends it."""
    assert "The limit of 0.5 hours comes first" in plan_of(hours=0.5).lines()[-1]
    assert "limit" not in plan_of(hours=500.0).lines()[-1]


def test_fewer_trials_than_experiments_plans_the_first_ones():
    """Two trials are the first two documented experiments."""
    assert plan_of(trials=2).experiments == ("transfer/frozen", "transfer/frozen-augmented")


def test_plan_is_plain_json_and_the_same_every_time():
    """The plan can be written as JSON, adds up, and does not change from call to call."""
    plan = plan_of()
    written = json.loads(json.dumps(plan.to_dict()))
    assert written == json.loads(json.dumps(plan_of().to_dict()))
    assert written["data"]["train"] == 6_922
    assert written["disk_bytes"] == sum(stage["disk_bytes"] for stage in written["stages"])


def test_a_data_set_without_a_test_split_has_a_plan():
    """A data set without test images is planned all the same."""
    assert plan_of(summary=replace(Summary(), test=0)).seconds > 0


def test_this_machine_is_found_without_torch():
    """The machine at hand has at least one core and no negative number of GPUs."""
    machine = detect_machine()
    assert machine.cores >= 1
    assert machine.gpus >= 0


def test_hidden_gpus_do_not_count(monkeypatch):
    """A process that is allowed no GPU plans without."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_machine().gpus == 0
