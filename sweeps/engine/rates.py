"""How fast a machine trains and infers, roughly: measured rates of known backbones, scaled. No torch.

The table was measured on two CPU cores with AMX; a GPU is taken to be like an A100. Estimates are within a factor of
two at best, and say so wherever they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.machine import usable_cores, visible_gpus
from sweeps.text import plural


@dataclass(frozen=True, slots=True)
class Machine:
    """What trials run on: CPU cores, whether they multiply bf16 matrices (AMX), and GPUs."""

    cores: int
    gpus: int = 0
    amx: bool = True

    def __str__(self) -> str:
        if self.gpus:
            return plural(self.gpus, "GPU")
        return plural(self.cores, "CPU core")


# Images per second at 224×224 on two cores, in the precision that "auto" takes: (training, inference).
_TWO_CORES = {"resnet50": (18.5, 51.0), "densenet121": (16.6, 75.0), "efficientnet_lite0": (18.0, 55.0)}
# ResNet-50 without bf16 trains 6.6 and infers 18.5 images per second on the same cores.
_FP32_SHARE = 0.36
# Scratch networks do their arithmetic at 0.6–1.2 of ResNet-50's speed (in fp32): their early maps are larger.
_SCRATCH_SHARE = 0.7
# What an A100 trains of ResNet-50 against two cores: 2,500 against 18.5 images per second.
_GPU_GAIN = 2_500 / 18.5


@dataclass(frozen=True, slots=True)
class Rates:
    """Images per second of one config on one machine, all of the machine at work."""

    train: float
    infer: float


def rates_of(config: TrialConfig, machine: Machine, network: BackboneRecord | None = None) -> Rates:
    """Return how many images per second ``config`` trains (all stages open) and infers on ``machine``.

    ``network`` has the backbone's figures; None takes the catalog's.
    """
    record = network or find_backbone(config.backbone)
    slow = record.bf16 and (config.precision == "fp32" or not machine.amx)
    on_cores = machine.cores / 2 * (_FP32_SHARE if slow else 1.0)
    scale = _relative_speed(record, config) * (_GPU_GAIN * machine.gpus if machine.gpus else on_cores)
    train, infer = _TWO_CORES.get(record.name, _TWO_CORES["resnet50"])
    return Rates(train * scale, infer * scale)


def _relative_speed(record: BackboneRecord, config: TrialConfig) -> float:
    """Return the speed at the trial's image size beside the measured one, or beside ResNet-50's by the arithmetic."""
    reference = find_backbone("resnet50").gmacs * 1e9
    if record.name == SCRATCH:
        return reference * _SCRATCH_SHARE / architecture_of(config).macs(config.image_size)
    scale = (224 / config.image_size) ** 2
    return scale if record.name in _TWO_CORES else scale * reference / (record.gmacs * 1e9)


def this_machine() -> Machine:
    """Return the machine this process runs on, as far as it may use it."""
    return Machine(cores=usable_cores(), gpus=visible_gpus(), amx=_has_amx())


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
