"""What a lesion is at least, and what decisions by region share."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import CONSOLIDATION, FIBROSIS, GROUND_GLASS

RAISED = (GROUND_GLASS, FIBROSIS, CONSOLIDATION)


@dataclass(frozen=True)
class RegionSettings:
    """What a lesion is at least.

    Attributes:
        raised_ml: connected ground glass, fibrosis and consolidation together.
        emphysema_ml: connected emphysema.
        fibrosis_ml: connected fibrosis; a net of lines is a matter of regions.
        depth_mm: how far raised tissue must reach from the pleura; less is partial volume of the chest wall.
        solid_depth_mm: the same where it is consolidation.
        depth_slices: the same in slices of the CT, since a thick slice blurs the diaphragm into the lung.
        fibrosis_depth_mm: the same for fibrosis; the thin costophrenic recess, blurred by breathing,
            has lines and holes of its own.
        reach_mm: how far raised tissue may run along the pleura from where it reaches that deep.
        agreed: share of a part of ground glass and fibrosis from which one of the two takes it all.
        neck_mm: half the width of a bridge that does not make two such parts one.
        rim_mm: a shell of ground glass around consolidation that is no thicker is partial volume.
        half_hu: half way from healthy lung to consolidation; such a shell is parted there.
        bundle_ml: a bundle of vessels is no larger.
        bundle_vessels: share of vessels around a region from which it is part of their bundle.
        bundle_solid: share of consolidation in it from which it is none.
        faint_hu: how far under the bound of emphysema the darkest tenth of a hole must lie.
        faint_ml: lung of this size that passes the bound, however little, is emphysema.
        lumen_ml: the air of a bronchus within the lung is no larger.
        lumen_vessels: share of vessels and bronchial walls around a hole from which it is such air.
        lucent_reach_mm: how far the edge of an emphysematous hole may lie beyond what is surely air.
    """

    raised_ml: float = 0.3
    emphysema_ml: float = 0.03
    fibrosis_ml: float = 1.0
    depth_mm: float = 7.0
    solid_depth_mm: float = 5.0
    depth_slices: float = 1.5
    fibrosis_depth_mm: float = 8.0
    reach_mm: float = 10.0
    rim_mm: float = 8.0
    agreed: float = 0.75
    neck_mm: float = 3.0
    half_hu: float = -420.0
    bundle_ml: float = 20.0
    bundle_vessels: float = 0.1
    bundle_solid: float = 0.05
    faint_hu: float = 20.0
    faint_ml: float = 50.0
    lumen_ml: float = 2.0
    lumen_vessels: float = 0.2
    lucent_reach_mm: float = 3.0

    def stored(self) -> dict[str, float]:
        """The settings as plain numbers."""
        return asdict(self)


def among_vessels(
    region: np.ndarray,
    vessels: np.ndarray,
    mask: np.ndarray,
    most_voxels: float,
    least_share: float,
) -> np.ndarray:
    """Voxels of the parts of a region that lie among vessels.

    Args:
        region: bool (z, y, x).
        vessels: bool, as the region.
        mask: bool, the lungs.
        most_voxels: parts as large as that are lesions.
        least_share: of vessels in the lung two voxels around a part.
    """
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    sizes = np.bincount(parts.ravel())
    among, free = np.zeros(count + 1, bool), mask & ~region
    for part, span in enumerate(ndimage.find_objects(parts), start=1):
        if sizes[part] >= most_voxels:
            continue
        box = tuple(slice(max(side.start - 2, 0), side.stop + 2) for side in span)
        around = ndimage.binary_dilation(parts[box] == part, iterations=2) & free[box]
        crossed = int(np.count_nonzero(around & vessels[box]))
        among[part] = crossed >= least_share * max(int(np.count_nonzero(around)), 1)
    return among[parts]


def parts_holding(
    region: np.ndarray, voxels: np.ndarray, least_share: float, large: float = np.inf
) -> np.ndarray:
    """Voxels of the parts of a region that hold at least such a share of some voxels, or are ``large``."""
    parts, count = ndimage.label(region)
    sizes = np.bincount(parts.ravel())
    holding = np.bincount(parts[voxels], minlength=count + 1) >= least_share * sizes
    holding |= sizes >= large
    holding[0] = False
    return holding[parts]


def likeliest(posterior: np.ndarray) -> np.ndarray:
    """Number of the largest of the tissues, uint8 (z, y, x); several times as fast as ``argmax`` over few."""
    best, largest = np.zeros(posterior.shape[1:], np.uint8), posterior[0].copy()
    for member, channel in enumerate(posterior[1:], start=1):
        best[channel > largest] = member
        np.maximum(largest, channel, out=largest)
    return best


def take(posterior: np.ndarray, members: list[int], where: np.ndarray) -> None:
    """Take some tissues from a posterior, in place; the others share what is left."""
    there = posterior[:, where]
    there[members] = 0
    posterior[:, where] = there / np.maximum(there.sum(axis=0), 1e-6)


def decide(posterior: np.ndarray, where: np.ndarray, member: int) -> None:
    """Exchange a tissue's posterior with the largest one, in place: it wins, and the doubt stays."""
    there = posterior[:, where]
    best, places = there.argmax(axis=0), np.arange(there.shape[1])
    largest = there[best, places]
    there[best, places] = there[member]
    there[member] = largest
    posterior[:, where] = there
