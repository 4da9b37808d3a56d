"""How ``frozen/`` was made: the labels of commit d6e853b, of its rules alone, and of it without its network.

git worktree add TREE d6e853b
python Testing/evaluation/freeze.py labels --tree TREE --output LABELS CT... [--lungs MASK]
python -m Testing.evaluation.freeze pack LABELS

The first makes label maps with the library of that commit, the second packs them with this one's for
``evaluate``.  A CT is prepared once (lungs, working grid, descriptors, embedding) and decided three times:

- *d6e853b*: as ``segment`` decides.
- *rules only*: each component of the mixture has the same weight and the same density everywhere, so that
  priors, the rule of texture, fusion, regions and cavities decide.
- *no network*: the learnt embedding is its mean over the CT's lung.  That commit has no network that names
  tissues; its lung network stays, and so do the vessels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk

COMMIT = "d6e853b"
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
    from DiffSegLungLib.models import load
    from DiffSegLungLib.pipeline import find_lungs
    from DiffSegLungLib.volume import load_volume, to_input_geometry

    model, volume = load(None), load_volume(ct)
    prepared = stages.prepare(volume, model, found=find_lungs(volume, lungs, model.lungs))
    return {name: to_input_geometry(decide(prepared, model), volume) for name, decide in METHODS.items()}


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


def main() -> None:
    """Make label maps with that commit's library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    labels = commands.add_parser("labels", help="make label maps; run as a script, not with -m")
    labels.add_argument("ct", nargs="+", type=Path)
    labels.add_argument("--tree", type=Path, required=True, help=f"the source tree of {COMMIT}")
    labels.add_argument("--lungs", type=Path, help="a lung mask, for a crop of one lung")
    labels.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.tree))
    for ct in arguments.ct:
        write_label_maps(ct, arguments.lungs, arguments.output)


if __name__ == "__main__":
    main()
