"""Segmentation files: segments are known by code, ID or name, in any order and any layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib import anatomy, tissues
from DiffSegLungLib.anatomy import LEFT_SIDE, LOBES, LUNGS, RIGHT_SIDE, is_lungs, structure_of
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export import segmentation_file
from DiffSegLungLib.io.segmentations import load_lungs, load_regions, load_tissues, read_segmentation
from DiffSegLungLib.io.volume import Volume, load_volume
from DiffSegLungLib.terminology import Terminology, parse_terminology
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, GROUND_GLASS, HEALTHY, VESSEL, Code

SHAPE = (12, 20, 24)
SPACING = (2.0, 0.8, 0.7)
RIGHT_HALF, LEFT_HALF = np.s_[2:10, 4:16, 3:10], np.s_[2:10, 4:16, 14:21]
GENERAL = "Segmentation category and type - 3D Slicer General Anatomy list"


@pytest.fixture(scope="module")
def volume() -> Volume:
    hu = np.full(SHAPE, 40.0, np.float32)
    hu[RIGHT_HALF] = hu[LEFT_HALF] = -850.0
    return load_volume(on_grid(hu.astype(np.int16)))


def on_grid(values: np.ndarray) -> sitk.Image:
    """The patient's right at low x, as in canonical axes."""
    image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-8.0, 5.0, 30.0))
    return image


def entry(value: str, modifier: str = "") -> str:
    """A tag as Slicer writes it."""
    side = {"24028007": "Right", "7771000": "Left", "51440002": "Right and left"}.get(modifier, "")
    modifier_triplet = f"SCT^{modifier}^{side}" if modifier else "^^"
    return f"{GENERAL}~SCT^123037004^Anatomical Structure~SCT^{value}^meaning~{modifier_triplet}~~^^~^^"


def save(path: Path, segments: list[dict[str, object]], overlapping: bool = False) -> Path:
    """A file as Slicer writes it: segments with mask, name and perhaps ID, codes, LabelValue and Layer.

    Overlapping segments lie in a layer each, all under the value 1; else all lie in one layer.
    """
    layers = np.zeros((*SHAPE, len(segments) if overlapping else 1), np.uint8)
    fields: dict[str, str] = {}
    for index, segment in enumerate(segments):
        layer, label = (index, 1) if overlapping else (0, 11 + index)
        layers[..., layer][np.asarray(segment["mask"])] = label
        fields[f"Segment{index}_ID"] = str(segment.get("id", f"Segment_{index + 1}"))
        fields[f"Segment{index}_Name"] = str(segment["name"])
        fields[f"Segment{index}_LabelValue"] = str(label)
        fields[f"Segment{index}_Layer"] = str(layer)
        if "codes" in segment:
            tags = f"Segmentation.Status:inprogress|TerminologyEntry:{segment['codes']}|"
            fields[f"Segment{index}_Tags"] = tags
    image = on_grid(layers if overlapping else layers[..., 0])
    for key, value in fields.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def box(*region: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[region] = True
    return mask


RIGHT_UPPER, RIGHT_LOWER = box(slice(6, 10), *RIGHT_HALF[1:]), box(slice(2, 6), *RIGHT_HALF[1:])
LEFT_ALL, LUNG = box(*LEFT_HALF), box(*RIGHT_HALF) | box(*LEFT_HALF)


# --- codes and names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", [*LUNGS, *LOBES], ids=lambda each: each.key)
def test_codes_survive_writing_and_reading(structure: anatomy.Structure) -> None:
    parsed = parse_terminology(structure.terminology.entry)
    assert parsed == structure.terminology
    assert structure_of(parsed, "anything") is structure


def test_the_context_and_codes_are_slicers() -> None:
    right, left = (lung.terminology.entry for lung in LUNGS)
    assert (
        right == f"{GENERAL}~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~SCT^24028007^Right~~^^~^^"
    )
    assert left.split("~")[3] == "SCT^7771000^Left"


@pytest.mark.parametrize(
    ("value", "modifier", "name"),
    [
        ("45653009", "24028007", "right upper lobe"),
        ("45653009", "7771000", "left upper lobe"),
        ("72481006", "", "right middle lobe"),
        ("72481006", "24028007", "right middle lobe"),
        ("90572001", "24028007", "right lower lobe"),
        ("90572001", "7771000", "left lower lobe"),
        ("39607008", "24028007", "right lung"),
        ("39607008", "7771000", "left lung"),
        ("45653009", "", None),
        ("39607008", "51440002", None),
        ("85756007", "", None),
    ],
)
def test_by_code(value: str, modifier: str, name: str | None) -> None:
    found = structure_of(parse_terminology(entry(value, modifier)), "")
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("right upper lobe", "right upper lobe"),
        ("RUL", "right upper lobe"),
        ("Lobe RLL", "right lower lobe"),
        ("upper lobe of right lung", "right upper lobe"),
        ("superior lobe of left lung", "left upper lobe"),
        ("lung_upper_lobe_right", "right upper lobe"),
        ("lung_middle_lobe_right", "right middle lobe"),
        ("lung_lower_lobe_left", "left lower lobe"),
        ("Middle Lobe", "right middle lobe"),
        ("LeftLowerLobe", "left lower lobe"),
        ("Right lung", "right lung"),
        ("Lung_L", "left lung"),
        ("lung right", "right lung"),
        ("left middle lobe", None),
        ("upper and lower lobe right", None),
        ("right upper lobe nodule", None),
        ("RUL bronchus", None),
        ("right lung lobe", None),
        ("lungs", None),
        ("right", None),
        ("upper", None),
        ("Segment_1", None),
        ("", None),
    ],
)
def test_by_name(written: str, name: str | None) -> None:
    found = structure_of(None, written)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("name", "yes"),
    [("Lungs", True), ("lung", True), ("both lungs", True), ("lung lobe", False), ("lung nodule", False)],
)
def test_lungs_without_a_side(name: str, yes: bool) -> None:
    assert is_lungs(None, name) is yes
    assert is_lungs(parse_terminology(entry("39607008", "51440002")), "x")


