"""Segments every chest CT of a folder in Slicer, without a window.

    Slicer --no-main-window --no-splash --python-script SegmentFolder.py -- IN_FOLDER OUT_FOLDER [OPTIONS]

A CT is a file (NRRD, NIfTI, MetaImage) or a sub-folder of DICOM files; of a DICOM folder the library takes
the axial CT series with the most slices.  Each CT leaves NAME.seg.nrrd and NAME.csv, its measures, in the
output folder.  One that fails is named with its reason, the others go on.  `-- --help` lists the options.

Exit status: 0 all done; 1 some failed; 2 wrong use, or no CT in the folder; 3 the extension is not installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer
import slicer.util

ALL_DONE, SOME_FAILED, WRONG_USE, NOT_INSTALLED = 0, 1, 2, 3
IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SEGMENTATION_SUFFIX = ".seg.nrrd"
QUALITIES = ("fast", "standard", "best")
DEVICES = ("auto", "cpu", "cuda", "mps")
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128


@dataclass(frozen=True)
class Outcome:
    """What became of one CT: its segmentation, or why there is none."""

    source: Path
    segmentation: Path | None = None
    error: str = ""


def findScans(folder: Path) -> list[Path]:
    """The CT files and the DICOM sub-folders of a folder, by name; segmentations are no CT."""
    return [entry for entry in sorted(folder.iterdir()) if _isImage(entry) or _isDicomFolder(entry)]


def _isImage(path: Path) -> bool:
    name = path.name.lower()
    return path.is_file() and name.endswith(IMAGE_SUFFIXES) and not name.endswith(SEGMENTATION_SUFFIX)


def _isDicomFolder(folder: Path) -> bool:
    return folder.is_dir() and any(_isDicom(file) for file in folder.rglob("*") if file.is_file())


def _isDicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(DICOM_MARK_AT + len(DICOM_MARK))[DICOM_MARK_AT:] == DICOM_MARK
    except OSError:
        return False


def outputNames(scans: Sequence[Path]) -> list[str]:
    """A name for each CT's results: without its suffix, unless two CT would then share one."""
    bare = [_withoutSuffix(scan) for scan in scans]
    return [scan.name if bare.count(name) > 1 else name for scan, name in zip(scans, bare, strict=True)]


def _withoutSuffix(scan: Path) -> str:
    suffix = next((end for end in IMAGE_SUFFIXES if scan.is_file() and scan.name.lower().endswith(end)), "")
    return scan.name[: len(scan.name) - len(suffix)]


