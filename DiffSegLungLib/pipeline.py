"""The whole method, from a CT to tissues and their measures (arXiv 2605.11758, section "Method").

CT -> lungs -> working grid -> vessels and parenchyma -> descriptors (density, texture, diffusion embedding)
   -> mixture adapted to the patient -> names -> Sobel-Diffusion Fusion -> the CT's own grid -> measures
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.decision.by_network import (
    NetworkReading,
    calibrated,
    cavities_of,
    dense_beside,
    shares_of_tissues,
    vessels_of,
)
from DiffSegLungLib.decision.fusion import edge_map, fuse, keep_ratio, keep_share
from DiffSegLungLib.decision.mixture import Mixture, adapt
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.naming import (
    NAMED,
    NamingRule,
    blur_warnings,
    emphysema_bound,
    healthy_density,
    hole_edge,
    is_reference,
    lines_kept,
    log_density_prior,
    net_of_lines,
    share_by_texture,
    tissue_posterior,
    upper_shift,
)
from DiffSegLungLib.decision.regions import (
    agree_on_texture,
    drop_bundles,
    drop_faint_holes,
    drop_specks,
    find_lumens,
    grow_holes,
    likeliest,
    part_rims,
)
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.filters import nearest_inside
from DiffSegLungLib.forks import require_no_fork
from DiffSegLungLib.interpolation import enlarged_slabs
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.segmentations import load_lungs, more_regions
from DiffSegLungLib.io.volume import Volume, edge_warnings, load_volume, to_input_geometry
from DiffSegLungLib.lungs.lungs import Lungs, lungs_from_mask, segment_lungs
from DiffSegLungLib.lungs.network import LungNetwork
from DiffSegLungLib.models.store import load
from DiffSegLungLib.parallel import run_all
from DiffSegLungLib.parenchyma.cavities import cavity_walls, find_cavities
from DiffSegLungLib.parenchyma.grain import Grain, grain_of
from DiffSegLungLib.parenchyma.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.quantify import measures as measuring
from DiffSegLungLib.quantify.dependent import dependent_warnings
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING
from DiffSegLungLib.representation.features import (
    DESCRIPTORS,
    embed,
    fine_descriptors,
    precision,
    upsample_cells,
)
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.representation.quality import STANDARD, Quality, quality_of
from DiffSegLungLib.tissues import BY_LABEL, CAVITY, CONSOLIDATION, EMPHYSEMA, HEALTHY, VESSEL

if TYPE_CHECKING:
    import pandas

Source = str | os.PathLike[str] | sitk.Image

# OpenBLAS takes its memory at the first product, and ends the process where there is none by then.
np.ones((256, 256), np.float32) @ np.ones((256, 256), np.float32)

MARGIN_MM = 12.0
"""Tissue kept around the lungs on the working grid."""
CONTEXT_MM = 36.0
"""Tissue around the lungs that the network sees: lung that collapsed lies there."""
LINES = DESCRIPTORS.index("lines_5mm")
LEAST_LUNG_ML = 1.0
"""Less than a thumbnail of lung is a slip of the pen, not a lung."""
SLAB = 16
"""Slices whose descriptors are up-sampled at a time; bounds the memory of the mixture stage."""
NO_AIRWAYS = np.zeros((0, 0, 0), bool)
SAMPLE = 60_000
"""Voxels of the patient that the mixture is adapted on."""

EXPIRATION_SHIFT = 60.0
"""Shift of the healthy density in HU from which the reader is told that the lungs are not fully inflated."""

STAGES = {
    "read": "Reading the CT and the model",
    "lungs": "Finding the lungs",
    "network": "Reading the diffusion model",
    "grid": "Separating vessels from parenchyma",
    "features": "Describing each voxel with the diffusion model",
    "mixture": "Adapting the mixture to the patient",
    "fusion": "Fusing posteriors and edges",
    "labels": "Bringing the tissues onto the CT's grid",
    "measures": "Measuring",
}
"""What the user is told of each stage."""


@dataclass(frozen=True)
class Grid:
    """The working grid: the lungs' box, isotropic at the model's spacing.

    Attributes:
        box: the box in the volume's voxels, (z, y, x).
        hu: float32 HU on the grid.
        sides: uint8 lungs on the grid, 1 right and 2 left.
        airways: bool trachea and main bronchi on the grid.
        spacing: voxel side in mm.
        slice_mm: distance of the CT's own slices.
    """

    box: tuple[slice, slice, slice]
    hu: np.ndarray
    sides: np.ndarray
    airways: np.ndarray
    spacing: float
    slice_mm: float

    @cached_property
    def mask(self) -> np.ndarray:
        """The lungs, bool."""
        return self.sides > 0

    @cached_property
    def nearest(self) -> np.ndarray:
        """For each voxel the flat index of the nearest lung voxel."""
        return nearest_inside(self.mask)

    @cached_property
    def grain(self) -> Grain | None:
        """Of the noise; None where there is too little soft tissue to tell."""
        return grain_of(self.hu, self.mask)


@dataclass(frozen=True)
class Tissues:
    """What is known of each voxel of the working grid before it goes back to the CT's own.

    Attributes:
        posterior: float32 (tissues of ``NAMED``, z, y, x).
        vessels: bool.
        cavities: bool.
        healthy: float32 (y,), HU of the patient's healthy lung.
    """

    posterior: np.ndarray
    vessels: np.ndarray
    cavities: np.ndarray
    healthy: np.ndarray


@dataclass(frozen=True)
class Result:
    """What :func:`segment` returns.

    Attributes:
        labels: uint8 label map in the input's geometry; values of ``tissues.py``.
        measures: region x measure.
        manifest: versions, weights and their SHA-256, parameters, seed, warnings, times, peak memory.
        volume: the CT in canonical axes.
        label_array: uint8 (z, y, x), the labels in canonical axes.
        lungs: uint8 lung mask in the input's geometry: 1 right, 2 left.
        map_entropy: makes the uncertainty in canonical axes, (z, y, x).
    """

    labels: sitk.Image
    measures: pandas.DataFrame
    manifest: dict[str, Any]
    volume: Volume
    label_array: np.ndarray
    lungs: sitk.Image
    map_entropy: Callable[[], np.ndarray]

    @cached_property
    def uncertainty(self) -> sitk.Image:
        """float32 normalised entropy of the posterior, 0 to 1, in the input's geometry.

        Made when it is asked for: it takes four times the memory of the labels, and most runs do without it.
        """
        return to_input_geometry(self.map_entropy(), self.volume)


@dataclass
class Clock:
    """Seconds a stage, for the manifest, and the user's progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, fraction: float) -> Iterator[None]:
        """Time one stage that begins at ``fraction`` of the whole."""
        self.progress(name, fraction, STAGES[name])
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def segment(
    source: Source,
    *,
    lungs: Source | None = None,
    regions: Source | None = None,
    model: str | None = None,
    device: str = "auto",
    seed: int = 0,
    quality: str = STANDARD,
    classical_lungs: bool = False,
    series: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Result:
    """Segment the tissues of the lungs in one CT.

    Args:
        source: NRRD, NIfTI, MetaImage, DICOM folder, or an image in HU.
        lungs: a lung mask to use; a segmentation's names or labels 1 and 2 may tell right and left.
        regions: a segmentation or label map of regions, lobes for example; ``thirds`` of each lung.
        model: name or folder of a model; the shipped one without it.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of the noise and of every sample.
        quality: ``fast``, ``standard`` or ``best``; how much work goes into the embedding.
        classical_lungs: find the lungs without the model's lung network.
        series: Series Number or UID to take of a DICOM folder; None for the one that a reader would take.
        name: what manifest and report call the CT; None for a name that tells nobody's.
        progress: told stage, fraction and message.

    Returns:
        Labels, uncertainty, measures and manifest.

    Raises:
        UnusableInputError: the CT, a mask or the regions cannot be used, or the process was forked.
        MissingPartError: weights or device are missing.
    """
    require_no_fork()
    effort = quality_of(quality)
    clock = Clock(progress)
    with clock.stage("read", 0.0):
        volume, loaded = _read(source, series, name, model, device)
    found, seen = _find(loaded, volume, lungs, classical_lungs, clock)
    own_regions = more_regions(regions, volume, found.sides)
    with clock.stage("grid", 0.2 if seen is None else 0.5):
        grid = working_grid(volume, found, loaded.spacing)
        parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
        found = replace(found, airways=NO_AIRWAYS)  # they are on the grid now, and large on the CT's own
    if seen is None:
        fused = _decide_by_mixture(loaded, grid, parenchyma, seed, effort, clock)
    else:
        with clock.stage("fusion", 0.6):
            fused = decide_by_network(loaded, grid, parenchyma, seen, volume)
    with clock.stage("labels", 0.82):
        labels = label_map(fused, grid, volume, found.mask)
    with clock.stage("measures", 0.95):
        table = _measure(labels, volume, found.sides, own_regions, grid.box)
    return _result(loaded, volume, found, grid, fused, labels, table, clock, quality, device, seed)


def _read(
    source: Source, series: str | None, name: str | None, model: str | None, device: str
) -> tuple[Volume, Model]:
    """CT and model; beside them pandas, which the measures need and which takes as long to import."""
    tasks: list[Callable[[], Any]] = [
        partial(load_volume, source, series, name),
        lambda: load(model, choose_device(device)),
        partial(import_module, "pandas"),
    ]
    volume, loaded, _ = run_all(tasks)
    return volume, loaded


def _find(
    model: Model, volume: Volume, given: Source | None, classical: bool, clock: Clock
) -> tuple[Lungs, NetworkReading | None]:
    """The lungs, and what the diffusion U-Net says of them where the model has one that decides."""
    with clock.stage("lungs", 0.05):
        found = find_lungs(volume, given, None if classical else model.lungs)
    if model.tissues is None:
        return found, None
    with clock.stage("network", 0.15):
        seen = read_network(model.tissues, volume, found, clock.progress)
        return (found if given is not None else with_dense_lung(found, seen, volume)), seen


def _decide_by_mixture(
    model: Model, grid: Grid, parenchyma: Parenchyma, seed: int, effort: Quality, clock: Clock
) -> Tissues:
    """Descriptors, the patient's mixture, names, fusion and rules."""
    with clock.stage("features", 0.3):
        fine = fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
        cells = _embed(model, grid, seed, effort, clock.progress)
    with clock.stage("mixture", 0.65):
        tissues, _ = classify(model, grid, parenchyma, fine, cells, seed)
    with clock.stage("fusion", 0.75):
        return refine(model, grid, parenchyma, fine, tissues)


def _result(
    model: Model,
    volume: Volume,
    found: Lungs,
    grid: Grid,
    fused: Tissues,
    labels: np.ndarray,
    table: pandas.DataFrame,
    clock: Clock,
    quality: str,
    device: str,
    seed: int,
) -> Result:
    """What was found, in the input's geometry, and how."""
    healthy = fused.healthy
    computed = precision(next(model.student.parameters()).device.type)
    options = {"quality": quality, "lungs": found.origin, "precision": computed}
    warnings = _warnings(volume, found, grid, healthy, model.rule)
    warnings += dependent_warnings(labels, found.sides, volume)
    return Result(
        labels=to_input_geometry(labels, volume),
        measures=table,
        manifest=_manifest(
            volume, model, options, device, seed, warnings, healthy, _scan_facts(found, grid), clock
        ),
        volume=volume,
        label_array=labels,
        lungs=to_input_geometry(found.sides, volume),
        map_entropy=partial(entropy_map, fused, grid, volume, labels > 0),
    )


def _measure(
    labels: np.ndarray,
    volume: Volume,
    sides: np.ndarray,
    own_regions: dict[str, np.ndarray],
    box: tuple[slice, slice, slice],
) -> pandas.DataFrame:
    """The measures of whole, right and left lung and of the user's regions, taken in the lungs' box alone."""
    regions = measuring.regions_from_sides(sides[box])
    regions |= {name: mask[box] for name, mask in own_regions.items()}
    return measuring.measure(labels[box], volume.hu[box], volume.spacing, regions, volume.voxel_ml)


def choose_device(device: str) -> str:
    """``auto`` takes a CUDA device where there is one; a device asked for must be there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        raise MissingPartError(f"device {device!r} is not available on this computer; use --device cpu")
    return device


def find_lungs(volume: Volume, given: Source | None, network: LungNetwork | None = None) -> Lungs:
    """The lungs of a CT: found, with a lung network where there is one, or as a given mask has them."""
    if given is None:
        return segment_lungs(volume.hu, volume.spacing, network)
    mask, sides_are_named = load_lungs(given, volume)
    return lungs_from_mask(mask, volume.hu, volume.spacing, sides_are_named)


def working_grid(volume: Volume, found: Lungs, spacing: float) -> Grid:
    """Crop to the lungs and resample to the model's spacing."""
    if np.count_nonzero(found.mask) * volume.voxel_ml < LEAST_LUNG_ML:
        raise UnusableInputError("the lungs are too small to be measured; check the lung mask")
    box = _lung_box(found.mask, volume.spacing)
    new = (spacing,) * 3
    hu = found.calibration.corrected(resample(volume.hu[box], volume.spacing, new))
    sides = _to_grid(found.sides, box, volume.spacing, new, hu.shape)
    airways = _to_grid(found.airways, box, volume.spacing, new, hu.shape)
    if not sides.any():
        raise UnusableInputError("the lungs are too small to be measured; check the lung mask")
    return Grid(box, hu, sides, airways, spacing, volume.spacing[0])


def _lung_box(
    mask: np.ndarray, spacing: tuple[float, float, float], margin_mm: float = MARGIN_MM
) -> tuple[slice, slice, slice]:
    box = []
    for axis, step in enumerate(spacing):
        margin = int(np.ceil(margin_mm / step))
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(where[0]) - margin, 0), int(where[-1]) + margin + 1))
    return box[0], box[1], box[2]