@pytest.mark.parametrize("text", ["", "a", "a~b~c", "context~SCT^^~SCT^1^x~^^", "~~~~~~~~"])
def test_no_codes_are_no_codes(text: str) -> None:
    assert parse_terminology(text) is None


def test_codes_of_older_files_are_shorter() -> None:
    assert parse_terminology("context~SCT^1^one~SCT^2^two") == Terminology(
        "context", Code("SCT", "1", "one"), Code("SCT", "2", "two")
    )


# --- regions ---------------------------------------------------------------------------------------------


def test_codes_go_before_names_and_order_does_not_matter(tmp_path: Path, volume: Volume) -> None:
    segments: list[dict[str, object]] = [
        {"name": "left upper lobe", "codes": entry("90572001", "24028007"), "mask": RIGHT_LOWER},
        {"name": "My region", "mask": LEFT_ALL},
        {"name": "RUL", "mask": RIGHT_UPPER},
    ]
    for order in (segments, segments[::-1]):
        regions = load_regions(save(tmp_path / "lobes.seg.nrrd", order), volume, LUNG)
        assert set(regions) == {"right lower lobe", "My region", "right upper lobe"}
        assert np.array_equal(regions["right lower lobe"], RIGHT_LOWER)
        assert np.array_equal(regions["right upper lobe"], RIGHT_UPPER)
        assert np.array_equal(regions["My region"], LEFT_ALL)


def test_overlapping_segments_lie_in_layers(tmp_path: Path, volume: Volume) -> None:
    whole = RIGHT_UPPER | RIGHT_LOWER
    path = save(
        tmp_path / "layers.seg.nrrd",
        [
            {"name": "everything right", "mask": whole},
            {"name": "RUL", "mask": RIGHT_UPPER},
            {"name": "empty", "mask": np.zeros(SHAPE, bool)},
            {"name": "outside", "mask": box(slice(0, 1))},
        ],
        overlapping=True,
    )
    regions = load_regions(path, volume, LUNG)
    assert list(regions) == ["everything right", "right upper lobe"]
    assert np.array_equal(regions["everything right"], whole)
    assert np.array_equal(regions["right upper lobe"], RIGHT_UPPER)


