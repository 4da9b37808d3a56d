"""The training painter: every kind is seen, has its label, and leaves what is not known out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY, OUTSIDE
from DiffSegLungLib.training import painting
from DiffSegLungLib.training.painted_patches import LEFT_OUT, PaintedPatches, cut
from DiffSegLungLib.training.painting import Painter, healthy, lucent, nets, raised, scanner
from DiffSegLungLib.training.painting.canvas import Canvas
from DiffSegLungLib.training.painting.textures import Textures
from DiffSegLungLib.training.painting_hosts import GRID, PaintingHost, depth_below_pleura, mark_mask
from DiffSegLungLib.training.phantom_hosts import PREFIX

SHAPE = (24, 80, 80)
TISSUE = {
    lucent.emphysema: EMPHYSEMA,
    raised.ground_glass: GROUND_GLASS,
    nets.fibrosis: FIBROSIS,
    nets.thin_rim: FIBROSIS,
    nets.faint_rim: FIBROSIS,
    nets.honeycombing: FIBROSIS,
    raised.consolidation: CONSOLIDATION,
    raised.mass: CONSOLIDATION,
    lucent.cavity: CAVITY,
    raised.collapse: CONSOLIDATION,
    raised.drowned: CONSOLIDATION,
}


@pytest.fixture(scope="module", autouse=True)
def small_tiles() -> Iterator[None]:
    """Tiles for the training's patches take some 20 s to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("DiffSegLungLib.training.painting.textures.FIELD_TILE", (32, 96, 96))
        patch.setattr("DiffSegLungLib.training.painting.textures.FOAM_TILE", (28, 88, 88))
        yield


@pytest.fixture(scope="module")
def host() -> PaintingHost:
    """A lung of -860 HU in a wall of 40 HU, crossed by two vessels; its corner is left out."""
    z, y, x = np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij")
    lungs = (y - 40.0) ** 2 + (x - 40.0) ** 2 < 34.0**2
    vessels = lungs & (((y - 30) ** 2 + (x - 40) ** 2 < 9) | ((z - 12) ** 2 * 4 + (x - 30) ** 2 < 9))
    noise = np.random.default_rng(0).normal(0, 12, SHAPE)
    hu = np.where(vessels, 40, np.where(lungs, -860, 40)) + noise
    ignored = lungs & (x < 12)
    depth = depth_below_pleura(lungs)
    return PaintingHost(hu.astype(np.int16), lungs, ignored, vessels, np.zeros_like(lungs), depth)


@pytest.fixture(scope="module")
def textures() -> Textures:
    return Textures(1)


