"""The winner once more, on training and validation images: one task of Ray, where the trials ran.

It needs no journal: the store keeps its checkpoint after each epoch, and the model when it is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from carcls.machine import hold_gpus
from sweeps.resources import trial_resources
from sweeps.session import ray_session
from sweeps.worker import find

if TYPE_CHECKING:
    from carcls.config import TrialConfig
    from sweeps.spec import SweepSpec

MAX_DEATHS = 2


def run_refit(
    spec: SweepSpec, config: TrialConfig, dataset_file: Path, stages_root: Path, folder: Path, *, address: str | None
) -> str:
    """Train ``config`` on training and validation images, or find it trained; return its folder in the store.

    Args:
        spec: of the sweep; says what share of a machine a training gets.
        config: of the winner.
        dataset_file, stages_root, folder, address: as in ``run_trials``.

    Raises:
        TrialFailure: training cannot go on.
        OSError: its process died again and again, or wanted more memory than there is.
    """
    with ray_session(folder / "ray.log", address=address) as machines:
        share = trial_resources(spec, *machines)
        task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=MAX_DEATHS)(_refit)
        order = (config.model_dump(), str(dataset_file.resolve()), str(stages_root.resolve()), share.gpus)
        try:
            model = ray.get(task.remote(*order))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise OSError(f"its process died: {type(error).__name__}") from error
    return str(model)


def _refit(config: dict[str, Any], dataset_file: str, stages_root: str, gpus: float) -> str:
    from carcls.config import TrialConfig
    from carcls.stages import StageStore

    hold_gpus(gpus)
    data = find("carcls.data.dataset:Dataset.load")(Path(dataset_file)).refitted()
    stages = StageStore(Path(stages_root))
    model: str = find("carcls.families:refit_trial")(TrialConfig.model_validate(config), data, stages)
    return model