def _to_grid(
    labels: np.ndarray,
    box: tuple[slice, slice, slice],
    spacing: tuple[float, float, float],
    new: tuple[float, float, float],
    shape: tuple[int, ...],
) -> np.ndarray:
    return resample(labels[box], spacing, new, interpolation="nearest", size=shape)


def read_network(
    network: TissueNetwork, volume: Volume, found: Lungs, progress: Progress = silent
) -> NetworkReading:
    """What the diffusion U-Net says of the lungs and of what lies around them."""
    box = _lung_box(found.mask, volume.spacing, CONTEXT_MM)
    hu = found.calibration.corrected(volume.hu[box])
    told = partial(_tell_network, progress)
    return NetworkReading(network.read(hu, volume.spacing, told), box)


def _tell_network(progress: Progress, share: float) -> None:
    progress("network", 0.15 + 0.35 * share, STAGES["network"])


def with_dense_lung(found: Lungs, seen: NetworkReading, volume: Volume) -> Lungs:
    """The lungs with the airless lung beside them that the network sees; each piece joins the nearer side."""
    hu = volume.hu[seen.box]
    posterior = seen.posterior_on(seen.box, volume.spacing, hu.shape, volume.spacing)
    sides = found.sides.copy()
    inside = sides[seen.box]
    added = dense_beside(inside > 0, posterior, volume.voxel_ml)
    inside[added] = inside.take(nearest_inside(inside > 0))[added]
    return replace(found, sides=sides)


