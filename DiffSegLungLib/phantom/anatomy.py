"""The large organs: chest wall, lungs, mediastinum, diaphragm and bones, as distances in mm.

Points are (z, y, x) in mm: x to the patient's left, y posterior, z superior; the carina lies near z = 48.
The figures are those of an adult man lying supine at full inspiration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.phantom.grid import (
    Grid,
    blend,
    cover,
    ellipsoid,
    join,
    lattice,
    meet,
    resample,
    smooth_noise,
    to_distance,
    tube,
)

STEP = 3.0
"""Spacing in mm of the lattice on which the organs' distances are computed."""

AIR, FAT, MUSCLE, BLOOD, LIVER = AIR_HU, -105.0, 55.0, 42.0, 58.0
CORTEX, MARROW, CARTILAGE, WALL = 520.0, 190.0, 95.0, 25.0

Point = tuple[float, float, float]

CARINA: Point = (48.0, 22.0, 0.0)
HILA: dict[int, Point] = {1: (24.0, 24.0, -40.0), 2: (16.0, 28.0, 46.0)}
"""Where the main bronchus of the right (1) and the left (2) lung ends."""

# z, half width, half depth and centre's y of the inner chest wall.
_CHEST = np.array(
    [
        (-170, 143, 94, 4), (-100, 143, 94, 4), (-50, 140, 93, 4), (0, 132, 89, 5), (40, 121, 82, 8),
        (75, 104, 72, 13), (100, 87, 62, 18), (125, 72, 52, 22), (170, 66, 46, 24),
    ],
    dtype=float,
)  # fmt: skip
# z, how much wider and deeper than the inner chest wall the body is.
_FLESH = np.array(
    [(-170, 27, 24), (-40, 28, 25), (30, 40, 27), (80, 62, 34), (120, 88, 42), (170, 96, 46)], dtype=float
)


@dataclass(frozen=True)
class Organs:
    """Distances in mm on the voxels of one grid, negative inside."""

    body: np.ndarray
    chest: np.ndarray
    lungs: np.ndarray
    diaphragm: np.ndarray
    blood: np.ndarray
    trachea: np.ndarray
    spine: np.ndarray
    canal: np.ndarray
    sternum: np.ndarray


def _profile(table: np.ndarray, column: int, z: np.ndarray) -> np.ndarray:
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(table[:, 0], table[:, column])(z), dtype=np.float32)


def _outline(grid: Grid, half_width: np.ndarray, half_depth: np.ndarray, power: float) -> np.ndarray:
    """Distance in the slice to a superellipse about the chest's centre line."""
    _, y, x = grid.axes
    across = np.abs(x) / half_width
    deep = np.abs(y - _profile(_CHEST, 3, grid.z)[:, None, None]) / half_depth
    size = (across**power + deep**power) ** (1 / power)
    slope = np.sqrt((across ** (power - 1) / half_width) ** 2 + (deep ** (power - 1) / half_depth) ** 2)
    return (size - 1) * size ** (power - 1) / np.maximum(slope, 1e-5)


def _chest(grid: Grid) -> np.ndarray:
    z = grid.z[:, None, None]
    return _outline(grid, _profile(_CHEST, 1, z), _profile(_CHEST, 2, z), 2.35)


def _body(grid: Grid) -> np.ndarray:
    z = grid.z[:, None, None]
    wide = _profile(_CHEST, 1, z) + _profile(_FLESH, 1, z)
    deep = _profile(_CHEST, 2, z) + _profile(_FLESH, 2, z)
    return _outline(grid, wide, deep, 2.5)


def _diaphragm(grid: Grid) -> np.ndarray:
    """Positive above the two domes."""
    z, y, x = grid.axes
    height = np.full((1, len(grid.y), len(grid.x)), -np.inf, dtype=np.float32)
    for side, (top, middle) in {-1: (-54.0, 0.0), 1: (-66.0, 2.0)}.items():
        outward = (x * side - 68.0) / np.where(x * side > 68.0, 60.0, 82.0)
        backward = (y - middle) / np.where(y > middle, 72.0, 100.0)
        height = np.maximum(height, top - 58.0 * (outward**2 + backward**2))
    return to_distance((z - height).astype(np.float32), STEP)


