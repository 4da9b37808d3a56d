"""Disease in three dimensions: coloured bodies within glassy lungs, seen obliquely from front and back.

Drawn with NumPy and SciPy alone: along each line of sight the first diseased voxel, shaded by the slope of
its surface, behind the veil of the lung's own surface.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.export.report.slices import Chest
from DiffSegLungLib.tissues import BY_LABEL, OUTSIDE

GRID_MM = 2.0
TURN_DEGREES = 30.0
"""How far the patient is turned about the body's axis, so that depth is seen."""
FRONT = "From the front"
VIEWS = {FRONT: (TURN_DEGREES, "R", "L"), "From behind": (180.0 + TURN_DEGREES, "L", "R")}
"""Title: the turn, and the patient's side on the viewer's left and right."""
VEIL = 0.30
"""Share of the lung's surface in the colour in front of disease."""
AMBIENT = 0.35
LUNG_COLOUR = np.array([0.72, 0.76, 0.80])


def relief(chest: Chest, degrees: float) -> np.ndarray:
    """One view.

    Args:
        chest: the cropped volume.
        degrees: turn of the patient about the axis from feet to head; 0 is seen from the front.

    Returns:
        float (rows, columns, 3), 0 to 1, on black; rows from head to feet, ``GRID_MM`` a pixel.
    """
    labels = _turned(chest, degrees)
    lung, disease = labels != OUTSIDE, _only_disease(labels)
    veil = _shading(lung)[..., None] * LUNG_COLOUR * lung.any(axis=1)[..., None]
    first = disease.argmax(axis=1)
    hit = np.take_along_axis(disease, first[:, None, :], axis=1)[:, 0]
    colour = _colours()[np.take_along_axis(labels, first[:, None, :], axis=1)[:, 0]]
    body = colour * _shading(disease)[..., None]
    picture = np.where(hit[..., None], VEIL * veil + (1 - VEIL) * body * 1.15, 0.55 * veil)
    return np.clip(picture[::-1], 0, 1)


def _turned(chest: Chest, degrees: float) -> np.ndarray:
    """Labels on an isotropic grid, turned about z; y is the line of sight."""
    scale = GRID_MM / np.asarray(chest.spacing)
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    size = np.asarray(chest.labels.shape) / scale
    across = float(np.hypot(size[1], size[2]))
    shape = np.ceil([size[0], across, across]).astype(int)
    matrix = np.diag(scale) @ turn
    offset = (np.asarray(chest.labels.shape) - 1) / 2 - matrix @ ((shape - 1) / 2)
    return ndimage.affine_transform(chest.labels, matrix, offset, tuple(shape), order=0, cval=OUTSIDE)


def _only_disease(labels: np.ndarray) -> np.ndarray:
    diseased = np.array([label in BY_LABEL and BY_LABEL[label].is_disease for label in range(256)])
    return diseased[labels]


def _colours() -> np.ndarray:
    table = np.zeros((256, 3))
    for label, tissue in BY_LABEL.items():
        table[label] = np.array(tissue.colour) / 255
    return table


def _shading(mask: np.ndarray) -> np.ndarray:
    """Light from the upper left on the surface that is seen first, 0 to 1; anything where nothing is seen."""
    seen = mask.any(axis=1)
    depth = np.where(seen, mask.argmax(axis=1), mask.shape[1]).astype(float)
    weight = ndimage.gaussian_filter(seen.astype(float), 1.0)
    smooth = ndimage.gaussian_filter(np.where(seen, depth, 0.0), 1.0) / np.maximum(weight, 1e-3)
    rise, run = np.gradient(smooth)
    normal = np.stack([-rise, np.full_like(rise, -1.0), -run])
    light = np.array([0.45, -0.8, -0.4])
    lit = np.tensordot(light / np.linalg.norm(light), normal / np.linalg.norm(normal, axis=0), axes=1)
    return AMBIENT + (1 - AMBIENT) * np.clip(lit, 0, 1)
