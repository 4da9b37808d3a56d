"""What the stages cost, counted and not timed: an accidental doubling shows here on any machine."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils.flop_counter import FlopCounterMode

from DiffSegLungLib.decision.fusion import FusionSettings, edge_map, fuse
from DiffSegLungLib.decision.mixture import Mixture
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.parenchyma.vessels import separate_vessels
from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS
from DiffSegLungLib.representation.diffusion import build_unet, encode
from DiffSegLungLib.representation.features import EmbeddingPlan, embed, fine_descriptors
from DiffSegLungLib.representation.student import Student

MM = 1.5
SHAPE = (64, 96, 128)


def two_lungs(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Right and left lung as ellipsoids, uint8."""
    z, y, x = (np.linspace(-1, 1, side) for side in shape)
    sides = np.zeros(shape, np.uint8)
    for side, middle in ((1, -0.45), (2, 0.45)):
        inside = (z[:, None, None] / 0.85) ** 2 + (y[:, None] / 0.8) ** 2 + ((x - middle) / 0.35) ** 2 < 1
        sides[inside] = side
    return sides


SIDES = two_lungs()
HU = np.where(SIDES > 0, -850, 40).astype(np.float32)
HU += np.random.default_rng(0).normal(0, 20, SHAPE).astype(np.float32)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that NumPy held during a call, beside what was there before."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Voxels of each distance transform: the most expensive pass over a volume."""
    seen: list[int] = []
    real = ndimage.distance_transform_edt

    def counted(mask: np.ndarray, *args: object, **options: object) -> object:
        seen.append(mask.size)
        return real(mask, *args, **options)

    monkeypatch.setattr(ndimage, "distance_transform_edt", counted)
    return seen


def test_the_encoder_costs_what_it_did() -> None:
    unet = build_unet().eval().to("meta")
    x, timesteps = torch.empty((1, 2, 16, 32, 32), device="meta"), torch.zeros(1, device="meta")
    with FlopCounterMode(display=False) as counter:
        encode(unet, x, timesteps)
    assert 0.7 < counter.get_total_flops() / 1e9 < 0.85


def test_the_embedding_costs_no_more_than_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows lie tight around each lung: 1.8 times its voxels by the overlap, and the rim's beside."""
    monkeypatch.setattr(
        "DiffSegLungLib.representation.features.threads", lambda: 1
    )  # it counts for its own thread alone
    student = Student((8, 8, 8, 8), groups=4, hidden=16).eval()
    plan = EmbeddingPlan(timesteps=(50,))
    cells = [-(-side // 8) for side in HU.shape]
    monkeypatch.setattr(  # done once, whatever the windows
        "DiffSegLungLib.representation.features.cell_numbers_by_slabs",
        lambda hu, mask: torch.zeros(CELL_NUMBERS, *cells),
    )
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        embed(student, HU, SIDES > 0, lambda cells: cells[..., :2], plan)
    window, numbers = torch.zeros(1, 1, 16, 32, 32), torch.zeros(1, CELL_NUMBERS, 2, 4, 4)
    with torch.inference_mode(), FlopCounterMode(display=False) as one:
        student.embed_hounsfield(window, torch.ones_like(window), window[0, 0], 50, numbers)
    windows = counter.get_total_flops() / one.get_total_flops()
    assert 1.8 * (SIDES > 0).sum() < windows * 16 * 32 * 32 < 5.2 * (SIDES > 0).sum()  # 6.9 on a lattice


def test_more_air_around_the_lungs_costs_no_window() -> None:
    from DiffSegLungLib.representation.features import _windows

    plan, wide = EmbeddingPlan(), np.pad(SIDES > 0, ((0, 0), (64, 64), (64, 64)))
    assert len(list(_windows(wide, plan))) == len(list(_windows(SIDES > 0, plan)))


def test_the_posterior_needs_no_more_than_its_result() -> None:
    random = np.random.default_rng(0)
    mixture = Mixture(np.full(20, 0.05), random.normal(size=(20, 12)), np.stack([np.eye(12)] * 20))
    points = random.normal(size=(12, 200_000)).astype(np.float32).T
    result = 4 * 20 * len(points)
    assert peak_bytes(lambda: mixture.log_densities(points)) < 1.3 * result
    with FlopCounterMode(display=False) as counter:
        mixture.log_densities(points[:4096])
    # Triangular factors: three quarters of 2 x 12 x 12 operations a component.
    assert counter.get_total_flops() <= 0.76 * 2 * 12 * 12 * 20 * 4096


def test_the_fusion_works_on_lung_alone() -> None:
    mask = SIDES > 0
    posterior = np.random.default_rng(0).random((5, *SHAPE), np.float32)
    edges = np.zeros(SHAPE, np.float32)
    peak = peak_bytes(lambda: fuse(posterior, edges, mask, FusionSettings()))
    result, sparse, numbers = posterior.nbytes, 7 * 8 * int(mask.sum()), 4 * mask.size
    assert peak < result + 2.5 * sparse + 3 * numbers


def test_edges_need_one_channel_at_a_time() -> None:
    mask, features = SIDES > 0, np.zeros((3, *SHAPE), np.float32)
    peak = peak_bytes(lambda: edge_map(HU, features, mask, MM, FusionSettings()))
    assert peak < 12 * 4 * mask.size


def test_distance_transforms_are_few(transforms: list[int]) -> None:
    mask = SIDES > 0
    parenchyma = separate_vessels(HU, SIDES, np.zeros(SHAPE, bool), MM)
    assert len(transforms) <= 1
    fine_descriptors(HU, mask, parenchyma, MM)
    assert len(transforms) <= 1
    edge_map(parenchyma.density, HU[None], mask, MM, FusionSettings())
    assert len(transforms) <= 2


def test_lungs_are_found_on_the_coarse_grid(transforms: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("DiffSegLungLib.interpolation.SLAB_VOXELS", 200_000)
    fine = np.kron(np.where(SIDES > 0, -850, 40), np.ones((2, 2, 2))).astype(np.int16)
    fine[:, :4] = fine[:, -4:] = -1000  # the room
    # Lungs that lie apart need none; what may be bowel needs small ones.
    peak = peak_bytes(lambda: segment_lungs(fine, (1.0, 1.0, 1.0)))
    assert len(transforms) <= 2 and max(transforms, default=0) <= fine.size // 8
    assert peak < 8 * fine.size


def test_neither_monai_nor_pandas_is_loaded_with_a_model() -> None:
    """MONAI takes twice as long to import as torch."""
    code = (
        "import sys; from DiffSegLungLib.models.store import load; import DiffSegLungLib.pipeline;"
        "model = load(); heavy = {'monai', 'pandas', 'sklearn', 'matplotlib', 'skimage', 'scipy.stats'};"
        "print(sorted(heavy & set(sys.modules)) if model.lungs else 'no lung network')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_command_line_and_the_library_load_nothing_heavy() -> None:
    code = (
        "import sys, DiffSegLungLib.app.cli;"
        "heavy = {'torch', 'numpy', 'SimpleITK', 'scipy', 'pandas', 'monai'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
