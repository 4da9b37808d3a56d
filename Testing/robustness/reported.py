"""Rows of the battery that public bug reports of DICOM and image tools describe.

Each is a sample of its kind; the unit tests of scans, told geometry and DICOM sources draw many more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from DiffSegLungLib.export.dicom_seg import write_dicom_seg
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.tissues import HEALTHY
from Testing.robustness.battery import (
    Case,
    Check,
    Outcome,
    between,
    like_the_plain_chest,
    refused,
    taken,
    warns,
)
from Testing.robustness.scans import SIDE, Maker, chest, dicom, edited, file, finer, phantom, replaced, save
from Testing.unit.dicom_series import Frame, change_headers, frames_of, write_enhanced, write_series

SERIES, STUDY = "1.2.826.26.1", "1.2.826.26"
ONE_SERIES = {"series": SERIES, "StudyInstanceUID": STUDY}
DICOM_OUT = ("--dicom-seg", "{folder}/out/seg.dcm", "--dicom-sr", "{folder}/out/sr.dcm")
LETTERS_LENGTH = 0x4242
"""A length in bytes that reads as two capital letters, as the name of a VR does."""
Frames = list[Frame]


def enhanced(change: Callable[[Frames], Frames] = lambda frames: frames) -> Maker:
    """The chest as one Enhanced CT, after a change of its frames."""

    def write(folder: Path) -> Path:
        frames = change(frames_of(phantom().hu, SIDE))
        write_enhanced(folder / "ct" / "ct.dcm", frames, SERIES, (SIDE,) * 3)
        return folder / "ct"

    return write


def in_random_order(frames: Frames) -> Frames:
    return [frames[index] for index in np.random.default_rng(1).permutation(len(frames))]


def with_jitter(frames: Frames) -> Frames:
    shifts = np.random.default_rng(0).uniform(-0.001, 0.001, len(frames))
    return [replace(each, height=each.height + shift) for each, shift in zip(frames, shifts, strict=True)]


def with_slopes(frames: Frames) -> Frames:
    return [replace(each, rescale=(2, -2048)) if n % 2 else each for n, each in enumerate(frames)]


def at_two_times(frames: Frames) -> Frames:
    return [replace(each, time=time) for time in (1, 2) for each in frames]


def slices(folder: Path, hu: np.ndarray, **tags: object) -> Path:
    """Single slices of 2.5 mm in one series."""
    spacing = {"PixelSpacing": [SIDE, SIDE], "SliceThickness": SIDE, "step": (0, 0, SIDE)}
    write_series(folder, hu, **(spacing | ONE_SERIES | tags))  # type: ignore[arg-type]
    return folder


def beside_a_summary(folder: Path) -> Path:
    """Single slices, and some of them once more in a multi-frame image of the same series."""
    slices(folder / "ct", phantom().hu, FrameOfReferenceUID="1.2.826.8.1")
    summary = frames_of(phantom().hu, SIDE)[:8]
    spacing = (SIDE,) * 3
    write_enhanced(folder / "ct" / "summary", summary, SERIES, spacing, StudyInstanceUID=STUDY)
    return folder / "ct"


def twice(folder: Path) -> Path:
    """Each slice sent again under a new instance UID."""
    for name in ("a", "b"):
        slices(folder / "ct" / name, phantom().hu)
    return folder / "ct"


def two_acquisitions(folder: Path) -> Path:
    """The second half a step higher, of a patient who has moved."""
    slices(folder / "ct" / "a", phantom().hu, AcquisitionNumber=1)
    second = slices(folder / "ct" / "b", np.roll(phantom().hu, 6, axis=0), AcquisitionNumber=2)
    for path in second.iterdir():
        image = dcmread(path)
        image.ImagePositionPatient[2] += SIDE / 2
        image.save_as(path)
    return folder / "ct"


def beside_a_projection(folder: Path) -> Path:
    """A maximum projection with twice as many slices lies beside the CT."""
    kind = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"], "series": "1.2.826.26.9", "number": 9}
    slabs = np.repeat(
        [phantom().hu[max(0, n - 3) : n + 4].max(axis=0) for n in range(len(phantom().hu))], 2, 0
    )
    slices(folder / "ct" / "mip", slabs, step=(0, 0, SIDE / 2), **kind)
    slices(folder / "ct" / "ct", phantom().hu)
    return folder / "ct"


def headers(**values: Sequence[object]) -> Maker:
    """The chest as single slices, each with the next of the values."""
    return lambda folder: change_headers(slices(folder / "ct", phantom().hu), **values)


def with_two_distances(folder: Path) -> Path:
    made = slices(folder / "ct", phantom().hu)
    for path in made.iterdir():
        image = dcmread(path)
        index = image.InstanceNumber - 1
        image.ImagePositionPatient[2] = 2.5 * min(index, 30) + 4 * max(index - 30, 0)
        image.save_as(path)
    return made


def with_private_header(folder: Path) -> Path:
    """Implicit VR, and a private element whose length reads as two letters."""
    made = slices(folder / "ct", phantom().hu)
    for path in made.iterdir():
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        block = image.private_block(0x0029, "US", create=True)
        block.add_new(0x10, "OB", bytes(range(1, 200)) * 85 + bytes(LETTERS_LENGTH - 199 * 85))
        image.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return made


def never_given_a_size() -> sitk.Image:
    """Voxels that are 1 mm by chance, so that what comes of them is the chest."""
    image = finer((SIDE, SIDE, SIDE))
    return sitk.GetImageFromArray(sitk.GetArrayFromImage(image))


def nifti(forms: Callable[[Any, np.ndarray], None]) -> Maker:
    """The chest as NIfTI, with forms made of its affine."""

    def write(folder: Path) -> Path:
        import nibabel

        path = save(chest(), folder / "ct.nii.gz")
        known: Any = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(known.dataobj), None)
        image.header.set_zooms((SIDE,) * 3)
        forms(image, known.affine)
        nibabel.save(image, path)
        return path

    return write


def without_forms(image: Any, affine: np.ndarray) -> None:
    image.header["qform_code"] = image.header["sform_code"] = 0


def with_a_longer_step(image: Any, affine: np.ndarray) -> None:
    longer = affine.copy()
    longer[:, 2] *= 4 / 3
    image.set_sform(longer, 1)
    image.set_qform(affine, 1, update_affine=False)


def with_organs(folder: Path) -> Path:
    """A whole-body map in ``mask.nrrd``: lungs are 10 and 12, all else of the body is 5."""
    sides, hu = phantom().sides, phantom().hu
    labels = np.select([sides == 1, sides == 2, hu > -400], [12, 10, 5], 0)
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.CopyInformation(chest())
    save(image, folder / "mask.nrrd")
    return save(chest(), folder / "ct.nrrd")


def with_our_segmentation(folder: Path) -> Path:
    """The product's own DICOM SEG of the lungs in ``mask.dcm``."""
    made = slices(folder / "ct", phantom().hu)
    lungs = np.where(phantom().sides > 0, HEALTHY, 0).astype(np.uint8)
    write_dicom_seg(folder / "mask.dcm", lungs, load_volume(made))
    return made


