"""Segments every chest CT of a folder in Slicer, without a window.

    Slicer --no-main-window --no-splash --python-script SegmentFolder.py -- IN_FOLDER OUT_FOLDER [OPTIONS]

What a CT is, and what it is called, is as in ``diffseglung batch``: a file (NRRD, NIfTI, MetaImage) or the
DICOM of one study, at any depth; a code, unless names are asked for.  Each CT leaves CODE.seg.nrrd and
CODE.csv, its measures, in the output folder.  One that fails is told with its reason, the others go on.
``-- --help`` lists the options.

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
QUALITIES = ("fast", "standard", "best")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Outcome:
    """What became of one CT: its segmentation, or why there is none."""

    case: str
    segmentation: Path | None = None
    error: str = ""


def run(
    inFolder: str | Path,
    outFolder: str | Path,
    quality: str = "standard",
    device: str = "auto",
    model: str = "",
    seed: int = 0,
    keepNames: bool = False,
    key: str | Path | None = None,
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
        keepNames: call the CT by their files and folders, not by codes.
        key: file that tells which CT is which source (.csv); it may name patients.  None for none.
        report: told a line for each CT.

    Returns:
        One outcome for each CT, in the order of their names.

    Raises:
        UnusableInputError: there is no CT, or a folder or the key cannot be used.
    """
    from DiffSegLungLib.io.cases import find_cases, write_key
    from DiffSegLungLib.io.files import require_suffix

    key = Path(key) if key else None
    require_suffix("key", key, (".csv",))
    cases = find_cases(Path(inFolder), keepNames)
    outFolder = _makeFolder(Path(outFolder))
    if key:
        write_key(key, cases)
    parameters = {"quality": quality, "device": device, "model": model, "seed": seed}
    outcomes = []
    for number, case in enumerate(cases, start=1):
        outcome = _segmentOne(case, outFolder, parameters)
        result = f"failed: {outcome.error}" if outcome.error else str(outcome.segmentation)
        report(f"[{number} of {len(cases)}] {case.name}: {result}")
        outcomes.append(outcome)
    return outcomes


def _makeFolder(folder: Path) -> Path:
    from DiffSegLungLib.errors import UnusableInputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{folder} cannot be made ({error.strerror}): give another folder for the results."
        raise UnusableInputError(reason) from None
    return folder


def _segmentOne(case, outFolder: Path, parameters: dict) -> Outcome:
    """Segments and saves one CT; whatever goes wrong becomes its outcome, for the others must go on."""
    from DiffSegLungLib.io.cases import without_names

    known = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    try:
        return Outcome(case.name, _segmentAndSave(case, outFolder, parameters))
    except Exception as error:
        reason = without_names(str(error), case.name, [case.source])
        return Outcome(case.name, error=reason or type(error).__name__)
    finally:
        _removeNewNodes(known)


def _segmentAndSave(case, outFolder: Path, parameters: dict) -> Path:
    from DiffSegLung import DiffSegLungLogic
    from DiffSegLungLib.export.labels import write_table
    from DiffSegLungLib.io.files import SEGMENTATION_SUFFIX

    segmentationNode = DiffSegLungLogic().process(_loadScan(case), parameters=parameters)
    measures = _measure(segmentationNode)
    segmentation = outFolder / f"{case.name}{SEGMENTATION_SUFFIX}"
    if not slicer.util.saveNode(segmentationNode, str(segmentation), {}):
        raise OSError(f"Cannot write {segmentation}: choose a folder that is writable and has space.")
    write_table(outFolder / f"{case.name}.csv", measures)
    return segmentation


def _measure(segmentationNode):
    from DiffSegLungSlicer import results

    return results.measure(segmentationNode)


def _loadScan(case):
    """Loads a CT into the scene.

    The library reads it: it chooses the series and checks it, and unlike Slicer's readers it prints no name.
    """
    from DiffSegLungLib.export.segmentation_file import write_image
    from DiffSegLungLib.io.volume import load_volume, to_input_geometry

    volume = load_volume(case.source)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "CT.nrrd"
        write_image(file, to_input_geometry(volume.hu, volume))
        return slicer.util.loadVolume(str(file), {"name": case.name})


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
    parser.add_argument(
        "inFolder", metavar="IN_FOLDER", type=Path, help="CT files and DICOM folders, any depth"
    )
    parser.add_argument("outFolder", metavar="OUT_FOLDER", type=Path, help="takes CODE.seg.nrrd and CODE.csv")
    parser.add_argument("--quality", choices=QUALITIES, default="standard", help="default: %(default)s")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    parser.add_argument("--model", default="", help="name or folder of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default: %(default)s")
    namesHelp = "call the CT by their files and folders, which may name patients (default: codes)"
    parser.add_argument("--keep-names", dest="keepNames", action="store_true", help=namesHelp)
    keyHelp = "write which CT is which source, for your eyes only; it may name patients, keep it apart"
    parser.add_argument("--key", metavar="KEY.csv", type=Path, help=keyHelp)
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
    try:
        import DiffSegLung  # noqa: F401  # the library is found with it
    except ImportError as error:
        print(f"DiffSegLung cannot be loaded ({error}): install the extension.", file=sys.stderr)
        return NOT_INSTALLED
    from DiffSegLungLib.errors import UnusableInputError

    try:
        outcomes = run(**vars(options))
    except UnusableInputError as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    failed = [outcome for outcome in outcomes if outcome.error]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    for outcome in failed:
        print(f"failed: {outcome.case}: {outcome.error}", file=sys.stderr)
    return SOME_FAILED if failed else ALL_DONE


if __name__ == "__main__":
    status = SOME_FAILED
    try:
        status = main(sys.argv[1:])
    finally:
        slicer.util.exit(status)  # else Slicer would go on without a window, whatever happened
