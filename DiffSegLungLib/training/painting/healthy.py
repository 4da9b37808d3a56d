"""What is no disease and must not be called so: breath, gravity, motion; and what nobody is asked about."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting import shapes
from DiffSegLungLib.training.painting.canvas import Canvas, soft

PARENCHYMA_HU = -350.0
"""Lung this dense holds no air that breath could move."""
FAT_HU = (-150.0, -30.0)
"""Bounds of fat over some voxels, noise aside."""


def breath(canvas: Canvas) -> None:
    """A shallower or deeper breath; the lung that lies below is denser."""
    share = canvas.between(-0.05, 0.30) if canvas.chance(0.5) else canvas.between(-0.05, 0.08)
    filled: np.ndarray | float = share
    if canvas.chance(0.5):
        filled = share + _dependent(canvas)
    filled = filled + 0.02 * canvas.field(15) * canvas.between(0, 1)
    filled = filled * np.clip((PARENCHYMA_HU - canvas.hu) / 250, 0, 1) * canvas.lungs
    canvas.hu += np.where(filled > 0, filled * (40 - canvas.hu), -filled * (-1000 - canvas.hu))


def _dependent(canvas: Canvas) -> np.ndarray:
    """Share filled by the lung's own weight, falling off from its lowest border."""
    down = np.broadcast_to(canvas.axes[1], canvas.shape)
    last = np.where(canvas.lungs, down, -1).max(1, keepdims=True)
    last = np.where(last < 0, down.max(), last)
    fall = np.exp(-np.clip(last - down, 0, None) / canvas.between(8, 35))
    return canvas.between(0, 0.3) * fall * np.clip(1 + 0.3 * canvas.field(13), 0, 2)


def thin_patient(canvas: Canvas) -> None:
    """Muscle and mediastinum without the fat that would set them apart from dense lung."""
    fine = ndimage.gaussian_filter(canvas.hu, (0.3, 0.7, 0.7))
    fat = ~ndimage.binary_dilation(canvas.lungs, iterations=2) & (fine > FAT_HU[0]) & (fine < FAT_HU[1])
    gain = (canvas.between(20, 60) - np.mean(FAT_HU)) * canvas.between(0.6, 1.0)
    canvas.hu += gain * ndimage.gaussian_filter(fat.astype(np.float32), (0.3, 0.5, 0.5))


def motion(canvas: Canvas) -> None:
    """The heart or a breath moved the lung by some mm while it was scanned: vessels are seen twice."""
    moved = np.roll(canvas.hu, int(canvas.rng.integers(1, 5)), axis=1)
    share = soft(shapes.blob(canvas, canvas.spread(15, 50)), 5) * 0.5 * canvas.lungs
    canvas.hu += share * (moved - canvas.hu)


def airway_disease(canvas: Canvas) -> None:
    """Small nodules and buds along small vessels: disease, but of no tissue here, so nobody is asked."""
    near = canvas.lungs & (canvas.to_vessel < 6)
    region = soft(shapes.around(canvas, near, canvas.spread(10, 40)), 3)
    buds = soft(canvas.field(2.0) - canvas.between(1.4, 1.9), 0.15) * (canvas.to_vessel < 8) * canvas.lungs
    share = buds * region * canvas.between(0.5, 1.0)
    canvas.fill(share)
    grown = ndimage.maximum_filter(share > 0.1, (3, 5, 5))
    canvas.labels[grown & canvas.lungs] = LEFT_OUT


def pneumothorax(canvas: Canvas) -> None:
    """Air beside the lung, at the side that lies uppermost: not lung."""
    up = canvas.lungs & (canvas.axes[1] < np.median(canvas.axes[1])) & (canvas.depth < 5)
    region = shapes.around(canvas, up, canvas.spread(20, 60))
    rim = canvas.spread(3, 30) * (1 + 0.3 * canvas.field(27)) - canvas.depth
    share = soft(np.minimum(rim, region), 0.5) * canvas.lungs
    wall = soft(1.0 - np.abs(np.minimum(rim, region)), 0.4) * canvas.lungs
    canvas.fill(wall * 0.5)
    canvas.put_beside(share, canvas.between(-1005, -985))
