"""Parts of benchmarks/gpu.py that need no sweep: batches, steps, neighbours, answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import torch
from epoch import bare_epoch, trainer_of, training_epoch
from gpu_part import Part, on_a_gpu, utilisation

from carcls.config import Distance, TrialConfig
from carcls.data.augment import Augmentation, augmentation_of
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.export import load_export
from carcls.families import export_trial, run_trial
from carcls.machine import PACK_SHARE
from carcls.models.classifier import build_classifier
from carcls.neighbours import search
from carcls.stages import StageStore
from carcls.training import images, measured
from carcls.training.images import ImageSource, NumberFormat, View, batches, pick_device

CHANGES = {"crop": "resized", "flip": True, "rotation": 15.0, "jitter": 0.2}


def config_of(part: Part, **changes: Any) -> TrialConfig:
    """Return a fine-tuning with all augmentation, at 224 pixels unless only the script is tried."""
    of_size: dict[str, Any] = {"backbone": "efficientnet_lite0", "image_size": 224, "batch_size": 32}
    if part.tiny:
        of_size = {"family": "scratch", "depth": 2, "width": 4, "stem": "none", "image_size": 32, "batch_size": 8}
    fields = {"weights": "random", "unfreezing": "full", "epochs": 2, "backbone": "scratch"}
    return TrialConfig.model_validate({**fields, **CHANGES, **of_size, **changes})


@on_a_gpu
def pack(part: Part) -> None:
    """The pack in the GPU's memory: batches and trainings are those from the host; images/s of both."""
    config = config_of(part)
    count, side = 2048, config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    augmentation = augmentation_of(config)
    assert augmentation is not None
    sources, taken = {}, {}
    for name, share in (("gpu", PACK_SHARE), ("host", 0.0)):
        with patch.object(images, "PACK_SHARE", share):
            before = torch.cuda.memory_allocated()
            sources[name] = ImageSource(pixels, (0.5,) * 3, (0.25,) * 3, pick_device())
            list(sources[name].stream([np.arange(8)]))  # only now it is decided where the pixels are
            taken[name] = torch.cuda.memory_allocated() - before
    part.claim("the pixels are where they should be", taken["gpu"] >= pixels.nbytes > taken["host"], taken)
    parts = list(batches(256, 32, torch.from_numpy(np.random.default_rng(1).permutation(count)[:256])))
    for view, what in ((None, "as they are"), (View(augmentation, 0, 1), "augmented")):
        first, second = (torch.cat(list(source.stream(parts, view))) for source in sources.values())
        apart = float((first - second).abs().max())
        part.claim(f"batches {what} are equal, bit by bit", torch.equal(first, second), apart)
    for name, source in sources.items():
        part.figures(**{f"images_per_second_{name}": round(stream_rate(source, augmentation, config.batch_size))})
    histories = []
    for share in (PACK_SHARE, 0.0):
        with patch.object(images, "PACK_SHARE", share):
            trainer = trainer_of(config, 8, "bf16", part.place)
            for number in range(2):
                trainer.run_epoch(number)
            histories.append([metrics["train_loss"] for metrics in trainer.progress.history])
    part.claim("two epochs of training have equal losses", histories[0] == histories[1], histories)


