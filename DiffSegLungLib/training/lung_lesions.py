"""Dense lung for the training of the lung network: painted on its coarse grid, where the true mask is known.

Not the generator of ``evaluation``: what measures the network is not what it learned from.
Arrays are (z, y, x) with isotropic voxels of ``NETWORK_MM``; lengths are in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.lungs.network import NETWORK_MM
from DiffSegLungLib.phantom.grid import cover

OUTSIDE = 0
BLUR_MM = 1.3
"""Softness of a lesion's border."""
PARTIAL_HU = -150.0
"""Beside the lung, darker than this is a voxel that lung fills in part; fat and muscle are denser."""
EMPHASIS = 3.0
"""Weight of the voxels that a plain threshold gets wrong."""


@dataclass
class Scene:
    """A CT while it is painted.

    Attributes:
        hu: float32 HU.
        sides: uint8, 1 right and 2 left lung: the truth.
        weight: float32, how much a voxel counts in training.
        depth: float32, mm below the surface of the lungs, negative outside.
        random: numbers that decide everything.
    """

    hu: np.ndarray
    sides: np.ndarray
    weight: np.ndarray
    depth: np.ndarray
    random: np.random.Generator

    def noise(self, length: float) -> np.ndarray:
        """Random field of unit deviation with grains of ``length`` mm."""
        step = max(length / NETWORK_MM, 1.0)
        coarse = [int(np.ceil(side / step)) + 2 for side in self.hu.shape]
        nodes = torch.from_numpy(self.random.standard_normal(coarse, np.float32))[None, None]
        size = [int(np.ceil(side * step)) for side in coarse]
        z, y, x = self.hu.shape
        # torch interpolates many times faster than scipy
        field = torch.nn.functional.interpolate(nodes, size=size, mode="trilinear")[0, 0, :z, :y, :x].numpy()
        return field / max(float(field[::4, ::4, ::4].std()), 1e-3)

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of the voxels in mm, so shaped that they broadcast."""
        z, y, x = (NETWORK_MM * np.arange(side, dtype=np.float32) for side in self.hu.shape)
        return z[:, None, None], y[None, :, None], x[None, None, :]


def depth_of(sides: np.ndarray) -> np.ndarray:
    """Depth in mm below the surface of the lungs, negative outside; float32."""
    inside = ndimage.distance_transform_edt(sides > 0)
    outside = ndimage.distance_transform_edt(sides == 0)
    return (NETWORK_MM * (inside - outside)).astype(np.float32)


def paint_disease(
    hu: np.ndarray, sides: np.ndarray, depth: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put dense lung, effusion and foreign gas into a CT.

    Args:
        hu: HU of the CT.
        sides: its lungs, 1 right and 2 left.
        depth: as :func:`depth_of` gives it.
        random: what decides.

    Returns:
        New HU, true lungs and weights.
    """
    weight = np.ones(hu.shape, np.float32)
    scene = Scene(hu.astype(np.float32), sides.copy(), weight, depth, random)
    for side in (RIGHT, LEFT):
        if (sides == side).any():
            for _ in range(int(random.choice(4, p=[0.25, 0.35, 0.25, 0.15]))):
                _paint_dense(scene, side, _region(scene, side))
            if random.random() < 0.15:
                _paint_effusion(scene, side)
    for _ in range(int(random.choice(3, p=[0.7, 0.2, 0.1]))):
        _paint_gas(scene)
    return scene.hu, scene.sides, scene.weight


# --- regions: signed distances in mm, negative inside ----------------------------------------------------


def _region(scene: Scene, side: int) -> np.ndarray:
    draw = scene.random.random()
    if draw < 0.55:
        return _blob(scene, side, float(np.exp(scene.random.uniform(np.log(9), np.log(55)))))
    if draw < 0.80:
        return _slab(scene, side, float(scene.random.uniform(0.08, 0.65)))
    if draw < 0.94:
        thickness = scene.random.uniform(6, 28) * np.maximum(1 + 0.3 * scene.noise(30), 0.2)
        return np.maximum(scene.depth - thickness, _blob(scene, side, float(scene.random.uniform(35, 90))))
    return np.full(scene.hu.shape, -50.0, np.float32)  # a white lung


def _blob(scene: Scene, side: int, radius: float) -> np.ndarray:
    """An irregular ball whose middle lies near the surface of a lung more often than not."""
    lung = scene.sides == side
    near = lung & (scene.depth < (12 if scene.random.random() < 0.75 else 60))
    places = np.flatnonzero(near if near.any() else scene.depth > -1)
    middle = np.unravel_index(scene.random.choice(places), lung.shape)
    stretch = scene.random.uniform(0.75, 1.3, 3)
    squares = [
        ((axis - NETWORK_MM * place) / factor) ** 2
        for axis, place, factor in zip(scene.axes(), middle, stretch, strict=True)
    ]
    rough = scene.random.uniform(0.05, 0.25) * radius * scene.noise(max(0.6 * radius, 6))
    return np.sqrt(squares[0] + squares[1] + squares[2]) - radius + rough + 0.8 * scene.noise(4)


