"""What a user would run instead, by its shape with random weights: time does not depend on what is learnt.

Each figure is of one pass over one patch or slice, times the number of passes that the CT needs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from Testing.bench.machine import wall_and_cpu_seconds

PUBLISHED_PATCH = (32, 96, 96)
PUBLISHED_CHANNELS = (64, 128, 192, 256)
NNUNET_PATCH = 128
R231_SIDE = 256


@dataclass(frozen=True)
class Cost:
    """What one pass costs and how many there are.

    Attributes:
        name: of the method or part.
        seconds: of one pass, by the clock.
        cpu_seconds: of one pass, of all threads.
        passes: that the CT needs.
        gflop: of one pass, 0 where nothing was counted.
    """

    name: str
    seconds: float
    cpu_seconds: float
    passes: int
    gflop: float = 0.0

    @property
    def total_cpu(self) -> float:
        """Processor seconds for the CT."""
        return self.cpu_seconds * self.passes


def lungmask_network() -> nn.Module:
    """The shape of lungmask's R231: a 2D U-Net, 64 to 1024 channels over 5 levels, batch normalisation."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 1, 3, features=(64, 128, 256, 512, 1024, 64), norm="batch", act="relu")


def totalsegmentator_network(classes: int = 25) -> nn.Module:
    """The shape of TotalSegmentator's nnU-Net: six levels, 32 to 320 channels, a 128-cube."""
    from monai.networks.nets import DynUNet

    levels = 6
    return DynUNet(
        3,
        1,
        classes,
        kernel_size=[3] * levels,
        strides=[1, *[2] * (levels - 1)],
        upsample_kernel_size=[2] * (levels - 1),
        filters=[32, 64, 128, 256, 320, 320],
    )


@torch.inference_mode()
def cost(name: str, network: nn.Module, x: Sequence[torch.Tensor], passes: int) -> Cost:
    """Time one pass of a network, the second where the first is short, and count it without computing it."""
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    unreal = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        unreal(*(part.to("meta") for part in x))
    wall, cpu = wall_and_cpu_seconds(lambda: network(*x))
    return Cost(name, wall, cpu, passes, counter.get_total_flops() / 1e9)


def networks(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], lung_patches: int
) -> list[Cost]:
    """The rivals on a CT.

    Args:
        shape: voxels (z, y, x).
        spacing: mm (z, y, x).
        lung_patches: patches of the published size at 1 mm that hold lung, without overlap.
    """
    from DiffSegLungLib.representation.diffusion.network import DiffusionUNet

    extent = [count * step for count, step in zip(shape, spacing, strict=True)]
    cube = torch.randn(1, 1, *[NNUNET_PATCH] * 3)
    nnunet = cost(
        "TotalSegmentator's shape at 1.5 mm", totalsegmentator_network(), [cube], _cubes(extent, 1.5)
    )
    patch = torch.randn(1, 2, *PUBLISHED_PATCH)
    published = DiffusionUNet(PUBLISHED_CHANNELS, groups=32)
    return [
        cost(
            "lungmask's R231 shape (lungs alone)",
            lungmask_network(),
            [torch.randn(1, 1, R231_SIDE, R231_SIDE)],
            shape[0],
        ),
        nnunet,
        Cost(
            "TotalSegmentator's shape at 3 mm",
            nnunet.seconds,
            nnunet.cpu_seconds,
            _cubes(extent, 3.0),
            nnunet.gflop,
        ),
        cost(
            "published way: whole U-Net, 64 channels, fp32, one timestep",
            published,
            [patch, torch.tensor([100])],
            lung_patches,
        ),
    ]


def _cubes(extent: Sequence[float], spacing: float) -> int:
    """Patches of nnU-Net's sliding window, half overlapping."""
    counts = (math.ceil(max(side / spacing / NNUNET_PATCH - 1, 0) / 0.5) + 1 for side in extent)
    return math.prod(counts)


def pairs(seed: int = 0) -> list[tuple[str, Cost, Cost]]:
    """Single steps side by side: the usual way and ours, on the same numbers."""
    return [_projection(seed), _posterior(seed), _smoothing(seed)]


def _both(name: str, usual: Callable[[], object], ours: Callable[[], object]) -> tuple[str, Cost, Cost]:
    return name, Cost("usual", *wall_and_cpu_seconds(usual), 1), Cost("ours", *wall_and_cpu_seconds(ours), 1)


@torch.inference_mode()
def _projection(seed: int) -> tuple[str, Cost, Cost]:
    """384 features a voxel, up-sampled and then projected to 30, or projected and then up-sampled."""
    from torch.nn.functional import interpolate

    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn((1, 384, 4, 12, 12), generator=generator)
    matrix = torch.randn((384, 30), generator=generator)

    def usual() -> torch.Tensor:
        return interpolate(cells, size=PUBLISHED_PATCH, mode="trilinear")[0].flatten(1).T @ matrix

    def ours() -> torch.Tensor:
        projected = torch.einsum("bczyx,cd->bdzyx", cells, matrix)
        return interpolate(projected, size=PUBLISHED_PATCH, mode="trilinear")

    assert torch.allclose(usual().T, ours()[0].flatten(1), atol=1e-3)
    return _both("features up-sampled before PCA | PCA first", usual, ours)


def _posterior(seed: int) -> tuple[str, Cost, Cost]:
    """scikit-learn's posterior of the shipped mixture, or ours."""
    from sklearn.mixture import GaussianMixture

    from DiffSegLungLib.models.store import load

    mixture = load().mixture
    random = np.random.default_rng(seed)
    spread = np.linalg.cholesky(mixture.covariances[0])
    points = random.normal(size=(200_000, len(spread))) @ spread.T + mixture.means[0]
    points = points.astype(np.float32)
    sklearn = GaussianMixture(len(mixture.weights))
    sklearn.weights_, sklearn.means_, sklearn.covariances_ = (
        mixture.weights,
        mixture.means,
        mixture.covariances,
    )
    sklearn.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(mixture.covariances)).transpose(0, 2, 1)
    difference = np.abs(sklearn.predict_proba(points) - mixture.posterior(points)).max()
    assert difference < 1e-3, difference
    return _both(
        "posterior by scikit-learn | by blocks, 200,000 voxels",
        lambda: sklearn.predict_proba(points),
        lambda: mixture.posterior(points),
    )


def _smoothing(seed: int) -> tuple[str, Cost, Cost]:
    """A median of labels over 5 voxels, or the fusion of five posteriors."""
    import SimpleITK as sitk

    from DiffSegLungLib.decision.fusion import FusionSettings, fuse

    random = np.random.default_rng(seed)
    shape = (96, 128, 160)
    mask = np.zeros(shape, bool)
    mask[8:-8, 16:-16, 16:72] = mask[8:-8, 16:-16, 88:-16] = True
    labels = sitk.GetImageFromArray(random.integers(1, 6, shape).astype(np.uint8))
    posterior = random.random((5, *shape), np.float32)
    posterior /= posterior.sum(axis=0)
    edges = random.random(shape, np.float32)
    return _both(
        "5-voxel median by SimpleITK | Sobel-Diffusion Fusion, 2 million voxels",
        lambda: sitk.Median(labels, [2, 2, 2]),
        lambda: fuse(posterior, edges, mask, FusionSettings()),
    )
