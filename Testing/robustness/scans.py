"""The scans of the battery: a small chest of known anatomy, and what a hospital may send in its place.

The chest is the phantom at half its size, a small child's: it has all that the full size has, and a case
takes seconds.  Arrays are HU (z, y, x) in LPS axes, x to the patient's left; sides are in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scipy import ndimage
from scipy.spatial.transform import Rotation

from DiffSegLungLib.phantom import Phantom, make_phantom, phantom_image
from Testing.unit.dicom_series import write_series

SIDE = 2.5
"""Voxel side of the chest in mm; the phantom is made at twice that."""
AIR, WATER, SOFT, BONE = -1000.0, 0.0, 45.0, 600.0
SINGLE_SLICE = 0
Maker = Callable[[Path], Path]
"""Writes a case's input into a folder and returns what the command line is given."""


# --- the chest -------------------------------------------------------------------------------------------


@cache
def phantom(lesions: tuple[str, ...] | None = None, lung_hu: float = -860.0, noise: float = 20.0) -> Phantom:
    """The phantom that the chest is made of; all lesions without ``lesions``."""
    return make_phantom((2 * SIDE,) * 3, lesions=lesions, lung_hu=lung_hu, noise_hu=noise)


def image_of(hu: np.ndarray, spacing: Sequence[float] = (SIDE,) * 3) -> sitk.Image:
    """An int16 image; ``spacing`` is (z, y, x)."""
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing(tuple(spacing)[::-1])
    image.SetOrigin((-80.0, -70.0, 1200.0))
    return image


def chest() -> sitk.Image:
    """The plain chest with all lesions."""
    return image_of(phantom().hu)


def changed(change: Callable[[np.ndarray, np.ndarray], None]) -> sitk.Image:
    """The chest after ``change(hu, sides)``; sides are 0 outside the lungs, 1 right, 2 left."""
    hu = phantom().hu.copy()
    change(hu, phantom().sides)
    return image_of(hu)


def adult() -> sitk.Image:
    """The phantom in its own size."""
    return phantom_image(phantom())


def filled(share: float, hu: float) -> sitk.Image:
    """An adult whose parenchyma holds, all over, a share of something else beside what it holds."""
    scan = phantom(())
    between = np.clip((-530 - scan.hu) / 250, 0, 1)  # vessels stay as they are
    mixed = share * between * (scan.sides > 0)
    image = image_of(scan.hu * (1 - mixed) + hu * mixed)
    image.SetSpacing([2 * SIDE] * 3)
    return image


def finer(factors: tuple[float, float, float]) -> sitk.Image:
    """The same chest on other voxels: ``factors`` (z, y, x) as many in the same space."""
    hu = ndimage.zoom(phantom().hu, factors, order=1, grid_mode=True, mode="nearest")
    return image_of(hu, [SIDE * a / b for a, b in zip(phantom().hu.shape, hu.shape, strict=True)])


def turned(degrees: Sequence[float]) -> sitk.Image:
    """The chest lying obliquely in the scanner: only its direction cosines differ."""
    image = chest()
    image.SetDirection(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().ravel().tolist())
    return image


def sheared(degrees: float) -> sitk.Image:
    """The chest with slices that do not stand on its long axis."""
    image, angle = chest(), np.radians(degrees)
    image.SetDirection((1, 0, 0, 0, 1, float(np.sin(angle)), 0, 0, float(np.cos(angle))))
    return image


# --- other patients --------------------------------------------------------------------------------------


def _ball(shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, side) for side in shape)]
    terms = zip(axes, centre, radii, strict=True)
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in terms) < 1)


def body(gas: Sequence[tuple[tuple[float, ...], tuple[float, ...]]] = ()) -> np.ndarray:
    """A trunk of soft tissue with a spine, and balls of gas given by centre and radii in voxels (z, y, x)."""
    shape = (60, 64, 80)
    hu = np.full(shape, AIR)
    _, y, x = np.ogrid[0:60, 0:64, 0:80]
    hu[np.broadcast_to(((y - 32) / 27) ** 2 + ((x - 40) / 36) ** 2 < 1, shape)] = SOFT
    hu[np.broadcast_to((y - 48) ** 2 + (x - 40) ** 2 < 36, shape)] = BONE
    for centre, radii in gas:
        hu[_ball(shape, centre, radii)] = AIR
    return hu + np.random.default_rng(0).normal(0, 15, shape)


