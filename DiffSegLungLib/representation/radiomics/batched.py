"""The radiomic teacher for many patches at once, in torch, on CPU or GPU.

It gives the numbers of ``reference.describe`` (to about 1e-12; the tests demand 1e-6) without a loop over
the batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from DiffSegLungLib.representation import radiomics as constants
from DiffSegLungLib.representation.radiomics.reference import gabor_kernels


class RadiomicTeacher(torch.nn.Module):
    """Describe the lung in each CT patch of a batch by the 34 numbers of ``radiomics.FEATURE_NAMES``.

    It holds no trainable weights and gives no gradient: the teacher is a fixed target. It computes in float64
    throughout, because skewness and ties between grey levels do not survive float32.

    Example:
        >>> teacher = RadiomicTeacher().to("cuda")
        >>> numbers = teacher(hu, mask)  # (B, z, y, x) twice -> (B, 34)
    """

    def __init__(self) -> None:
        super().__init__()
        self.pattern_of_code: torch.Tensor
        self.register_buffer("pattern_of_code", _uniform_patterns(), persistent=False)

    @torch.no_grad()
    def forward(self, hu: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Describe a batch of patches.

        Args:
            hu: Hounsfield units, shape (B, z, y, x), any floating type.
            mask: lung, same shape; boolean, or numbers of which those above 0.5 are lung.

        Returns:
            float64 tensor of shape (B, 34); zeros where a patch has no lung.

        Raises:
            ValueError: the shapes differ or are not four-dimensional, or a lung voxel is not finite.
        """
        values, lung = _prepare(hu, mask)
        planes = [_middle_plane(values, lung, axis) for axis in (1, 2, 3)]
        patterns = [_lbp_histogram(*plane, self.pattern_of_code) for plane in planes]
        numbers = torch.cat(
            [
                _intensity_statistics(values, lung),
                _glcm_properties(planes[0][0]),
                torch.stack(patterns).mean(dim=0),
                _gabor_energies(*planes[0]),
            ],
            dim=1,
        )
        return torch.where(lung.flatten(1).any(dim=1)[:, None], numbers, 0.0)


def teacher_for_patches(
    hu: NDArray[np.floating],
    mask: NDArray[np.generic],
    batch_size: int = 64,
    device: str | torch.device = "cpu",
) -> NDArray[np.float64]:
    """Describe a whole stack of patches.

    Args:
        hu: Hounsfield units, shape (N, z, y, x).
        mask: lung, same shape.
        batch_size: how many patches are held on the device at once.
        device: where to compute.

    Returns:
        float64 array of shape (N, 34).
    """
    teacher = RadiomicTeacher().to(device)
    described = np.zeros((len(hu), constants.FEATURE_COUNT))
    for start in range(0, len(hu), batch_size):
        rows = slice(start, start + batch_size)
        # Copies, because torch takes neither read-only (memory-mapped) nor reversed arrays as they are.
        batch = (torch.from_numpy(np.array(stack[rows], order="C")).to(device) for stack in (hu, mask))
        described[rows] = teacher(*batch).cpu().numpy()
    return described


