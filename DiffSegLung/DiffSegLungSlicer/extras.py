"""What the module adds to Slicer's Sample Data and terminologies."""

from __future__ import annotations

import logging
from pathlib import Path

import slicer
from slicer.i18n import tr as _

MODULE_FOLDER = Path(__file__).resolve().parents[1]
TERMINOLOGY_FILE = "SegmentationCategoryTypeModifier-DiffSegLung.term.json"
PHANTOM_FILE = MODULE_FOLDER / "Resources" / "SampleData" / "DiffSegLungPhantom.nrrd"
PHANTOM_SHA256 = "22d7fd2547c9ec6fd28dd7a6049bb5df3195ffe2888384c0707d3e1645403dfc"
CT_CHEST_SHA256 = "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"
CT_CHEST_URL = f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{CT_CHEST_SHA256}"


def registerSampleData() -> None:
    """A CT that Slicer's testing data hold, and a phantom of known truth that needs no network."""
    import SampleData

    icon = MODULE_FOLDER / "Resources" / "Icons" / "DiffSegLungPhantom.png"
    samples = (
        ("DiffSegLungPhantom", PHANTOM_FILE.as_uri(), PHANTOM_FILE.name, PHANTOM_SHA256),
        ("DiffSegLungCTChest", CT_CHEST_URL, "CT-chest.nrrd", CT_CHEST_SHA256),
    )
    if hasattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory"):  # from Slicer 5.12 on
        SampleData.SampleDataLogic.registerCustomSampleDataCategory("DiffSegLung", title=_("Lung pathology"))
    for name, uri, fileName, sha256 in samples:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="DiffSegLung",
            sampleName=name,
            thumbnailFileName=str(icon),
            uris=uri,
            fileNames=fileName,
            checksums=f"SHA256:{sha256}",
            nodeNames=name,
        )


def registerTerminology() -> None:
    """Makes the codes of our segments known, so that they can be chosen in the Segment Editor too."""
    file = MODULE_FOLDER / "Resources" / TERMINOLOGY_FILE
    if not slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(file)):
        logging.error(f"DiffSegLung: cannot load the terminology {file}; install the extension again.")