def decide_by_network(
    model: Model, grid: Grid, parenchyma: Parenchyma, seen: NetworkReading, volume: Volume
) -> Tissues:
    """The network's calibrated posterior, fused with the edges of density and of its own classes."""
    assert model.tissues is not None
    spacing = (grid.spacing,) * 3
    posterior = seen.posterior_on(grid.box, volume.spacing, grid.hu.shape, spacing)
    posterior = calibrated(posterior, model.tissues.temperature, model.tissues.bias)
    shares = shares_of_tissues(posterior, grid.hu, grid.mask)
    classes = posterior[HEALTHY : CAVITY + 1]
    edges = edge_map(parenchyma.density, classes, grid.mask, grid.spacing, model.fusion)
    fused = fuse(shares, edges, grid.mask, model.fusion)
    healthy = healthy_density(parenchyma.density, grid.mask & ~parenchyma.vessels, grid.spacing, model.rule)
    cavities = cavities_of(posterior, grid.mask, grid.spacing**3 / 1000.0)
    vessels = vessels_of(posterior, grid.mask) & (likeliest(fused) == NAMED.index(HEALTHY))
    return Tissues(fused, vessels & ~cavities, cavities, healthy)


def _embed(model: Model, grid: Grid, seed: int, quality: Quality, progress: Progress) -> np.ndarray:
    device = next(model.student.parameters()).device.type
    stride = quality.stride(model.plan.window, model.plan.stride, DOWNSAMPLING)
    return embed(
        model.student,
        grid.hu,
        grid.mask,
        model.projection,
        replace(model.plan, stride=stride),
        seed,
        device,
        lambda fraction: progress("features", 0.3 + 0.35 * fraction, STAGES["features"]),
        quality.draws,
    )


