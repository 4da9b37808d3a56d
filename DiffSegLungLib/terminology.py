"""Coded concepts as Slicer writes them in a segment's tag: seven parts with ``~``, triplets with ``^``."""

from __future__ import annotations

from dataclasses import dataclass

from DiffSegLungLib.tissues import Code

REGION_CONTEXT = "Anatomic codes - DICOM master list"
TAG = "TerminologyEntry"
"""Name of the segment's tag that holds the entry."""


@dataclass(frozen=True)
class Terminology:
    """What a segment is, in codes.

    Attributes:
        context: name of the terminology that Slicer looks the codes up in.
        category: the segmented property category.
        type: the segmented property type.
        modifier: of the type, such as the side.
        region: the body part.
    """

    context: str
    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None

    @property
    def entry(self) -> str:
        """Context, category, type, modifier; context, region, modifier of the region."""
        parts = (
            self.context, _triplet(self.category), _triplet(self.type), _triplet(self.modifier),
            REGION_CONTEXT if self.region else "", _triplet(self.region), _triplet(None),
        )  # fmt: skip
        return "~".join(parts)


def parse_terminology(entry: str) -> Terminology | None:
    """Read an entry as Slicer writes it.

    Args:
        entry: seven parts; those from the modifier on may be missing, as in files of older Slicers.

    Returns:
        The codes; None where category or type are missing.
    """
    parts = entry.split("~")
    codes = [_code(part) for part in parts[1:4]] + [None] * 3
    category, kind, modifier = codes[:3]
    if category is None or kind is None:
        return None
    return Terminology(parts[0], category, kind, modifier, _code(parts[5]) if len(parts) > 5 else None)


def _triplet(code: Code | None) -> str:
    return f"{code.scheme}^{code.value}^{code.meaning}" if code else "^^"


def _code(triplet: str) -> Code | None:
    scheme, value, meaning = (*triplet.split("^", 2), "", "")[:3]
    return Code(scheme, value, meaning) if value else None
