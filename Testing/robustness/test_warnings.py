"""Every condition that warns: a scan that has it is warned of, and one that has it not is not.

A condition is one entry of ``CONDITIONS``: the sentence, a scan with it and one without.  Whatever tells
warnings may tell: a volume, lungs, a result or a measuring.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.app.measure_command import CORRECTED, OTHER_LUNGS, MeasureRequest, measure_to_files
from DiffSegLungLib.decision.naming import NamingRule, blur_warnings
from DiffSegLungLib.export.segmentation_file import TISSUE_SEGMENTS, Segment, write_segmentation
from DiffSegLungLib.io.atomic import write_text
from DiffSegLungLib.io.volume import edge_warnings, load_volume
from DiffSegLungLib.lungs.lungs import LEFT, RIGHT, lungs_from_mask, segment_lungs
from DiffSegLungLib.parenchyma.grain import grain_of
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.quantify.longitudinal import change_warnings
from DiffSegLungLib.quantify.remeasure import remeasure
from DiffSegLungLib.tissues import GROUND_GLASS, HEALTHY
from Testing.robustness.scans import (
    SIDE,
    chest,
    consolidated,
    dicom,
    edited,
    image_of,
    metal,
    metal_through_the_wall,
    phantom,
    pneumothorax,
    save,
    with_values,
    without_right_lung,
)
from Testing.unit.dicom_series import write_series

THIN = (1.25,) * 3
ADULT = (2 * SIDE,) * 3
Teller = Callable[[Path], Iterable[str]]
"""Makes a scan in an empty folder and returns what was warned of."""


@dataclass(frozen=True)
class Condition:
    """What is warned of, how, a scan that has it and one that has it not."""

    name: str
    sentence: str
    present: Teller
    absent: Teller
    slow: bool = False


# --- who tells -------------------------------------------------------------------------------------------


def loaded(make: Callable[[], sitk.Image]) -> Teller:
    """What loading an image says."""
    return lambda folder: load_volume(make()).warnings


def from_dicom(make: Callable[[], sitk.Image] = chest, **tags: Any) -> Teller:
    """What loading a DICOM folder says."""
    return lambda folder: load_volume(dicom(make, **tags)(folder)).warnings


Change = Callable[[np.ndarray, np.ndarray], None]


@cache
def of_lungs(change: Change | None, side: float) -> tuple[str, ...]:
    """What finding the lungs in a changed healthy phantom with voxels of such a side (mm) says."""
    hu, sides = phantom(()).hu.copy(), phantom(()).sides
    if change:
        change(hu, sides)
    return segment_lungs(hu, (side,) * 3).warnings


def found(change: Change | None = None) -> Teller:
    """What finding the lungs of an adult says."""
    return lambda folder: of_lungs(change, ADULT[0])


def small(change: Change | None = None) -> Teller:
    """What finding the lungs of a small child says."""
    return lambda folder: of_lungs(change, SIDE)


def given(change: Callable[[np.ndarray], np.ndarray] = lambda sides: sides) -> Teller:
    """What a lung mask with named sides says."""
    return lambda folder: lungs_from_mask(change(phantom().sides), phantom().hu, ADULT, True).warnings


def edges(box: tuple[slice, ...]) -> Teller:
    """What the lungs within a box of the chest say of its edges."""
    return lambda folder: edge_warnings(phantom().sides[box] > 0, (SIDE,) * 3)


def segmented(hu: Callable[[], np.ndarray]) -> Teller:
    """What the whole method says of a CT with the phantom's lungs."""

    def tell(folder: Path) -> Iterable[str]:
        mask = sitk.Cast(image_of(phantom().sides), sitk.sitkUInt8)
        result = segment(image_of(hu()), lungs=mask, device="cpu", quality="fast")
        return list(result.manifest["warnings"])

    return tell