def stream_rate(source: ImageSource, augmentation: Augmentation, batch: int, seconds: float = 2.0) -> float:
    """Return how many augmented images a second come when nobody trains on them."""
    done, epoch, start = 0, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        order = torch.randperm(len(source.pixels), generator=torch.Generator().manual_seed(epoch))
        parts = list(batches(len(source.pixels), batch, order))
        done += sum(len(found) for found in source.stream(parts, View(augmentation, 0, epoch)))
        epoch += 1
        synchronize()
    return done / (time.perf_counter() - start)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def neighbours(part: Part) -> None:
    """Neighbours found on the device are those of all float64 distances, equal images among them; seconds of both."""
    queries, gallery, width = (40, 300, 64) if part.tiny else (1303, 5212, 1280)
    random, device = np.random.default_rng(0), pick_device()
    held = random.normal(size=(gallery, width)).astype(np.float32)
    held[gallery // 2 : gallery // 2 + 20] = held[:20]  # equal images: the first of them is the nearer one
    asked = (held[:queries] + random.normal(size=(queries, width), scale=0.5)).astype(np.float32)
    for distance in get_args(Distance):
        search.find_neighbours(asked[:8], held, 20, distance, device=device)
        start = time.perf_counter()
        found = search.find_neighbours(asked, held, 20, distance, device=device)
        seconds = time.perf_counter() - start
        exact = float64_distances(asked, held, distance, device)  # [q, g]
        right = exact.sort(dim=1, stable=True)
        equal = int((right.indices[:, :20].cpu().numpy() == found.indices).all(axis=1).sum())
        apart = float(np.abs(right.values[:, :20].cpu().numpy() - found.distances).max())
        part.claim(f"{distance}: all queries have the neighbours of float64", equal == queries, f"{equal} of {queries}")
        part.figures(**{f"{distance}_seconds": round(seconds, 4), f"{distance}_largest_difference": apart})


def float64_distances(asked: Any, held: Any, distance: str, device: torch.device) -> torch.Tensor:
    """Return all distances, float64 [q, g], without the trick that loses digits."""
    first, second = (torch.from_numpy(vectors).to(device, torch.float64) for vectors in (asked, held))
    if distance == "cosine":
        first, second = (torch.nn.functional.normalize(vectors, eps=0.0) for vectors in (first, second))
        return torch.stack([1 - (second * query).sum(dim=1) for query in first])  # equal images are equally far
    distances: torch.Tensor = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def export(part: Part) -> None:
    """A model that was trained here answers on the CPU as it did: share of equal classes, largest difference."""
    stages = StageStore(part.place / "stages")
    size = config_of(part).image_size
    data = prepare_dataset(DataConfig(path=str(part.cars.folder)), stages, size)
    for precision, least, most in (("fp32", 0.99, 0.01), ("bf16", 0.95, 0.1)):
        config = config_of(
            part, weights="random" if part.tiny else "auto", precision=precision, epochs=1 if part.tiny else 3
        )
        outcome = run_trial(config, data, stages, lambda _: None)
        export_trial(config, data, stages, outcome.model, part.place / precision)
        with np.load(stages.root / outcome.predictions) as kept:
            rows, here = kept["rows"], kept["probabilities"]
        there = load_export(part.place / precision).probabilities(np.array(data.pixels(stages, size)[rows]))
        equal = float((there.argmax(axis=1) == here.argmax(axis=1)).mean())
        apart = float(np.abs(there - here).max())
        if (
            precision == "fp32" or not part.tiny
        ):  # bf16 turns near ties over, and one of a tiny part's few images is much
            part.claim(f"{precision}: the share of equal classes", equal >= least, round(equal, 4), f"≥ {least}")
        part.claim(f"{precision}: the largest difference of probabilities", apart <= most, apart, f"≤ {most}")
        part.figures(**{f"{precision}_images": len(rows), f"{precision}_accuracy": outcome.metrics["val_accuracy"]})


def precision(part: Part) -> None:
    """What the probe of the number format took, and images/s of training in both formats and both memory layouts."""
    config, device, stages = config_of(part), pick_device(), StageStore(part.place / "stages")
    for frozen in (False, True):
        start = time.perf_counter()
        taken = measured.resolve_precision(config, device, stages, frozen=frozen)
        part.figures(**{f"taken_{'frozen' if frozen else 'training'}": taken})
        part.figures(**{f"probe_seconds_{'frozen' if frozen else 'training'}": round(time.perf_counter() - start, 2)})
    part.figures(
        probed=[json.loads(file.read_text()) for file in sorted(stages.root.glob("precision/*/precision.json"))]
    )
    can = measured.has_bf16(device)
    rates: dict[NumberFormat, dict[str, float]] = {"fp32": {}, "bf16": {}} if can else {"fp32": {}}
    for form, of_layout in rates.items():
        for layout in (torch.channels_last, torch.contiguous_format):
            seconds = step_seconds(config, form, layout, 2 if part.tiny else 30)
            of_layout[str(layout).removeprefix("torch.")] = round(config.batch_size / seconds, 1)
    part.figures(images_per_second=rates)
    # Small batches may wait for the host, in either format; trials that share a GPU keep it busy as a large one does.
    large = config.model_copy(update={"batch_size": 16 if part.tiny else 256})
    seconds_of_large = {form: step_seconds(large, form, torch.channels_last, 2 if part.tiny else 10) for form in rates}
    rates_of_large = {form: round(large.batch_size / seconds, 1) for form, seconds in seconds_of_large.items()}
    part.figures(**{f"images_per_second_at_{large.batch_size}": rates_of_large})
    taken = measured.resolve_precision(config, device, stages)
    rate_of = {form: rate["channels_last"] for form, rate in rates.items()}
    lost = round(max(rate_of.values()) / rate_of[taken], 2)
    # bf16 must gain so much to be taken, and the probe's batch is another one.
    part.speed("the other format's images/s, against those of the format that is taken", lost, "≤", measured.GAIN)
    ratio = rates[taken]["channels_last"] / rates[taken]["contiguous_format"]
    part.speed("channels_last in it, against contiguous", round(ratio, 2), "≥", 0.95)


def step_seconds(config: TrialConfig, form: NumberFormat, layout: torch.memory_format, steps: int) -> float:
    """Return the least seconds of a training step on one batch, of three rounds."""
    device = pick_device()
    network = build_classifier(config, 196).to(device, memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    shape = (config.batch_size, 3, config.image_size, config.image_size)
    batch = torch.rand(shape, device=device).contiguous(memory_format=layout)
    labels = torch.randint(196, (config.batch_size,), device=device)
    rounds = []
    for _ in range(4):
        synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with images.autocast(device, form):
                embeddings = network.embed(batch)
            loss = torch.nn.functional.cross_entropy(network.classify(embeddings.float()), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        synchronize()
        rounds.append((time.perf_counter() - start) / steps)
    return min(rounds[1:])


def epoch(part: Part) -> None:
    """An epoch of fine-tuning against bare forward, backward and step, at batches of 32 and 128; images/s of both."""
    for batch in (4, 8) if part.tiny else (32, 128):
        config, steps = config_of(part, batch_size=batch), 3 if part.tiny else 60
        taken = measured.resolve_precision(config, pick_device(), StageStore(part.place / "stages"))
        ours, bare = training_epoch(config, steps, taken, part.place), bare_epoch(config, steps, taken)
        ours(), bare(), ours(), bare()
        end, pairs = time.perf_counter() + (1 if part.tiny else 30), [(ours(), bare())]
        while time.perf_counter() < end or len(pairs) < 3:
            pairs.append((ours(), bare()))
        ratio = median(our / other for our, other in pairs)
        rates = [round(steps * batch / median(side)) for side in zip(*pairs, strict=True)]
        part.figures(**{f"images_per_second_at_{batch}": {"epoch": rates[0], "bare": rates[1], "format": taken}})
        part.speed(f"an epoch at {batch} images a batch, against bare steps", round(ratio, 3), "≤", 1.05)


def busy(part: Part) -> None:
    """Is the GPU busy while it trains? By nvidia-smi, by bare steps between CUDA events, and by what kernels take."""
    config = config_of(part, batch_size=8 if part.tiny else 128)
    steps, seconds = (3, 0.5) if part.tiny else (60, 8.0)
    bare, wait = bare_epoch(config, steps, "bf16"), 0.0
    bare()
    event_ms, kernel_ms = bare_milliseconds(bare, steps)
    with utilisation() as of_bare:  # not while the profile is read, for seconds
        wait = seconds_of(bare, seconds)
    part.figures(
        bare_step_ms=round(1000 * wait / steps, 3), bare_step_event_ms=event_ms, kernels_of_a_step_ms=kernel_ms
    )
    part.figures(bare_utilisation=of_bare())
    for where, share in (("gpu", PACK_SHARE), ("host", 0.0)):
        with patch.object(images, "PACK_SHARE", share):
            ours = training_epoch(config, steps, "bf16", part.place)
            ours()
            with utilisation() as of_ours:
                wall = 1000 * seconds_of(ours, seconds) / steps
        filled = None if event_ms is None else round(event_ms / wall, 3)
        part.figures(**{f"step_ms_pack_on_{where}": round(wall, 3)})
        part.speed(f"utilisation, pack on the {where}", of_ours(), "≥", 95, " %")
        part.speed(f"bare steps fill an epoch, pack on the {where}", filled, "≥", 0.95, "")
        if part.tiny:
            break  # on a CPU both are the same


def bare_milliseconds(bare: Callable[[], float], steps: int) -> tuple[float | None, float | None]:
    """Return the milliseconds of a bare step between CUDA events, and those of its kernels alone; None on a CPU."""
    if not torch.cuda.is_available():
        return None, None
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    bare()
    end.record()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        bare()
    kernels = sum(event.self_device_time_total for event in profile.key_averages())
    return round(start.elapsed_time(end) / steps, 3), round(kernels / 1000 / steps, 3)


def seconds_of(run: Callable[[], float], least: float) -> float:
    """Repeat for so many seconds; return the median."""
    took = [run()]
    while sum(took) < least:
        took.append(run())
    return median(took)