def test_a_files_names_never_hide_a_row_of_the_table(tmp_path: Path, volume: Volume) -> None:
    segments: list[dict[str, object]] = [
        {"name": "Right lung", "mask": RIGHT_UPPER},
        {"name": "region", "mask": RIGHT_LOWER},
        {"name": " region\n", "mask": LEFT_ALL},
    ]
    path = save(tmp_path / "r.seg.nrrd", segments)
    assert list(load_regions(path, volume, LUNG)) == ["right lung (2)", "region", "region (2)"]


def test_a_plain_label_map_has_numbered_regions(volume: Volume) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[RIGHT_UPPER], labels[LEFT_ALL] = 3, 9
    regions = load_regions(on_grid(labels), volume, LUNG)
    assert list(regions) == ["region 3", "region 9"]
    assert np.array_equal(regions["region 9"], LEFT_ALL)


def test_a_cropped_file_lands_in_place(tmp_path: Path, volume: Volume) -> None:
    """Slicer stores only the box around the segments."""
    image = sitk.ReadImage(str(save(tmp_path / "whole.seg.nrrd", [{"name": "RUL", "mask": RIGHT_UPPER}])))
    cropped = image[2:12, 3:18, 5:11]
    for key in image.GetMetaDataKeys():
        cropped.SetMetaData(key, image.GetMetaData(key))
    sitk.WriteImage(cropped, str(tmp_path / "cropped.seg.nrrd"))
    regions = load_regions(tmp_path / "cropped.seg.nrrd", volume, LUNG)
    assert np.array_equal(regions["right upper lobe"], RIGHT_UPPER)


def test_files_of_old_slicers_hold_a_segment_a_layer(tmp_path: Path, volume: Volume) -> None:
    """Before 4.11 there was neither LabelValue nor Layer."""
    layers = np.zeros((*SHAPE, 2), np.uint8)
    layers[..., 0][RIGHT_UPPER], layers[..., 1][LEFT_ALL] = 1, 1
    image = on_grid(layers)
    for index, name in enumerate(("RUL", "mine")):
        image.SetMetaData(f"Segment{index}_ID", f"Segment_{index}")
        image.SetMetaData(f"Segment{index}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "old.seg.nrrd"))
    regions = load_regions(tmp_path / "old.seg.nrrd", volume, LUNG)
    assert np.array_equal(regions["right upper lobe"], RIGHT_UPPER)
    assert np.array_equal(regions["mine"], LEFT_ALL)


def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, volume: Volume) -> None:
    image = sitk.ReadImage(str(save(tmp_path / "a.seg.nrrd", [{"name": "RUL", "mask": RIGHT_UPPER}])))
    image.SetMetaData("Segment0_Layer", "4")
    with pytest.raises(UnusableInputError, match="do not fit"):
        read_segmentation(image, volume)


# --- lungs -----------------------------------------------------------------------------------------------


def test_the_lungs_that_we_write_are_read_with_their_sides(tmp_path: Path, volume: Volume) -> None:
    sides = np.zeros(SHAPE, np.uint8)
    sides[RIGHT_HALF], sides[LEFT_HALF] = RIGHT_SIDE, LEFT_SIDE
    segmentation_file.write_segmentation(
        tmp_path / "lungs.seg.nrrd", on_grid(sides), segmentation_file.LUNG_SEGMENTS
    )
    found, named = load_lungs(tmp_path / "lungs.seg.nrrd", volume)
    assert named and np.array_equal(found, sides)
    read = sitk.ReadImage(str(tmp_path / "lungs.seg.nrrd"))
    assert [read.GetMetaData(f"Segment{i}_ID") for i in (0, 1)] == ["right-lung", "left-lung"]
    assert [read.GetMetaData(f"Segment{i}_Name") for i in (0, 1)] == ["Right lung", "Left lung"]
    assert [read.GetMetaData(f"Segment{i}_LabelValue") for i in (0, 1)] == ["1", "2"]
    assert "SCT^24028007^Right" in read.GetMetaData("Segment0_Tags")


def test_sides_come_from_codes_and_the_trachea_is_no_lung(tmp_path: Path, volume: Volume) -> None:
    path = save(
        tmp_path / "s.seg.nrrd",
        [
            {"name": "right lung", "codes": entry("39607008", "7771000"), "mask": LEFT_ALL},
            {"name": "trachea", "mask": box(slice(0, 2))},
            {"name": "RUL", "mask": RIGHT_UPPER},
        ],
    )
    found, named = load_lungs(path, volume)
    assert named
    assert np.array_equal(found == LEFT_SIDE, LEFT_ALL) and np.array_equal(found == RIGHT_SIDE, RIGHT_UPPER)


