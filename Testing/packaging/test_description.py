"""CMakeLists.txt, DiffSegLung.s4ext and DiffSegLung.json say the same, as the Extensions Index reads them."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from Testing.packaging.write_s4ext import description as write_description
from Testing.packaging.write_s4ext import written

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/DiffSegLung/SlicerDiffSegLung"
RAW = REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/"
ENTRY_KEYS = {
    "$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory",
    "dicom_support_rule", "enabled", "tier",
}  # fmt: skip
"""All that the catalogue's schema (1.0.2) allows; the first three are required."""
SCHEMA = re.compile(
    r"https://raw\.githubusercontent\.com/Slicer/Slicer/main/Schemas/"
    r"slicer-extension-catalog-entry-schema-v1\.0\.[12]\.json#"
)
DESCRIPTION_KEYS = {
    "scm", "scmurl", "scmrevision", "depends", "recommends", "build_subdirectory", "homepage", "contributors",
    "category", "iconurl", "status", "tier", "description", "screenshoturls", "enabled", "dicom_support_rule",
    "keywords",
}  # fmt: skip
"""The fields of Slicer's own template."""


def read_description(text: str) -> dict[str, str]:
    """An s4ext: the first word of each line that is no comment is the key, the rest of the line its value.

    Raises:
        ValueError: a key comes twice.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, _, value = line.partition(" ")
        if key in fields:
            raise ValueError(f"{key} comes twice")
        fields[key] = value.strip()
    return fields


@pytest.fixture
def description() -> dict[str, str]:
    return read_description((ROOT / "DiffSegLung.s4ext").read_text(encoding="utf-8"))


@pytest.fixture
def entry() -> dict[str, Any]:
    return json.loads((ROOT / "DiffSegLung.json").read_text(encoding="utf-8"))


def cmake_lists() -> str:
    return (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def test_reader_of_descriptions() -> None:
    text = "# a comment\nscm git\n\nrecommends\ndescription several words: here # and here\n"
    expected = {"scm": "git", "recommends": "", "description": "several words: here # and here"}
    assert read_description(text) == expected
    with pytest.raises(ValueError, match="scm comes twice"):
        read_description("scm git\nscm local\n")


def test_description_has_the_fields_of_slicers_template(description: dict[str, str]) -> None:
    assert set(description) == DESCRIPTION_KEYS
    blank = {key for key, value in description.items() if not value}
    assert blank == {"recommends", "dicom_support_rule"}
    assert not any(";" in value for value in description.values()), "CMake would split it"


def test_entry_has_the_fields_of_the_catalogue(entry: dict[str, Any]) -> None:
    assert {"$schema", "category", "scm_url"} <= set(entry) <= ENTRY_KEYS
    assert SCHEMA.fullmatch(entry["$schema"])
    assert isinstance(entry["tier"], int) and 1 <= entry["tier"] <= 5
    dependencies = entry["build_dependencies"]
    assert isinstance(dependencies, list) and all(isinstance(name, str) for name in dependencies)


def test_description_is_the_one_that_is_written() -> None:
    """It cannot differ: `python Testing/packaging/write_s4ext.py` writes it from the two others."""
    assert (ROOT / "DiffSegLung.s4ext").read_text(encoding="utf-8") == written()


def test_description_follows_the_entry(entry: dict[str, Any]) -> None:
    other = entry | {
        "tier": 3,
        "scm_revision": "v1",
        "build_dependencies": ["PyTorch", "Other"],
        "enabled": False,
    }
    fields = read_description(write_description(other, cmake_lists()))
    assert (fields["tier"], fields["scmrevision"], fields["enabled"]) == ("3", "v1", "0")
    assert fields["depends"] == "PyTorch Other"


def test_description_says_what_the_entry_says(description: dict[str, str], entry: dict[str, Any]) -> None:
    assert description["scm"] == entry.get("scm_type", "git")
    assert description["scmurl"] == entry["scm_url"] == REPOSITORY
    assert description["scmrevision"] == entry["scm_revision"]
    assert description["depends"].split() == entry["build_dependencies"]
    assert description["build_subdirectory"] == entry["build_subdirectory"]
    assert description["category"] == entry["category"]
    assert description["tier"] == str(entry["tier"])
    assert description["enabled"] == str(int(entry.get("enabled", True)))
    assert description["dicom_support_rule"] == entry.get("dicom_support_rule", "")


def test_cmake_says_what_the_description_says(extension: Any, description: dict[str, str]) -> None:
    properties = dict(extension.properties)
    assert properties.pop("NAME") == "DiffSegLung"
    assert properties == {key: description[key.lower()] for key in properties}
    assert description["homepage"] == REPOSITORY


def test_extensions_index_can_read_cmake(description: dict[str, str]) -> None:
    """The index reads the text by regular expression: the first project, and single lines."""
    text = cmake_lists()
    projects = re.findall(r"project\s*\(\s*([^\s)]+)", text, re.IGNORECASE)
    assert projects == ["DiffSegLung"]
    for variable in ("ICONURL", "SCREENSHOTURLS", "DESCRIPTION", "HOMEPAGE", "CONTRIBUTORS", "CATEGORY"):
        lines = re.findall(rf'^set\(EXTENSION_{variable} "([^"]+)"\)$', text, re.MULTILINE)
        assert lines == [description[variable.lower()]]


def test_pictures_are_in_the_repository(description: dict[str, str]) -> None:
    addresses = [description["iconurl"], *description["screenshoturls"].split()]
    for address in addresses:
        assert address.startswith(RAW)
        png = (ROOT / address.removeprefix(RAW)).read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
    icon = (ROOT / addresses[0].removeprefix(RAW)).read_bytes()
    assert struct.unpack(">II", icon[16:24]) == (128, 128)


def test_name_and_description_suit_the_index(description: dict[str, str]) -> None:
    name = cmake_lists().partition("project(")[2].partition(")")[0]
    assert not name.startswith("Slicer")
    assert REPOSITORY.rpartition("/")[2] == f"Slicer{name}"
    assert "research only" in description["description"].lower()
    assert "diffusion mri" not in description["category"].lower()


@pytest.mark.parametrize(
    "name", ["CMakeLists.txt", "DiffSegLung.s4ext", "DiffSegLung.json", "README.md", "CITATION.cff"]
)
def test_one_address_everywhere(name: str) -> None:
    """Every link to the project's own repository is to one and the same."""
    text = (ROOT / name).read_text(encoding="utf-8")
    owners = re.findall(r"github(?:usercontent)?\.com/([\w.-]+/Slicer\w*DiffSegLung[\w.-]*)", text)
    assert set(owners) <= {"DiffSegLung/SlicerDiffSegLung"}
    assert "OWNER" not in text
