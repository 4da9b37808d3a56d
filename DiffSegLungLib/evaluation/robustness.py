"""The same lung scanned differently: calibration, noise, kernel and slices changed, the volumes compared.

The lungs are those with lesions of known truth, whose DSC is given too, and really diseased ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.evaluation.borrowed import volumes
from DiffSegLungLib.evaluation.cases import Case, draw_lesions, make_case
from DiffSegLungLib.evaluation.hosts import HostFile, load_host
from DiffSegLungLib.evaluation.metrics import dice_by_tissue
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.pipeline import segment

RELATIVE, ABSOLUTE = 0.10, 2.0
"""A class may change by this share of itself, or by so many points of the lung where that is more."""
NOISE_HU = 25.0
AS_IT_IS = "as it is"


def _image(hu: np.ndarray, spacing: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.clip(np.rint(hu), -1024, 3071).astype(np.int16))
    image.SetSpacing([float(step) for step in spacing[::-1]])
    return image


def _slices(millimetres: float) -> Callable[[np.ndarray, tuple[float, ...]], sitk.Image]:
    def change(hu: np.ndarray, spacing: tuple[float, ...]) -> sitk.Image:
        new = (millimetres, *spacing[1:])
        return _image(resample(hu, spacing, new), new)

    return change


def _same_grid(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., sitk.Image]:
    return lambda hu, spacing: _image(change(hu), spacing)


def _noisy(hu: np.ndarray) -> np.ndarray:
    white = np.random.default_rng(7).standard_normal(hu.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(white, (0, 0.6, 0.6))
    return hu + grain * np.float32(NOISE_HU / grain.std())


def _sharpened(hu: np.ndarray) -> np.ndarray:
    return hu + 0.8 * (hu - ndimage.gaussian_filter(hu, (0, 1.0, 1.0)))


CHANGES: dict[str, Callable[[np.ndarray, tuple[float, ...]], sitk.Image]] = {
    "offset +30 HU": _same_grid(lambda hu: hu + 30.0),
    "offset -30 HU": _same_grid(lambda hu: hu - 30.0),
    "slope 0.96": _same_grid(lambda hu: (hu + 1000.0) * 0.96 - 1000.0),
    "slope 1.04": _same_grid(lambda hu: (hu + 1000.0) * 1.04 - 1000.0),
    f"noise {NOISE_HU:.0f} HU": _same_grid(_noisy),
    "smoothed": _same_grid(lambda hu: ndimage.gaussian_filter(hu, (0, 0.8, 0.8))),
    "sharpened": _same_grid(_sharpened),
    "slices 1 mm": _slices(1.0),
    "slices 5 mm": _slices(5.0),
}
"""Slope is about air at -1000 HU: density, not the HU's zero, is scaled."""


_TOO_LOW, _TOO_HIGH = r"CT values lie .* too low", r"CT values lie .* too high"
_TOO_LONG = r"scale were .* too long"
_BLUR = r"Fine lines are blurred by .*{}"
EXPECTED: dict[str, str] = {
    "offset +30 HU": _TOO_HIGH,
    "offset -30 HU": f"{_TOO_LOW}|{_TOO_LONG}",
    "slope 0.96": _TOO_LOW,
    "slope 1.04": f"{_TOO_HIGH}|{_TOO_LONG}",
    "smoothed": _BLUR.format("soft kernel"),
    "sharpened": r"kernel .* is sharp",
    "slices 5 mm": _BLUR.format("thick slices") + "|Slices lie .* apart",
}
"""What the warning must say that allows a change to move the volumes; any other is chance.  Changes that have
none must hold them."""


@dataclass(frozen=True)
class Subject:
    """A lung that is scanned differently.

    Attributes:
        name: of the CT.
        hu: float32 (z, y, x), canonical axes.
        spacing: (z, y, x) in mm.
        case: the truth, where lesions were placed; None for a CT as it is.
    """

    name: str
    hu: np.ndarray
    spacing: tuple[float, float, float]
    case: Case | None = None


@lru_cache(maxsize=1)
def with_lesions(host: HostFile, seed: int, data: Path) -> Subject:
    """A host with lesions of known truth; the last one is kept, since it is asked for change by change."""
    case = make_case(load_host(host, data), draw_lesions(seed))
    return Subject(host.name, case.hu, case.host.spacing, case)


@lru_cache(maxsize=1)
def as_it_is(name: str, data: Path) -> Subject:
    """A real CT; the last one is kept."""
    volume = load_volume(data / f"{name}.nii.gz")
    return Subject(name, volume.hu, volume.spacing)


def run_change(name: str | None, subject: Subject, model_name: str | None) -> dict[str, Any]:
    """Segment a changed lung (unchanged for ``None``).

    Returns:
        Shares of the tissues in percent, the warnings and, where the truth is known, ``dsc`` by tissue.
    """
    change = CHANGES[name] if name else _same_grid(lambda hu: hu)
    result = segment(change(subject.hu, subject.spacing), model=model_name)
    row = {
        "subject": subject.name,
        "name": name or AS_IT_IS,
        "percent": volumes(result)[1],
        "warnings": result.manifest["warnings"],
    }
    if subject.case is None:
        return row
    shape = subject.hu.shape
    labels = result.label_array
    if labels.shape != shape:
        spacing = result.volume.spacing
        labels = resample(labels, spacing, subject.spacing, interpolation="nearest", size=shape)
    return row | {"dsc": dice_by_tissue(labels, subject.case.truth, subject.case.scored)}


def _without_numbers(warning: str) -> str:
    """A warning is the same one whatever volume it states."""
    return re.sub(r"[\d.,]+", "", warning)


def judge(changed: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Whether the volumes held, or the reader was warned of this very change, as the plain scan's is not."""
    differences = {key: changed["percent"][key] - value for key, value in plain["percent"].items()}
    held = all(
        abs(difference) <= max(RELATIVE * plain["percent"][key], ABSOLUTE)
        for key, difference in differences.items()
    )
    known = {_without_numbers(warning) for warning in plain["warnings"]}
    fresh = [warning for warning in changed["warnings"] if _without_numbers(warning) not in known]
    expected = EXPECTED.get(changed["name"])
    fitting = [warning for warning in fresh if expected and re.search(expected, warning)]
    return {
        "largest_change_points": max(abs(value) for value in differences.values()),
        "changes": differences,
        "volumes_held": held,
        "new_warnings": fresh,
        "expected_warnings": fitting,
        "held": held or bool(fitting),
    }
