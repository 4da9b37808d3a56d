"""How a CT was acquired, and what the reader should know of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path

import SimpleITK as sitk

THIN_SLICE_MM = 1.5
# Tags whose values change numbers; none of them identifies a patient.
MODALITY_TAG = "0008|0060"
ACQUISITION_TAGS = {
    "kernel": "0018|1210",
    "slice_thickness_mm": "0018|0050",
    "tube_voltage_kvp": "0018|0060",
    "manufacturer": "0008|0070",
    "contrast": "0018|0010",
    "patient_position": "0018|5100",
}
DATE_TAGS = ("0008|0022", "0008|0021", "0008|0020")
"""Of acquisition, series and study.  Told only where the user asks for dates."""
# Lung and bone kernels: Siemens from 50 up (B50, Br59, Bl57, I70); GE by name; Philips YA to YD, D, L;
# Canon FC3x, FC5x, FC8x.
_SHARP_KERNEL = re.compile(r"([BIQU][A-Z]?[5-9]\d|LUNG|BONE|EDGE|ULTRA|Y[A-D]$|[DL]$|FC[358]\d)")

_NOT_GIVEN = r"0+|NONE|NO|NOT|NIL|N|N/?A|W/?O|WITHOUT|OHNE|SANS|SIN|NATIVE?|PLAIN|UNENHANCED|NON"
_OF_WHAT = r"IV|INTRAVENOUS|CONTRASTE?|ENHANCED|MEDIUM|MEDIA|AGENT|BOLUS|GIVEN|USED|APPLICABLE|KM|CM|C|ML"
_NO_CONTRAST = re.compile(rf"(?:{_NOT_GIVEN})(?:[\W_]*(?:{_OF_WHAT})\b)*[\W_]*")
"""What operators type for "none"; "NONIONIC" and "NO ORAL, OMNIPAQUE IV" name an agent."""


def quality_warnings(spacing: Sequence[float], metadata: dict[str, str]) -> list[str]:
    """Say what of slices, contrast medium and kernel changes the numbers.

    Args:
        spacing: voxel size in mm, in any order.
        metadata: what ``read_acquisition`` returned.
    """
    warnings = []
    finer = f"fine patterns need {THIN_SLICE_MM:g} mm or less."
    if max(spacing) > THIN_SLICE_MM:
        warnings.append(f"Slices lie {max(spacing):.3g} mm apart; {finer}")
    elif _number(metadata.get("slice_thickness_mm")) > THIN_SLICE_MM:
        thickness = _number(metadata["slice_thickness_mm"])
        warnings.append(f"Slices are {thickness:g} mm thick; {finer}")
    if metadata.get("contrast") == "yes":
        warnings.append("Contrast medium was given; it raises the density of healthy lung and of vessels.")
    if is_sharp(metadata.get("kernel", "")):
        warnings.append(f"The kernel {metadata['kernel']} is sharp; its noise adds false emphysema.")
    return warnings


def names_contrast(agent: str) -> bool:
    """Whether DICOM's Contrast/Bolus Agent, which operators fill by hand, says that some was given."""
    words = agent.strip().upper()
    return bool(words.strip("-. ")) and _NO_CONTRAST.fullmatch(words) is None


def is_sharp(kernel: str) -> bool:
    """Whether a vendor's name of a kernel is one for lung or bone."""
    return _SHARP_KERNEL.match(kernel.strip().upper()) is not None


def _number(text: str | None) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        return 0.0


def read_acquisition(reader: sitk.ImageFileReader) -> dict[str, str]:
    """Return the facts of ``ACQUISITION_TAGS`` that a DICOM header holds; ``contrast`` is yes or no."""
    facts = {fact: tag_value(reader, tag).split("\\")[0] for fact, tag in ACQUISITION_TAGS.items()}
    if tag_value(reader, MODALITY_TAG) == "CT":
        facts["contrast"] = "yes" if names_contrast(facts["contrast"]) else "no"
    return {fact: value for fact, value in facts.items() if value}


def acquired_on(files: Sequence[Path]) -> date | None:
    """The day a DICOM series was made, as acquisition, series or study tells; None where none does."""
    if not files:
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(files[0]))
    reader.ReadImageInformation()
    for tag in DATE_TAGS:
        with suppress(ValueError):
            return datetime.strptime(tag_value(reader, tag), "%Y%m%d").date()
    return None


def tag_value(reader: sitk.ImageFileReader, tag: str) -> str:
    """Return a DICOM value as text, empty where the header has it not."""
    if not reader.HasMetaDataKey(tag):
        return ""
    # Bytes outside UTF-8 arrive as lone surrogates, which no later file could be written with.
    return str(reader.GetMetaData(tag)).encode("utf-8", "replace").decode("utf-8").strip()
