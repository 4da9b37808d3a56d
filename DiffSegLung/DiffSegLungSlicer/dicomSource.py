"""Where a volume came from, as Slicer's DICOM database knows it."""

from __future__ import annotations

import slicer

INSTANCES = "DICOM.instanceUIDs"


def dicomFiles(volumeNode) -> list[str]:
    """The files that a volume was loaded from; empty where the DICOM database has them not."""
    database = getattr(slicer, "dicomDatabase", None)
    if volumeNode is None or database is None or not database.isOpen:
        return []
    uids = (volumeNode.GetAttribute(INSTANCES) or "").split()
    files = [database.fileForInstance(uid) for uid in uids]
    return files if all(files) else []


def acquisition(volumeNode) -> dict[str, str]:
    """What the scanner did, by DICOM tag: kernel, contrast, thickness and the like, never who the patient is.

    The library warns where these do not support a number; a volume node by itself does not know them.
    """
    from DiffSegLungLib.io.acquisition import ACQUISITION_TAGS, MODALITY_TAG

    files = dicomFiles(volumeNode)
    if not files:
        return {}
    tags = (MODALITY_TAG, *ACQUISITION_TAGS.values())
    values = {tag: slicer.dicomDatabase.fileValue(files[0], tag.replace("|", ",")) for tag in tags}
    return {tag: value for tag, value in values.items() if value}


def selectedSeries() -> list[str]:
    """The CT series that are selected in Slicer's DICOM browser; of patients and studies all of them."""
    browser = getattr(getattr(slicer.modules, "DICOMInstance", None), "browserWidget", None)
    if browser is None:
        return []
    database = slicer.dicomDatabase
    thumbnails = getattr(browser, "dicomVisualBrowser", None)
    if getattr(browser, "useVisualDICOMBrowser", False) and hasattr(thumbnails, "patientView"):  # 5.13
        chosen = thumbnails.patientView().selectedSeriesInstanceUIDs()
    else:
        chosen = [database.seriesForFile(files[0]) for files in browser.fileLists if files]
    return [uid for uid in map(str, chosen) if _isCt(uid)]


def _isCt(seriesUid: str) -> bool:
    files = slicer.dicomDatabase.filesForSeries(seriesUid)
    return bool(files) and slicer.dicomDatabase.fileValue(files[0], "0008,0060") == "CT"
