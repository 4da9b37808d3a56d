"""Do the values of a DICOM file fit into it?  A header may say four gigabytes where a kilobyte follows.

The reader (GDCM) takes the memory first and finds out then.  The elements are walked here one after the
other, sequences and items by going into them, without reading any value (DICOM PS3.5, section 7).  What was
deflated as a whole (section A.5) is inflated for that, up to a limit: a megabyte may hold a gigabyte.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

PREAMBLE = 128
MAGIC = b"DICM"
UNDEFINED = 0xFFFFFFFF
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Value representations whose length takes four bytes, after two that are reserved."""
DELIMITERS = 0xFFFE
TRANSFER_SYNTAX, PIXELS = (0x0002, 0x0010), (0x7FE0, 0x0010)
IMPLICIT, BIG_ENDIAN, DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
ITEM, END_OF_FRAGMENTS = 0xE000, 0xE0DD
META_GROUP = b"\x02\x00"
MOST_INFLATED_BYTES = 1 << 30
"""Of one file: two thousand slices of 512 x 512."""
PIECE_BYTES = 1 << 20
CUT_OFF = "the file is cut off, or damaged; copy or export the CT again."
TOO_LARGE = (
    f"is deflated from more than {MOST_INFLATED_BYTES >> 20} MB, more than any CT; export the CT again."
)


class _TooLargeError(Exception):
    """What was deflated has no end within the limit."""


def fault_of_values(path: Path) -> str:
    """What is wrong with the lengths in a DICOM file, in words with a remedy; nothing where they are sound.

    A value that is cut off or says a length that cannot be is a fault, and so are an empty file and one that
    would inflate to more than `MOST_INFLATED_BYTES`.

    Args:
        path: a file; with or without the preamble.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            return CUT_OFF
        with content:
            has_meta = content[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC
            try:
                fit = _walk(content, PREAMBLE + len(MAGIC) if has_meta else 0)
            except _TooLargeError:
                return TOO_LARGE
            except zlib.error:
                return CUT_OFF
    return "" if fit else CUT_OFF


def _walk(content: mmap.mmap | bytes, at: int, in_meta: bool = True) -> bool:
    """Whether all values fit; of the meta information only what no reader can take for anything else."""
    order, seen_pixels, syntax, names_kinds = "<", False, b"", True
    while at + 8 <= len(content):
        if in_meta and content[at : at + 2] != META_GROUP:
            if syntax == DEFLATED:
                return _walk(_inflated(content, at), 0, in_meta=False)
            in_meta, order = False, ">" if syntax == BIG_ENDIAN else "<"
            names_kinds = syntax != IMPLICIT and (bool(syntax) or _names_kind(content, at))
        tag = struct.unpack_from(f"{order}HH", content, at)
        if seen_pixels and tag[0] == 0:  # some scanners fill up with zeros
            return True
        start, length, is_sequence = _header(content, at, tag, order, names_kinds)
        if in_meta and (is_sequence or length == UNDEFINED or (tag == TRANSFER_SYNTAX and syntax)):
            return False
        if tag == PIXELS and length == UNDEFINED:
            return _fragments_fit(content, start, order)
        if is_sequence or length == UNDEFINED:
            at = start
            continue
        if start + length > len(content):
            return False
        if in_meta and tag == TRANSFER_SYNTAX:
            syntax = content[start : start + length].rstrip(b"\0 ")
        seen_pixels = seen_pixels or tag == PIXELS
        at = start + length
    return True


def _inflated(content: mmap.mmap | bytes, at: int) -> bytes:
    """What was deflated from ``at`` on; its size is found out before memory is taken for it.

    Raises:
        _TooLargeError: it has more than `MOST_INFLATED_BYTES`.
        zlib.error: it is damaged, or has no end.
    """
    size = 0
    for block in _inflated_blocks(content, at):
        size += len(block)
        if size > MOST_INFLATED_BYTES:
            raise _TooLargeError
    return b"".join(_inflated_blocks(content, at))


def _inflated_blocks(content: mmap.mmap | bytes, at: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # DICOM keeps no header of zlib's
    for start in range(at, len(content), PIECE_BYTES):
        piece = content[start : start + PIECE_BYTES]
        while piece and not inflater.eof:
            yield inflater.decompress(piece, PIECE_BYTES)
            piece = inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise zlib.error("no end")


def _names_kind(content: mmap.mmap | bytes, at: int) -> bool:
    """Whether the element at ``at`` seems to name its value representation."""
    kind = content[at + 4 : at + 6]
    return kind.isalpha() and kind.isupper()


def _header(
    content: mmap.mmap | bytes, at: int, tag: tuple[int, int], order: str, names_kinds: bool
) -> tuple[int, int, bool]:
    """Where the value of the element at ``at`` starts, its length in bytes, whether elements are in it.

    Within an implicit file the length alone follows the tag; two of its bytes may be capital letters.
    """
    kind = content[at + 4 : at + 6]
    if tag[0] == DELIMITERS:
        return at + 8, struct.unpack_from(f"{order}I", content, at + 4)[0], tag[1] == ITEM
    if names_kinds and kind in LONG and at + 12 <= len(content):
        return at + 12, struct.unpack_from(f"{order}I", content, at + 8)[0], kind == b"SQ"
    if names_kinds and _names_kind(content, at) and kind not in LONG:
        return at + 8, struct.unpack_from(f"{order}H", content, at + 6)[0], False
    length = struct.unpack_from(f"{order}I", content, at + 4)[0]
    return at + 8, length, False  # implicit, also within explicit


def _fragments_fit(content: mmap.mmap | bytes, at: int, order: str) -> bool:
    """Whether the pieces of compressed pixels end within the file."""
    while at + 8 <= len(content):
        group, element, length = struct.unpack_from(f"{order}HHI", content, at)
        if (group, element) == (DELIMITERS, END_OF_FRAGMENTS):
            return True
        at += 8 + length
        if at > len(content):
            return False
    return True
