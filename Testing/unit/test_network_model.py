"""A model that holds the network that decides: stored, checked, and used by the pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet
from DiffSegLungLib.tissues import VESSEL
from Testing.unit.tiny_model import write_tiny_model

WIDTHS = (8, 8, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model with a small network of random weights beside it."""
    if models.DEFAULT not in {info.name for info in models.list_models()}:
        pytest.skip(f"no model named {models.DEFAULT!r} is in this tree yet")
    copy = tmp_path / "mine"
    shutil.copytree(models.find(), copy)
    torch.manual_seed(0)
    weights = {key: value.half() for key, value in TissueUNet(WIDTHS).state_dict().items()}
    facts = {"widths": list(WIDTHS), "temperature": 1.5, "bias": [0.0] * CLASSES}
    storage.write_tissue_network(copy, weights, facts)
    return copy


def test_the_network_comes_back_with_its_calibration(folder: Path) -> None:
    network = models.load(str(folder)).tissues
    assert network is not None
    assert network.unet.widths == WIDTHS and not network.unet.training
    assert network.temperature == 1.5 and network.bias == (0.0,) * CLASSES


def test_a_model_without_the_network_has_none(tmp_path: Path) -> None:
    assert models.load(str(write_tiny_model(tmp_path / "tiny", 1.5))).tissues is None
    assert models.load(None).tissues is not None, "the shipped model is decided by one"


def test_a_damaged_network_is_told(folder: Path) -> None:
    file = folder / models.TISSUES
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(MissingPartError, match=r"tissues\.safetensors is damaged"):
        models.verify(str(folder))


@pytest.mark.parametrize("change", [{"widths": [100_000]}, {"bias": [0.0]}, {"widths": [8, 8]}])
def test_a_description_that_does_not_fit_is_one_sentence(folder: Path, change: dict[str, list]) -> None:
    path = folder / models.DESCRIPTION
    description = json.loads(path.read_text(encoding="utf-8"))
    description["tissue_network"] |= change
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(MissingPartError, match="does not fit this version"):
        models.load(str(folder))


def test_the_pipeline_decides_by_the_network(folder: Path) -> None:
    image = phantom_image(make_phantom((3.0, 2.5, 2.5)))
    first = segment(image, model=str(folder), device="cpu")
    assert first.label_array.max() <= VESSEL
    assert first.labels.GetSize() == image.GetSize()
    uncertainty = sitk.GetArrayFromImage(first.uncertainty)
    assert uncertainty.min() >= 0 and uncertainty.max() <= 1
    lungs = sitk.GetArrayFromImage(first.lungs) > 0
    assert ((first.label_array > 0) == lungs).all()
    assert "network" in first.manifest["seconds"] and "mixture" not in first.manifest["seconds"]
