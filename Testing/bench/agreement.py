"""Do the labels of this tree agree with those of an earlier commit, on the same CT?

python -m Testing.bench.agreement COMMIT CT... [--phantom] [--least 99.5]

The earlier tree is taken from git into a temporary folder with its own weights; each runs in a process of its
own.  Vessels and airway walls are labels of their own here, as in a plain label map.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("DiffSegLungLib", "Resources/models")


def main() -> int:
    """Prints a line for each CT; exit status 1 where one falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("ct", nargs="*", type=Path)
    parser.add_argument("--phantom", action="store_true", help="the synthetic CT, too")
    parser.add_argument("--least", type=float, default=99.5, help="percent of lung voxels")
    arguments = parser.parse_args()
    short = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        earlier = _tree_of(arguments.commit, folder / "earlier")
        scans = [path.resolve() for path in arguments.ct]
        if arguments.phantom:
            scans.append(folder / "phantom.nrrd")
            _library(ROOT, "phantom", str(scans[-1]))
        for ct in scans:
            percent, lung = agreement(ct, earlier, folder)
            print(f"{ct.name}: {percent:.3f} % of {lung} lung voxels have the same label", flush=True)
            short |= percent < arguments.least
    return int(short)


def agreement(ct: Path, earlier: Path, folder: Path) -> tuple[float, int]:
    """Percent of lung voxels, of either, with the same label, and their number."""
    labels = []
    for place, tree in (("before", earlier), ("now", ROOT)):
        output = folder / f"{place}.nrrd"  # no .seg: label 7, vessel and airway wall, is kept
        _library(tree, "segment", str(ct), "--output", str(output))
        labels.append(sitk.GetArrayFromImage(sitk.ReadImage(str(output))))
    before, now = labels
    lung = (before > 0) | (now > 0)
    return 100.0 * float((before == now)[lung].mean()), int(lung.sum())


def _tree_of(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit, *PARTS], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _library(tree: Path, *words: str) -> None:
    """Runs a tree's command line; its own progress goes to standard error."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("DIFFSEGLUNG_MODELS", None)
    command = [sys.executable, "-m", "DiffSegLungLib", *words]
    subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
