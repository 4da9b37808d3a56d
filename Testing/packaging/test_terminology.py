"""The terminology file is the tissue table in Slicer's words; Slicer's own logic reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from DiffSegLungLib.export.segmentation_file import TERMINOLOGY_CONTEXT, tissue_terminology
from DiffSegLungLib.tissues import CATEGORY, REPORTED, TISSUES, Code, Tissue

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "DiffSegLung/Resources/SegmentationCategoryTypeModifier-DiffSegLung.term.json"
CODE_KEYS = {"CodingSchemeDesignator", "CodeValue", "CodeMeaning"}
OPTIONAL_KEYS = {"3dSlicerLabel", "cid", "contextGroupName", "UMLSConceptUID", "SNOMEDCTConceptID"}
LONGEST_VALUE, LONGEST_MEANING = 16, 64


def content() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def only_category() -> dict[str, Any]:
    (category,) = content()["SegmentationCodes"]["Category"]
    return category


def code_of(item: dict[str, Any]) -> Code:
    return Code(item["CodingSchemeDesignator"], item["CodeValue"], item["CodeMeaning"])


def test_shape_is_that_of_dcmqi() -> None:
    """As dcmqi's schema of segment contexts has it; it allows no other keys."""
    assert set(content()) == {"SegmentationCategoryTypeContextName", "@schema", "SegmentationCodes"}
    assert set(content()["SegmentationCodes"]) == {"Category"}
    category = only_category()
    assert CODE_KEYS <= set(category) <= CODE_KEYS | OPTIONAL_KEYS | {"showAnatomy", "Type"}
    assert category["showAnatomy"] is True  # else Slicer would drop the region "Lung"
    for item in category["Type"]:
        assert CODE_KEYS <= set(item) <= CODE_KEYS | OPTIONAL_KEYS | {"recommendedDisplayRGBValue"}
        assert all(isinstance(item[key], str) for key in set(item) - {"recommendedDisplayRGBValue"})


def test_codes_fit_into_dicom() -> None:
    for item in (only_category(), *only_category()["Type"]):
        assert len(item["CodingSchemeDesignator"]) <= LONGEST_VALUE
        assert len(item["CodeValue"]) <= LONGEST_VALUE
        assert len(item["CodeMeaning"]) <= LONGEST_MEANING


def test_file_is_the_tissue_table() -> None:
    assert content()["SegmentationCategoryTypeContextName"] == TERMINOLOGY_CONTEXT
    assert code_of(only_category()) == CATEGORY
    rows = [
        (code_of(item), item["3dSlicerLabel"], item["recommendedDisplayRGBValue"])
        for item in only_category()["Type"]
    ]
    assert rows == [(tissue.code, tissue.name, list(tissue.colour)) for tissue in REPORTED]


@pytest.fixture
def logic(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Slicer's logic with the file loaded; an error that VTK writes fails the test."""
    slicer = pytest.importorskip("slicer", reason="needs slicer-core")
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    name = logic.LoadTerminologyFromFile(str(FILE))
    assert name == TERMINOLOGY_CONTEXT
    yield logic
    errors = capfd.readouterr().err
    assert "ERR|" not in errors, errors


def test_slicer_lists_every_tissue(logic: Any) -> None:
    import slicer

    category = slicer.vtkSlicerTerminologyCategory()
    assert logic.GetNumberOfCategoriesInTerminology(TERMINOLOGY_CONTEXT) == 1
    assert logic.GetNthCategoryInTerminology(TERMINOLOGY_CONTEXT, 0, category)
    assert category.GetShowAnatomy()
    assert logic.GetNumberOfTypesInTerminologyCategory(TERMINOLOGY_CONTEXT, category) == len(REPORTED)


@pytest.mark.parametrize("tissue", REPORTED, ids=[tissue.key for tissue in REPORTED])
def test_slicer_finds_what_the_segmentation_file_names(logic: Any, tissue: Tissue) -> None:
    """With the entry that is stored in a segment, Slicer looks up label and colour in the file."""
    import slicer

    entry = slicer.vtkSlicerTerminologyEntry()
    assert logic.DeserializeTerminologyEntry(tissue_terminology(tissue).entry, entry)
    logic.UpdateEntryFromLoadedTerminologies(entry, [TERMINOLOGY_CONTEXT], [])
    assert entry.GetTerminologyContextName() == TERMINOLOGY_CONTEXT
    assert entry.GetTypeObject().GetSlicerLabel() == tissue.name
    assert tuple(entry.GetTypeObject().GetRecommendedDisplayRGBValue()) == tissue.colour
    by_label = slicer.vtkSlicerTerminologyEntry()
    assert logic.FindTypeInTerminologyBy3dSlicerLabel(TERMINOLOGY_CONTEXT, tissue.name, by_label)
    assert logic.AreCodedEntriesEqual(by_label.GetTypeObject(), entry.GetTypeObject())


def contexts_that_have(logic: Any, tissue: Tissue) -> list[str]:
    codes = CATEGORY.scheme, CATEGORY.value, tissue.code.scheme, tissue.code.value
    return list(logic.FindTerminologyNames(*codes, "", "", [TERMINOLOGY_CONTEXT]))


def test_slicer_finds_the_codes_of_reported_tissues_alone(logic: Any) -> None:
    for tissue in TISSUES:
        expected = [TERMINOLOGY_CONTEXT] if tissue in REPORTED else []
        assert contexts_that_have(logic, tissue) == expected
