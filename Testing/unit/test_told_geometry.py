"""A voxel size or a side that a file does not tell is said first of all, or refused, in every format."""

from __future__ import annotations

import locale
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.told_geometry import NO_SIDES, NOT_SET, geometry_warnings
from DiffSegLungLib.io.volume import load_volume
from Testing.unit.test_volume import chest, ct_image

AFFINE = np.diag([-0.7, -0.8, 1.25, 1.0])
GERMAN = ("de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "nl_NL.UTF-8", "pl_PL.UTF-8", "ru_RU.UTF-8")


def nifti(path: Path, q: np.ndarray | None, s: np.ndarray | None, zooms: tuple[float, ...] = ()) -> Path:
    """A NIfTI with these forms; None is a form whose code is 0."""
    image = nibabel.Nifti1Image(chest().transpose(2, 1, 0).astype(np.int16), None)
    image.set_qform(AFFINE if q is None else q, 0 if q is None else 1)
    image.set_sform(AFFINE if s is None else s, 0 if s is None else 1)
    if zooms:
        image.header.set_zooms(zooms)
    nibabel.save(image, path)
    return path


def stretched(axis: int, factor: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:, axis] *= factor
    return affine


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_without_any_form_does_not_tell_the_sides(tmp_path: Path, ending: str) -> None:
    assert load_volume(nifti(tmp_path / f"ct{ending}", None, None)).warnings[0] == NO_SIDES


@pytest.mark.parametrize(("q", "s"), [(AFFINE, AFFINE), (AFFINE, None), (None, AFFINE)])
def test_one_form_or_two_alike_are_sound(tmp_path: Path, q: np.ndarray | None, s: np.ndarray | None) -> None:
    assert load_volume(nifti(tmp_path / "ct.nii", q, s)).warnings == ()


@settings(deadline=None, max_examples=20)
@given(axis=st.integers(0, 2), factor=st.floats(0.3, 3.0).filter(lambda f: abs(f - 1) > 0.02))
def test_two_voxel_sizes_are_refused_with_both(
    tmp_path_factory: pytest.TempPathFactory, axis: int, factor: float
) -> None:
    path = nifti(tmp_path_factory.mktemp("forms") / "ct.nii", AFFINE, stretched(axis, factor))
    with pytest.raises(UnusableInputError, match=r"two voxel sizes, qform .* mm and sform .* mm; write"):
        geometry_warnings(path, ct_image(), "ct.nii")


def test_a_size_that_differs_from_the_only_form_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "ct.nii", None, AFFINE, zooms=(0.7, 0.8, 2.5))
    with pytest.raises(UnusableInputError, match="two voxel sizes, pixdim 0.7 x 0.8 x 2.5 mm and sform"):
        load_volume(path)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_forms_that_lead_to_other_sides_are_refused(tmp_path: Path, axis: int) -> None:
    with pytest.raises(UnusableInputError, match="lead to other sides of the patient"):
        load_volume(nifti(tmp_path / "ct.nii", AFFINE, stretched(axis, -1)))


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz"])
def test_an_array_saved_as_it_is_has_no_size(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(chest().astype(np.int16))
    sitk.WriteImage(image, tmp_path / f"ct{ending}")
    assert load_volume(tmp_path / f"ct{ending}").warnings[0] == NOT_SET
    assert load_volume(image).warnings[0] == NOT_SET


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz"])
def test_one_millimetre_of_a_scanner_is_believed(tmp_path: Path, ending: str) -> None:
    image = ct_image()
    image.SetSpacing((1.0, 1.0, 1.0))
    sitk.WriteImage(image, tmp_path / f"ct{ending}")
    assert load_volume(tmp_path / f"ct{ending}").warnings == ()


@pytest.mark.parametrize(
    ("ending", "field", "result"),
    [
        (".mha", b"ElementSpacing", UnusableInputError),
        (".mhd", b"ElementSpacing", UnusableInputError),
        (".nrrd", b"space directions", UnusableInputError),
        (".nhdr", b"space directions", UnusableInputError),
        (".mha", b"TransformMatrix", NO_SIDES),
    ],
)
def test_a_header_without_size_or_axes(tmp_path: Path, ending: str, field: bytes, result: object) -> None:
    path = tmp_path / f"ct{ending}"
    sitk.WriteImage(ct_image(), path)
    start, found, rest = path.read_bytes().partition(field)
    assert found
    path.write_bytes(start + rest.partition(b"\n")[2])
    if isinstance(result, str):
        assert load_volume(path).warnings[0] == result
        return
    with pytest.raises(UnusableInputError, match="its header holds no voxel size; write it again"):
        load_volume(path)


@pytest.mark.parametrize("given", [np.zeros((9, 9, 9)), [1, 2], None, 7], ids=["array", "list", "none", "7"])
def test_what_is_no_source_is_a_type_error(given: object) -> None:
    sentence = "give a file, a folder or a SimpleITK image with its voxel size, not"
    with pytest.raises(TypeError, match=sentence):
        load_volume(given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=sentence):
        load_mask(given, load_volume(ct_image()))  # type: ignore[arg-type]


# --- languages with a decimal comma ---------------------------------------------------------------

PROGRAM = """
import locale, sys, SimpleITK as sitk
for language in {languages}:
    try:
        locale.setlocale(locale.LC_ALL, language)
        break
    except locale.Error:
        pass
else:
    sys.exit(3)
from DiffSegLungLib.export.segmentation_file import write_image
from DiffSegLungLib.io.volume import canonical_image, load_volume
volume = load_volume(sys.argv[1])
write_image(sys.argv[2], canonical_image(volume.hu.astype("int16"), volume))
assert locale.localeconv()["decimal_point"] == ","
print(*volume.spacing)
"""


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
def test_numbers_have_a_point_in_every_language(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(ct_image(), tmp_path / f"ct{ending}")
    done = _in_german(tmp_path, PROGRAM, tmp_path / f"ct{ending}", tmp_path / "out.nrrd")
    if done.returncode == 3:
        pytest.skip("no language with a decimal comma is installed, and localedef made none")
    assert done.returncode == 0, done.stderr
    assert [float(mm) for mm in done.stdout.split()] == pytest.approx(ct_image().GetSpacing()[::-1])
    assert sitk.ReadImage(tmp_path / "out.nrrd").GetSpacing() == pytest.approx(ct_image().GetSpacing())


def _in_german(folder: Path, program: str, *words: object) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if shutil.which("localedef"):
        made = folder / "languages"
        made.mkdir()
        subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", made / GERMAN[0]], capture_output=True)
        if any(made.iterdir()):
            environment["LOCPATH"] = str(made)
    command = [sys.executable, "-c", program.format(languages=GERMAN), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_language_is_left_as_it_was() -> None:
    before = locale.setlocale(locale.LC_NUMERIC)
    load_volume(ct_image())
    assert locale.setlocale(locale.LC_NUMERIC) == before
