"""cluster/ holds a manifest that Kubernetes could read and a command that carsweep takes, and no Python."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from helpers import commands_of

from sweeps.cli.app import carsweep
from sweeps.cli.options import repeat_set

CLUSTER = Path(__file__).resolve().parents[3] / "cluster"


def manifest() -> dict[str, Any]:
    """Return the RayJob."""
    read: dict[str, Any] = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text(encoding="utf-8"))
    return read


def test_the_entrypoint_is_a_command_that_carsweep_takes() -> None:
    """It is KubeRay's, every word of its command is known, and the trials run on the cluster that the job has."""
    program, *words = shlex.split(manifest()["spec"]["entrypoint"])
    assert (manifest()["apiVersion"], manifest()["kind"]) == ("ray.io/v1", "RayJob")
    commands = dict(commands_of(carsweep))
    name = " ".join(words[:2])
    parsed = commands[name].make_context(name, repeat_set(words[2:]))
    assert (program, parsed.params["address"], parsed.params["out"].is_absolute()) == ("carsweep", "auto", True)


def test_all_machines_see_the_same_folder() -> None:
    """Head and workers have the same image and the same mounts, and the command's folder lies in the shared one."""
    cluster = manifest()["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({container["image"] for container in containers}) == 1
    assert all(mount == containers[0]["volumeMounts"] for mount in (c["volumeMounts"] for c in containers))
    assert any(mount["mountPath"] == "/shared" for mount in containers[0]["volumeMounts"])


def test_there_is_no_python_here() -> None:
    """A package called cluster would be installed into the user's environment."""
    assert not list(CLUSTER.rglob("*.py"))