def _slab(scene: Scene, side: int, share: float) -> np.ndarray:
    """All lung beyond a bent plane, as a lobe beyond a fissure: mostly below and behind."""
    normal = scene.random.normal(0, 1, 3) + scene.random.choice(3) * np.array([-0.8, 0.6, 0.0])
    normal /= np.linalg.norm(normal)
    z, y, x = scene.axes()
    along = -(normal[0] * z + normal[1] * y + normal[2] * x)
    field = along + scene.random.uniform(1, 7) * scene.noise(30)
    inside = field[scene.sides == side]
    return field - np.quantile(inside, share) if inside.size else field + 1e3


# --- what fills them -------------------------------------------------------------------------------------


def _paint_dense(scene: Scene, side: int, region: np.ndarray) -> None:
    """Consolidation, atelectasis or a mass: lung, whatever its density."""
    share = cover(region, BLUR_MM) * _reach(scene, side, region)
    mixed = scene.random.random() < 0.15
    density = scene.random.uniform(-500, -50) if mixed else scene.random.uniform(18, 95)
    value = density + scene.random.uniform(2, 18) * scene.noise(8) + _grain(scene)
    if scene.random.random() < 0.5:
        width = scene.random.uniform(0.05, 0.2)  # where two wavy sheets cross: a tube, an air bronchogram
        tubes = (np.abs(scene.noise(24)) < width) & (np.abs(scene.noise(24)) < width)
        value = np.where(tubes, scene.random.uniform(-900, -300), value)
    if scene.random.random() < 0.2:
        share = share * (scene.noise(12) < scene.random.uniform(0.8, 1.8))  # lobules that stay aerated
    if scene.random.random() < 0.1:
        value = np.where(region < -scene.random.uniform(8, 16), -985.0, value)  # a cavity
    scene.hu += share * (value - scene.hu)
    scene.weight[(scene.sides == side) & (share > 0.5)] = EMPHASIS


def _reach(scene: Scene, side: int, region: np.ndarray) -> np.ndarray:
    """The lung, and the voxels at its border that it fills in part."""
    lung = scene.sides == side
    rim = ndimage.binary_dilation(lung, iterations=2) & (scene.sides == OUTSIDE) & (scene.hu < PARTIAL_HU)
    return lung | rim


def _grain(scene: Scene) -> np.ndarray:
    return scene.random.uniform(3, 22) * scene.random.standard_normal(scene.hu.shape, np.float32)


def _paint_effusion(scene: Scene, side: int) -> None:
    """Even fluid behind and below, a smooth face to the lung: not lung. Squeezed lung may lie on it."""
    z, y, x = scene.axes()
    tilt, bow = scene.random.uniform(-0.5, 0.6), scene.random.uniform(0, 0.004)
    field = -(y - tilt * z) + bow * (x - float(x.mean())) ** 2 + 1.5 * scene.noise(40)
    lung = scene.sides == side
    region = field - np.quantile(field[lung], scene.random.uniform(0.04, 0.35))
    if scene.random.random() < 0.5:
        region = np.maximum(region, scene.depth - scene.random.uniform(8, 35))
    share = cover(region, BLUR_MM) * _reach(scene, side, region)
    fluid = lung & (region < 0)
    if scene.random.random() < 0.5:
        _paint_dense(scene, side, np.maximum(region - scene.random.uniform(5, 20), -region))
    scene.hu += share * (scene.random.uniform(-8, 20) + _grain(scene) - scene.hu)
    scene.sides[fluid] = OUTSIDE
    scene.weight[fluid] = EMPHASIS


def _paint_gas(scene: Scene) -> None:
    """Gas of stomach, bowel or oesophagus: dark, but not lung."""
    radii = scene.random.uniform(4, 22, 3)
    places = np.flatnonzero((scene.depth < -radii.min() - 4) & (scene.hu > PARTIAL_HU))
    if places.size == 0:
        return
    middle = np.unravel_index(scene.random.choice(places), scene.hu.shape)
    squares = [
        ((axis - NETWORK_MM * place) / radius) ** 2
        for axis, place, radius in zip(scene.axes(), middle, radii, strict=True)
    ]
    distance = (np.sqrt(squares[0] + squares[1] + squares[2]) - 1) * float(radii.min())
    share = cover(distance, BLUR_MM) * (scene.depth < -5)
    scene.hu += share * (-1000.0 - scene.hu)
    scene.weight[share > 0.5] = EMPHASIS
