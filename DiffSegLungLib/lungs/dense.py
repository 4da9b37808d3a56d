"""Dense lung as the lung network tells it: consolidated, collapsed or solid, so no air by any threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.filters import box_around, within
from DiffSegLungLib.lungs.chest_wall import BAY_HU, SOFT_HU, dense_at_chest_wall
from DiffSegLungLib.lungs.shapes import (
    AIR_HU,
    CLOSING_MM,
    THINNEST_MM,
    WORK_MM,
    closing,
    fill_enclosed,
    middle_of_tissue,
    voxels,
)
from DiffSegLungLib.lungs.warnings import missed_warnings

Network = Callable[[np.ndarray], np.ndarray]
"""HU on the working grid to the probability of outside, right and left lung, (3, z, y, x)."""
LIKELY, CERTAIN = 0.3, 0.9
"""Probabilities of lung of what is added of a piece of dense tissue where the lung goes around it, and of
what counts as certain."""
ENCLOSED, WEIGHT_OF_CERTAIN = 0.45, 0.4
"""Share of a piece's surface at which the lung goes around it; how much its certain share counts beside."""
ROUNDS = ((0.2, 0.48, 0.75), (0.6, 0.54, 0.95), (0.85, 0.60, 0.95))
"""Probability of what pieces are made; their least enclosed and weighted certain share together; probability
of what is added where the lung does not go around them.  What hangs together with heart or liver in one round
parts from them in the next."""
LEAST_BELOW, HALF_ENCLOSED = 0.15, 0.5
"""Share of a piece's lower face that lies on lung, below which it is the diaphragm's dome, unless half of its
surface is enclosed: domes 0.04 to 0.12 and 0.41, lesions above the diaphragm 0.02 and 0.52 at the least."""
NOTHING_BELOW, HALF_SURE = 0.02, 0.45
"""The same of what was found at the chest wall; the mean probability of lying outside it needs besides."""
TIP_ML = (1.0, 40.0)  # of a dome that the rays from the middle of the lung cut off; larger: lung after all

FAT_HU, MOST_FAT = (-150.0, -30.0), 0.2  # more: the fat around the heart
LEAST_CORE = 30  # voxels
LEAST_DENSE_ML, WELL_ENCLOSED = 10.0, 0.55  # below the first, only what is enclosed by the second
MEDIAL, SURE_WITHIN = 0.45, 0.63
"""Of the way from the middle of the patient to the ribs; mean probability more than 6 mm beneath the surface.

Heart and hilum, half enclosed as they are, look like dense lung to the coarse network where they lie on lung,
and less so beneath: 0.38 to 0.56 within, at 0.19 to 0.34 of the way.  Consolidation enclosed no better lies
farther out where it is as unsure, from 0.63 on, or is lung all through: 0.76 at the least where it is medial.
"""
LOW, LOBAR_TOP = 0.3, 0.5
"""Of the lungs' height, below which only what is certain counts, and to which large consolidation must reach:
liver, spleen and heart, where they are likely lung, end at 0.41 in ten training CT."""
LOBAR_CORE_ML, EXUDATE_HU, BESIDE_AORTA = 5.0, 28.0, 0.22
"""What of it is more than 6 mm from its surface (the aorta's arch: 1.6); what is less dense is effusion; how
far from the middle of the patient its median lies, the ribs at 1 (aorta 0.18, consolidation from 0.24 on)."""
SMALLEST_DENSE_ML = 5.0  # below: the coarse network's error

BEHIND_MM = 20.0  # of dense lung, in which the chest wall is looked at again
BELOW_MM, ABOVE_MM, BESIDE_MM = (
    60.0,
    40.0,
    30.0,
)  # how far consolidated lung is looked for beyond the aerated lung
LEAST_AGREEMENT = 0.8  # mean probability of what thresholds call lung; a network below is not believed


def dense_by_network(
    work: np.ndarray, found: np.ndarray, allowed: np.ndarray, shares: np.ndarray
) -> tuple[str, np.ndarray, list[str]]:
    """Find dense lung that thresholds lose: what the network takes for lung and what is thick.

    Args:
        work: HU on the working grid.
        found: Right and left lung by thresholds.
        allowed: Where lung may be: not in the air of airways, bowel and room.
        shares: The network's probabilities of outside, right and left lung.

    Returns:
        ``network``, or ``classical`` where it is not to be believed; right and left label of the dense lung,
        uint8, 0 elsewhere; warnings.
    """
    side = np.where(shares[1] >= shares[2], np.uint8(RIGHT), np.uint8(LEFT))
    agreed = float(1 - shares[0][found > 0].mean())
    if agreed < LEAST_AGREEMENT:
        sentence = (
            f"the lung network was not used: it holds only {100 * agreed:.0f} % of the lungs that "
            "thresholds find; check the lung mask"
        )
        return "classical", np.zeros_like(found), [sentence]
    soft = allowed & (work < SOFT_HU)
    dense = dense_lung(work, 1 - shares[0], found > 0, soft)
    missed = soft & (work > AIR_HU) & ~dense & (found == 0)
    return "network", np.where(dense, side, np.uint8(0)), missed_warnings(missed & (shares[0] < 0.5))


