"""The baseline: the sweep that one writes by hand from the documentation of Ray Tune, Optuna, MLflow and torchvision.

    python benchmarks/plain_tune.py --data FOLDER --kind retrieval|frozen|finetune --out FOLDER [--trials N] [--seed N]

FOLDER holds train/<class>/*.jpg and val/<class>/*.jpg. Nothing is shared between trials: each does all that it needs.
Of carsweep it imports the backbone with its weights, so that both sides have the same network, and nothing else.
Prints one JSON object: wall seconds, best validation accuracy, and when which accuracy had been reached.
"""
# ruff: noqa: D103, E402 - one script of plain functions; its clock starts before the libraries are loaded

import time

START = time.time()
import argparse
import json
from pathlib import Path

import pandas as pd
import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from carcls.config import TrialConfig
from carcls.models.backbones import Backbone
from carcls.models.classifier import build_backbone_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLACE = {"device": DEVICE, "non_blocking": True}  # the weights being channels_last, what is computed is too
NUMBERS = {"trials": 16, "seed": 0, "epochs": 5, "size": 128, "batch-size": 32, "cpus": 1, "workers": 1}


def pretrained(name: str) -> Backbone:
    torch.backends.cudnn.benchmark, model = True, build_backbone_of(TrialConfig(backbone=name))
    return model.to(DEVICE, memory_format=torch.channels_last).eval()


def loader(args, split: str, size: int, model: Backbone, augment: bool = False) -> DataLoader:
    side = size * 8 // 7 if augment else size  # Resize(256) and RandomCrop(224), at any size
    steps = [v2.ToImage(), v2.Resize((side, side), v2.InterpolationMode.BICUBIC, antialias=True)]  # as timm has it
    if augment:
        steps += [v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.RandomRotation(15, v2.InterpolationMode.BILINEAR)]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(model.mean, model.std)]
    images = ImageFolder(args.data / split, v2.Compose(steps), allow_empty=True)
    options = {"num_workers": args.workers, "persistent_workers": args.workers > 0, "pin_memory": DEVICE == "cuda"}
    return DataLoader(images, args.batch_size * (1 if augment else 2), shuffle=augment, **options)


def retrieval(config: dict, args) -> None:
    torch.set_num_threads(args.cpus)
    model, found = pretrained(args.backbone), {}
    with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
        for split in ("train", "val"):
            batches = [(model(x.to(**PLACE)).float().cpu(), y) for x, y in loader(args, split, config["size"], model)]
            found[split] = [torch.cat(parts).numpy() for parts in zip(*batches, strict=True)]
    vote = {"n_neighbors": config["k"], "metric": config["distance"], "weights": config["vote"]}
    knn = KNeighborsClassifier(**vote, algorithm="brute", n_jobs=args.cpus).fit(*found["train"])
    tune.report({"val_accuracy": float(knn.score(*found["val"])), "at": time.time()})


def transfer(config: dict, args) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.cpus)
    model, tuned = pretrained(args.backbone), args.kind == "finetune"
    train, valid = loader(args, "train", args.size, model, augment=True), loader(args, "val", args.size, model)
    head = nn.Sequential(nn.Dropout(config["dropout"]), nn.Linear(model.embedding, len(train.dataset.class_to_idx)))
    groups = [{"params": head.to(DEVICE).parameters(), "lr": config["head_lr"]}]
    groups += [{"params": model.parameters(), "lr": config["backbone_lr"]}] if tuned else []
    optimizer = torch.optim.AdamW(groups, weight_decay=config["weight_decay"], fused=DEVICE == "cuda")
    rates, steps = [group["lr"] for group in groups], args.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, cycle_momentum=False)
    loss_of = nn.CrossEntropyLoss(label_smoothing=config["label_smoothing"])
    for _ in range(args.epochs):
        model.train(tuned), head.train()
        for images, labels in train:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
                with torch.set_grad_enabled(tuned):
                    embeddings = model(images.to(**PLACE))
                loss = loss_of(head(embeddings).float(), labels.to(DEVICE, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step(), schedule.step()
        model.eval(), head.eval()
        with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
            hits = sum(int((head(model(x.to(**PLACE))).argmax(1).cpu() == y).sum()) for x, y in valid)
        tune.report({"val_accuracy": hits / len(valid.dataset), "at": time.time()})


def bf16_helps(args) -> bool:  # told by timing both on what the trials will do most
    torch.set_num_threads(args.cpus)
    model, seconds = pretrained(args.backbone).train(args.kind == "finetune"), {False: [], True: []}
    images = torch.rand(args.batch_size, 3, args.size, args.size).to(**PLACE)
    for bf16 in [False, True] * 4:
        start = time.perf_counter()
        with torch.set_grad_enabled(model.training), torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            total = model(images).float().sum()
        _ = total.backward() if model.training else total.item()
        seconds[bf16].append(time.perf_counter() - start)
    return min(seconds[True]) < 0.95 * min(seconds[False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("retrieval", "frozen", "finetune"), required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128], help="of retrieval, an extractor each")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--no-early-stopping", action="store_true")
    args = parser.parse_args()
    args.data, args.out, args.bf16 = args.data.resolve(), args.out.resolve(), DEVICE == "cuda" or bf16_helps(args)
    ray.init(include_dashboard=False, log_to_driver=False)
    at_once, grid = max(1, int(ray.cluster_resources()["CPU"]) // args.cpus), tune.grid_search
    share = {"cpu": args.cpus, "gpu": 1 / at_once if DEVICE == "cuda" else 0}  # a GPU waits for what the cores decode
    votes = {"k": grid([1, 5, 10]), "distance": grid(["euclidean", "cosine"]), "vote": grid(["uniform", "distance"])}
    space = {"dropout": tune.uniform(0.0, 0.7), "head_lr": tune.loguniform(5e-4, 1e-2)}
    space |= {"weight_decay": tune.loguniform(1e-6, 1e-2), "label_smoothing": tune.choice([0.0, 0.1])}
    space |= {"backbone_lr": tune.loguniform(1e-4, 3e-3)} if args.kind == "finetune" else {}
    options = {"max_concurrent_trials": at_once, "reuse_actors": True}
    trial, asha = retrieval if args.kind == "retrieval" else transfer, not args.no_early_stopping
    if trial is transfer:  # the grid of retrieval has all combinations once
        stopper = ASHAScheduler(max_t=args.epochs, grace_period=max(1, args.epochs // 5), reduction_factor=3)
        options |= {"search_alg": OptunaSearch(seed=args.seed), "num_samples": args.trials}
        options |= {"scheduler": stopper} if asha else {}
    tracking = MLflowLoggerCallback(f"sqlite:///{args.out}/mlflow.db", experiment_name=args.kind)
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(trial, args=args), share),
        param_space=votes | {"size": grid(args.sizes)} if trial is retrieval else space,
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", **options),
        run_config=tune.RunConfig("sweep", str(args.out), callbacks=[tracking], verbose=0),
    ).fit()
    reports = pd.concat(result.metrics_dataframe for result in results).sort_values("at")
    steps = reports.assign(best=reports["val_accuracy"].cummax()).drop_duplicates("best")
    told = {"kind": args.kind, "wall_seconds": round(time.time() - START, 2), "best_accuracy": steps["best"].max()}
    told |= {"timeline": list(zip((steps["at"] - START).round(2), steps["best"], strict=True))}
    told |= {"trials": len(results), "failed": results.num_errors, "reports": len(reports)}
    print(json.dumps(told | {"bf16": args.bf16, "cpus": args.cpus, "workers": args.workers}))


if __name__ == "__main__":
    main()
