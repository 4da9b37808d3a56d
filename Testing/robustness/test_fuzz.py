"""A short run of the fuzzer with a fixed seed; what longer runs found stays here as cases."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from DiffSegLungLib.progress import peak_memory_mb
from Testing.robustness.fuzz import HEADER_BYTES, changed, read, seeds


@pytest.mark.parametrize("ending", HEADER_BYTES)
def test_sound_files_are_read(ending: str) -> None:
    said = read(seeds()[ending], ending)
    assert said == "read" or (ending.endswith(".dcm") and "1 slice" in said) or "2D picture" in said


def test_a_dicom_file_that_says_gigabytes_takes_none() -> None:
    """Found by atheris: 1,128 bytes that took the reader 4 GB and 18 seconds.  Fewer bytes, same lie."""
    sound = seeds()[".dcm"]
    at = sound.rindex(b"\xe0\x7f\x10\x00OW")
    assert struct.unpack_from("<I", sound, at + 8)[0] < len(sound)
    lying = sound[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + sound[at + 12 :]
    started, before = time.process_time(), peak_memory_mb()
    assert "cut off, or damaged" in read(lying, ".dcm")
    assert time.process_time() - started < 3 and peak_memory_mb() - before < 200


@pytest.mark.parametrize("ending", HEADER_BYTES)
def test_changed_headers_are_refused_or_read(ending: str) -> None:
    random = np.random.default_rng(9)
    for _ in range(15):
        read(changed(seeds()[ending], HEADER_BYTES[ending], random), ending)