def dense_lung(
    work: np.ndarray, probability: np.ndarray, lung: np.ndarray, allowed: np.ndarray
) -> np.ndarray:
    """Dense lung, bool: liver, spleen and heart look like it, but the lung does not go around them.

    Args:
        work: HU on the working grid.
        probability: Of lung, by the network.
        lung: What thresholds find.
        allowed: Where dense lung may be.
    """
    missed, near = allowed & ~lung, ndimage.binary_dilation(lung, iterations=2)
    dense, outward = np.zeros(lung.shape, bool), _from_the_middle(work, lung)
    for least, enough, very_likely in ROUNDS:
        pieces, _ = ndimage.label(_thick(missed & ~dense & (probability > least), near))
        for number, span in enumerate(ndimage.find_objects(pieces), start=1):
            box = (
                slice(max(span[0].start - 3, 0), span[0].stop + 3),
                slice(max(span[1].start - 3, 0), span[1].stop + 3),
                slice(max(span[2].start - 3, 0), span[2].stop + 3),
            )
            piece, around = pieces[box] == number, lung[box] | dense[box]
            bound = _least_probability(piece, work[box], probability[box], around, enough, very_likely)
            if bound < 1 and not _is_mediastinal(piece, probability[box], around, outward[box[2]]):
                dense[box] |= piece & (probability[box] > bound)
    dense |= _lobar_consolidation(work, probability, lung, missed & ~dense)
    if not dense.any():
        return dense
    # The coarse network leaves a gap to the lung.
    box = box_around(lung | dense)
    whole = fill_enclosed(closing((lung | dense)[box], CLOSING_MM)) & missed[box]
    dense[box] |= whole & within(dense[box], THINNEST_MM / WORK_MM)
    return dense


def _lobar_consolidation(
    work: np.ndarray, probability: np.ndarray, lung: np.ndarray, missed: np.ndarray
) -> np.ndarray:
    """Large consolidation at the back, bool: the lung goes around one side of it only, as around the liver.

    But liver, spleen and heart end lower, and an effusion is less dense.

    Args:
        work: HU on the working grid.
        probability: Of lung, by the network.
        lung: What thresholds find.
        missed: Where dense lung may be that is not found yet.
    """
    near, found = ndimage.binary_dilation(lung, iterations=2), np.zeros(lung.shape, bool)
    outward, ends = _from_the_middle(work, lung), np.flatnonzero(lung.any(axis=(1, 2)))[[0, -1]]
    height = (np.arange(len(lung)) - ends[0]) / max(ends[1] - ends[0], 1)
    likely = probability > np.where(height < LOW, CERTAIN, 0.5)[:, None, None]
    pieces, _ = ndimage.label(_thick(missed & likely, near))
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[span] == number
        z, _, x = np.nonzero(piece)
        top, aside = np.percentile(height[span[0]][z], 95), np.median(outward[span[2]][x])
        core = np.count_nonzero(~within(~np.pad(piece, 3), THINNEST_MM / 2 / WORK_MM))
        is_solid = EXUDATE_HU < np.median(work[span][piece]) < BAY_HU[1]
        if top > LOBAR_TOP and aside > BESIDE_AORTA and core > voxels(LOBAR_CORE_ML) and is_solid:
            found[span] |= piece
    return found


def _least_probability(
    piece: np.ndarray,
    work: np.ndarray,
    probability: np.ndarray,
    lung: np.ndarray,
    enough: float,
    very_likely: float,
) -> float:
    """From which probability on a piece of dense tissue is lung; 1 where none of it is."""
    enclosed = _enclosed(piece, lung)
    certain = float((probability[piece] > CERTAIN).mean())
    volume = np.count_nonzero(piece)
    small = volume < voxels(LEAST_DENSE_ML) and enclosed < WELL_ENCLOSED
    lung_like = enclosed + WEIGHT_OF_CERTAIN * certain >= enough
    lung_like &= enclosed >= HALF_ENCLOSED or _share_below(piece, lung) >= LEAST_BELOW
    if volume < voxels(SMALLEST_DENSE_ML) or small or not lung_like or _is_fat(piece, work):
        return 1.0
    return LIKELY if enclosed >= ENCLOSED and volume >= voxels(LEAST_DENSE_ML) else very_likely


