"""Makes the pictures that the extension ships; run from anywhere:

python Testing/packaging/draw_pictures.py icons        from Resources/Icons/DiffSegLung.svg (PySide6)
python Testing/packaging/draw_pictures.py thumbnail    from the sample phantom (Matplotlib)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from PySide6.QtGui import QImage

ROOT = Path(__file__).resolve().parents[2]
DRAWING = ROOT / "Resources/Icons/DiffSegLung.svg"
ICON = "DiffSegLung.png"
# The extension's icon is fetched by its address on the web, the module's lies beside the module.
ICON_FOLDERS = (ROOT / "Resources/Icons", ROOT / "DiffSegLung/Resources/Icons")
ICON_SIZE = 128
PHANTOM = ROOT / "DiffSegLung/Resources/SampleData/DiffSegLungPhantom.nrrd"
THUMBNAIL = ROOT / "DiffSegLung/Resources/Icons/DiffSegLungPhantom.png"
THUMBNAIL_SIZE = (260, 280)
LUNG_WINDOW_HU = (-1350.0, 150.0)
SLICE_MM = 27.5
"""Behind the phantom's centre: a coronal slice with windpipe, cavity, ground glass and emphysema."""


def render_icon(size: int = ICON_SIZE) -> QImage:
    """The drawing at a size in pixels, on a transparent ground."""
    from PySide6.QtCore import Qt
    from PySide6.QtGui import QImage, QPainter
    from PySide6.QtSvg import QSvgRenderer

    image = QImage(size, size, QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.transparent)
    renderer = QSvgRenderer(str(DRAWING))
    if not renderer.isValid():
        raise ValueError(f"{DRAWING} is not a drawing that Qt can read")
    painter = QPainter(image)
    renderer.render(painter)
    painter.end()
    return image


def write_icons() -> None:
    """Writes the drawing as PNG to both places."""
    image = render_icon()
    for folder in ICON_FOLDERS:
        if not image.save(str(folder / ICON)):
            raise OSError(f"Cannot write {folder / ICON}")


def slice_of_phantom() -> np.ndarray:
    """The thumbnail's coronal slice of the sample phantom, HU, rows from head to feet."""
    image = sitk.ReadImage(str(PHANTOM))
    behind = image.TransformPhysicalPointToIndex((0.0, SLICE_MM, 0.0))[1]
    return sitk.GetArrayFromImage(image)[::-1, behind]


def write_thumbnail(path: Path = THUMBNAIL) -> None:
    """Writes the slice in the lung window, cut to the thumbnail's shape."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = THUMBNAIL_SIZE
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    low, high = LUNG_WINDOW_HU
    pixels = slice_of_phantom()
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="bicubic", aspect="equal")
    half_width = pixels.shape[0] * width / height / 2
    axes.set_xlim(pixels.shape[1] / 2 - half_width - 0.5, pixels.shape[1] / 2 + half_width - 0.5)
    axes.set_axis_off()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    commands = {"icons": write_icons, "thumbnail": write_thumbnail}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