def _spine_line(grid: Grid) -> np.ndarray:
    """The y of the vertebral bodies' centre: the kyphosis."""
    return 63.0 - 9.0 * ((grid.z - 10.0) / 150.0) ** 2


def _spine(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Vertebral bodies with arches, and the canal."""
    z, y, x = grid.axes
    behind = y - _spine_line(grid)[:, None, None].astype(np.float32)
    waist = 1.5 * np.cos(2 * np.pi * z / 26.0)
    body = np.sqrt((x / 1.15) ** 2 + behind**2) - 15.0 + waist
    canal = np.sqrt(x**2 + (behind - 23.0) ** 2) - 8.5 + 0 * z
    spread = np.abs(((z + 4.0) % 26.0) - 13.0)
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(behind - 41.0) - 9.0), 4.0 - spread)
    transverse = np.maximum(np.abs(behind - 25.0 - 0.3 * np.abs(x)) - 4.5, np.abs(x) - 30.0)
    transverse = np.maximum(transverse, spread - 6.0)
    lamina = np.abs(np.sqrt(x**2 + (behind - 23.0) ** 2) - 12.0) - 3.0 + 0 * z
    arch = np.minimum(np.minimum(spinous, transverse), lamina)
    return np.minimum(body, arch).astype(np.float32), canal.astype(np.float32)


def _sternum(grid: Grid) -> np.ndarray:
    z, y, x = grid.axes
    front = _profile(_CHEST, 3, grid.z) - _profile(_CHEST, 2, grid.z) - 8.0
    width = np.where(z > 55, 24.0, 16.0)
    flat = np.sqrt((x / width) ** 2 + ((y - front[:, None, None]) / 6.0) ** 2 + 0 * z)
    return np.maximum((flat - 1) * 6.0, np.abs(z - 15.0) - 75.0).astype(np.float32)


def _blood(grid: Grid) -> np.ndarray:
    """Heart, aorta, pulmonary arteries, veins and the great vessels of the neck."""
    heart = join(
        ellipsoid(grid, (-26, -34, 24), (46, 42, 52)), ellipsoid(grid, (-42, -40, 46), (32, 30, 36)), 14
    )
    heart = join(heart, ellipsoid(grid, (-8, -18, -22), (40, 32, 26)), 8)
    heart = join(heart, ellipsoid(grid, (2, 22, 4), (20, 18, 32)), 6)
    vessels = [
        tube(grid, [(5, -22, 6), (40, -24, -8), (62, -16, -4), (76, 4, 8), (72, 28, 20), (50, 42, 25),
                    (-40, 42, 24), (-170, 40, 14)], [16, 16, 15, 14, 13, 13, 12, 11]),
        tube(grid, [(-5, -8, -28), (40, -10, -28), (85, -8, -28), (112, -4, -34)], [11, 10, 9, 8]),
        tube(grid, [(-8, -34, 16), (20, -30, 22), (36, -12, 26)], [15, 14, 14]),
        tube(grid, [(36, -10, 24), (30, 6, -6), (26, 12, -40)], [12, 11, 9]),
        tube(grid, [(36, -12, 26), (42, 12, 34), (34, 24, 50)], [13, 12, 10]),
        tube(grid, [(2, 22, 8), (2, 20, -42)], [9, 6]),
        tube(grid, [(2, 22, 8), (0, 24, 46)], [9, 6]),
        tube(grid, [(72, 0, 2), (110, 2, -14), (170, 8, -30)], [7, 6, 5]),
        tube(grid, [(76, 8, 10), (120, 8, 14), (170, 14, 26)], [5, 4, 4]),
        tube(grid, [(74, 20, 16), (115, 24, 24), (140, 22, 44)], [6, 5, 5]),
        tube(grid, [(85, -14, -28), (100, -20, 10), (118, -14, 34)], [7, 7, 7]),
    ]  # fmt: skip
    for vessel in vessels:
        heart = join(heart, vessel, 3)
    return heart


def _trachea(grid: Grid) -> np.ndarray:
    """Lumen of the trachea and the main bronchi."""
    lumen = tube(grid, [(170, 16, 0), (100, 20, 1), CARINA], [9.0, 9.0, 9.0])
    for side, radius in ((1, 7.5), (2, 6.5)):
        lumen = join(lumen, tube(grid, [(50.0, 22.0, 0.0), HILA[side]], [radius, radius - 1.0]), 3)
    return lumen


def _mediastinum(grid: Grid, blood: np.ndarray, trachea: np.ndarray, spine: np.ndarray) -> np.ndarray:
    """All that parts the lungs: organs in their fat, and the plate of pleura between the lungs."""
    z, y, x = grid.axes
    half_plate = 4.0 + np.clip(y, 0, None) * 0.12 + np.clip(-45.0 - z, 0, 30) * 0.5
    plate = np.abs(x - np.clip(-z, 0, 60) * 0.12) - half_plate
    oesophagus = tube(grid, [(170, 34, 4), (60, 36, 6), (-60, 34, 10), (-170, 20, 26)], [8, 8, 8, 8])
    column = np.maximum(np.abs(x) - 20.0 - 1.3 * np.clip(y - 70.0, 0, None), 48.0 - y) + 0 * z
    inlet = ellipsoid(grid, (150, -10, 0), (62, 52, 42))
    pads = ellipsoid(grid, (-66, -38, 6), (34, 46, 50))
    union = join(blood - 2.5, trachea - 4.5, 8)
    for part in (plate.astype(np.float32), oesophagus, inlet, pads, join(spine - 3.0, column, 4)):
        union = join(union, part, 9)
    return union


def _lungs(grid: Grid, chest: np.ndarray, diaphragm: np.ndarray, mediastinum: np.ndarray) -> np.ndarray:
    z, y, x = grid.axes
    apex = z - 130.0 + 30.0 * (((np.abs(x) - 46.0) / 38.0) ** 2 + ((y - 22.0) / 46.0) ** 2)
    lungs = meet(chest + 1.5, to_distance(apex.astype(np.float32), STEP), 10)
    lungs = meet(lungs, -mediastinum, 5)
    return meet(lungs, -diaphragm, 3)


def organs_on_lattice(seed: int) -> Organs:
    """All organs on the fixed lattice, before interpolation."""
    grid = lattice(STEP)
    chest = _chest(grid) + 1.6 * smooth_noise(grid, 40.0, (seed, 1))
    blood, trachea = _blood(grid), _trachea(grid)
    blood = blood + 1.2 * smooth_noise(grid, 22.0, (seed, 2))
    spine, canal = _spine(grid)
    diaphragm = _diaphragm(grid) + 2.0 * smooth_noise(grid, 35.0, (seed, 3))
    lungs = _lungs(grid, chest, diaphragm, _mediastinum(grid, blood, trachea, spine))
    body = _body(grid) + 2.0 * smooth_noise(grid, 50.0, (seed, 4))
    return Organs(body, chest, lungs, diaphragm, blood, trachea, spine, canal, _sternum(grid))


def organs_on_voxels(organs: Organs, grid: Grid) -> Organs:
    """The same distances at the voxel centres of ``grid``."""
    return Organs(**{name: resample(field, STEP, grid) for name, field in vars(organs).items()})


def paint_chest(organs: Organs, grid: Grid, seed: int) -> np.ndarray:
    """HU of everything but the lungs' inside, float32, on the voxels of ``grid``."""
    hu = np.full(grid.shape, AIR, dtype=np.float32)
    _paint_table(hu, grid)
    _paint_flesh(hu, organs, grid, seed)
    _paint_abdomen(hu, organs, grid, seed)
    blend(hu, cover(organs.blood, grid.blur), BLOOD)
    _paint_bones(hu, organs, grid)
    blend(hu, cover(organs.trachea - 1.6, grid.blur), WALL)
    blend(hu, cover(organs.trachea, grid.blur), AIR + 10)
    return hu


def _paint_table(hu: np.ndarray, grid: Grid) -> None:
    z, y, x = grid.axes
    depth = np.abs(y - 130.0 + 40.0 * (x / 175.0) ** 2) + 0 * z
    blend(hu, cover(depth - 9.0, grid.blur), -920.0)
    blend(hu, cover(np.abs(depth - 9.0) - 1.0, grid.blur), -150.0)


def _paint_flesh(hu: np.ndarray, organs: Organs, grid: Grid, seed: int) -> None:
    """Skin, fat, muscles in layers with fat between them, and the fat of the mediastinum."""
    marbling = smooth_noise(grid, 9.0, (seed, 5))
    layers = organs.chest + 5.0 * smooth_noise(grid, 30.0, (seed, 7))
    blend(hu, cover(organs.body, grid.blur), 20.0)
    blend(hu, cover(organs.body + 2.0, grid.blur), FAT + 8 * marbling)
    between = 0.2 + 1.3 * marbling - np.abs((layers % 22.0) - 11.0)
    muscle = np.maximum(organs.body + 10.0 + 2.5 * marbling, between)
    muscle = np.minimum(muscle, organs.chest - 9.0)
    blend(hu, cover(muscle, grid.blur), MUSCLE)
    blend(hu, cover(organs.chest, grid.blur), -45.0 + 25 * marbling)


def _paint_abdomen(hu: np.ndarray, organs: Organs, grid: Grid, seed: int) -> None:
    """Liver to the right, stomach and spleen to the left, below the diaphragm."""
    _, y, x = grid.axes
    below = np.maximum(organs.diaphragm, organs.chest)
    blend(hu, cover(below, grid.blur), MUSCLE)
    blend(hu, cover(np.maximum(below + 3.0, x - 25.0), grid.blur), LIVER)
    left = np.maximum(below + 3.0, 30.0 - x)
    blend(hu, cover(left, grid.blur), 38.0)
    stomach = ellipsoid(grid, (-108, -12, 70), (42, 52, 40)) + 3 * smooth_noise(grid, 20.0, (seed, 6))
    fat = np.maximum(np.maximum(left + 2.0, -stomach), y - 30.0)
    blend(hu, cover(fat, grid.blur), FAT)
    gas = np.maximum(np.maximum(stomach + 5.0, below + 8.0), y + 26.0)
    blend(hu, cover(gas, grid.blur), AIR + 20)


def _paint_bones(hu: np.ndarray, organs: Organs, grid: Grid) -> None:
    z = grid.axes[0]
    ribs, cartilage = _ribs(organs.chest, grid)
    blend(hu, cover(cartilage, grid.blur), CARTILAGE)
    for bone in (ribs, _scapulae(organs, grid), organs.sternum, organs.spine):
        blend(hu, cover(bone, grid.blur), CORTEX)
        blend(hu, cover(bone + 1.5, grid.blur), MARROW)
    behind = grid.axes[1] - _spine_line(grid)[:, None, None].astype(np.float32)
    disc = np.maximum(np.abs((z % 26.0) - 13.0) - 2.5, behind - 13.0)
    blend(hu, cover(np.maximum(disc, organs.spine + 0.5), grid.blur), 85.0)
    blend(hu, cover(organs.canal, grid.blur), 20.0)


def _angle(grid: Grid) -> np.ndarray:
    """Angle about the chest's centre line, 0 at the spine, pi at the sternum."""
    _, y, x = grid.axes
    return np.abs(np.arctan2(x, y - 6.0)).astype(np.float32)


def _ribs(chest: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Ribs sloping forward and downward in the chest wall, and their cartilage in front."""
    angle = _angle(grid)
    level = ((grid.axes[0] + 36.0 * angle + 6.0 * np.sin(2 * angle)) % 27.0) - 13.5
    rib = (np.sqrt(((chest - 6.0) / 4.0) ** 2 + (level / 6.5) ** 2) - 1.0) * 4.0
    front = 30.0 * (angle - 2.45)
    return np.maximum(rib, front), np.maximum(np.maximum(rib, -front), angle * 30.0 - 88.0)


def _scapulae(organs: Organs, grid: Grid) -> np.ndarray:
    """The shoulder blades: thin plates behind the upper ribs."""
    z = grid.axes[0]
    angle = _angle(grid)
    plate = np.abs(organs.chest - 19.0 - 4.0 * np.sin(4.0 * angle)) - 2.6
    plate = np.maximum(plate, organs.body + 12.0)
    return np.maximum(np.maximum(plate, np.abs(angle - 0.95) * 80.0 - 30.0), np.abs(z - 75.0) - 62.0)
