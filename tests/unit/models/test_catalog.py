"""The catalog of backbones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from carcls.architecture import architecture_of
from carcls.catalog import BACKBONES, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError


def test_every_record_is_found_by_its_name() -> None:
    """No two stages of a backbone share a name."""
    assert {name: find_backbone(name).name for name in BACKBONES} == {name: name for name in BACKBONES}
    assert all(len(set(record.stages)) == len(record.stages) for record in BACKBONES.values())


def test_only_the_scratch_network_is_described_by_settings() -> None:
    """Every other backbone says its embedding and stages; the scratch one has the figures of the default settings."""
    assert [r.name for r in BACKBONES.values() if not (r.embedding and r.stages)] == [SCRATCH]
    record, architecture = find_backbone(SCRATCH), architecture_of(TrialConfig(backbone=SCRATCH))
    assert record.gmacs == pytest.approx(architecture.macs(224) / 1e9, abs=0.005)
    assert record.parameters == pytest.approx(architecture.weights / 1e6, abs=0.05)


def test_a_timm_model_is_taken_unseen() -> None:
    """Any timm name gives a record whose unknown figures are left open."""
    record = find_backbone("timm:convnext_tiny.fb_in22k")
    assert record.name == "timm:convnext_tiny.fb_in22k"
    assert (record.source, record.embedding, record.stages) == ("timm", 0, ())


@pytest.mark.parametrize("name", ["resnet500", "timm:", "timm", "", "RESNET50", "densnet121"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """An unknown backbone is refused with all known names; a mistyped one gets the one that was probably meant."""
    with pytest.raises(InputError, match="densenet121, efficientnet_lite0, resnet50") as caught:
        find_backbone(name)
    assert ("Did you mean densenet121?" in str(caught.value)) == (name == "densnet121")


def test_the_catalog_and_configs_load_no_torch() -> None:
    """Naming and checking a trial costs no import of torch."""
    code = (
        "import sys; from carcls.config import TrialConfig; TrialConfig(backbone='resnet50'); "
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
