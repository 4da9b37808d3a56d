"""How ``frozen/`` was made: the labels of commit d6e853b, of its rules alone, and of it without its network.

git worktree add TREE d6e853b
python -m Testing.evaluation.freeze paint PAINTED --data DATA
python Testing/evaluation/freeze.py labels --tree TREE --output LABELS PAINTED/*.nrrd READ_CT...
python -m Testing.evaluation.freeze pack LABELS --painted PAINTED --data DATA

The first writes the painted CT, the second makes label maps with the library of that commit (of a crop of
one lung with ``--lungs MASK``), the third packs them for ``evaluate``.  A CT is prepared once (lungs, working
grid, descriptors, embedding) and decided three times:

- *d6e853b*: as ``segment`` decides.
- *rules only*: each component of the mixture has the same weight and the same density everywhere, so that
  priors, the rule of texture, fusion, regions and cavities decide.
- *no network*: the learnt embedding is its mean over the CT's lung.  That commit has no network that names
  tissues; its lung network stays, and so do the vessels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk

COMMIT = "d6e853b"
HEALTHY = "normal001"
TRUTHS = "truths.json"
"""Beside painted CT: SHA-256 of the truth of each."""
LEAST_OF_A_CELL = 0.05
"""Share of lung from which a cell of the embedding counts in its mean."""


class ConstantMixture:
    """A mixture that says nothing: every component is as likely as the next, wherever it is asked.

    Args:
        components: how many it has.
    """

    def __init__(self, components: int) -> None:
        self.weights = np.full(components, 1.0 / components)

    def log_densities(self, points: np.ndarray, *_: Any) -> np.ndarray:
        """Zeros, float32 (points, components)."""
        return np.zeros((len(points), len(self.weights)), np.float32)


def as_segmented(prepared: Any, model: Any) -> np.ndarray:
    """Labels as ``segment`` of that commit gives them, on the CT's own grid."""
    from DiffSegLungLib.evaluation import stages

    labels: np.ndarray = stages.fuse_and_map(prepared, model, stages.decide(prepared, model))[0]
    return labels


def rules_only(prepared: Any, model: Any) -> np.ndarray:
    """Labels where the mixture is constant."""
    from DiffSegLungLib import pipeline

    constant = ConstantMixture(len(model.mixture.weights))
    with patch.object(pipeline, "adapt", lambda *_: constant):
        return as_segmented(prepared, model)


def no_network(prepared: Any, model: Any) -> np.ndarray:
    """Labels where each cell has the mean embedding of the CT's lung."""
    from DiffSegLungLib.evaluation.baselines import cell_grid, cut_cells

    shape = cell_grid(prepared.grid.mask.shape)
    lung = cut_cells(prepared.grid.mask, False).mean(axis=(1, 2, 3)).reshape(shape) > LEAST_OF_A_CELL
    inside = prepared.cells[:, : shape[0], : shape[1], : shape[2]][:, lung]
    mean = inside.mean(axis=1)[:, None, None, None]
    cells = np.broadcast_to(mean, prepared.cells.shape).astype(prepared.cells.dtype)
    return as_segmented(replace(prepared, cells=np.ascontiguousarray(cells)), model)


METHODS: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "d6e853b": as_segmented,
    "rules only": rules_only,
    "no network": no_network,
}


def label_maps(ct: Path, lungs: Path | None) -> dict[str, sitk.Image]:
    """The label maps of one CT by each method, in its own geometry."""
    from DiffSegLungLib.evaluation import stages

    # Where that commit has them, not where they are now.
    pipeline, volumes = import_module("DiffSegLungLib.pipeline"), import_module("DiffSegLungLib.volume")
    model, volume = import_module("DiffSegLungLib.models").load(None), volumes.load_volume(ct)
    found = pipeline.find_lungs(volume, lungs, model.lungs)
    prepared = stages.prepare(volume, model, found=found)
    return {
        name: volumes.to_input_geometry(decide(prepared, model), volume) for name, decide in METHODS.items()
    }


def write_label_maps(ct: Path, lungs: Path | None, output: Path) -> None:
    """Write ``OUTPUT/METHOD/NAME.nrrd`` for each method, unless all are there."""
    name = ct.name.removesuffix(".gz").rsplit(".", 1)[0]
    paths = {method: output / method / f"{name}.nrrd" for method in METHODS}
    if all(path.exists() for path in paths.values()):
        return
    for method, image in label_maps(ct, lungs).items():
        paths[method].parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(paths[method]), True)
    print(name, flush=True)


