"""An earlier CT of the same patient brought onto a later one, with Elastix (``pip install itk-elastix``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.io.volume import canonical_image
from DiffSegLungLib.tissues import DISEASES

if TYPE_CHECKING:
    from DiffSegLungLib.io.volume import Volume

STEPS = {
    "rigid": ("rigid",),
    "affine": ("rigid", "affine"),
    "deformable": ("rigid", "affine", "bspline"),
}
"""What each kind of registration does, one after the other."""

GRID_MM = 2.5
"""Spacing on which the images are matched: lungs are large, and so is a cohort."""
CONTROL_POINTS_MM = 40.0
"""Distance of the control points of the B-spline."""
LUNG_MARGIN_VOXELS = 4
ITERATIONS = 150
"""On each of three scales."""


def require_elastix() -> None:
    """Says what to install.

    Raises:
        MissingPartError: ITKElastix is not there.
    """
    if find_spec("itk") is None or not _has_elastix():
        raise MissingPartError("Registration needs ITKElastix: pip install 'diffseglung[registration]'")


def _has_elastix() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version("itk-elastix"))
    except PackageNotFoundError:
        return False


def bring_onto(
    later: Volume, later_labels: np.ndarray, earlier: Volume, earlier_labels: np.ndarray, kind: str
) -> np.ndarray:
    """The earlier label map on the later CT's grid.

    The match is of densities in the later lungs and a rim around them, without what is diseased there: ribs
    and table must not lead it, and a lesion that grew must not be stretched out of the one it was.

    Args:
        later: the CT that stays.
        later_labels: uint8 (z, y, x), its tissues.
        earlier: the CT that moves.
        earlier_labels: uint8 (z, y, x) on its grid.
        kind: a key of ``STEPS``.

    Returns:
        uint8 (z, y, x) on the later grid; 0 where nothing of the earlier CT comes to lie.

    Raises:
        UnusableInputError: an unknown kind, or the two CTs cannot be matched.
        MissingPartError: ITKElastix is not installed.
    """
    if kind not in STEPS:
        raise UnusableInputError(f"Registration {kind!r} is unknown: give one of {', '.join(STEPS)}.")
    require_elastix()
    import itk

    fixed, moving = (_itk_image(volume, np.clip(volume.hu, LOWEST_HU, 300)) for volume in (later, earlier))
    try:
        _, transform = itk.elastix_registration_method(
            _coarse(fixed),
            _coarse(moving),
            fixed_mask=_mask(later, later_labels),
            parameter_object=_parameters(kind),
            log_to_console=False,
        )
        moved = _labels_moved(_itk_image(earlier, earlier_labels.astype(np.float32)), transform, fixed)
    except RuntimeError as error:
        raise UnusableInputError(
            "The earlier CT cannot be registered with this one: check that both are of one patient."
        ) from error
    return np.rint(itk.array_from_image(moved)).astype(np.uint8)


def _itk_image(volume: Volume, array: np.ndarray) -> Any:
    """A canonical array as an image of ITK, in its place."""
    import itk

    placed = canonical_image(array[:1, :1, :1], volume)
    image = itk.image_from_array(np.ascontiguousarray(array, np.float32))
    image.SetSpacing([float(step) for step in placed.GetSpacing()])
    image.SetOrigin([float(place) for place in placed.GetOrigin()])
    image.SetDirection(np.reshape(placed.GetDirection(), (3, 3)))
    return image


def _mask(volume: Volume, labels: np.ndarray) -> Any:
    import itk
    from scipy.ndimage import binary_dilation

    wide = binary_dilation(labels > 0, iterations=LUNG_MARGIN_VOXELS)
    wide &= ~np.isin(labels, [tissue.label for tissue in DISEASES])
    return itk.cast_image_filter(
        _itk_image(volume, wide.astype(np.float32)),
        ttype=(itk.Image[itk.F, 3], itk.Image[itk.UC, 3]),
    )


def _coarse(image: Any) -> Any:
    """The image at ``GRID_MM``, smoothed; one that is coarser stays."""
    import itk

    spacing = np.array(list(image.GetSpacing()))
    new = np.maximum(spacing, GRID_MM)
    if np.allclose(new, spacing):
        return image
    smooth = itk.discrete_gaussian_image_filter(
        image, variance=((new / 2) ** 2).tolist(), use_image_spacing=True
    )
    size = np.maximum(np.array(list(itk.size(image))) * spacing / new, 1).astype(int)
    return itk.resample_image_filter(
        smooth,
        size=size.tolist(),
        output_spacing=new.tolist(),
        output_origin=list(image.GetOrigin()),
        output_direction=image.GetDirection(),
        default_pixel_value=LOWEST_HU,
    )


def _parameters(kind: str) -> Any:
    import itk

    parameters = itk.ParameterObject.New()
    for step in STEPS[kind]:
        values = parameters.GetDefaultParameterMap(step, 3, CONTROL_POINTS_MM)
        values["MaximumNumberOfIterations"] = [str(ITERATIONS)]
        values["WriteResultImage"] = ["false"]  # the labels are what is moved
        values["RandomSeed"] = ["1"]  # the sampler's; the same CTs give the same result
        values["ErodeMask"] = ["false"]
        parameters.AddParameterMap(values)
    return parameters


def _labels_moved(labels: Any, transform: Any, fixed: Any) -> Any:
    """Labels by nearest neighbour on the whole, fine grid of the CT that stayed."""
    import itk

    last = transform.GetNumberOfParameterMaps() - 1
    transform.SetParameter(last, "FinalBSplineInterpolationOrder", ["0"])
    transform.SetParameter(last, "DefaultPixelValue", ["0"])
    for key, values in (
        ("Size", itk.size(fixed)),
        ("Spacing", fixed.GetSpacing()),
        ("Origin", fixed.GetOrigin()),
        ("Index", (0, 0, 0)),
    ):
        transform.SetParameter(last, key, [str(value) for value in values])
    return itk.transformix_filter(labels, transform, log_to_console=False)
