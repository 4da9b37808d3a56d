"""Reports, DICOM segmentations and the check of the installation, each by a command of the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from DiffSegLungLib.errors import MissingPartError, UnusableInputError

from . import exchange, results
from .dicomSource import dicomFiles
from .exchange import SegmentChoice
from .run import Run, newFolder

CT_FILE = "ct.nrrd"
"""Never the node's name, which is often the patient's."""


def reportRun(segmentationNode, target: Path) -> Run:
    """Writes the report of the segments as they are now; its result is the HTML file."""
    volumeNode = _requireVolume(segmentationNode)
    folder = newFolder()

    def command() -> list[str]:
        ct = folder / CT_FILE
        exchange.exportVolume(volumeNode, ct)
        return [*_measureCommand(segmentationNode, volumeNode, ct, folder), "--report", str(target)]

    return Run([command], lambda: target / "report.html", folder)


def dicomRun(segmentationNode, target: Path) -> Run:
    """Writes a DICOM segmentation; its result is the file."""
    volumeNode = _requireVolume(segmentationNode)
    instances = dicomFiles(volumeNode)
    if not instances:
        raise UnusableInputError(
            f"{volumeNode.GetName()} did not come from the DICOM database: load it from there to export."
        )
    folder = newFolder()

    def command() -> list[str]:
        series = folder / "series"
        series.mkdir()
        for number, file in enumerate(instances):
            shutil.copyfile(file, series / f"{number:06d}.dcm")
        return [*_measureCommand(segmentationNode, volumeNode, series, folder), "--dicom-seg", str(target)]

    return Run([command], lambda: target, folder)


def checkRun() -> Run:
    """Its result is what ``diffseglung check --json`` tells, also where something is missing."""
    run = Run(
        [lambda: ["check", "--json"]],
        lambda: json.loads("\n".join(run.output)),
        newFolder(),
        accepted=(0, MissingPartError.exit_status),
    )
    return run


def _requireVolume(segmentationNode):
    volumeNode = results.volumeOf(segmentationNode)
    if volumeNode is None:
        raise UnusableInputError(
            f"The CT of {segmentationNode.GetName()} is not in the scene: load it again."
        )
    return volumeNode


def _measureCommand(segmentationNode, volumeNode, ct: Path, folder: Path) -> list[str]:
    """Writes what the command ``measure`` reads, and returns its arguments."""
    tissues = [
        each for each in segmentationNode.GetSegmentation().GetSegmentIDs() if each in results.TISSUE_LABELS
    ]
    if not tissues:
        raise UnusableInputError(f"{segmentationNode.GetName()} has none of its tissues left: segment again.")
    segments = folder / "segmentation.seg.nrrd"
    exchange.exportSegments(SegmentChoice(segmentationNode, tuple(tissues)), volumeNode, segments)
    command = ["measure", str(ct), str(segments)]
    lungs, regions = (
        segmentationNode.GetNodeReference(results.LUNGS_ROLE),
        results.regionsOf(segmentationNode),
    )
    for option, choice in (("--lungs", SegmentChoice(lungs) if lungs else None), ("--regions", regions)):
        if choice:
            exchange.exportSegments(choice, volumeNode, folder / f"{option[2:]}.seg.nrrd")
            command += [option, str(folder / f"{option[2:]}.seg.nrrd")]
    if manifest := results.manifestOf(segmentationNode):
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        command += ["--manifest", str(folder / "manifest.json")]
    return [*command, "--corrected"] if results.isCorrected(segmentationNode) else command
