"""The whole method, from a CT to tissues and their measures (arXiv 2605.11758, section "Method").

CT -> lungs -> working grid -> vessels and parenchyma -> descriptors (density, texture, diffusion embedding)
   -> mixture adapted to the patient -> names -> Sobel-Diffusion Fusion -> the CT's own grid -> measures
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.decision.by_network import NetworkReading
from DiffSegLungLib.decision.field import Field
from DiffSegLungLib.decision.label_map import Tissues, entropy_map, label_map
from DiffSegLungLib.decision.mixture_decision import decide_by_mixture
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.network_decision import (
    decide_by_network,
    evidence_of,
    read_network,
    with_dense_lung,
)
from DiffSegLungLib.decision.warnings import reader_warnings
from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.export.manifest import describe_run, describe_scan
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.forks import require_no_fork
from DiffSegLungLib.io.segmentations import Source, more_regions
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.lungs.find import find_lungs
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.models.store import load
from DiffSegLungLib.parallel import run_all
from DiffSegLungLib.parenchyma.grid import Grid, working_grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.quantify.dependent import dependent_warnings
from DiffSegLungLib.quantify.measures import measure_lungs
from DiffSegLungLib.representation.features import precision
from DiffSegLungLib.representation.quality import STANDARD, quality_of
from DiffSegLungLib.stages import Clock

if TYPE_CHECKING:
    import pandas

# OpenBLAS takes its memory at the first product, and ends the process where there is none by then.
np.ones((256, 256), np.float32) @ np.ones((256, 256), np.float32)

NO_AIRWAYS = np.zeros((0, 0, 0), bool)


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
        quality: ``fast``, ``standard`` or ``best``; how much work goes into the reading.
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
    found, seen = _find(loaded, volume, lungs, classical_lungs, effort.mirrored, clock)
    own_regions = more_regions(regions, volume, found.sides)
    with clock.stage("grid", 0.2 if seen is None else 0.5):
        grid = working_grid(volume, found, loaded.spacing)
        parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
        found = replace(found, airways=NO_AIRWAYS)  # they are on the grid now, and large on the CT's own
    if seen is None:
        fused, field = decide_by_mixture(loaded, grid, parenchyma, seed, effort, clock), None
    else:
        with clock.stage("fusion", 0.6):
            fused, field = _decide_and_keep(loaded, grid, parenchyma, seen, volume, found)
            del seen
    with clock.stage("labels", 0.82):
        labels = label_map(fused, grid, volume, found.mask)
    with clock.stage("measures", 0.95):
        table = measure_lungs(labels, volume, found.sides, own_regions, grid.box)
    result = _result(loaded, volume, found, grid, fused, labels, table, clock, quality, device, seed)
    return replace(result, regions=own_regions, field=field)


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
    model: Model, volume: Volume, given: Source | None, classical: bool, mirrored: bool, clock: Clock
) -> tuple[Lungs, NetworkReading | None]:
    """The lungs, and what the diffusion U-Net says of them where the model has one that decides."""
    with clock.stage("lungs", 0.05):
        found = find_lungs(volume, given, None if classical else model.lungs)
    if model.tissues is None:
        return found, None
    with clock.stage("network", 0.15):
        seen = read_network(model.tissues, volume, found, clock.progress, mirrored)
        return (found if given is not None else with_dense_lung(found, seen, volume)), seen


def _decide_and_keep(
    model: Model, grid: Grid, parenchyma: Parenchyma, seen: NetworkReading, volume: Volume, found: Lungs
) -> tuple[Tissues, Field]:
    """Decided from what is kept, half precision and all: strokes start from the very same labels."""
    evidence = evidence_of(model, grid, parenchyma, seen, volume)
    field = Field.of(evidence, seen, volume, found.mask, model.info.sha256)
    return decide_by_network(field.evidence()), field


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
    warnings = reader_warnings(volume, found, grid, healthy, model.rule)
    warnings += dependent_warnings(labels, found.sides, volume)
    return Result(
        labels=to_input_geometry(labels, volume),
        measures=table,
        manifest=describe_run(
            volume, model, options, device, seed, warnings, fused, describe_scan(found, grid), clock
        ),
        volume=volume,
        label_array=labels,
        sides=found.sides,
        regions={},
        map_entropy=partial(entropy_map, fused, grid, volume, labels > 0),
    )