def run(
    inFolder: str | Path,
    outFolder: str | Path,
    quality: str = "standard",
    device: str = "auto",
    model: str = "",
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Segments every CT of a folder; the scene is left as it was.

    Args:
        inFolder: holds the CT.
        outFolder: takes the results; made if missing.
        quality: one of `QUALITIES`.
        device: one of `DEVICES`.
        model: name or folder of the weights; empty for the default.
        seed: of everything random.
        report: told a line for each CT.

    Returns:
        One outcome for each CT, in the order of their names.
    """
    outFolder = Path(outFolder)
    outFolder.mkdir(parents=True, exist_ok=True)
    parameters = {"quality": quality, "device": device, "model": model, "seed": seed}
    scans = findScans(Path(inFolder))
    outcomes = []
    for number, (scan, name) in enumerate(zip(scans, outputNames(scans), strict=True), start=1):
        outcome = _segmentOne(scan, outFolder / name, parameters)
        result = f"failed: {outcome.error}" if outcome.error else str(outcome.segmentation)
        report(f"[{number} of {len(scans)}] {scan.name}: {result}")
        outcomes.append(outcome)
    return outcomes


def _segmentOne(scan: Path, target: Path, parameters: dict) -> Outcome:
    """Segments and saves one CT; whatever goes wrong becomes its outcome, for the others must go on."""
    known = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    try:
        return Outcome(scan, _segmentAndSave(scan, target, parameters))
    except Exception as error:
        return Outcome(scan, error=" ".join(str(error).split()) or type(error).__name__)
    finally:
        _removeNewNodes(known)


def _segmentAndSave(scan: Path, target: Path, parameters: dict) -> Path:
    from DiffSegLung import DiffSegLungLogic
    from DiffSegLungLib.commands import write_table

    segmentationNode = DiffSegLungLogic().process(_loadScan(scan), parameters=parameters)
    measures = _measure(segmentationNode)
    segmentation = target.with_name(target.name + SEGMENTATION_SUFFIX)
    if not slicer.util.saveNode(segmentationNode, str(segmentation), {}):
        raise OSError(f"Cannot write {segmentation}: choose a folder that is writable and has space.")
    write_table(target.with_name(target.name + ".csv"), measures)
    return segmentation


def _measure(segmentationNode):
    from DiffSegLungSlicer import results

    return results.measure(segmentationNode)


def _loadScan(scan: Path):
    """Loads a CT into the scene; DICOM is read by the library, which chooses the series and checks it."""
    if scan.is_file():
        return slicer.util.loadVolume(str(scan))
    from DiffSegLungLib.outputs import write_image
    from DiffSegLungLib.volume import load_volume, to_input_geometry

    volume = load_volume(scan)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "CT.nrrd"
        write_image(file, to_input_geometry(volume.hu, volume))
        return slicer.util.loadVolume(str(file), {"name": scan.name})


def _removeNewNodes(known: set[str]) -> None:
    """Takes out again what one CT has brought into the scene: memory must not grow with the number of CT.

    Display nodes go last: a volume that has lost its own makes itself a new one.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLNode")
    for node in sorted(nodes, key=lambda node: node.IsA("vtkMRMLDisplayNode")):
        isThere = node.GetScene() is not None  # display and storage nodes may have gone with their node
        if isThere and node.GetID() not in known and not node.IsSingleton():
            slicer.mrmlScene.RemoveNode(node)


def parseArguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads what follows Slicer's own arguments; Slicer passes the ``--`` between them on."""
    parser = argparse.ArgumentParser("SegmentFolder.py", description="Segments every chest CT of a folder.")
    parser.add_argument("inFolder", metavar="IN_FOLDER", type=Path, help="CT files or DICOM sub-folders")
    parser.add_argument("outFolder", metavar="OUT_FOLDER", type=Path, help="takes NAME.seg.nrrd and NAME.csv")
    parser.add_argument("--quality", choices=QUALITIES, default="standard", help="default: %(default)s")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    parser.add_argument("--model", default="", help="name or folder of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default: %(default)s")
    return parser.parse_args(arguments[1:] if arguments[:1] == ["--"] else arguments)


def main(arguments: Sequence[str]) -> int:
    """Runs the script.

    Returns:
        The exit status.
    """
    try:
        options = parseArguments(arguments)
    except SystemExit as stop:  # argparse has said what is wrong, or has shown its help
        return int(stop.code or 0)
    problem = _problem(options.inFolder, options.outFolder)
    if problem:
        print(problem[1], file=sys.stderr)
        return problem[0]
    outcomes = run(**vars(options))
    failed = [outcome for outcome in outcomes if outcome.error]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    for outcome in failed:
        print(f"failed: {outcome.source}: {outcome.error}", file=sys.stderr)
    return SOME_FAILED if failed else ALL_DONE


def _problem(inFolder: Path, outFolder: Path) -> tuple[int, str] | None:
    """The exit status and the reason why nothing can be done."""
    try:
        import DiffSegLung  # noqa: F401
    except ImportError as error:
        return NOT_INSTALLED, f"DiffSegLung cannot be loaded ({error}): install the extension."
    if not inFolder.is_dir():
        return WRONG_USE, f"{inFolder} is no folder: give the folder that holds the CT."
    if not findScans(inFolder):
        suffixes = ", ".join(IMAGE_SUFFIXES)
        return WRONG_USE, f"{inFolder} holds no CT: no file in {suffixes} and no sub-folder of DICOM files."
    try:
        outFolder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return (
            WRONG_USE,
            f"{outFolder} cannot be made ({error.strerror}): give another folder for the results.",
        )
    return None


if __name__ == "__main__":
    status = SOME_FAILED
    try:
        status = main(sys.argv[1:])
    finally:
        slicer.util.exit(status)  # else Slicer would go on without a window, whatever happened
