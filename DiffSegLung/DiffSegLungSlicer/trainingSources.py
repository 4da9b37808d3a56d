"""The CT of a fine-tuning, written where it finds them also when scene and Slicer are gone."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from DiffSegLungLib.errors import UnusableInputError

from . import exchange
from .dicomSource import dicomFiles

CT, PATIENTS = "ct", "patients.csv"
LEAST_FREE_BYTES = 200_000_000
PATIENT_ID = "0010,0020"


@dataclass(frozen=True)
class Sources:
    """Where the CT come from.

    Attributes:
        volumeNodes: of the scene.
        folder: of CT files or DICOM; None without one.
        seriesUids: series of the DICOM database.
    """

    volumeNodes: Sequence[Any] = ()
    folder: str | Path | None = None
    seriesUids: Sequence[str] = ()

    def require(self) -> None:
        """Refuses what cannot be enough before anything is written.

        Raises:
            UnusableInputError: there is no CT, or only one; or a volume cannot be a CT.
        """
        for node in self.volumeNodes:
            exchange.requireCt(node)
        single = len(self.volumeNodes) + len(self.seriesUids)
        if self.folder or single > 1:
            return
        if not single:
            raise UnusableInputError("No CT is chosen: check volumes of the scene, or give a folder of CT.")
        raise UnusableInputError(
            "Only one CT is chosen, and CT of two patients at least are needed, since one is held back to "
            "judge the result: check another volume, or give a folder of CT."
        )

    def write(self, folder: Path) -> list[Path]:
        """Writes volumes and series below a folder.

        Returns:
            What the command line reads: the files and folders written, and the folder given.

        Raises:
            UnusableInputError: the disk is full, or nothing can be written there.
        """
        try:
            _requireRoom(folder, self.volumeNodes)
            (folder / CT).mkdir(parents=True, exist_ok=True)
            written = self._writeAll(folder / CT)
        except (OSError, RuntimeError) as error:  # SimpleITK's errors are RuntimeErrors
            reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
            raise UnusableInputError(
                f"Cannot write the CT into {folder}: {reason}. Free some disk, or set another model folder "
                "by DIFFSEGLUNG_MODELS."
            ) from error
        _writePatients(folder / PATIENTS, written)
        given = [Path(self.folder)] if self.folder else []
        return [*written, *given]

    def _writeAll(self, folder: Path) -> dict[Path, str]:
        """Each file or folder, and its patient; an empty text where that is not known."""
        written: dict[Path, str] = {}
        for number, node in enumerate(self.volumeNodes, start=1):
            path = folder / f"{number:03d}.nrrd"  # never the node's name, which is often the patient's
            exchange.exportVolume(node, path)
            written[path] = _patientOf(node)
        for number, uid in enumerate(self.seriesUids, start=len(written) + 1):
            path = folder / f"{number:03d}_series"
            files = slicer.dicomDatabase.filesForSeries(uid)
            _copySeries(files, path)
            written[path] = slicer.dicomDatabase.fileValue(files[0], PATIENT_ID)
        return written


def _copySeries(files: Sequence[str], folder: Path) -> None:
    if not files:
        raise UnusableInputError("A chosen series is no longer in the DICOM database: choose again.")
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / f"{number:06d}.dcm")


def _patientOf(volumeNode) -> str:
    """Whom the CT shows, by the DICOM database or the subject hierarchy; empty where neither knows."""
    files = dicomFiles(volumeNode)
    if files:
        return slicer.dicomDatabase.fileValue(files[0], PATIENT_ID)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    patient = hierarchy.GetItemAncestorAtLevel(hierarchy.GetItemByDataNode(volumeNode), level)
    return f"item {patient}" if patient else ""


def _writePatients(file: Path, written: dict[Path, str]) -> None:
    """Which CT are of one patient, so that none is both trained on and held back; by number, not by name."""
    known = sorted({patient for patient in written.values() if patient})
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ct", "patient"])
        for path, patient in written.items():
            if patient:
                writer.writerow([path.name, f"patient {known.index(patient) + 1}"])


def _requireRoom(folder: Path, volumeNodes: Sequence[Any]) -> None:
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(place).free
    voxels = sum(slicer.util.arrayFromVolume(node).nbytes for node in volumeNodes)
    if free < voxels + LEAST_FREE_BYTES:
        raise UnusableInputError(
            f"The disk of {place} has {free / 1e6:.0f} MB free and about "
            f"{(voxels + LEAST_FREE_BYTES) / 1e6:.0f} MB are needed: free some, or set another model folder "
            "by DIFFSEGLUNG_MODELS."
        )
