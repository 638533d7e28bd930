"""Hyperparameter sweeps, on the command line and from Python (docs/python.md). Nothing loads before its use."""

TYPE_CHECKING = False  # typing itself is not loaded for it
if TYPE_CHECKING:
    from sweeps.api import Sweep, load_sweep, run_all, run_sweep

__all__ = ["Sweep", "load_sweep", "run_all", "run_sweep"]


def __getattr__(name: str) -> object:
    """Load what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("sweeps.api"), name)
