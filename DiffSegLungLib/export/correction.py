"""A result that somebody corrected: never again to be taken for an automatic one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from DiffSegLungLib.decision.strokes import Spread

CORRECTED = "The segmentation was corrected by hand; the measures are those of the corrected one."
TAUGHT = "{painted:.1f} mL were painted by hand; {moved:.1f} mL changed in all"
BEYOND = "{:.1f} mL were painted outside the lungs: they count as painted, but nothing was learnt from them"
NO_FIELD = (
    "Strokes cannot correct this result: its model has no network that decides. Segment with the shipped "
    "model for that"
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
