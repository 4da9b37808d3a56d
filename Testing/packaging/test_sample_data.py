"""The sample phantom is the CT that its description says, and everybody states the same checksum."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.phantom import Phantom, make_phantom
from DiffSegLungLib.tissues import TISSUES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "DiffSegLung/Resources/SampleData"
PHANTOM = FOLDER / "DiffSegLungPhantom.nrrd"
SPACING, SEED = 2.5, 0
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@pytest.fixture(scope="module")
def image() -> sitk.Image:
    return sitk.ReadImage(str(PHANTOM))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """Made anew, as the description says."""
    return make_phantom((SPACING,) * 3, SEED)


def readme() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def checksum() -> str:
    return hashlib.sha256(PHANTOM.read_bytes()).hexdigest()


def module_sources() -> list[Path]:
    """The module's Python files that speak of the phantom's file."""
    sources = [*(ROOT / "DiffSegLung").glob("*.py"), *(ROOT / "DiffSegLung/DiffSegLungSlicer").glob("*.py")]
    return [source for source in sources if PHANTOM.name in source.read_text(encoding="utf-8")]


def test_description_states_the_checksum() -> None:
    assert SHA256.findall(readme()) == [checksum()]


def test_module_states_the_checksum() -> None:
    if not module_sources():
        pytest.skip("the module does not name the phantom")
    stated = [
        match for source in module_sources() for match in SHA256.findall(source.read_text(encoding="utf-8"))
    ]
    assert checksum() in stated


def test_header_is_that_of_a_ct() -> None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(PHANTOM))
    reader.ReadImageInformation()
    assert reader.GetPixelID() == sitk.sitkInt16
    assert reader.GetDimension() == 3
    assert reader.GetSpacing() == (SPACING,) * 3
    assert reader.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    x, y, z = reader.GetSize()
    assert f"{x} x {y} x {z} of {SPACING} mm" in readme()


def test_library_takes_it_for_a_chest_ct() -> None:
    volume = load_volume(PHANTOM)
    assert volume.hu.size > 1e6 and volume.name == "CT", "a file's name may be a patient's"
    assert volume.hu.min() >= -1024
    assert -1010 <= volume.hu[:, :5, :5].mean() <= -970  # air before the patient, to the right
    assert 0 <= np.median(volume.hu[volume.hu > -200]) <= 100  # soft tissue


def test_it_can_be_made_again(image: sitk.Image, phantom: Phantom) -> None:
    """Another processor rounds 16 voxels of 100,000 otherwise; a change of the phantom's code would show."""
    stored = sitk.GetArrayFromImage(image).astype(int)
    assert phantom.hu.shape == stored.shape
    assert np.mean(np.abs(phantom.hu - stored) > 1.5) < 1e-3


def test_description_states_the_truth(phantom: Phantom) -> None:
    rows = dict(re.findall(r"^\| ([A-Z][\w -]+) \| ([\d.]+) \|$", readme(), re.MULTILINE))
    assert set(rows) == {tissue.name for tissue in TISSUES}
    for tissue in TISSUES:
        volume = float(np.count_nonzero(phantom.truth == tissue.label)) * SPACING**3 / 1000
        assert float(rows[tissue.name]) == pytest.approx(volume, abs=0.06), tissue.key


def test_sample_is_small() -> None:
    assert PHANTOM.stat().st_size < 3_000_000