def classify(
    model: Model, grid: Grid, parenchyma: Parenchyma, fine: np.ndarray, cells: np.ndarray, seed: int
) -> tuple[Tissues, np.ndarray]:
    """Posterior of the tissues by the patient's own mixture; the healthy lung's HU by row."""
    mask = grid.mask
    usable = mask & ~parenchyma.vessels
    healthy = healthy_density(parenchyma.density, usable, grid.spacing, model.rule)
    net = net_of_lines(fine[LINES], parenchyma.density, mask, grid.spacing, model.rule)
    net /= np.float32(lines_kept(grid.grain, model.rule))
    sample, level = _sample(usable, fine, cells, healthy, seed)
    prior = log_density_prior(100.0 * sample[:, 0], level, model.rule)
    patient = adapt(model.mixture, sample, prior[:, [NAMED.index(label) for label in model.labels]])
    posterior = np.zeros((len(NAMED), *mask.shape), np.float32)

    def decide(rows: slice) -> None:
        inside = mask[rows]
        points = descriptors_of(fine, cells, mask, rows)[:, inside].T
        density = parenchyma.density[rows][inside]
        expected = np.broadcast_to(healthy[:, None], inside.shape)[inside]
        posterior[:, rows][:, inside] = _posterior(
            model, patient, points, density, expected, net[rows][inside]
        ).T

    # The fusion asks for the nearest lung voxels; they are found beside the slabs, as the cavities are.
    enclosed = partial(find_cavities, grid.hu, mask, grid.airways, grid.spacing)
    tasks: list[Callable[[], Any]] = [enclosed, lambda: grid.nearest]
    tasks += [partial(decide, rows) for rows in _slabs(mask)]
    cavities: np.ndarray = run_all(tasks)[0]
    walls = cavity_walls(cavities, grid.hu, mask, grid.spacing)
    posterior[:, walls] = (np.array(NAMED) == CONSOLIDATION)[:, None]
    return Tissues(posterior, parenchyma.vessels & ~cavities & ~walls, cavities, healthy), healthy