def abdomen() -> sitk.Image:
    """Bowel with gas here and there."""
    return image_of(body([((20, 20, 30), (5, 4, 6)), ((35, 18, 50), (4, 5, 8)), ((45, 25, 25), (4, 4, 4))]))


def distended_abdomen() -> sitk.Image:
    """A stomach and a colon full of gas, each larger than a small lung."""
    return image_of(body([((42, 24, 56), (13, 12, 12)), ((40, 24, 22), (14, 10, 11))]))


def head() -> sitk.Image:
    """Skull and brain with sinuses, pharynx and the cushion under it."""
    shape = (70, 72, 60)
    hu = np.full(shape, AIR)
    hu[_ball(shape, (36, 36, 30), (33, 30, 26))] = BONE + 400
    hu[_ball(shape, (36, 36, 30), (31, 28, 24))] = 35.0
    for centre, radii in (((20, 14, 22), (5, 5, 5)), ((20, 14, 38), (5, 5, 5)), ((6, 30, 30), (9, 5, 5))):
        hu[_ball(shape, centre, radii)] = AIR
    return image_of(hu + np.random.default_rng(0).normal(0, 8, shape))


def nothing_but(hu: float) -> sitk.Image:
    """Air or water alone, with noise."""
    return image_of(np.random.default_rng(0).normal(hu, 25, (40, 50, 50)))


# --- what a patient may have -----------------------------------------------------------------------------


def without_right_lung(hu: np.ndarray, sides: np.ndarray) -> None:
    """After a pneumonectomy the space fills with fluid."""
    hu[sides == 1] = 15.0


def consolidated(hu: np.ndarray, sides: np.ndarray) -> None:
    """No air in either lung."""
    hu[sides > 0] = 35.0


def metal(hu: np.ndarray, sides: np.ndarray) -> None:
    """A pacemaker at the front of the left chest: beyond the scale, with streaks."""
    z, y, x = (int(middle) for middle in np.argwhere(sides == 2).mean(axis=0))
    hu[z : z + 3, 8:11, x : x + 4] = 30000.0
    near = slice(x - 8, x + 9)
    hu[z + 1, y - 8 : y + 8 : 3, near] += 400.0
    hu[z + 1, y - 7 : y + 8 : 3, near] -= 500.0


def metal_through_the_wall(hu: np.ndarray, sides: np.ndarray) -> None:
    """A pacemaker whose dark streaks cross the chest wall: the lungs' air meets the room's."""
    z, y, x = (int(middle) for middle in np.argwhere(sides == 2).mean(axis=0))
    rows, columns = np.mgrid[: hu.shape[1], : hu.shape[2]] - np.array([9, x])[:, None, None]
    for angle in np.pi * np.arange(6) / 6:
        streak = np.abs(rows * np.cos(angle) - columns * np.sin(angle)) < 1
        hu[z - 8 : z + 8, streak] -= 800.0
    hu[z - 8 : z + 8, 8:11, x - 2 : x + 3] = 30000.0


def contrast(hu: np.ndarray, sides: np.ndarray) -> None:
    """Blood of heart and vessels at 350 HU."""
    hu[(hu > 20) & (hu < 70) & ndimage.binary_dilation(sides > 0, iterations=8)] += 300.0


def pneumothorax(hu: np.ndarray, sides: np.ndarray) -> None:
    """The front half of the right pleural space holds air alone."""
    right = sides == 1
    rows = np.flatnonzero(right.any(axis=(0, 2)))
    front = np.arange(hu.shape[1])[None, :, None] < rows.mean()
    hu[right & front] = AIR + np.random.default_rng(0).normal(0, 12, int((right & front).sum()))


