"""Which registered model a family's winner becomes a version of: by the name of the data that it was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from carcls.catalog import FAMILIES
from carcls.config import digest_of
from carcls.data.config import DEMO_NAME
from carcls.errors import InputError, TrackingError
from sweeps.tracking.names import DATA, FAMILY, experiment_name
from sweeps.tracking.store import Tracking, explained

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

# Of the demo cars' models, and of no other data's.
_DEMO = "demo"
_LONGEST = 80
# MLflow gives no more registered models at a time.
_MOST = 1000


def names_for(family: str, data: str) -> Iterator[str]:
    """Yield the names that models of a family may have by the name of their data, the first choice first.

    Whatever the data is called, they are names that MLflow, its URIs and its filters take.

    >>> [*names_for("transfer", "Stanford Cars")][:2], next(names_for("transfer", "demo-cars"))
    (['carsweep-transfer', 'carsweep-transfer-Stanford-Cars'], 'carsweep-transfer-demo')
    """
    plain = experiment_name(family)
    yield f"{plain}-{_DEMO}" if data == DEMO_NAME else plain
    own = re.sub(r"[^\w.-]+", "-", data).strip("-.")[:_LONGEST]
    if own not in ("", _DEMO):
        yield f"{plain}-{own}"
    yield f"{plain}-{digest_of(data)}"


def claim_name(client: MlflowClient, family: str, data: str, wanted: str | None, about: str) -> str:
    """Return the name of the registered model that a family's winner on this data goes to, made where it is missing.

    A name belongs to the data that it was first made for. Models that older versions made say so in the tags of their
    versions, and go on under the name that they have.

    Args:
        client: of the registry.
        family, data: what was swept, and what its data is called.
        wanted: the name that the user gave; None goes by the data.
        about: describes a model that is made.

    Raises:
        TrackingError: ``wanted`` belongs to another family.
    """
    if wanted is not None:
        require_family(client, wanted, family)  # again, since another sweep may have made it meanwhile
    names = [wanted] if wanted is not None else [*names_for(family, data)]

    def is_ours(name: str) -> bool:
        found = _find(client, name)
        return found is not None and (name == wanted or _owner(found) == data)

    for name in names if wanted else (*names, experiment_name(family)):
        if is_ours(name):
            if wanted:  # somebody may have made it without carsweep
                client.set_registered_model_tag(name, FAMILY, family)
            return name
    tags = {FAMILY: family} | ({} if wanted else {DATA: data})
    for name in names:
        try:
            client.create_registered_model(name, tags=tags, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process may have been faster
                raise
        if is_ours(name):
            return name
    raise TrackingError(f"no name is free for models of {data!r}: {', '.join(names)}. Give one with --model-name.")


def require_family(client: MlflowClient, name: str, family: str) -> None:
    """Check that a registered model, if there is one of this name, is of the family.

    Raises:
        TrackingError: it is of another one.
    """
    found = _find(client, name)
    other = "" if found is None else _family_of(found)
    if other not in ("", family):
        raise TrackingError(
            f"--model-name must be of {family} models, got {name!r}, which has {other}'s. Give another."
        )


def models_of(client: MlflowClient, family: str) -> list[str]:
    """Return the names of a family's registered models that have versions, the one with the newest version first."""
    newest = {
        model.name: max(version.creation_timestamp for version in model.latest_versions)
        for model in client.search_registered_models(max_results=_MOST)
        if model.latest_versions and _family_of(model) == family
    }
    return sorted(newest, key=lambda name: (-newest[name], name))


def newest_model(tracking: Tracking, family: str) -> str:
    """Return the name that FAMILY means in a command: the family's registered model with the newest version.

    Raises:
        InputError: the family has no registered model here.
        TrackingError: the store does not answer.
    """
    with explained(tracking):
        names = models_of(tracking.client(), family)
    if not names:
        raise InputError(
            f"FAMILY must have a registered model, got {family!r}, and {tracking.shown_uri} has none. "
            f"Run `carsweep run {family}` first, or name its store with --out or --tracking-uri."
        )
    return names[0]


def _find(client: MlflowClient, name: str) -> RegisteredModel | None:
    """Return a registered model; getting one that is not there raises, whatever the store."""
    return next(iter(client.search_registered_models(f"name = '{name}'")), None)


def _family_of(model: RegisteredModel) -> str:
    """Return the family of a registered model, which those of older versions have in their names; else nothing."""
    named = (family for family in FAMILIES if f"{model.name}-".startswith(f"{experiment_name(family)}-"))
    return str(model.tags.get(FAMILY) or max(named, key=len, default=""))


def _owner(model: RegisteredModel) -> str:
    """Return the name of the data that a registered model belongs to: its own tag, else its newest version's."""
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    return str(model.tags.get(DATA) or (newest.tags.get("data", "") if newest else ""))