def descriptors_of(fine: np.ndarray, cells: np.ndarray, mask: np.ndarray, rows: slice) -> np.ndarray:
    """Fine descriptors beside the up-sampled embedding for some slices: (dimensions, rows, y, x)."""
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    return np.concatenate([fine[:, rows], upsample_cells(cells, shape, rows)])


def _slabs(mask: np.ndarray) -> list[slice]:
    """Some slices at a time, those without any of the mask left out."""
    slabs = [slice(first, min(first + SLAB, len(mask))) for first in range(0, len(mask), SLAB)]
    return [rows for rows in slabs if mask[rows].any()]


def _sample(
    mask: np.ndarray, fine: np.ndarray, cells: np.ndarray, healthy: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of voxels drawn evenly from the lungs, (points, dimensions), and the healthy HU at each."""
    chance = min(SAMPLE / max(int(mask.sum()), 1), 1.0)
    chosen = mask & (np.random.default_rng(seed).random(mask.shape, np.float32) < chance)

    def drawn(rows: slice) -> np.ndarray:
        return descriptors_of(fine, cells, mask, rows)[:, chosen[rows]].T

    points = np.concatenate(run_all([partial(drawn, rows) for rows in _slabs(chosen)]))
    return points, healthy[np.nonzero(chosen)[1]]


def _posterior(
    model: Model,
    patient: Mixture,
    points: np.ndarray,
    density: np.ndarray,
    healthy: np.ndarray,
    net: np.ndarray,
) -> np.ndarray:
    prior = log_density_prior(density, healthy, model.rule)
    exponents = np.ones(points.shape[1])
    exponents[len(DESCRIPTORS) :] = model.rule.embedding_share
    densities = patient.log_densities(points, next(model.student.parameters()).device.type, exponents)
    posterior = tissue_posterior(densities, patient.weights, model.labels, prior, model.rule, model.sharpness)
    return share_by_texture(posterior, net, model.rule)


def refine(model: Model, grid: Grid, parenchyma: Parenchyma, fine: np.ndarray, tissues: Tissues) -> Tissues:
    """Sobel-Diffusion Fusion of the posteriors; cavities and vessels in aerated lung keep their outlines."""
    edges = edge_map(parenchyma.density, fine[1:], grid.mask, grid.spacing, model.fusion, grid.nearest)
    fused = fuse(tissues.posterior, edges, grid.mask, model.fusion)
    fused = keep_share(fused, tissues.posterior, NAMED.index(CONSOLIDATION))
    fused = keep_ratio(fused, tissues.posterior, (NAMED.index(EMPHYSEMA), NAMED.index(HEALTHY)))
    borne_out = drop_bundles(fused, NAMED, tissues.vessels, grid.mask, grid.spacing, model.regions)
    borne_out = drop_specks(borne_out, NAMED, grid.mask, grid.spacing, grid.slice_mm, model.regions)
    borne_out = agree_on_texture(borne_out, NAMED, grid.mask, grid.spacing, model.regions)
    borne_out = part_rims(borne_out, NAMED, grid.hu, grid.mask, grid.spacing, model.regions)
    bound = emphysema_bound(tissues.healthy, model.rule)[:, None]
    borne_out = drop_faint_holes(
        borne_out, NAMED, parenchyma.density, bound, grid.mask, grid.spacing, model.regions
    )
    edge = hole_edge(tissues.healthy)[:, None]
    borne_out = grow_holes(borne_out, NAMED, grid.hu, edge, grid.mask, grid.spacing, model.regions)
    # Within diseased tissue a line is part of the disease: a reticulum, an air bronchogram's wall.
    best = likeliest(borne_out)
    aerated = (best == NAMED.index(HEALTHY)) | (best == NAMED.index(EMPHYSEMA))
    lumens = find_lumens(borne_out, NAMED, tissues.vessels, grid.mask, grid.spacing, model.regions)
    return Tissues(borne_out, (tissues.vessels & aerated) | lumens, tissues.cavities, tissues.healthy)


def to_volume(
    tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and normalised entropy on the CT's own grid."""
    return label_map(tissues, grid, volume, mask), entropy_map(tissues, grid, volume, mask)


def label_map(tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Labels on the CT's own grid, uint8.

    Posteriors, not labels, are interpolated, some slices at a time: outlines stay smooth and memory small.
    """
    channels = [*_beyond_lungs(tissues, grid), tissues.vessels, tissues.cavities]
    labels, box, spacing = np.zeros(mask.shape, np.uint8), grid.box, (grid.spacing,) * 3
    stacked = np.stack(channels, dtype=np.float32)
    for rows, values in enlarged_slabs(stacked, spacing, mask[box].shape, volume.spacing):
        label = np.array(NAMED, np.uint8)[likeliest(values[: len(NAMED)])]
        label[values[-2] > 0.5] = VESSEL
        label[values[-1] > 0.5] = CAVITY
        labels[box][rows] = label * mask[box][rows]
    return labels


def entropy_map(tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Normalised entropy of the posterior on the CT's own grid, float32, 0 to 1."""
    entropies, box, spacing = np.zeros(mask.shape, np.float32), grid.box, (grid.spacing,) * 3
    posterior = np.stack(_beyond_lungs(tissues, grid))
    for rows, shares in enlarged_slabs(posterior, spacing, mask[box].shape, volume.spacing):
        inside = mask[box][rows]
        within = shares[:, inside]
        entropy = -(within * np.log(np.maximum(within, 1e-6))).sum(axis=0)
        entropies[box][rows][inside] = np.clip(entropy / np.log(len(NAMED)), 0, 1)
    return entropies


def _beyond_lungs(tissues: Tissues, grid: Grid) -> list[np.ndarray]:
    """Posteriors with the nearest lung voxel's outside the lungs: their rim on a finer grid needs one."""
    return [channel.take(grid.nearest) for channel in tissues.posterior]


def _warnings(volume: Volume, found: Lungs, grid: Grid, healthy: np.ndarray, rule: NamingRule) -> list[str]:
    """What the reader must know before the numbers; ``healthy`` is the HU of healthy lung by row."""
    warnings = [*volume.warnings, *found.warnings, *edge_warnings(found.mask, volume.spacing)]
    warnings += blur_warnings(grid.grain, rule)
    if is_reference(healthy, rule):
        warnings.append(
            f"Too little aerated lung is left to read the patient's healthy density off: the reference of "
            f"{rule.reference_hu:.0f} HU was taken, and ground glass and emphysema are judged against it."
        )
    shift = float(upper_shift(healthy, rule).mean())
    if shift >= EXPIRATION_SHIFT:
        warnings.append(
            f"Healthy lung is {shift:.0f} HU denser than at full inspiration, and ground glass is judged "
            "against it: too much is found where lung is not unfolded, too little where disease is spread "
            "evenly. Emphysema may be under-estimated."
        )
    return warnings


def _scan_facts(found: Lungs, grid: Grid) -> dict[str, Any]:
    """What the scan itself told: its HU scale and the grain of its noise."""
    grain = grid.grain.stored() if grid.grain else None
    return {"calibration": found.calibration.stored(), "noise_grain": grain}


def _manifest(
    volume: Volume,
    model: Model,
    options: dict[str, str],
    device: str,
    seed: int,
    warnings: list[str],
    healthy: np.ndarray,
    scan: dict[str, Any],
    clock: Clock,
) -> dict[str, Any]:
    from DiffSegLungLib.export.manifest import describe_input, describe_software, describe_time

    return {
        "software": describe_software(),
        "input": describe_input(volume),
        "model": {
            "name": model.info.name,
            "version": model.info.version,
            "sha256": model.description["sha256"],
            "embedding": model.description["embedding"],
        },
        "parameters": {
            **options,
            "naming": model.rule.stored(),
            "density_priors_hu": {BY_LABEL[label].key: asdict(BY_LABEL[label].prior) for label in NAMED},
            "fusion": model.fusion.stored(),
            "regions": model.regions.stored(),
            "healthy_hu": {"front": round(float(healthy[0]), 1), "back": round(float(healthy[-1]), 1)},
            "sharpness": model.sharpness,
            **scan,
        },
        "seed": seed,
        "device": choose_device(device),
        "warnings": warnings,
        **describe_time(clock.seconds),
    }


def prepare_for_fit(path: Path, model_spacing: float) -> tuple[Grid, Parenchyma, np.ndarray]:
    """Grid, parenchyma and fine descriptors of one CT as :func:`segment` makes them (for the fit)."""
    volume = load_volume(path)
    grid = working_grid(volume, segment_lungs(volume.hu, volume.spacing), model_spacing)
    parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
    return grid, parenchyma, fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
