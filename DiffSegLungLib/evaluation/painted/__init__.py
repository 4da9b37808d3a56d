"""The painter for evaluation: real CT with disease of one kind and the truth of each voxel.

It is another program than the one that paints while networks train, and it is frozen: ``VERSION`` and the
hashes in ``Testing/evaluation/painted.json`` say which cases a figure belongs to.  ``kinds`` lists what there
is; ``ground_glass``, ``fibrosis``, ``consolidation``, ``cavities``, ``emphysema`` and ``negatives`` paint,
with ``shapes``, on a ``canvas``; ``scoring`` compares a label map with the truth.
"""

from __future__ import annotations

from DiffSegLungLib.evaluation.painted.case import PaintedCase, PaintedKind, truth_sha256
from DiffSegLungLib.evaluation.painted.kinds import KINDS
from DiffSegLungLib.evaluation.painted.make import make_painted
from DiffSegLungLib.evaluation.painted.scoring import score

VERSION = 1
"""Goes up whenever a case of the same kind and seed comes out differently."""

__all__ = ["KINDS", "VERSION", "PaintedCase", "PaintedKind", "make_painted", "score", "truth_sha256"]
