"""The host while disease is painted on it: layers of density over its HU, and the truth of each voxel.

A layer is ``h' = keep * h + add``: density mixes as tissue fills air, so that vessels stay seen in haze
and drown where the lung is solid.  Each layer passes the host's own point spread; noise of the host's
strength and grain takes the place of the share of its own that the layers cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from DiffSegLungLib import tissues
from DiffSegLungLib.densities import HIGHEST_HU, LOWEST_HU
from DiffSegLungLib.evaluation.hosts import Host
from DiffSegLungLib.evaluation.site import Box, Site, Triple, make_site

SEAM_MM = 3.0
"""How far outside the lungs' outline the wall is lung in part."""
SEAM_HU = (-880.0, -150.0)
"""Of voxels in part lung, in part wall: below is air of the airways, above fat and muscle."""
TRACE_HU = -30.0
FILLS_SEAM_HU = -400.0
"""What is denser than this fills the seam, too."""
SHARPEST_MM, SOFTEST_MM = 0.3, 1.2
"""Deviations in plane that a CT's point spread may have."""
SOLID = (tissues.CONSOLIDATION, tissues.CAVITY)
LUMP_MM, LUMP_HU = 6.0, -200.0
"""What is so thick and so dense in the host is a large vessel: only solid tissue drowns it."""


def point_spread(hu: np.ndarray, pleura: np.ndarray, spacing: Triple) -> float:
    """Deviation in mm of the Gaussian that the host's kernel blurs edges with, in plane.

    A step of height H so blurred is nowhere steeper than H / (deviation * sqrt(2 pi)).

    Args:
        hu: float32 (z, y, x).
        pleura: depth below the pleura in mm, same shape.
        spacing: (z, y, x) in mm.
    """
    edge = np.abs(pleura) < 1.5 * spacing[1]
    rows, columns = (
        np.gradient(hu, step, axis=axis)[edge] for axis, step in ((1, spacing[1]), (2, spacing[2]))
    )
    lung, wall = np.median(hu[pleura > 5.0]), 30.0
    steepest = np.percentile(np.hypot(rows, columns), 90)
    blurred = (wall - lung) / (steepest * np.sqrt(2 * np.pi))
    # Central differences blur by their own width.
    own = np.sqrt(max(blurred**2 - 2 * spacing[1] ** 2 / 3, 0.0))
    return float(np.clip(own, SHARPEST_MM, SOFTEST_MM))


def name(site: Site, where: np.ndarray, label: int) -> None:
    """Write a label where ``where`` holds (bool, on the site's grid).

    Unlike ``Site.name`` up to the outline and beyond: between the host's slices the outline is a guess, and
    what it leaves out would be dense lung of healthy truth. ``Canvas.lay`` keeps to the lung's own voxels.
    """
    site.truth[where] = label


