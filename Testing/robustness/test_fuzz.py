"""A short run of the fuzzer with a fixed seed; what longer runs found stays here as cases."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.robustness.fuzz import HEADER_BYTES, changed, read, seeds


@pytest.mark.parametrize("ending", HEADER_BYTES)
def test_sound_files_are_read(ending: str) -> None:
    said = read(seeds()[ending], ending)
    assert said == "read" or (ending == ".dcm" and "1 slice" in said) or "2D picture" in said


@pytest.mark.parametrize("ending", HEADER_BYTES)
def test_changed_headers_are_refused_or_read(ending: str) -> None:
    random = np.random.default_rng(9)
    for _ in range(15):
        read(changed(seeds()[ending], HEADER_BYTES[ending], random), ending)
