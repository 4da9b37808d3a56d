"""The icons are the drawing, the drawing has the tissues' colours, the thumbnail is the phantom."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest

from DiffSegLungLib.tissues import REPORTED

ROOT = Path(__file__).resolve().parents[2]
HEX_COLOUR = re.compile(r"#[0-9a-f]{6}")
OUTLINE, WHITE = "#2f667c", "#ffffff"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """`draw_pictures.py`, a script beside this file."""
    spec = importlib.util.spec_from_file_location(
        "draw_pictures", Path(__file__).with_name("draw_pictures.py")
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels_of(path: Path) -> np.ndarray:
    """A picture as (rows, columns, 4), 0 to 255."""
    return np.rint(matplotlib.image.imread(path) * 255).astype(int)


def hex_of(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def test_both_icons_are_one_picture_of_128_pixels(pictures: ModuleType) -> None:
    extension, module = (pixels_of(folder / pictures.ICON) for folder in pictures.ICON_FOLDERS)
    assert extension.shape == (128, 128, 4)
    assert np.array_equal(extension, module)
    assert extension[0, 0, 3] == 0 and extension[:, :, 3].max() == 255


def test_icon_is_the_drawing(pictures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PySide6.QtSvg", reason="needs PySide6")
    if not os.environ.get("DISPLAY"):
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    rendered = tmp_path / "rendered.png"
    assert pictures.render_icon().save(str(rendered))
    difference = pixels_of(rendered) - pixels_of(pictures.ICON_FOLDERS[0] / pictures.ICON)
    assert np.abs(difference).mean() < 1  # another version of Qt may smooth edges otherwise


def test_drawing_has_the_colour_of_every_tissue(pictures: ModuleType) -> None:
    used = set(HEX_COLOUR.findall(pictures.DRAWING.read_text(encoding="utf-8")))
    assert used == {hex_of(tissue.colour) for tissue in REPORTED} | {OUTLINE, WHITE}


def test_colours_are_still_told_apart_at_16_pixels(pictures: ModuleType) -> None:
    """Scaled down as a module list does, each patch but the small cavity still shows its own colour."""
    icon = pixels_of(pictures.ICON_FOLDERS[0] / pictures.ICON)
    small = icon.reshape(16, 8, 16, 8, 4).mean(axis=(1, 3))
    opaque = small[small[:, :, 3] > 200][:, :3]
    for tissue in REPORTED:
        nearest = np.abs(opaque - tissue.colour).max(axis=1).min()
        assert nearest < (60 if tissue.key == "cavity" else 12), tissue.key


def test_thumbnail_is_the_phantom(pictures: ModuleType, tmp_path: Path) -> None:
    stored = pixels_of(pictures.THUMBNAIL)
    assert stored.shape[:2] == pictures.THUMBNAIL_SIZE[::-1]
    assert stored[:, :, :3].std() > 40
    pictures.write_thumbnail(tmp_path / "thumbnail.png")
    assert np.abs(stored - pixels_of(tmp_path / "thumbnail.png")).mean() < 1