def wrote_dicom(outcome: Outcome) -> None:
    """Segmentation and report are there, and the segmentation lies where the CT lies."""
    assert {"seg.dcm", "sr.dcm"} <= set(outcome.files)
    measures = dcmread(outcome.folder / "out/seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures[0].SpacingBetweenSlices) == SIDE


def like_it(*more: Check) -> tuple[Check, ...]:
    return (like_the_plain_chest(0.01, 0.5), *more)


KANJI = "Mokei^Ichi=模型^一"
COSINES = [["1", f"{sine:.7f}", "0", f"{-sine:.7f}", "1", "0"] for sine in (0.004999, 0.005001)]

INVALID: dict[str, dict[str, Sequence[Any]]] = {
    "a Japanese name": {"SpecificCharacterSet": [["", "ISO 2022 IR 87"]], "PatientName": [KANJI]},
    "a birth date with dashes": {"PatientBirthDate": ["1900-01-01"]},
    "a word as date": {"StudyDate": ["REMOVED"]},
    "a time that no clock shows": {"StudyTime": ["99:99"]},
    "a sex that DICOM does not know": {"PatientSex": ["UNKNOWN"]},
    "frames of reference by slice": {"FrameOfReferenceUID": [generate_uid() for _ in range(80)]},
}
"""Headers that a DICOM segmentation would repeat."""

REPORTED: list[Case] = [
    # Enhanced CT
    taken("Enhanced CT", enhanced(), *like_it()),
    taken("Enhanced CT, frames in random order", enhanced(in_random_order), *like_it()),
    taken("Enhanced CT, uppermost frame first", enhanced(lambda frames: frames[::-1]), *like_it()),
    taken("Enhanced CT, positions off by a micrometre", enhanced(with_jitter), *like_it()),
    taken("Enhanced CT, a slope a frame", enhanced(with_slopes), *like_it()),
    taken(
        "Enhanced CT, a frame missing",
        enhanced(lambda frames: frames[:30] + frames[31:]),
        like_the_plain_chest(0.02, 2),
        warns("1 or more slices are missing"),
    ),
    refused("Enhanced CT at two times", enhanced(at_two_times), "holds 2 points in time; give one"),
    taken(
        "slices beside a multi-frame summary", beside_a_summary, *like_it(warns("8 slices are there twice"))
    ),
    # several scans in one
    taken("each slice twice", twice, *like_it(warns("copies were left out"))),
    taken("two acquisitions", two_acquisitions, *like_it(warns("holds 2 scans of one region"))),
    taken("a projection beside the CT", beside_a_projection, *like_it(warns("not taken: 9 .*derived"))),
    # headers that lie, or differ in their last digits
    taken("step of 0", headers(SpacingBetweenSlices=[0]), *like_it()),
    taken("half the step", headers(SpacingBetweenSlices=[SIDE / 2]), *like_it(wrote_dicom), words=DICOM_OUT),
    taken("cosines that differ a little", headers(ImageOrientationPatient=COSINES), *like_it()),
    taken("spacings that differ a little", headers(PixelSpacing=[[2.500005] * 2, [2.5] * 2]), *like_it()),
    taken("implicit with a private header", with_private_header, *like_it()),
    taken("MONOCHROME1", headers(PhotometricInterpretation=["MONOCHROME1"]), *like_it()),
    refused("two distances", with_two_distances, "two distances, 2.5 and 4 mm, none is missing; give"),
    refused(
        "a tilted gantry as NIfTI",
        dicom(step=(0, 0.6, 2.4)),
        "NIfTI cannot hold the sheared slices of a tilted gantry; end the name in .nrrd",
        "-o",
        "{folder}/out/x.nii.gz",
    ),
    # geometry that is not told
    taken("never given a size", file(never_given_a_size), warns("voxel size was probably never set")),
    taken("NIfTI without form", nifti(without_forms), *like_it(warns("right and left may be swapped"))),
    refused("NIfTI with two steps", nifti(with_a_longer_step), "two voxel sizes, qform 2.5 .* and sform"),
    refused(
        "MetaImage without spacing",
        edited(file(chest, "ct.mha"), replaced(b"ElementSpacing = 2.5 2.5 2.5\n", b"")),
        "its header holds no voxel size; write it again with the scanner's",
    ),
    # lungs as others have them
    refused(
        "a whole-body map as lungs",
        with_organs,
        "label 5 holds no air, labels 10, 12 hold air; give a mask of the lungs alone",
        "--lungs",
        "{folder}/mask.nrrd",
    ),
    taken(
        "our DICOM SEG as lungs",
        with_our_segmentation,
        between("lung_ml", 500, 700),
        words=("--lungs", "{folder}/mask.dcm"),
    ),
    # headers that outputs repeat
    *[
        taken(f"DICOM out: {what}", headers(**values), *like_it(wrote_dicom), words=DICOM_OUT)
        for what, values in INVALID.items()
    ],
    taken("DICOM out: Enhanced CT", enhanced(in_random_order), *like_it(wrote_dicom), words=DICOM_OUT),
]