def test_without_sides_the_lungs_count_and_else_everything(tmp_path: Path, volume: Volume) -> None:
    trachea: dict[str, object] = {"name": "trachea", "mask": box(slice(0, 2))}
    lungs: dict[str, object] = {"name": "Lungs", "mask": LUNG}
    found, named = load_lungs(save(tmp_path / "a.seg.nrrd", [trachea, lungs]), volume)
    assert not named and np.array_equal(found > 0, LUNG)
    segments: list[dict[str, object]] = [{"name": "A", "mask": RIGHT_UPPER}, {"name": "B", "mask": LEFT_ALL}]
    found, named = load_lungs(save(tmp_path / "b.seg.nrrd", segments), volume)
    assert not named and np.array_equal(found > 0, RIGHT_UPPER | LEFT_ALL)


def test_an_empty_lung_segmentation_is_refused(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "e.seg.nrrd", [{"name": "right lung", "mask": np.zeros(SHAPE, bool)}])
    with pytest.raises(UnusableInputError, match="empty"):
        load_lungs(path, volume)


# --- tissues ---------------------------------------------------------------------------------------------


def test_tissues_by_id_code_and_name_in_any_order(tmp_path: Path, volume: Volume) -> None:
    code = segmentation_file.tissue_terminology(tissues.BY_LABEL[CONSOLIDATION]).entry
    segments: list[dict[str, object]] = [
        {"name": "whatever", "id": "emphysema", "mask": RIGHT_UPPER},
        {"name": "white lung", "codes": code, "mask": RIGHT_LOWER},
        {"name": "ground glass opacity", "mask": LEFT_ALL},
        {"name": "ruler", "mask": box(slice(0, 1))},
    ]
    for order in (segments, segments[::-1]):
        labels, warnings = load_tissues(save(tmp_path / "t.seg.nrrd", order), volume)
        assert np.array_equal(labels == EMPHYSEMA, RIGHT_UPPER)
        assert np.array_equal(labels == CONSOLIDATION, RIGHT_LOWER)
        assert np.array_equal(labels == GROUND_GLASS, LEFT_ALL)
        assert np.count_nonzero(labels) == LUNG.sum()
        assert warnings == ["Segment 'ruler' is none of DiffSegLung's tissues and was left out."]


def test_overlap_is_said_and_the_last_counts(tmp_path: Path, volume: Volume) -> None:
    segments: list[dict[str, object]] = [
        {"name": "", "id": "healthy", "mask": LUNG},
        {"name": "Consolidation", "mask": LEFT_ALL},
    ]
    labels, warnings = load_tissues(save(tmp_path / "o.seg.nrrd", segments, overlapping=True), volume)
    assert np.array_equal(labels == CONSOLIDATION, LEFT_ALL)
    assert np.array_equal(labels == HEALTHY, LUNG & ~LEFT_ALL)
    assert len(warnings) == 1 and f"{LEFT_ALL.sum() * volume.voxel_ml:.1f} ml" in warnings[0]


def test_what_we_write_is_what_we_read(tmp_path: Path, volume: Volume) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[LUNG] = np.arange(LUNG.sum()) % VESSEL + 1
    segmentation_file.write_segmentation(tmp_path / "ours.seg.nrrd", on_grid(labels))
    found, warnings = load_tissues(tmp_path / "ours.seg.nrrd", volume)
    assert warnings == [] and np.array_equal(found, np.where(labels == VESSEL, 0, labels))
    plain, warnings = load_tissues(on_grid(labels), volume)
    assert warnings == [] and np.array_equal(plain, labels)


def test_no_tissue_at_all_and_unknown_values_are_refused(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "n.seg.nrrd", [{"name": "ruler", "mask": LUNG}])
    with pytest.raises(UnusableInputError, match="no segment on this CT is a tissue"):
        load_tissues(path, volume)
    with pytest.raises(UnusableInputError, match="Label 9"):
        load_tissues(on_grid(LUNG.astype(np.uint8) * 9), volume)
