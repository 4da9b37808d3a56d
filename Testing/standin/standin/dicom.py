"""A DICOM database over files on disk: what `slicer.dicomDatabase` is asked for when a series is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from pythonqt.rules import cppStandin
from qt import Property, Signal


@cppStandin
class ctkDICOMDatabase(qt.QObject):
    """Maps instances to files; values are read from the files with pydicom when asked for."""

    databaseChanged = Signal()
    _files: dict[str, str] = {}
    _series: dict[str, list[str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._files, self._series = {}, {}

    isOpen = Property(bool, lambda self: True)

    def insert(self, path: str) -> bool:
        """Add a file; False if it is no DICOM file."""
        import pydicom

        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            instance, series = str(header.SOPInstanceUID), str(header.SeriesInstanceUID)
        except (pydicom.errors.InvalidDicomError, AttributeError):
            return False
        self._files[instance] = str(path)
        instances = self._series.setdefault(series, [])
        if instance not in instances:
            instances.append(instance)
        return True

    def allFiles(self) -> tuple[str, ...]:
        return tuple(self._files.values())

    def instancesForSeries(self, seriesUID: str) -> tuple[str, ...]:
        return tuple(self._series.get(seriesUID, ()))

    def filesForSeries(self, seriesUID: str) -> tuple[str, ...]:
        return tuple(self._files[each] for each in self.instancesForSeries(seriesUID))

    def fileForInstance(self, instanceUID: str) -> str:
        return self._files.get(instanceUID, "")

    def instanceForFile(self, path: str) -> str:
        return next((uid for uid, file in self._files.items() if file == str(path)), "")

    def seriesForFile(self, path: str) -> str:
        instance = self.instanceForFile(path)
        return next((uid for uid, instances in self._series.items() if instance in instances), "")

    def fileValue(self, path: str, tag: str) -> str:
        """The value of a tag such as `0010,0010` as text; empty if the file does not have it."""
        import pydicom

        group, element = (int(part, 16) for part in tag.split(","))
        if not path or not Path(path).is_file():
            return ""
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found = header.get((group, element))
        return "" if found is None or found.value is None else dicomText(found.value)

    def instanceValue(self, instanceUID: str, tag: str) -> str:
        return self.fileValue(self.fileForInstance(instanceUID), tag)


def dicomText(value: Any) -> str:
    """A value as it stands in the file: several values are separated by a backslash."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value)
    return "\\".join(str(each) for each in value)


def addDicomFolder(path: str | Path) -> int:
    """Put the DICOM files of a folder into `slicer.dicomDatabase`.

    Returns:
        How many there were.
    """
    files = sorted(each for each in Path(path).rglob("*") if each.is_file())
    added = sum(slicer.dicomDatabase.insert(str(each)) for each in files)
    slicer.dicomDatabase.databaseChanged.emit()
    return added