def _enclosed(piece: np.ndarray, lung: np.ndarray) -> float:
    """Share of a piece's surface that borders on lung."""
    return float(lung[ndimage.binary_dilation(piece, iterations=2) & ~piece].mean())


def _from_the_middle(work: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """How far each column lies from the middle of the patient; 1 where the lungs end."""
    away = np.abs(np.arange(work.shape[2]) - middle_of_tissue(work))
    return away / max(away[lung.any(axis=(0, 1))].max(), 1)


def _is_mediastinal(
    piece: np.ndarray, probability: np.ndarray, lung: np.ndarray, outward: np.ndarray
) -> bool:
    """Whether a piece is heart or hilum: medial, not well enclosed and likely at its surface only.

    Args:
        piece: What may be dense lung.
        probability: Of lung, by the network.
        lung: What is lung already.
        outward: How far each column lies from the middle of the patient.
    """
    medial = np.average(outward, weights=piece.sum(axis=(0, 1))) < MEDIAL
    if not medial or _enclosed(piece, lung) >= WELL_ENCLOSED:
        return False
    core = ~within(~piece, THINNEST_MM / 2 / WORK_MM)
    return float(probability[core if core.any() else piece].mean()) < SURE_WITHIN


def behind_dense(work: np.ndarray, sides: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Dents of the chest wall beside dense lung, uint8, right and left label: it ends at the pleura."""
    if not dense.any():
        return dense
    return dense_at_chest_wall(work, sides) * within(dense > 0, BEHIND_MM / WORK_MM)


def _share_below(piece: np.ndarray, lung: np.ndarray) -> float:
    """Share of a piece's lower face under which there is lung."""
    face = piece[1:] & ~piece[:-1]
    return float(lung[:-1][face].mean()) if face.any() else 0.0


def diaphragm_domes(recovered: np.ndarray, lung: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Pieces of what was found at the chest wall that are the tip of the diaphragm's dome.

    Args:
        recovered: What was found there.
        lung: The lungs, that included.
        outside: The network's probability of it.
    """
    pieces, _ = ndimage.label(recovered)
    domes = np.zeros(recovered.shape, bool)
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in span)
        piece = pieces[box] == number
        small = voxels(TIP_ML[0]) < np.count_nonzero(piece) < voxels(TIP_ML[1])
        bottom = _share_below(piece, lung[box] & ~piece) < NOTHING_BELOW
        if small and bottom and outside[box][piece].mean() > HALF_SURE:
            domes[box] |= piece
    return domes


def _is_fat(piece: np.ndarray, work: np.ndarray) -> bool:
    """Whether a piece is fat away from its surface, which partial volume makes as dark as fat."""
    core = ndimage.binary_erosion(piece, iterations=2)
    core = core if np.count_nonzero(core) >= LEAST_CORE else piece
    smooth = ndimage.gaussian_filter(work, 1.0)[core]
    return float(((smooth > FAT_HU[0]) & (smooth < FAT_HU[1])).mean()) >= MOST_FAT


def around_lungs(work: np.ndarray, found: np.ndarray, network: Network) -> np.ndarray:
    """The network's probabilities near the lungs: it never saw arms or pelvis. Elsewhere all is outside."""
    box = _box_around(found)
    shares = np.zeros((3, *work.shape), np.float32)
    shares[0] = 1
    shares[(slice(None), *box)] = network(work[box])
    return shares


def _box_around(sides: np.ndarray) -> tuple[slice, slice, slice]:
    """Where lung may be, aerated or not; beside a lung that is alone there is room for the other."""
    spans = [np.flatnonzero((sides > 0).any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    alone = min((sides == side).sum() for side in (RIGHT, LEFT)) < 0.1 * (sides > 0).sum()
    across = (spans[2][-1] - spans[2][0]) * WORK_MM if alone else 0.0
    margins = ((BELOW_MM, ABOVE_MM), (BESIDE_MM, BESIDE_MM), (BESIDE_MM + across, BESIDE_MM + across))
    box = [
        slice(max(int(span[0] - before / WORK_MM), 0), int(span[-1] + after / WORK_MM) + 1)
        for span, (before, after) in zip(spans, margins, strict=True)
    ]
    return box[0], box[1], box[2]


def _thick(mask: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """What is thicker than a rim, with its own outline, in pieces of at least 1.5 ml that touch the lung."""
    cores = ~within(~mask, THINNEST_MM / 2 / WORK_MM)
    near = within(cores, 1.5 * THINNEST_MM / WORK_MM)
    labels, count = ndimage.label(near & mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    touching = np.bincount(labels[lung], minlength=count + 1) > 0
    return ((sizes > voxels(1.5)) & touching & (np.arange(count + 1) > 0))[labels]
