"""The painter for evaluation paints what it says, hides nothing, and scores known answers as it must."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.evaluation.hosts import Host, make_host
from DiffSegLungLib.evaluation.painted import (
    KINDS,
    VERSION,
    PaintedCase,
    make_painted,
    score,
    truth_sha256,
)
from DiffSegLungLib.evaluation.painted.canvas import Canvas
from DiffSegLungLib.evaluation.painted.consolidation import solid
from DiffSegLungLib.evaluation.painted.kinds import HOSTS
from DiffSegLungLib.evaluation.painted.make import paint_host
from DiffSegLungLib.evaluation.painted.shapes import cysts
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import Grid
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, GROUND_GLASS, HEALTHY, VESSEL

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("DIFFSEGLUNG_DATA", REPOSITORY.parent / "shared" / "data"))
TABLE = REPOSITORY / "Testing" / "evaluation" / "painted.json"
SPACING = (2.5, 1.5, 1.5)
NOISE_HU = 15.0
MEAN_HU = {
    "ground-glass crescents": (-760.0, -450.0),
    "ground-glass all over": (-760.0, -450.0),
    "fibrosis honeycombing": (-800.0, -400.0),
    "consolidation nodules": (-60.0, 80.0),
    "cavity alone": (-1000.0, -880.0),
    "emphysema all over": (-1000.0, -900.0),
}
"""Between which HU the mean of the kind's tissue lies."""


@pytest.fixture(scope="module")
def host() -> Host:
    """Two egg-shaped lungs with noise and a few vessels in soft tissue, blurred as by a kernel."""
    shape = (56, 104, 150)
    z, y, x = (np.indices(shape).T - (np.array(shape) - 1) / 2).T * np.array(SPACING)[:, None, None, None]
    right, left = (((z / 62) ** 2 + (y / 68) ** 2 + ((x - side * 56) / 42) ** 2) < 1 for side in (-1, 1))
    lung = right | left
    clean = np.where(lung, -860.0, 35.0)
    clean[lung & ((((y + 200) % 24) - 12) ** 2 + (((z + 200) % 20) - 10) ** 2 < 5)] = 30.0
    noise = np.random.default_rng(0).normal(0, NOISE_HU, shape)
    hu = ndimage.gaussian_filter(clean, (0, 0.5, 0.5)) + ndimage.gaussian_filter(noise, (0, 0.4, 0.4))
    sides = (right + 2 * left).astype(np.uint8)
    return make_host("eggs", hu.astype(np.float32), SPACING, sides, np.zeros(shape, bool))


@pytest.fixture(scope="module")
def glass(host: Host) -> PaintedCase:
    """Crescents of ground glass."""
    return paint_host(KINDS["ground-glass crescents"], host)


def test_the_kinds_lie_evenly_in_ct_that_nothing_is_trained_on() -> None:
    shares = [sum(kind.host == host for kind in KINDS.values()) for host in HOSTS]
    assert min(shares) >= 5
    assert max(shares) <= 6
    assert len({kind.seed for kind in KINDS.values()}) == len(KINDS)


def test_an_unknown_kind_is_named_in_one_line() -> None:
    with pytest.raises(UnusableInputError, match="no painted kind 'tumour'"):
        make_painted("tumour", DATA)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_paints_its_tissue_inside_the_lungs_alone(host: Host, kind: str) -> None:
    case = paint_host(KINDS[kind], host)
    assert not (case.truth[~case.lungs] > 0).any()
    assert (case.truth[case.lungs] > 0).all()
    diseased = case.truth > HEALTHY
    if KINDS[kind].negative:
        assert not diseased.any()
        assert (np.abs(case.volume.hu - host.hu)[case.lungs] > 30).mean() > 0.01
        return
    tissue = case.volume.hu[case.truth == KINDS[kind].tissue]
    assert tissue.size * case.volume.voxel_ml > 1.0
    low, high = MEAN_HU.get(kind, (-1024.0, 100.0))
    assert low < tissue.mean() < high
    # Only a rim of one voxel is left out.
    assert not (diseased & ~case.scored).any()
    near = ndimage.binary_dilation(diseased, np.ones((1, 3, 3)))
    assert not (~case.scored & ~near).any()


def test_the_same_kind_is_the_same_voxels_and_another_seed_is_not(host: Host, glass: PaintedCase) -> None:
    again = paint_host(glass.kind, host)
    other = paint_host(replace(glass.kind, seed=7), host)
    assert truth_sha256(again) == truth_sha256(glass)
    assert truth_sha256(other) != truth_sha256(glass)


