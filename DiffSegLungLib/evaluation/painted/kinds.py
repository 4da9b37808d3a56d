"""Every kind of painted case: its painter, its host and its seed, in the order of the tables."""

from __future__ import annotations

from collections.abc import Callable

from DiffSegLungLib import tissues
from DiffSegLungLib.evaluation.hosts import HostFile
from DiffSegLungLib.evaluation.painted import (
    cavities,
    consolidation,
    emphysema,
    fibrosis,
    ground_glass,
    negatives,
)
from DiffSegLungLib.evaluation.painted.canvas import Canvas
from DiffSegLungLib.evaluation.painted.case import PaintedKind

Painter = Callable[[Canvas], None]

HOSTS: dict[str, HostFile] = {
    host.name: host
    for host in (
        HostFile("ct/normal001"),
        HostFile("ct/LIDC-IDRI-0001", "_nodulevotes"),
        HostFile("ct/lung2", "_tumor"),
        HostFile("ct/LCTSC-Test-S1-102"),
    )
}
"""CT that nothing is ever trained on, and what marks the lesions that they have already."""

THIN, CONTRAST, THICK, DENSE = HOSTS

OWN_LESIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    DENSE: ((43, 197, 73), (51, 193, 245), (54, 194, 215), (60, 133, 222)),
}
"""Middles (z, y, x) in voxels of small opacities of a host that no map marks, found by eye."""
OWN_RADIUS_MM = 14.0

_TABLE: tuple[tuple[str, int, str, Painter], ...] = (
    ("ground-glass bands and plates", tissues.GROUND_GLASS, THIN, ground_glass.bands_and_plates),
    ("ground-glass crescents", tissues.GROUND_GLASS, CONTRAST, ground_glass.crescents),
    ("ground-glass perilobular", tissues.GROUND_GLASS, THIN, ground_glass.perilobular),
    ("ground-glass along vessels", tissues.GROUND_GLASS, THICK, ground_glass.along_vessels),
    ("ground-glass at the diaphragm", tissues.GROUND_GLASS, DENSE, ground_glass.at_diaphragm),
    ("ground-glass mottled", tissues.GROUND_GLASS, CONTRAST, ground_glass.mottled),
    ("ground-glass all over", tissues.GROUND_GLASS, THICK, ground_glass.all_over),
    ("fibrosis rims", tissues.FIBROSIS, CONTRAST, fibrosis.rims),
    ("fibrosis with traction bronchiectasis", tissues.FIBROSIS, DENSE, fibrosis.reticulation_with_traction),
    ("fibrosis honeycombing", tissues.FIBROSIS, THIN, fibrosis.honeycombing),
    ("consolidation patchy", tissues.CONSOLIDATION, DENSE, consolidation.patchy),
    ("consolidation collapse", tissues.CONSOLIDATION, THICK, consolidation.collapse),
    ("consolidation nodules", tissues.CONSOLIDATION, CONTRAST, consolidation.nodules),
    ("cavity alone", tissues.CAVITY, THIN, cavities.alone),
    ("cavity in consolidation", tissues.CAVITY, DENSE, cavities.in_consolidation),
    ("emphysema centrilobular", tissues.EMPHYSEMA, THIN, emphysema.centrilobular),
    ("emphysema panlobular", tissues.EMPHYSEMA, THICK, emphysema.panlobular),
    ("emphysema paraseptal", tissues.EMPHYSEMA, CONTRAST, emphysema.paraseptal),
    ("emphysema all over", tissues.EMPHYSEMA, THICK, emphysema.all_over),
    ("no disease, dependent density", tissues.HEALTHY, CONTRAST, negatives.dependent_density),
    ("no disease, crowded hila", tissues.HEALTHY, DENSE, negatives.crowded_hila),
    ("no disease, shallow breath", tissues.HEALTHY, THIN, negatives.shallow_breath),
)
FIRST_SEED = 2301

KINDS: dict[str, PaintedKind] = {
    name: PaintedKind(name, tissue, tissue == tissues.HEALTHY, host, FIRST_SEED + number)
    for number, (name, tissue, host, _) in enumerate(_TABLE)
}
"""Every kind, in the order of the tables."""

PAINTERS: dict[str, Painter] = {name: painter for name, _, _, painter in _TABLE}