def grained(*blur: float) -> Teller:
    """What noise of 30 HU in the phantom, blurred by so many voxels along each axis, says of fine lines."""

    def tell(folder: Path) -> Iterable[str]:
        white = np.random.default_rng(1).standard_normal(phantom().hu.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(white, blur)
        hu = np.where(phantom().sides > 0, phantom().hu, 40.0) + 30 * noise / noise.std()
        return blur_warnings(grain_of(hu, phantom().sides > 0), NamingRule())

    return tell


# --- changes of the phantom ------------------------------------------------------------------------------


def opaque(side: int, part: slice, of: int = 100) -> Callable[[np.ndarray, np.ndarray], None]:
    """Fluid in the slices of one lung between two percentages of its height."""

    def fill(hu: np.ndarray, sides: np.ndarray) -> None:
        heights = np.flatnonzero((sides == side).any(axis=(1, 2)))
        slices = heights[len(heights) * part.start // of : len(heights) * part.stop // of]
        chosen = np.zeros(sides.shape, bool)
        chosen[slices] = True
        hu[chosen & (sides == side)] = 20.0

    return fill


def upper_half(hu: np.ndarray) -> np.ndarray:
    return hu[hu.shape[0] // 2 :]


def lower_half(hu: np.ndarray) -> np.ndarray:
    return hu[: hu.shape[0] // 2]


def cropped(part: Callable[[np.ndarray], np.ndarray]) -> Teller:
    """What finding the lungs in a part of the phantom says."""
    return lambda folder: segment_lungs(part(phantom().hu), ADULT).warnings


def bulla(hu: np.ndarray, sides: np.ndarray) -> None:
    """A ball of gas of 9 cm amid the upper right lung."""
    z, y, x = np.argwhere(sides == RIGHT).mean(axis=0)
    axes = np.ogrid[tuple(slice(0, side) for side in hu.shape)]
    centre = (z + 30 / ADULT[0], y, x)
    ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < (45 / ADULT[0]) ** 2
    hu[ball & (sides == RIGHT)] = -998.0


def wall_lesion(hu: np.ndarray, sides: np.ndarray) -> None:
    """Consolidation of 4 cm in the middle of the right costal surface."""
    z, y, x = np.argwhere(sides == RIGHT).mean(axis=0)
    outermost = np.flatnonzero(sides[int(z), int(y)] == RIGHT)[0]
    axes = np.ogrid[tuple(slice(0, side) for side in hu.shape)]
    centre = (z, y, outermost)
    ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < (30 / ADULT[0]) ** 2
    hu[ball & (sides == RIGHT)] = 45.0


def mirrored(sides: np.ndarray) -> np.ndarray:
    """Right called left."""
    return np.where(sides > 0, 3 - sides, 0).astype(np.uint8)


def unbelievable(folder: Path) -> Iterable[str]:
    """What is said of a lung network that finds nothing."""

    def network(work: np.ndarray) -> np.ndarray:
        shares = np.zeros((3, *work.shape), np.float32)
        shares[0] = 1
        return shares

    return segment_lungs(phantom().hu, ADULT, network).warnings


def doubtful(probability: float) -> Teller:
    """What is said of a lung network that gives all dense tissue such a probability of being lung."""

    def network(work: np.ndarray) -> np.ndarray:
        right = np.where(work < -500, 1, probability).astype(np.float32)
        return np.stack([1 - right, right, np.zeros_like(right)])

    return lambda folder: segment_lungs(phantom().hu, ADULT, network).warnings


def all_dense() -> np.ndarray:
    hu = phantom().hu.copy()
    consolidated(hu, phantom().sides)
    return hu


# --- DICOM folders ---------------------------------------------------------------------------------------


def two_series(slices: int) -> Teller:
    """The chest, and a second series with so many of its slices."""

    def tell(folder: Path) -> Iterable[str]:
        path = dicom()(folder)
        write_series(path, phantom().hu[:slices], number=9, PixelSpacing=[SIDE] * 2, step=(0, 0, SIDE))
        return load_volume(path).warnings

    return tell


def damaged(folder: Path) -> Iterable[str]:
    return load_volume(edited(dicom(), lambda content: content[: len(content) // 2])(folder)).warnings


# --- measuring -------------------------------------------------------------------------------------------


@cache
def tissues() -> sitk.Image:
    """All lung healthy."""
    return sitk.Cast(image_of((phantom().sides > 0) * HEALTHY), sitk.sitkUInt8)


def measured(labels: Callable[[np.ndarray], np.ndarray], ct: Callable[[], sitk.Image] = chest) -> Teller:
    """What measuring a label map beside the phantom's lungs says."""

    def tell(folder: Path) -> Iterable[str]:
        image = sitk.GetImageFromArray(labels(sitk.GetArrayFromImage(tissues())))
        image.CopyInformation(tissues())
        lungs = sitk.Cast(image_of(phantom().sides), sitk.sitkUInt8)
        return remeasure(ct(), image, lungs=lungs).warnings

    return tell


def lying_in(ill: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Ground glass in the rear 3 cm of some lungs."""

    def change(labels: np.ndarray) -> np.ndarray:
        last = np.flatnonzero((labels > 0).any(axis=(0, 2)))[-1]
        behind = np.arange(labels.shape[1])[:, None] > last - 30 / SIDE
        return np.where((labels > 0) & behind & np.isin(phantom().sides, ill), GROUND_GLASS, labels)

    return change


def without_lungs(hu: float) -> Teller:
    """What measuring healthy tissue of such a density says where no lung mask is given."""

    def tell(folder: Path) -> Iterable[str]:
        changed = phantom().hu.copy()
        changed[phantom().sides > 0] = hu
        changed[0, 0, 0] = -1000
        return remeasure(image_of(changed), tissues()).warnings

    return tell


def segments(*found_in: Segment) -> Teller:
    """What measuring a segmentation file with such segments says."""

    def tell(folder: Path) -> Iterable[str]:
        write_segmentation(folder / "t.seg.nrrd", tissues(), found_in)
        save(sitk.Cast(image_of(phantom().sides), sitk.sitkUInt8), folder / "lungs.nrrd")
        return remeasure(chest(), folder / "t.seg.nrrd", lungs=folder / "lungs.nrrd").warnings

    return tell


def layers(overlap: bool) -> Teller:
    """What measuring two segments in two layers says, one of them over both or only beside the other."""

    def tell(folder: Path) -> Iterable[str]:
        first = sitk.GetArrayFromImage(tissues())
        second = ((phantom().sides > (0 if overlap else RIGHT)) * np.uint8(1)).astype(np.uint8)
        first = np.where(phantom().sides == RIGHT, first, 0).astype(np.uint8)
        image = sitk.Compose([image_of_labels(first), image_of_labels(second)])
        for number, (name, layer) in enumerate((("healthy", 0), ("emphysema", 1))):
            prefix = f"Segment{number}_"
            for key, value in (("ID", name), ("Name", name), ("Layer", str(layer)), ("LabelValue", "1")):
                image.SetMetaData(prefix + key, value)
        sitk.WriteImage(image, str(folder / "t.seg.nrrd"))
        lungs = image_of_labels(phantom().sides)
        return remeasure(chest(), folder / "t.seg.nrrd", lungs=lungs).warnings

    return tell


def image_of_labels(array: np.ndarray) -> sitk.Image:
    return sitk.Cast(image_of(array), sitk.sitkUInt8)


def command(corrected: bool = False, run_lungs: str = "network") -> Teller:
    """What the command ``measure`` says beside the manifest of a run."""

    def tell(folder: Path) -> Iterable[str]:
        save(chest(), folder / "ct.nrrd")
        write_segmentation(folder / "t.seg.nrrd", tissues())
        size = list(chest().GetSize())
        facts = {"software": {}, "input": {"size": size}, "parameters": {"lungs": run_lungs}}
        write_text(folder / "m.json", str(facts).replace("'", '"'))
        request = MeasureRequest(
            folder / "ct.nrrd", folder / "t.seg.nrrd", manifest=folder / "m.json", corrected=corrected
        )
        measured, _ = measure_to_files(request)
        return measured.warnings

    return tell


def compared(volume: float, *regions: str) -> Teller:
    """What comparing two tables of measures says; the earlier lungs hold 4000 ml."""

    def tell(folder: Path) -> Iterable[str]:
        earlier = pandas.DataFrame({"lung_ml": [4000.0, 2000.0]}, index=["whole lung", "right lung"])
        later = pandas.DataFrame({"lung_ml": [volume] * (1 + len(regions))}, index=["whole lung", *regions])
        return change_warnings(earlier, later)

    return tell


LIVER = Segment(9, "liver", "Liver", (200, 60, 60), None)
WHOLE_PHANTOM = (slice(None),) * 3
CLOSE: dict[str, Any] = {"PixelSpacing": [1.25] * 2, "step": (0, 0, 1.25)}

CONDITIONS = [
    # thickness, contrast, kernel
    Condition(
        "slices far apart",
        r"Slices lie 2\.5 mm apart; fine patterns need 1\.5 mm",
        loaded(chest),
        loaded(lambda: image_of(phantom().hu, THIN)),
    ),
    Condition(
        "thick slices close together",
        "Slices are 5 mm thick",
        from_dicom(SliceThickness=5, **CLOSE),
        from_dicom(SliceThickness=1.25, **CLOSE),
    ),
    Condition(
        "contrast medium",
        "Contrast medium was given",
        from_dicom(ContrastBolusAgent="Iopamidol"),
        from_dicom(ContrastBolusAgent="NONE"),
    ),
    Condition(
        "sharp kernel",
        "The kernel B70f is sharp",
        from_dicom(ConvolutionKernel="B70f"),
        from_dicom(ConvolutionKernel="B30f"),
    ),
    Condition(
        "soft kernel",
        "Fine lines are blurred by .* by a soft kernel .* told apart less surely",
        grained(0, 1.2, 1.2),
        grained(0, 0, 0),
    ),
    Condition("blurred across slices", "by thick slices", grained(2.0, 0, 0), grained(0, 0, 0)),
    # what was repaired or left out while reading
    Condition(
        "values that are no numbers",
        "voxels were not numbers",
        loaded(lambda: with_values(np.nan, 0.0005)),
        loaded(lambda: with_values(-900, 0.0005)),
    ),
    Condition("a damaged DICOM file", "without a readable image, left out: 1", damaged, from_dicom()),
    Condition("two series", "holds 2 axial CT series", two_series(20), two_series(4)),
    Condition(
        "a tilted gantry",
        "gantry was tilted by 14",
        from_dicom(step=(0, 0.6, 2.4)),
        from_dicom(step=(0, 0.01, 2.5)),
    ),
    Condition("a missing slice", "1 or more slices are missing", from_dicom(skip=[20]), from_dicom(skip=[0])),
    # partial lung
    Condition(
        "lungs cut by the field of view",
        "reach the left edge of the scan",
        edges((slice(None), slice(None), slice(0, 60))),
        edges(WHOLE_PHANTOM),
    ),
    Condition(
        "lungs cut from below",
        "first slice shows .* cm2 of lung: they are only partly",
        cropped(upper_half),
        found(),
    ),
    Condition(
        "lungs cut from above",
        "last slice shows .* cm2 of lung: they are only partly",
        cropped(lower_half),
        found(),
    ),
    # phase and calibration
    Condition(
        "expiration",
        "denser than at full inspiration",
        segmented(lambda: phantom(lung_hu=-700).hu),
        segmented(lambda: phantom().hu),
        slow=True,
    ),
    Condition(
        "healthy density not found",
        "Too little aerated lung is left .* the reference of -860 HU was taken",
        segmented(all_dense),
        segmented(lambda: phantom().hu),
        slow=True,
    ),
    # position
    Condition(
        "raised density where both lungs lie",
        "[0-9]+ mL of ground glass and fibrosis lie in the lowest fifth .* a scan in prone position",
        measured(lying_in((RIGHT, LEFT))),
        measured(lying_in((RIGHT,))),
    ),
    # mask doubtful
    Condition("little lung", "hold only 0.6 L; check the lung mask", small(), found()),
    Condition(
        "more than lungs hold",
        "hold [0-9.]+ L, more than lungs do; check the lung mask",
        given(lambda sides: np.where(sides == 0, 1, sides).astype(np.uint8)),
        given(),
    ),
    Condition(
        "a mask of other organs",
        "[0-9]+% of the lungs are as dense as other organs",
        given(lambda sides: ((phantom().hu > -100) * LEFT).astype(np.uint8)),
        given(),
    ),
    Condition("one lung", "no right lung was found or given", found(without_right_lung), found()),
    Condition(
        "a base lost",
        "the base of the left lung ends .* short of the other",
        found(opaque(LEFT, slice(0, 35))),
        found(opaque(LEFT, slice(0, 5))),
    ),
    Condition(
        "an apex lost",
        "the apex of the right lung ends .* short of the other",
        found(opaque(RIGHT, slice(70, 100))),
        found(opaque(RIGHT, slice(95, 100))),
    ),
    Condition(
        "consolidation at the wall",
        "dense tissue at the pleura was counted as right",
        found(wall_lesion),
        found(),
    ),
    Condition("gas without tissue", "mL of gas without tissue lie in the right lung", found(bulla), found()),
    Condition(
        "pneumothorax", "of gas high in the chest were not counted as lung", found(pneumothorax), found()
    ),
    Condition("streaks of metal", "open to the air outside", small(metal_through_the_wall), small(metal)),
    Condition(
        "much dense tissue beside them",
        "mL of dense tissue beside the lungs",
        doubtful(0.55),
        doubtful(0.1),
    ),
    Condition("a network that sees no lung", "lung network was not used", unbelievable, found()),
    Condition(
        "sides named the wrong way", "right lung of the mask lies to the left", given(mirrored), given()
    ),
    # measuring what is there
    Condition(
        "no lungs in the CT to measure",
        "No lungs were found in the CT: only the segmented",
        without_lungs(40.0),
        without_lungs(-860.0),
    ),
    Condition(
        "lung without tissue",
        "% of the lungs has no tissue and counts as vessel",
        measured(
            lambda labels: np.where(np.arange(len(labels))[:, None, None] > len(labels) // 2, labels, 0)
        ),
        measured(lambda labels: labels),
    ),
    Condition(
        "a segment that is no tissue",
        "'Liver' is none of DiffSegLung's tissues",
        segments(*TISSUE_SEGMENTS, LIVER),
        segments(*TISSUE_SEGMENTS),
    ),
    Condition("overlapping tissues", r"Tissues overlap in \d+", layers(overlap=True), layers(overlap=False)),
    Condition("corrected by hand", re.escape(CORRECTED), command(corrected=True), command()),
    Condition("a run with other lungs", re.escape(OTHER_LUNGS), command(run_lungs="given"), command()),
    # two points in time
    Condition(
        "another inspiration",
        "25 % larger than before; another inspiration",
        compared(5000.0, "right lung"),
        compared(4200.0, "right lung"),
    ),
    Condition(
        "regions of one point in time",
        "one point in time only, not compared: left lung",
        compared(4000.0, "right lung", "left lung"),
        compared(4000.0, "right lung"),
    ),
]


def cases(slow: bool) -> list[Condition]:
    return [condition for condition in CONDITIONS if condition.slow is slow]


def says(condition: Condition, told: Iterable[str]) -> bool:
    return any(re.search(condition.sentence, sentence) for sentence in told)


def judge(condition: Condition, folder: Path) -> None:
    for name in ("present", "absent"):
        (folder / name).mkdir()
    present, absent = condition.present(folder / "present"), condition.absent(folder / "absent")
    assert says(condition, present), list(present)
    assert not says(condition, absent), list(absent)


@pytest.mark.parametrize("condition", cases(slow=False), ids=lambda condition: condition.name)
def test_warned_where_it_is_and_not_where_it_is_not(condition: Condition, tmp_path: Path) -> None:
    judge(condition, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("condition", cases(slow=True), ids=lambda condition: condition.name)
def test_warned_by_the_whole_method(condition: Condition, tmp_path: Path) -> None:
    judge(condition, tmp_path)