def effusion(hu: np.ndarray, sides: np.ndarray) -> None:
    """Water behind both lungs, up to a third of their depth."""
    rows = np.flatnonzero((sides > 0).any(axis=(0, 2)))
    back = np.arange(hu.shape[1])[None, :, None] > rows[0] + 0.68 * (rows[-1] - rows[0])
    hu[(sides > 0) & back] = 8.0


def prone(hu: np.ndarray, sides: np.ndarray) -> None:
    """Blood sinks to the front: the phantom's slope of density, turned round."""
    y = np.arange(hu.shape[1])[None, :, None] - hu.shape[1] / 2
    hu += (sides > 0) * (-2 * 40.0 / 170.0 * 2 * SIDE * y)


def large_body() -> sitk.Image:
    """A body wider than the field of view: no air beside it."""
    hu = phantom().hu
    inside = ndimage.binary_fill_holes((hu > -400).any(axis=0))
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return image_of(hu[:, rows[0] + 2 : rows[-1] - 2, columns[0] + 3 : columns[-1] - 3])


def round_field(value: float) -> Callable[[np.ndarray, np.ndarray], None]:
    """Fill what lies outside the scanner's round field with a value, as scanners do."""

    def fill(hu: np.ndarray, sides: np.ndarray) -> None:
        y, x = (np.linspace(-1, 1, side) for side in hu.shape[1:])
        hu[:, np.hypot(y[:, None], x[None, :]) > 1.0] = value

    return fill


# --- values ----------------------------------------------------------------------------------------------


def with_values(value: float, share: float) -> sitk.Image:
    """The chest as float32 with a share of its voxels set to a value such as NaN."""
    hu = phantom().hu.copy()
    hu.ravel()[np.random.default_rng(0).random(hu.size) < share] = value
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(chest())
    return image


def cast(image: sitk.Image, pixel: int) -> sitk.Image:
    """The same numbers in another type."""
    return sitk.Cast(image, pixel)


def resonance() -> sitk.Image:
    """An MR of the chest: no unit, nothing negative."""
    return image_of(np.abs(phantom().hu + 1000) / 3 + 5)


# --- files -----------------------------------------------------------------------------------------------


def save(image: sitk.Image, path: Path) -> Path:
    """Write an image and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=path.suffix in (".nrrd", ".gz"))
    return path


def file(make: Callable[[], sitk.Image], name: str = "ct.nrrd") -> Maker:
    """The image in a file of that name."""
    return lambda folder: save(make(), folder / name)


def dicom(make: Callable[[], sitk.Image] = chest, **tags: object) -> Maker:
    """The image as a folder with one DICOM series."""

    def write(folder: Path) -> Path:
        hu = sitk.GetArrayFromImage(make()).astype(np.float32)
        spacing = {"PixelSpacing": [SIDE, SIDE], "SliceThickness": SIDE}
        write_series(folder / "ct", hu, **({"step": (0, 0, SIDE)} | spacing | tags))  # type: ignore[arg-type]
        return folder / "ct"

    return write


def deflated(make: Maker) -> Maker:
    """A DICOM folder, each file deflated as a whole."""

    def write(folder: Path) -> Path:
        made = make(folder)
        for path in made.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            dataset.save_as(path)
        return made

    return write


def edited(make: Maker, change: Callable[[bytes], bytes]) -> Maker:
    """The file with other bytes; of a folder its first file."""

    def write(folder: Path) -> Path:
        path = make(folder)
        target = sorted(path.iterdir())[0] if path.is_dir() else path
        target.write_bytes(change(target.read_bytes()))
        return path

    return write


def cut(content: bytes) -> bytes:
    """The first two thirds."""
    return content[: len(content) * 2 // 3]


def scrambled(content: bytes) -> bytes:
    """Random bytes from the ninth on: the start still says what it should be."""
    return content[:8] + np.random.default_rng(0).bytes(len(content) - 8)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Another field in a header; it must be there."""

    def change(content: bytes) -> bytes:
        assert old in content, old
        return content.replace(old, new, 1)

    return change