@dataclass
class Canvas:
    """A host that takes layers.

    Attributes:
        host: the CT.
        seed: of all that is drawn.
        keep: float32 (z, y, x), share of the host's own density that is left.
        add: float32, HU that the layers add.
        truth: uint8 label of each voxel; 0 outside the lungs.
        fluid: bool, pleural fluid: once lung, not lung any more.
        lumps: bool, large vessels of the host.
        spread: deviation in mm of the host's point spread.
    """

    host: Host
    seed: int
    keep: np.ndarray = field(init=False)
    add: np.ndarray = field(init=False)
    truth: np.ndarray = field(init=False)
    fluid: np.ndarray = field(init=False)
    lumps: np.ndarray = field(init=False)
    spread: float = field(init=False)

    def __post_init__(self) -> None:
        shape = self.host.hu.shape
        self.keep, self.add = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        self.truth = np.where(self.host.sides > 0, np.uint8(tissues.HEALTHY), np.uint8(tissues.OUTSIDE))
        self.fluid = np.zeros(shape, bool)
        side = [1, *(2 * round(LUMP_MM / 2 / step) + 1 for step in self.host.spacing[1:])]
        self.lumps = ndimage.grey_opening(self.host.hu, size=side) > LUMP_HU
        self.spread = point_spread(self.host.hu, self.host.pleura, self.host.spacing)

    def random(self, stream: int) -> np.random.Generator:
        """Random numbers of one part of the work, so that parts do not move each other."""
        return np.random.default_rng((self.seed, 90, stream))

    def places(self, fits: np.ndarray, count: int, gap: float, stream: int) -> np.ndarray:
        """Up to ``count`` voxels where ``fits`` holds, at least ``gap`` mm apart, (n, 3) in voxels."""
        candidates = np.argwhere(fits & ~self.host.own)
        order = self.random(stream).permutation(len(candidates))
        spacing = np.array(self.host.spacing)
        chosen: list[np.ndarray] = []
        for number in order:
            place = candidates[number]
            if all(np.linalg.norm((place - other) * spacing) >= gap for other in chosen):
                chosen.append(place)
                if len(chosen) == count:
                    break
        return np.array(chosen, float).reshape(-1, 3)

    def height(self) -> np.ndarray:
        """Place of each slice between the base (0) and the apex (1) of the lungs, (z, 1, 1)."""
        filled = np.flatnonzero((self.host.sides > 0).any(axis=(1, 2)))
        along = (np.arange(self.host.hu.shape[0]) - filled[0]) / max(filled[-1] - filled[0], 1)
        return along[:, None, None]

    def costal(self, reach: float = 26.0) -> np.ndarray:
        """Bool, lung whose nearest pleura is neither the mediastinum's nor around a hilar bronchus."""
        return (self.host.sides > 0) & (self.host.mediastinum > self.host.pleura + reach)

    def site(self, centre: np.ndarray, reach: float, stream: int) -> tuple[Site, Box]:
        """A box that reaches ``reach`` mm around a voxel, ready to be painted."""
        parts = []
        for middle, step, side in zip(centre, self.host.spacing, self.host.hu.shape, strict=True):
            half = reach / step + 2
            parts.append(slice(max(int(middle - half), 0), min(int(np.ceil(middle + half)) + 1, side)))
        return self._cut((parts[0], parts[1], parts[2]), tuple(float(c) for c in centre), stream)  # type: ignore[arg-type]

    def lungs(self, stream: int) -> Iterator[tuple[int, Site, Box]]:
        """The right lung (1) and then the left (2), each whole, ready to be painted."""
        for side, box in enumerate(ndimage.find_objects(self.host.sides), start=1):
            if box is None:
                continue
            grown = [
                slice(max(part.start - 4, 0), min(part.stop + 4, count))
                for part, count in zip(box, self.host.hu.shape, strict=True)
            ]
            middle = tuple((part.start + part.stop - 1) / 2 for part in grown)
            site, cut = self._cut((grown[0], grown[1], grown[2]), middle, stream + side)  # type: ignore[arg-type]
            yield side, site, cut

    def _cut(self, box: Box, centre: Triple, stream: int) -> tuple[Site, Box]:
        host = self.host
        seed = int(self.random(stream).integers(1 << 30))
        return make_site(host.hu, host.pleura, host.vessels, host.spacing, centre, box, seed), box

    def lay(self, site: Site, box: Box, side: int) -> None:
        """Lay what was painted on a site over the host.

        Args:
            site: painted; shapes that reach the pleura must reach ``SEAM_MM`` further.
            box: where it was cut out.
            side: 1 or 2, the lung that it belongs to; the other must not be reached.
        """
        keep, add, named = site.thick_slices()
        sigma = (0.0, self.spread / self.host.spacing[1], self.spread / self.host.spacing[2])
        keep, add = (ndimage.gaussian_filter(part, sigma) for part in (keep, add))
        # Emphysema does not thin out the wall.
        dense = add > FILLS_SEAM_HU * (1.0 - keep)
        here = (self.host.sides[box] == side) | (self._seam(box, side) & dense)
        keep, add = np.where(here, keep, 1.0), np.where(here, add, 0.0)
        self.keep[box] *= keep
        self.add[box] = self.add[box] * keep + add
        inside = (named > 0) & (self.host.sides[box] == side) & ~self.fluid[box]
        inside &= ~self.lumps[box] | np.isin(named, SOLID)
        self.truth[box] = np.where(inside, named, self.truth[box])

    def _seam(self, box: Box, side: int) -> np.ndarray:
        """Bool, voxels of the wall beside a lung that are lung in part: dense lung fills them, too."""
        hu, pleura = self.host.hu[box], self.host.pleura[box]
        air = ndimage.binary_dilation((hu < SEAM_HU[0]) & (pleura < -SEAM_MM / 2), iterations=2)
        # Right beside the outline what is not yet muscle is a last trace of lung, not fat.
        densest = np.where(pleura > -1.5 * self.host.spacing[1], TRACE_HU, SEAM_HU[1])
        partial = (hu > SEAM_HU[0]) & (hu < densest) & (pleura > -SEAM_MM) & (pleura <= 0) & ~air
        return partial & ~ndimage.binary_dilation(self.host.sides[box] == 3 - side, iterations=3)

    def pour(self, box: Box, fluid: np.ndarray, side: int) -> None:
        """Say that the lung of a side has given way to pleural fluid (bool, on the box)."""
        self.fluid[box] |= fluid & (self.host.sides[box] == side)
        self.truth[self.fluid] = tissues.OUTSIDE

    def picture(self) -> np.ndarray:
        """HU with all layers, float32, in the range of a CT."""
        fresh = np.sqrt(np.clip(1.0 - self.keep**2, 0.0, 1.0)) * self.host.grain.field(
            self.keep.shape, self.seed
        )
        return np.clip(self.keep * self.host.hu + self.add + fresh, LOWEST_HU, HIGHEST_HU).astype(np.float32)

    def border(self) -> np.ndarray:
        """Bool, the voxels beside painted disease that hold some of it."""
        diseased = self.truth > tissues.HEALTHY
        cross = ndimage.generate_binary_structure(3, 1)
        cross[[0, 2]] = False
        beside = ndimage.binary_dilation(diseased, cross) & ~diseased
        return beside & (self.keep < 0.97)