def _prepare(hu: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Check a batch; HU as float64, clipped and rounded, at the window's floor outside the lung."""
    lung = mask > 0.5
    if hu.ndim != 4 or hu.shape != lung.shape:
        shapes = f"{tuple(hu.shape)}, {tuple(lung.shape)}"
        raise ValueError(f"patches and their masks must share one (B, z, y, x) shape: {shapes}")
    values = torch.where(lung, hu, constants.HU_MINIMUM).double()
    if not torch.isfinite(values).all():
        raise ValueError("a patch holds lung voxels that are not finite; repair the volume first")
    values = values.clamp_(constants.HU_MINIMUM, constants.HU_MAXIMUM)
    return values.div_(constants.HU_STEP).round_().mul_(constants.HU_STEP), lung


def _to_unit_range(values: torch.Tensor) -> torch.Tensor:
    return (values - constants.HU_MINIMUM) / (constants.HU_MAXIMUM - constants.HU_MINIMUM)


def _masked_mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean over the last two axes of the values at ``where``; 0 where there are none."""
    totals = (values * where).sum(dim=(-2, -1))
    return totals / where.sum(dim=(-2, -1)).clamp(min=1)


def _count(bins: torch.Tensor, bin_count: int) -> torch.Tensor:
    """Histogram of each row: (B, n) bin numbers -> (B, bin_count) counts, float64."""
    batch = bins.shape[0]
    offsets = torch.arange(batch, device=bins.device)[:, None] * bin_count
    flat = torch.bincount((bins + offsets).flatten(), minlength=batch * bin_count)
    return flat.view(batch, bin_count).double()


def _middle_plane(values: torch.Tensor, lung: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each patch the slice with lung nearest to the middle of an axis, filled with its lung mean."""
    length = values.shape[axis]
    other_axes = tuple(other for other in (1, 2, 3) if other != axis)
    with_lung = lung.any(dim=other_axes[1]).any(dim=other_axes[0])
    positions = torch.arange(length, device=values.device)
    # Twice the distance, plus one above the middle, leaves no ties: the lower index wins.
    preference = 2 * (positions - length // 2).abs() + (positions > length // 2)
    chosen = torch.where(with_lung, preference, 4 * length).argmin(dim=1)
    patches = torch.arange(values.shape[0], device=values.device)
    plane = values.movedim(axis, 1)[patches, chosen]
    plane_lung = lung.movedim(axis, 1)[patches, chosen]
    return torch.where(plane_lung, plane, _masked_mean(plane, plane_lung)[:, None, None]), plane_lung


def _intensity_statistics(values: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
    """(B, z, y, x) -> (B, 5): mean, sd, skewness, excess kurtosis, entropy of the lung's HU."""
    values, lung = values.flatten(1), lung.flatten(1)
    weight = lung.double()
    voxels = weight.sum(dim=1).clamp(min=1)
    mean = (values * weight).sum(dim=1) / voxels
    centred = (values - mean[:, None]).mul_(weight)
    squared = centred.square()
    variance = squared.sum(dim=1) / voxels
    varied = variance >= constants.MINIMUM_VARIANCE
    safe = torch.where(varied, variance, 1.0)
    skewness = centred.mul_(squared).sum(dim=1) / voxels / safe**1.5
    kurtosis = squared.square_().sum(dim=1) / voxels / safe.square() - 3.0
    shape = (torch.where(varied, moment, 0.0) for moment in (skewness, kurtosis))
    return torch.stack([mean, variance.sqrt(), *shape, _entropy(values, lung)], dim=1)


def _entropy(values: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
    """(B, n) -> (B,): entropy in nats of the histogram of the lung's HU over the window."""
    bins = constants.ENTROPY_BINS
    width = (constants.HU_MAXIMUM - constants.HU_MINIMUM) / bins
    number = ((values - constants.HU_MINIMUM) / width).long().clamp(max=bins - 1)
    # Voxels outside the lung go to one bin more, which is dropped.
    counts = _count(torch.where(lung, number, bins), bins + 1)[:, :bins]
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return -torch.special.xlogy(shares, shares).sum(dim=1)


def _glcm_properties(plane: torch.Tensor) -> torch.Tensor:
    """(B, H, W) -> (B, 6): the co-occurrence properties, mean of the horizontal and vertical neighbours."""
    level = (_to_unit_range(plane) * (constants.GLCM_LEVELS - 1)).long()
    horizontal = level[:, :, :-1].flatten(1), level[:, :, 1:].flatten(1)
    vertical = level[:, :-1].flatten(1), level[:, 1:].flatten(1)
    return (_pair_properties(*horizontal) + _pair_properties(*vertical)) / 2


def _pair_properties(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(B, n) grey levels of neighbours -> (B, 6).

    All but the angular second moment are means over pairs, so that only it needs the matrix itself. The
    matrix is symmetric: each pair counts in both directions, and both marginals are the mean of the two.
    """
    difference = (first - second).double()
    counts = _count(first * constants.GLCM_LEVELS + second, constants.GLCM_LEVELS**2)
    matrix = counts.view(-1, constants.GLCM_LEVELS, constants.GLCM_LEVELS)
    share = (matrix + matrix.transpose(1, 2)) / (2 * first.shape[1])
    second_moment = share.square().sum(dim=(1, 2))
    columns = [
        difference.square().mean(dim=1),
        difference.abs().mean(dim=1),
        (1 / (1 + difference.square())).mean(dim=1),
        second_moment.sqrt(),
        _pair_correlation(first.double(), second.double()),
        second_moment,
    ]
    return torch.stack(columns, dim=1)


def _pair_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Correlation of the grey levels of neighbours; 1 where all levels are the same."""
    mean = ((first + second).sum(dim=1) / (2 * first.shape[1]))[:, None]
    first, second = first - mean, second - mean
    variance = (first.square() + second.square()).mean(dim=1) / 2
    covariance = (first * second).mean(dim=1)
    varied = variance > 0
    return torch.where(varied, covariance / torch.where(varied, variance, 1.0), 1.0)


def _uniform_patterns() -> torch.Tensor:
    """Table of 256 codes: number of ones where the circle changes at most twice, else the last bin."""
    codes = torch.arange(2**constants.LBP_POINTS)
    bits = (codes[:, None] >> torch.arange(constants.LBP_POINTS)) & 1
    changes = (bits != bits.roll(1, dims=1)).sum(dim=1)
    return torch.where(changes <= 2, bits.sum(dim=1), constants.LBP_BINS - 1)


def _lbp_histogram(
    plane: torch.Tensor, plane_lung: torch.Tensor, pattern_of_code: torch.Tensor
) -> torch.Tensor:
    """(B, H, W) -> (B, 10): shares of the uniform local binary patterns among the lung pixels."""
    image = (_to_unit_range(plane) * (constants.LBP_LEVELS - 1)).floor()
    padded = functional.pad(image, (1, 1, 1, 1))
    code = torch.zeros_like(image, dtype=torch.long)
    for point in range(constants.LBP_POINTS):
        code |= (_circle_neighbour(padded, point) >= image).long() << point
    pattern = torch.where(plane_lung, pattern_of_code[code], constants.LBP_BINS)
    counts = _count(pattern.flatten(1), constants.LBP_BINS + 1)[:, : constants.LBP_BINS]
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def _circle_neighbour(padded: torch.Tensor, point: int) -> torch.Tensor:
    """Grey level at one of the eight points of the unit circle around each pixel, bilinear.

    Ties with the centre decide the code, so the rounding of scikit-image is followed to the last bit: offsets
    of five decimals, and fractions taken from the float64 sum of pixel index and offset.
    """
    angle = 2 * math.pi * point / constants.LBP_POINTS
    down, right = round(-constants.LBP_RADIUS * math.sin(angle), 5), round(math.cos(angle), 5)
    height, width = padded.shape[1] - 2, padded.shape[2] - 2

    def shifted(rows: int, columns: int) -> torch.Tensor:
        return padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    if down == int(down) and right == int(right):
        return shifted(int(down), int(right))
    row_share = _fractions(height, down, padded.device)[:, None]
    column_share = _fractions(width, right, padded.device)[None, :]
    above, below, left, beyond = math.floor(down), math.ceil(down), math.floor(right), math.ceil(right)
    top = (1 - column_share) * shifted(above, left) + column_share * shifted(above, beyond)
    bottom = (1 - column_share) * shifted(below, left) + column_share * shifted(below, beyond)
    return (1 - row_share) * top + row_share * bottom


def _fractions(length: int, offset: float, device: torch.device) -> torch.Tensor:
    """Distance of each ``index + offset`` from the whole number below."""
    positions = torch.arange(length, dtype=torch.float64, device=device) + offset
    return positions - positions.floor()


def _gabor_energies(plane: torch.Tensor, plane_lung: torch.Tensor) -> torch.Tensor:
    """(B, H, W) slices -> (B, 13): mean squared responses over the lung, then their mean.

    By Fourier transform, which on a CPU takes a third of the time of a direct float64 convolution.
    """
    image = _to_unit_range(plane)
    height, width = image.shape[1:]
    # scipy's "reflect" repeats the border pixel, which torch's does not; hence the explicit indices.
    rows, columns = (_mirrored_indices(size, image.device) for size in (height, width))
    spectrum = torch.fft.rfft2(image[:, rows][:, :, columns])
    padded_size = (len(rows), len(columns))
    kernels = torch.fft.rfft2(torch.from_numpy(gabor_kernels()).to(image.device), s=padded_size)
    responses = torch.fft.irfft2(spectrum[:, None] * kernels, s=padded_size)
    # What comes before has wrapped round; what remains is where the whole kernel lies in the padded image.
    valid = responses[:, :, -height:, -width:]
    energies = _masked_mean(valid.square(), plane_lung[:, None])
    return torch.cat([energies, energies.mean(dim=1, keepdim=True)], dim=1)


def _mirrored_indices(length: int, device: torch.device) -> torch.Tensor:
    """Indices of a row with half a Gabor kernel of mirror image (border repeated) on either side."""
    indices = np.pad(np.arange(length), constants.GABOR_SIZE // 2, mode="symmetric")
    return torch.from_numpy(indices).to(device)
