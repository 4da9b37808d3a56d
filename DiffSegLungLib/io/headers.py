"""Is a header safe to give to the reader of its format?

The readers below ITK trust what a header says.  MetaIO and NrrdIO keep room for few dimensions or short lines
and write beyond it, and both take the name of a pixel file for a format of C's printf; GDCM takes all the
memory that a value is said to need.  Files come from anywhere: what is known of these is refused before.
"""

from __future__ import annotations

import re
from pathlib import Path

from DiffSegLungLib.io.dicom_elements import fault_of_values

HEADER_BYTES = 4_000_000
"""A segmentation of Slicer with its terminology has some ten thousand."""
LONGEST_FIELD = 500
"""Characters of a field of NRRD; its numbers take 300 at most."""
FREE_TEXT = (b"content", b"labels", b"units", b"sampleunits", b"spaceunits")
MANY_FILES = "its pixels lie in many files; save the CT as one file, NRRD for example."
DAMAGED = "its header is damaged; export the CT again."


def is_dicom(path: Path) -> bool:
    """Whether a file calls itself DICOM; the index of a folder, DICOMDIR, does not count."""
    with path.open("rb") as file:
        return path.name.upper() != "DICOMDIR" and file.read(132)[128:] == b"DICM"


def fault_of_header(path: Path) -> str:
    """What of a header its reader must not see, in words with a remedy; nothing where it may have it."""
    if is_dicom(path):
        return fault_of_values(path)
    name = path.name.lower()
    if name.endswith((".mha", ".mhd")):
        return _fault_of_metaimage(_start_of(path))
    if name.endswith((".nrrd", ".nhdr")):
        return _fault_of_nrrd(_start_of(path))
    return ""


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _fault_of_metaimage(start: bytes) -> str:
    header, found, rest = start.partition(b"ElementDataFile")
    if b"NDims" not in header:
        return ""  # its reader does not take it for one, and says so
    dimensions = re.findall(rb"NDims[^\d\n-]*(-?\d+)", header)
    if not found or len(dimensions) != header.count(b"NDims"):
        return DAMAGED
    if not all(2 <= int(count) <= 4 for count in dimensions):
        return "says it has a number of dimensions that no CT has; export the CT again."
    return MANY_FILES if b"%" in rest.partition(b"\n")[0] else ""


def _fault_of_nrrd(start: bytes) -> str:
    if not start.startswith(b"NRRD"):
        return ""
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    if len(header) == HEADER_BYTES:
        return DAMAGED
    for line in header.splitlines()[1:]:
        field, colon, value = line.partition(b":")
        if line.startswith(b"#") or not colon or value.startswith(b"="):  # comments and key:=value are kept
            continue
        name = field.replace(b" ", b"").lower()
        if name not in FREE_TEXT and len(line) > LONGEST_FIELD:
            return DAMAGED
        if name == b"datafile" and b"%" in value:
            return MANY_FILES
        if name == b"encoding" and value.strip().lower() in (b"ascii", b"text", b"txt"):
            return "holds its voxels as text; save the CT again, as raw or gzip."
    return ""
