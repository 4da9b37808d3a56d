"""A result that somebody corrected: never again to be taken for an automatic one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.decision.label_map import entropy_map
from DiffSegLungLib.decision.strokes import Spread, spread
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.io.strokes import load_strokes
from DiffSegLungLib.io.volume import to_input_geometry
from DiffSegLungLib.quantify.measures import complete, measure
from DiffSegLungLib.tissues import OUTSIDE

if TYPE_CHECKING:
    from DiffSegLungLib.io.segmentations import Source

CORRECTED = "The segmentation was corrected by hand; the measures are those of the corrected one."
TAUGHT = "{painted:.1f} mL were painted by hand; {moved:.1f} mL changed in all"
BEYOND = "{:.1f} mL were painted outside the lungs: they count as painted, but nothing was learnt from them"
NO_FIELD = (
    "This result keeps nothing that strokes could correct, since its model has no network that decides: "
    "segment with the shipped model."
)


def corrected_result(result: Result, strokes: Source | np.ndarray, given: np.ndarray | None = None) -> Result:
    """A result anew, with strokes as evidence.

    Args:
        result: of a run, or of strokes before these: all that shall count are given each time.
        strokes: a segmentation, or uint8 (z, y, x) in canonical axes as :func:`load_strokes` gives them.
        given: labels (z, y, x) that are to be corrected, where they are not the run's own.

    Raises:
        UnusableInputError: strokes that cannot be used, or a result without a field.
    """
    if result.field is None:
        raise UnusableInputError(NO_FIELD)
    painted = strokes if isinstance(strokes, np.ndarray) else load_strokes(strokes, result.volume)
    start = result.label_array if given is None else given
    done = spread(result.field, painted, start, result.volume, result.label_array)
    sides = np.where((done.labels > OUTSIDE) | (start == OUTSIDE), result.sides, 0).astype(np.uint8)
    volume = result.volume
    labels, sides = complete(done.labels, sides, volume.spacing)
    regions = {**regions_from_sides(sides), **result.regions}
    return replace(
        result,
        labels=to_input_geometry(labels, volume),
        label_array=labels,
        measures=measure(labels, volume.hu, volume.spacing, regions, volume.voxel_ml),
        manifest=corrected_manifest(result.manifest, done, painted),
        sides=sides,
        map_entropy=partial(entropy_map, done.tissues, done.grid, volume, labels > OUTSIDE),
    )


def corrected_manifest(manifest: Mapping[str, Any], done: Spread, strokes: np.ndarray) -> dict[str, Any]:
    """The run's manifest with what strokes did; their hash tells which ones they were."""
    painted = sum(done.strokes_ml.values())
    moved = sum(ml for to in done.moved_ml.values() for ml in to.values())
    said = [CORRECTED, TAUGHT.format(painted=painted, moved=moved)]
    said += [BEYOND.format(done.outside_ml)] if done.outside_ml else []
    correction = {
        "strokes_ml": dict(done.strokes_ml),
        "strokes_sha256": hashlib.sha256(np.ascontiguousarray(strokes).tobytes()).hexdigest(),
        "outside_ml": done.outside_ml,
        "moved_ml": {old: dict(to) for old, to in done.moved_ml.items()},
    }
    warnings = [*said, *(each for each in manifest.get("warnings", []) if each not in said)]
    return {**manifest, "correction": correction, "warnings": warnings}


def is_corrected(manifest: Mapping[str, Any]) -> bool:
    """Whether strokes changed the result that this manifest is of."""
    return "correction" in manifest
