"""What the registered models of a family are called, in a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from carcls.errors import InputError, TrackingError
from sweeps.spec.loading import load_spec
from sweeps.tracking.names import FAMILY
from sweeps.tracking.naming import claim_name, models_of, newest_model
from sweeps.tracking.store import Tracking, check_tracking

ODD = ["a/b:c", "汽车", "'; drop", "x" * 300, "..", "models@home", "demo", "🚗", ""]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database, as MLflow makes it."""
    tracking = check_tracking(None, tmp_path_factory.mktemp("template"))
    tracking.client()
    assert tracking.file is not None
    return tracking.file.read_bytes()


@pytest.fixture
def tracking(template: bytes, tmp_path: Path) -> Tracking:
    """A registry of its own."""
    (tmp_path / "mlflow.db").write_bytes(template)
    return check_tracking(None, tmp_path)


@pytest.fixture
def client(tracking: Tracking) -> MlflowClient:
    """Asks it."""
    return tracking.client()


def register(client: MlflowClient, data: str, wanted: str | None = None, family: str = "transfer") -> str:
    """Make a version as a sweep does; return the name that it got."""
    name = claim_name(client, family, data, wanted, "a model")
    client.create_model_version(name, "file:///tmp", tags={"data": data})
    return name


def test_each_data_name_has_a_model_of_its_own(tracking: Tracking, client: MlflowClient) -> None:
    """The demo's, the first data's, and the second's by its name; FAMILY is the one with the newest version."""
    names = [register(client, data) for data in ("demo-cars", "cars", "Fleet 2026", "cars", "demo-cars")]
    plain, demo = "carsweep-transfer", "carsweep-transfer-demo"
    assert names == [demo, plain, f"{plain}-Fleet-2026", plain, demo]
    assert newest_model(tracking, "transfer") == demo
    assert register(client, "Fleet 2026", family="scratch") == "carsweep-scratch"
    assert models_of(client, "transfer") == [demo, plain, f"{plain}-Fleet-2026"]
    with pytest.raises(InputError, match="Run `carsweep run retrieval` first"):
        newest_model(tracking, "retrieval")


def test_a_name_that_the_user_gives_is_of_one_family(tracking: Tracking, client: MlflowClient) -> None:
    """It goes before the rule, is found as the family's, and refuses another family's models."""
    register(client, "cars")
    assert register(client, "cars", "bonnets") == "bonnets"
    assert newest_model(tracking, "transfer") == "bonnets"
    assert register(client, "vans", "bonnets") == "bonnets"
    assert register(client, "cars") == "carsweep-transfer"
    with pytest.raises(TrackingError, match="must be of scratch models, got 'bonnets', which has transfer's"):
        register(client, "cars", "bonnets", "scratch")


@pytest.mark.parametrize("data", ODD)
def test_whatever_data_is_called_its_models_have_a_name(data: str, client: MlflowClient) -> None:
    """MLflow takes it, its URI loads it, and other data that looks alike has another name."""
    register(client, "cars")
    name = register(client, data)
    assert str(client.get_model_version(name, "1").version) == "1"
    assert register(client, data) == name
    assert not {"/", ":", "@", "'"} & set(name)
    assert register(client, data.replace("/", "|") + "!") != name
    assert register(client, "demo-cars") == "carsweep-transfer-demo"


def test_models_of_older_versions_go_on_under_their_names(tracking: Tracking, client: MlflowClient) -> None:
    """Without tags of its own, a model belongs to the data of its newest version, the demo's too."""
    client.create_registered_model("carsweep-transfer")
    client.create_model_version("carsweep-transfer", "file:///tmp", tags={"data": "demo-cars"})
    client.create_registered_model("carsweep-transferred")  # somebody's
    client.create_model_version("carsweep-transferred", "file:///tmp")
    assert FAMILY not in client.get_registered_model("carsweep-transfer").tags
    assert newest_model(tracking, "transfer") == "carsweep-transfer"
    assert register(client, "demo-cars") == "carsweep-transfer"
    assert register(client, "cars") == "carsweep-transfer-cars"
    with pytest.raises(TrackingError, match="which has transfer's"):
        register(client, "cars", "carsweep-transfer", "scratch")
    assert (
        register(client, "cars", "carsweep-transferred") == newest_model(tracking, "transfer") == "carsweep-transferred"
    )


def test_the_name_that_was_given_is_kept_with_the_spec_and_changes_no_trial() -> None:
    """A sweep's spec has it; its digest is that of the same trials; what MLflow would refuse is refused at once."""
    named = load_spec("transfer", sets=["model_name=bonnets"])
    assert named.to_tree()["model_name"] == "bonnets"
    assert named.digest == load_spec("transfer").digest
    with pytest.raises(InputError, match="model_name: must be up to 100 letters"):
        load_spec("transfer", sets=["model_name=a/b"])