def canvas_of(host: PaintingHost, textures: Textures, seed: int) -> Canvas:
    return Canvas(host, textures, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", list(TISSUE), ids=lambda kind: kind.__name__)
def test_each_kind_paints_its_tissue_inside_the_lungs_alone(kind, host, textures) -> None:  # type: ignore[no-untyped-def]
    seen = np.zeros(SHAPE, bool)
    for seed in range(6):
        canvas = canvas_of(host, textures, seed)
        kind(canvas)
        painted = canvas.labels == TISSUE[kind]
        seen |= painted
        assert not (painted & ~host.lungs).any()
        assert np.isfinite(canvas.hu).all()
    assert seen.sum() > 300


def test_every_kind_of_the_painter_is_tested_here() -> None:
    assert set(painting.KINDS) == set(TISSUE)


def test_densities_are_those_of_the_tissue(host, textures) -> None:  # type: ignore[no-untyped-def]
    """Beside the figures of real marks: fibrosis -566 to -659 HU, ground glass -611, collapse +46 to +82."""

    def mean_hu(kind, label: int) -> float:  # type: ignore[no-untyped-def]
        values = []
        for seed in range(12):
            canvas = canvas_of(host, textures, seed)
            kind(canvas)
            values.append(canvas.hu[(canvas.labels == label) & ~host.vessels])
        return float(np.concatenate(values).mean())

    assert -730 < mean_hu(raised.ground_glass, GROUND_GLASS) < -480
    assert -720 < mean_hu(nets.fibrosis, FIBROSIS) < -480
    assert 10 < mean_hu(raised.collapse, CONSOLIDATION) < 110
    assert -820 < mean_hu(nets.faint_rim, FIBROSIS) < -600
    assert mean_hu(lucent.emphysema, EMPHYSEMA) < -930


def test_dense_lung_at_the_wall_leaves_no_seam(textures) -> None:  # type: ignore[no-untyped-def]
    """Voxels that hold lung and wall get dense with the lung: else the network learns the seam."""
    lungs = np.zeros(SHAPE, bool)
    lungs[:, 20:60, 20:60] = True
    hu = np.where(lungs, -860, 40).astype(np.int16)
    hu[:, 60, 20:60] = -400  # half lung, half wall, outside the mask
    none = np.zeros(SHAPE, bool)
    host = PaintingHost(hu, lungs, none, none, none, depth_below_pleura(lungs))
    canvas = canvas_of(host, textures, 0)
    canvas.mix(lungs.astype(np.float32), 45.0)
    assert canvas.hu[:, 60, 30:50].min() > 0


def test_fluid_beside_the_lung_is_outside_and_stays(host, textures) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    fluid = (host.lungs & (np.arange(80)[None, :, None] > 55)).astype(np.float32)
    canvas.put_beside(fluid, 10.0)
    canvas.mix(np.ones(SHAPE, np.float32), -300.0)
    canvas.name(np.ones(SHAPE, bool), CONSOLIDATION)
    assert (canvas.labels[fluid > 0] == OUTSIDE).all()
    assert np.allclose(canvas.hu[(fluid > 0)], 10.0)


def test_honeycombs_are_fibrosis_with_their_cysts(host, textures) -> None:  # type: ignore[no-untyped-def]
    """Cysts as dark as emphysema and walls alike, also where emphysema is painted over them."""
    dark, dense = 0, 0
    for seed in range(6):
        canvas = canvas_of(host, textures, seed)
        nets.honeycombing(canvas)
        honeycomb = canvas.labels == FIBROSIS
        lucent.emphysema(canvas)
        assert not (honeycomb & (canvas.labels == EMPHYSEMA)).any()
        painting._name_by_looks(canvas)
        dark += int((honeycomb & (canvas.labels == FIBROSIS) & (canvas.hu < -915)).sum())
        dense += int((honeycomb & (canvas.labels == FIBROSIS) & (canvas.hu > -500)).sum())
    assert dark > 1000 and dense > 1000


def test_the_aerated_lung_of_a_net_is_fibrosis_too(host, textures) -> None:  # type: ignore[no-untyped-def]
    """Readers outline a net with what lies between its lines: 31 % of it is below -750 HU."""
    values = []
    for seed in range(12):
        canvas = canvas_of(host, textures, seed)
        nets.fibrosis(canvas)
        values.append(canvas.hu[(canvas.labels == FIBROSIS) & ~host.vessels])
    assert 0.2 < float((np.concatenate(values) < -750).mean()) < 0.6


@pytest.mark.parametrize(("over", "under"), [(GROUND_GLASS, FIBROSIS), (FIBROSIS, CONSOLIDATION)])
def test_haze_does_not_rename_what_lies_under_it(host, textures, over, under) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    canvas.name(host.lungs, under)
    canvas.name(host.lungs, over)
    assert (canvas.labels[host.lungs] == under).all()


def test_the_lung_collapses_about_its_hilum(textures) -> None:  # type: ignore[no-untyped-def]
    """Against the mediastinum, where thick vessels enter the lung, not in its middle."""
    lungs = np.zeros(SHAPE, bool)
    lungs[:, 5:75, 5:75] = True
    z, y = np.arange(SHAPE[0])[:, None, None], np.arange(80)[None, :, None]
    vessels = lungs & ((y - 40.0) ** 2 + (2.0 * (z - 12)) ** 2 < 8.0**2)
    thin = (y - 40.0) ** 2 + (2.0 * (z - 12)) ** 2 < 2.0**2
    vessels[..., :40] &= thin[..., :40]  # at the chest wall
    hu, none = np.where(vessels | ~lungs, 40, -860).astype(np.int16), np.zeros(SHAPE, bool)
    canvas = canvas_of(PaintingHost(hu, lungs, none, vessels, none, depth_below_pleura(lungs)), textures, 0)
    assert np.flatnonzero(raised._hilum(canvas).any((0, 1))).min() > 60


def test_a_thin_patient_has_no_fat_and_the_same_lungs(textures) -> None:  # type: ignore[no-untyped-def]
    lungs = np.zeros(SHAPE, bool)
    lungs[:, 20:60, 20:60] = True
    hu, none = np.where(lungs, -860, 40).astype(np.int16), np.zeros(SHAPE, bool)
    hu[:, :, 65:] = -100
    canvas = canvas_of(PaintingHost(hu, lungs, none, none, none, depth_below_pleura(lungs)), textures, 0)
    healthy.thin_patient(canvas)
    assert canvas.hu[:, :, 68:].min() > -60
    assert np.array_equal(canvas.hu[lungs], hu[lungs])


def test_slices_with_gaps_stand_for_themselves(host, textures) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    labels = np.broadcast_to(np.arange(SHAPE[0])[:, None, None], SHAPE)
    hu, _, named = scanner._with_gaps(canvas, canvas.hu, canvas.hu, labels)
    shown, counts = np.unique(named[:, 0, 0], return_counts=True)
    assert counts[1:-1].tolist() == [scanner.GAP_SLICES] * (len(shown) - 2)
    assert np.array_equal(hu, canvas.hu[named[:, 0, 0]])


def test_streaks_of_metal_are_dark_and_bright_and_rename_nothing(host, textures, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    streaks = np.stack([scanner._metal_streaks(canvas_of(host, textures, seed)) for seed in range(6)])
    assert streaks.min() < -50 and streaks.max() > 50 and np.isfinite(streaks).all()
    monkeypatch.setattr(scanner, "METAL", 1.0)
    canvas = canvas_of(host, textures, 0)
    canvas.chance = lambda share: share == 1.0  # type: ignore[method-assign]
    before = canvas.labels.copy()
    assert np.array_equal(scanner.scan(canvas)[1], before)


def test_beyond_the_field_of_view_nothing_is_lung(host, textures, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    fields = [scanner._beyond_the_field(canvas_of(host, textures, seed)) for seed in range(8)]
    assert 0.1 < np.mean(fields) < 0.9 and all(field.any() and not field.all() for field in fields)
    monkeypatch.setattr(scanner, "CUT", 1.0)
    monkeypatch.setattr(scanner, "_beyond_the_field", lambda canvas: fields[0])
    hu, labels = scanner.scan(canvas_of(host, textures, 0))
    assert (hu[fields[0]] == LOWEST_HU).all() and (labels[fields[0]] == OUTSIDE).all()
    assert (labels[~fields[0]] != OUTSIDE).any() and labels.dtype == np.uint8


def test_haze_leaves_vessels_to_be_seen(host, textures) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    before = canvas.hu.copy()
    canvas.fill(np.full(SHAPE, 0.3, np.float32))
    assert np.abs(canvas.hu - before)[host.vessels].mean() < 10
    assert (canvas.hu - before)[host.lungs & ~host.vessels].mean() > 200


def test_thick_vessels_in_haze_are_no_consolidation(host, textures) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    canvas.hu[:, 30:50, 30:50] = 40
    canvas.fill(np.full(SHAPE, 0.3, np.float32))
    canvas.name(host.lungs, GROUND_GLASS)
    painting._name_by_looks(canvas)
    assert (canvas.labels[:, 35:45, 35:45] == LEFT_OUT).all()


def test_painting_is_repeatable_and_leaves_real_disease_out(host) -> None:  # type: ignore[no-untyped-def]
    first = Painter(3)(host, np.random.default_rng(5))
    again = Painter(3)(host, np.random.default_rng(5))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    hu, labels = first
    assert hu.dtype == np.float32 and hu.min() >= -1024 and hu.max() <= 1000
    assert set(np.unique(labels)) <= {*range(9), LEFT_OUT}
    assert set(np.unique(labels[host.ignored])) <= {LEFT_OUT, OUTSIDE}


def test_emphysema_that_is_not_dark_is_left_out(host, textures) -> None:  # type: ignore[no-untyped-def]
    canvas = canvas_of(host, textures, 0)
    canvas.labels[host.lungs] = EMPHYSEMA
    painting._name_by_looks(canvas)
    assert (canvas.labels[host.lungs] == LEFT_OUT).mean() > 0.95


def test_a_patch_without_lung_is_scanned_and_nothing_else(host) -> None:  # type: ignore[no-untyped-def]
    empty = PaintingHost(*(np.zeros_like(values) for values in vars(host).values()))
    _, labels = Painter(3)(empty, np.random.default_rng(0))
    assert not labels.any()


def test_fields_have_unit_deviation_and_foams_fill_space(textures) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(2)
    field = textures.field(SHAPE, 9.0, rng)
    assert abs(float(field.mean())) < 1e-3 and abs(float(field.std()) - 1) < 1e-2
    foam = textures.foam(SHAPE, 8.0, rng)
    assert foam.wall.min() >= 0 and foam.cell.max() < foam.cells
    cells = len(np.unique(foam.cell))
    volume = np.prod(SHAPE) * np.prod(GRID)
    assert 0.5 < (volume / cells) ** (1 / 3) / 8.0 < 1.3


def test_marks_are_left_out_around_their_slice(tmp_path: Path) -> None:
    marks = [{"z": 4, "x": 20.0, "y": 30.0, "rx": 6.0, "ry": 6.0, "tissue": "other", "sure": False}]
    mask = mark_mask([*marks, {**marks[0], "z": 7, "x": 60.0}], (12, 80, 80), (2.0, 1.0, 1.0))
    assert mask[4, 30, 20] and mask[2, 30, 20] and not mask[0, 30, 20]
    assert mask[4, 30, 29] and not mask[4, 30, 33]  # 6 mm and 4 mm beyond
    assert mask[9, 30, 60] and not mask[11, 30, 60]


def test_hosts_come_back_as_they_were_saved(host: PaintingHost, tmp_path: Path) -> None:
    host.save(tmp_path / "host.npz")
    back = PaintingHost.open(tmp_path / "host.npz")
    assert all(
        np.array_equal(one, other)
        for one, other in zip(vars(host).values(), vars(back).values(), strict=True)
    )


def test_patches_beyond_the_host_are_air_without_lung(host: PaintingHost) -> None:
    patch = cut(host, [0, 0, 0], (32, 112, 112))
    assert patch.hu.shape == (32, 112, 112)
    assert (patch.hu[SHAPE[0] :] == LOWEST_HU).all() and not patch.lungs[SHAPE[0] :].any()
    assert np.array_equal(patch.lungs[: SHAPE[0], :80, :80], host.lungs)


def test_patches_flow_from_a_folder(host: PaintingHost, tmp_path: Path) -> None:
    host.save(tmp_path / "host.npz")
    patches = iter(PaintedPatches(tmp_path, Painter(1), (16, 48, 48), seed=4))
    shapes = [(tuple(hu.shape), tuple(labels.shape)) for hu, labels in (next(patches) for _ in range(3))]
    assert shapes == [((1, 16, 48, 48), (16, 48, 48))] * 3


def test_a_painted_patch_is_seen_twice_and_not_at_once(host: PaintingHost, tmp_path: Path) -> None:
    host.save(tmp_path / "host.npz")
    painted: list[int] = []

    def painter(patch: PaintingHost, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        painted.append(len(painted))
        return np.full((4, 8, 8), painted[-1], np.int16), np.zeros((4, 8, 8), np.uint8)

    patches = iter(PaintedPatches(tmp_path, painter, (4, 8, 8), seed=0, twice=True))
    seen = [int(hu[0, 0, 0, 0]) for hu, _ in (next(patches) for _ in range(800))]
    counts = np.bincount(seen)
    assert counts.max() == 2 and (counts == 2).mean() > 0.8
    assert all(one != other for one, other in zip(seen, seen[1:], strict=False))


def test_phantoms_come_as_they_are_among_painted_patches(host: PaintingHost, tmp_path: Path) -> None:
    host.save(tmp_path / "host.npz")
    labels = np.full((20, 40, 40), GROUND_GLASS, np.uint8)
    np.savez(tmp_path / f"{PREFIX}0.npz", hu=np.full(labels.shape, -777, np.int16), labels=labels)

    def painter(patch: PaintingHost, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return patch.hu, patch.lungs.astype(np.uint8)

    patches = iter(PaintedPatches(tmp_path, painter, (8, 16, 16), seed=0))
    drawn = [next(patches) for _ in range(600)]
    phantoms = [(hu, truth) for hu, truth in drawn if (hu == -777).any() and (truth == GROUND_GLASS).any()]
    assert 0.02 < len(phantoms) / len(drawn) < 0.1
    assert all(((hu[0] == -777) == (truth == GROUND_GLASS)).all() for hu, truth in phantoms)


def test_healthy_lung_stays_healthy_where_nothing_is_painted(host, textures, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(painting, "DISEASED", 0.0)
    labels = painting.paint(host, textures, np.random.default_rng(8))[1]
    judged = host.lungs & ~host.vessels & ~host.ignored & (labels != LEFT_OUT)
    assert (labels[judged] == HEALTHY).all()