def paint(folder: Path, data: Path, only: Sequence[str] = ()) -> None:
    """Write every painted CT, and every case of older painted lesions, that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = _truths(folder)
    for name, make in _painters(data).items():
        path = folder / f"{name}.nrrd"
        if path.exists() or (only and name not in only):
            continue
        image, truths[name] = make()
        sitk.WriteImage(image, str(path), True)
        (folder / TRUTHS).write_text(json.dumps(truths, indent=2), encoding="utf-8")
        print(name, flush=True)


def _truths(folder: Path) -> dict[str, str]:
    """SHA-256 of the truth of each painted CT of a folder; empty for older painted lesions."""
    path = folder / TRUTHS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _painters(data: Path) -> dict[str, Callable[[], tuple[sitk.Image, str]]]:
    """What makes each CT and the SHA-256 of its truth, by the name of its frozen labels."""
    from DiffSegLungLib.evaluation.hosts import REPORTED, REPORTED_SEEDS
    from DiffSegLungLib.evaluation.painted_ct import KINDS, frozen_name
    from DiffSegLungLib.evaluation.study import older_name

    makers: dict[str, Callable[[], tuple[sitk.Image, str]]] = {
        frozen_name(kind): partial(_painted, kind, data) for kind in KINDS
    }
    for host in REPORTED:
        for seed in REPORTED_SEEDS:
            makers[older_name(host, seed)] = partial(_older, host, seed, data)
    return makers


def _painted(kind: str, data: Path) -> tuple[sitk.Image, str]:
    from DiffSegLungLib.evaluation.painted_ct import as_scanned, make_painted, truth_sha256

    case = make_painted(kind, data)
    return as_scanned(case), truth_sha256(case)


def _older(host: Any, seed: int, data: Path) -> tuple[sitk.Image, str]:
    """Not rounded: its lesions are scored on the HU as they were painted."""
    from DiffSegLungLib.evaluation.cases import draw_lesions, make_case
    from DiffSegLungLib.evaluation.hosts import load_host
    from DiffSegLungLib.evaluation.known_truth import case_volume
    from DiffSegLungLib.io.volume import canonical_image

    volume = case_volume(make_case(load_host(host, data), draw_lesions(seed)))
    return canonical_image(volume.hu, volume), ""


def pack(labels: Path, painted: Path, data: Path, folder: Path) -> None:
    """Pack every CT whose label maps are there and that is not packed; read CT on their slices alone."""
    from DiffSegLungLib.evaluation.frozen import FrozenLabels, freeze, write_manifest
    from DiffSegLungLib.evaluation.read_ct import read_ct, readings_of

    read = {ct.case: ct for ct in read_ct(data)}
    truths, entries = _truths(painted), dict(FrozenLabels(folder).entries)
    names = {path.stem for path in (labels / COMMIT).glob("*.nrrd")} & ({*read, HEALTHY} | truths.keys())
    for name in sorted(names):
        if name in entries and entries[name].truth_sha256 == truths.get(name, ""):
            continue
        maps = {method: _canonical(labels / method / f"{name}.nrrd") for method in METHODS}
        slices = {z for one in readings_of(read[name], data) for z in one.slices} if name in read else None
        kept = sorted(slices) if slices else None
        entries[name] = freeze(folder, name, maps, kept, truths.get(name, ""))
    facts = {"commit": COMMIT, "made_by": "Testing/evaluation/freeze.py"}
    write_manifest(folder, list(METHODS), entries, facts)


def _canonical(path: Path) -> np.ndarray:
    """A label map in canonical axes, (z, y, x)."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))


def main() -> None:
    """Paint CT, make their labels, or pack these."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="step", required=True)
    painting = commands.add_parser("paint", help="write the painted CT; run with -m")
    painting.add_argument("folder", type=Path)
    painting.add_argument("--only", nargs="+", default=())
    labels = commands.add_parser("labels", help="make label maps; run as a script, not with -m")
    labels.add_argument("ct", nargs="+", type=Path)
    labels.add_argument("--tree", type=Path, required=True, help=f"the source tree of {COMMIT}")
    labels.add_argument("--lungs", type=Path, help="a lung mask, for a crop of one lung")
    labels.add_argument("--output", type=Path, required=True)
    packing = commands.add_parser("pack", help="pack label maps; run with -m")
    packing.add_argument("labels", type=Path)
    packing.add_argument("--painted", type=Path, required=True, help="the folder of 'paint'")
    packing.add_argument("--output", type=Path, default=Path(__file__).parent / "frozen")
    for one in (painting, packing):
        one.add_argument("--data", type=Path, required=True, help="the real CT, as of 'evaluate'")
    arguments = parser.parse_args()
    if arguments.step == "paint":
        paint(arguments.folder, arguments.data, arguments.only)
    elif arguments.step == "pack":
        pack(arguments.labels, arguments.painted, arguments.data, arguments.output)
    else:
        sys.path.insert(0, str(arguments.tree))
        for ct in arguments.ct:
            write_label_maps(ct, arguments.lungs, arguments.output)


if __name__ == "__main__":
    main()
