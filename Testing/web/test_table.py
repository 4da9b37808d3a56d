"""The rows of the page's table."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.quantify.measures import measure
from DiffSegLungLib.tissues import HEALTHY


@pytest.mark.parametrize(
    ("sides", "cells"), [((1, 2), ("right", "left")), ((2, 2), ("left",)), ((1, 1), ("right",))]
)
def test_a_lung_that_is_not_there_has_no_cells(sides: tuple[int, int], cells: tuple[str, ...]) -> None:
    from DiffSegLungLib.app.serve.results import tissue_rows

    labels, hu = np.full((1, 1, 2), HEALTHY, np.uint8), np.full((1, 1, 2), -850, np.float32)
    measures = measure(labels, hu, (1, 1, 1), regions_from_sides(np.array(sides).reshape(labels.shape)))
    rows = tissue_rows(measures, {"healthy"})
    for row in rows:
        assert [cell for cell in ("right", "left") if cell in row] == list(cells)
        assert row["visible"] == (row["key"] != "healthy")
