"""What a sweep ran with: versions of the libraries that matter, and the machine of its driver."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from carcls.errors import InputError
from carcls.machine import gpu_kind, usable_cores, visible_gpus

_LIBRARIES = ("carsweep", "torch", "torchvision", "timm", "ray", "optuna", "mlflow")


def environment_here() -> dict[str, str]:
    """Return versions and machine by name, as texts; what is not installed has none. Imports nothing that is named."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    found |= {"machine": platform.platform(), "cpu_cores": str(usable_cores())}
    with suppress(InputError):
        found["gpus"] = f"{visible_gpus()} {gpu_kind()}".strip()
    return found