def test_dense_lung_at_the_chest_wall_leaves_no_seam(host: Host) -> None:
    canvas = Canvas(host, 3)
    wall = np.argwhere((host.pleura > 0) & (host.pleura < 2) & (host.mediastinum > 60))[0].astype(float)
    site, box = canvas.site(wall, 16.0, 1)
    solid(site, np.full(site.grid.shape, -5.0, np.float32), 38.0)
    canvas.lay(site, box, int(host.sides[tuple(wall.astype(int))]))
    inner = tuple(slice(part.start + 3, part.stop - 3) for part in box)
    lung = host.sides[inner] > 0
    assert (canvas.truth[inner][lung] == CONSOLIDATION).all()
    beside = ndimage.binary_dilation(canvas.truth == CONSOLIDATION, iterations=2)[inner]
    assert (host.hu[inner][beside] < -300).any()
    assert (canvas.picture()[inner][beside] > -120).all()


def test_haze_leaves_vessels_seen_and_noise_as_it_was(host: Host) -> None:
    case = paint_host(KINDS["ground-glass all over"], host)
    vessel = case.lungs & (host.hu > -60) & (host.pleura > 5)
    assert np.abs(case.volume.hu - host.hu)[vessel].mean() < 40
    solid_case = paint_host(KINDS["consolidation nodules"], host)
    core = ndimage.binary_erosion(solid_case.truth == CONSOLIDATION, np.ones((1, 5, 5)))
    grain = np.diff(solid_case.volume.hu, axis=0)[core[1:] & core[:-1]].std() / np.sqrt(2)
    healthy = host.hu[(host.pleura > 8) & (host.vessels < 0.02)].std()
    assert 0.5 * healthy < grain < 2.0 * healthy


def test_cysts_share_a_wall_as_thick_as_asked_for() -> None:
    axes = [np.arange(-6, 6, 0.2, dtype=np.float32)] * 3
    grid = Grid(axes[0], axes[1], axes[2], (0.2, 0.2, 0.2))
    empty = np.zeros(grid.shape, np.float32)
    site = Site(grid, empty + 20.0, empty, empty, 0, 1)
    centres = np.array([[0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
    for wall in (0.6, 1.0, 1.8):
        lumen = cysts(site, empty == 0, centres, np.array([3.0, 3.0]), empty + wall)
        between = lumen[30, 30, np.abs(axes[2]) < 2.5] > 0
        assert between.sum() * 0.2 == pytest.approx(wall, abs=0.21)


def test_the_truth_itself_scores_full_and_healthy_lungs_score_nothing(glass: PaintedCase) -> None:
    full, nothing = score(glass.truth, glass), score(glass.lungs.astype(np.uint8), glass)
    assert full["dice"] == full["any_dice"] == full["found"] == full["held"] == 1.0
    assert full["false_percent"] == 0.0
    assert full["named"] == {"ground-glass": 1.0}
    assert full["lesions"] >= 2
    assert nothing["dice"] == nothing["any_dice"] == nothing["found"] == nothing["false_percent"] == 0.0
    assert nothing["named"] == {"healthy": 1.0}


def test_another_name_lost_lung_and_vessels_are_told_apart(glass: PaintedCase) -> None:
    painted = glass.scored & (glass.truth == GROUND_GLASS)
    other = score(np.where(painted, EMPHYSEMA, glass.truth).astype(np.uint8), glass)
    assert other["dice"] == 0.0
    assert other["any_dice"] == other["found"] == 1.0
    half = np.zeros(painted.shape, bool)
    half[: int(np.median(np.nonzero(painted)[0]))] = True
    lost = score(np.where(painted & half, 0, glass.truth).astype(np.uint8), glass)
    assert lost["held"] == pytest.approx(1 - painted[half].sum() / painted.sum())
    assert lost["named"]["outside"] == pytest.approx(1 - lost["held"])
    vessel = score(np.where(painted & half, VESSEL, glass.truth).astype(np.uint8), glass)
    assert vessel["dice"] == 1.0
    assert vessel["named"]["vessel"] > 0.1


def test_half_a_healthy_lung_called_diseased_is_half_false(host: Host) -> None:
    case = paint_host(KINDS["no disease, dependent density"], host)
    labels = case.lungs.astype(np.uint8)
    where = np.flatnonzero(case.lungs & case.scored)
    labels.ravel()[where[: len(where) // 2]] = GROUND_GLASS
    row = score(labels, case)
    assert row["false_percent"] == pytest.approx(50.0, abs=0.1)
    assert "dice" not in row


@pytest.mark.skipif(
    not (DATA / "ct").is_dir() or not TABLE.exists(),
    reason="the real CT (DIFFSEGLUNG_DATA or ../shared/data) are not at hand",
)
def test_the_painter_is_frozen() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert table["version"] == VERSION
    kind = "cavity in consolidation"
    assert truth_sha256(make_painted(kind, DATA)) == table["kinds"][kind]["sha256"]
