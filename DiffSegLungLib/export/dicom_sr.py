"""The measures as a DICOM structured report (TID 1500) beside the DICOM segmentation.

Each tissue is a volumetric region that refers to its segment (TID 1411); the lungs and regions are groups of
their own (TID 1501).  A measure without a code in the DICOM dictionary has one of the private scheme below;
its meaning tells what it is, and the code is the column of the table of measures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import LUNG, SIDE_CODES, WHOLE, Structure, structure_of
from DiffSegLungLib.export.dicom_seg import CORRECTED_WORDS, PRODUCT, SERIES_OFFSET, concept
from DiffSegLungLib.export.dicom_sources import source_images
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.quantify.measures import DEFINITIONS
from DiffSegLungLib.tissues import REGION, REPORTED, Code, Tissue
from DiffSegLungLib.version import __version__

if TYPE_CHECKING:
    import pandas
    from pydicom import Dataset

    from DiffSegLungLib.io.volume import Volume

SCHEME = "99DIFFSEGLUNG"
CT_OF_CHEST = Code("SCT", "169069000", "Computed tomography of chest")
VOLUME = Code("SCT", "118565006", "Volume")
ATTENUATION = Code("DCM", "112031", "Attenuation Coefficient")
MEAN = Code("SCT", "373098007", "Mean")
UNITS = {
    "ml": Code("UCUM", "ml", "milliliter"),
    "%": Code("UCUM", "%", "percent"),
    "HU": Code("UCUM", "[hnsf'U]", "Hounsfield unit"),
    "g": Code("UCUM", "g", "gram"),
}
LONGEST_MEANING = 64


def write_dicom_sr(
    path: str | Path, segmentation: Dataset, volume: Volume, measures: pandas.DataFrame
) -> None:
    """Write the measures as DICOM SR; see `build_dicom_sr`.

    Raises:
        UnusableInputError: the CT is no DICOM, or the file cannot be written.
    """
    dataset = build_dicom_sr(segmentation, volume, measures)
    with atomic_path(path) as partial:
        dataset.save_as(partial)


def build_dicom_sr(segmentation: Dataset, volume: Volume, measures: pandas.DataFrame) -> Dataset:
    """The measures as DICOM SR before it is written.

    Args:
        segmentation: as ``dicom_seg.build_dicom_seg`` returns it; the report refers to its segments.
        volume: the CT, read from DICOM.
        measures: as ``measures.measure`` returns it.

    Raises:
        UnusableInputError: the CT is no DICOM.
    """
    import highdicom

    images = source_images(volume)
    report = highdicom.sr.MeasurementReport(
        observation_context=_observer(),
        procedure_reported=concept(CT_OF_CHEST),
        imaging_measurements=[*_tissue_groups(segmentation, measures), *_region_groups(measures)],
        referenced_images=[_with_geometry(image, volume) for image in images],
    )
    dataset: Dataset = highdicom.sr.Comprehensive3DSR(
        evidence=[segmentation, *images],
        content=report[0],
        series_instance_uid=highdicom.UID(),
        series_number=int(images[0].get("SeriesNumber") or 0) + SERIES_OFFSET + 1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        is_complete=True,
    )
    told = f"{PRODUCT} measures, {CORRECTED_WORDS}" if _corrected(segmentation) else f"{PRODUCT} measures"
    dataset.SeriesDescription = f"{told}. Research use only"
    return dataset


def _corrected(segmentation: Dataset) -> bool:
    """Whether a person had a hand in the segments."""
    return any(each.SegmentAlgorithmType != "AUTOMATIC" for each in segmentation.SegmentSequence)


def _with_geometry(image: Dataset, volume: Volume) -> Dataset:
    """A multi-frame image tells its geometry by frame; the report's list of images wants one a file."""
    if "PixelSpacing" in image:
        return image
    import copy

    geometry = volume.input_geometry
    flat = copy.copy(image)
    flat.PixelSpacing = list(geometry.spacing[1::-1])
    flat.SliceThickness = geometry.spacing[2]
    flat.ImageOrientationPatient = [*geometry.matrix[:, 0], *geometry.matrix[:, 1]]
    flat.ImagePositionPatient = list(geometry.origin)
    return flat


def _observer() -> Any:
    """The program, not a person: nobody has verified it."""
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[PRODUCT, __version__]),  # the same for each report of a version
        name=PRODUCT,
        manufacturer_name=PRODUCT,
        model_name=f"{PRODUCT} {__version__}",
    )
    context = sr.ObserverContext(codes.DCM.Device, device)
    return sr.ObservationContext(observer_device_context=context)


def _tissue_groups(segmentation: Dataset, measures: pandas.DataFrame) -> list[Any]:
    """A group for each segment: volume and share of the tissue in the whole lung."""
    row = measures.loc[WHOLE] if WHOLE in measures.index else measures.iloc[0]
    by_name = {tissue.name: tissue for tissue in REPORTED}
    found = [
        (segment, by_name[segment.SegmentLabel])
        for segment in segmentation.SegmentSequence
        if segment.SegmentLabel in by_name
    ]
    return [_tissue_group(segmentation, segment, tissue, row) for segment, tissue in found]


def _tissue_group(segmentation: Dataset, segment: Dataset, tissue: Tissue, row: pandas.Series) -> Any:
    from highdicom import sr

    columns = (f"{tissue.key}_ml", f"{tissue.key}_percent")
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment.from_segmentation(segmentation, segment.SegmentNumber),
        finding_type=concept(tissue.code),
        finding_sites=[sr.FindingSite(concept(REGION))],
        algorithm_id=sr.AlgorithmIdentification(PRODUCT, __version__),
        measurements=[_measurement(columns[0], row, VOLUME), *_measurements(row, columns[1:])],
    )


def _region_groups(measures: pandas.DataFrame) -> list[Any]:
    """A group for each region with lung in it: all its measures."""
    from highdicom import sr

    groups = []
    for name, row in measures.iterrows():
        columns = [column for column in DEFINITIONS if column in row and np.isfinite(row[column])]
        if not row["lung_ml"] > 0:
            continue
        groups.append(
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(identifier=f"{PRODUCT} {name}"[:LONGEST_MEANING]),
                finding_type=concept(_structure_code(str(name))),
                finding_sites=[_site(str(name))],
                algorithm_id=sr.AlgorithmIdentification(PRODUCT, __version__),
                measurements=_measurements(row, columns),
            )
        )
    return groups


def _structure(name: str) -> Structure | None:
    """The lung or lobe of a region; a third of a lung is in that lung."""
    return structure_of(None, name.split(",")[0])


def _structure_code(name: str) -> Code:
    structure = _structure(name)
    return structure.code if structure else LUNG


def _site(name: str) -> Any:
    from highdicom import sr

    structure = _structure(name)
    sided = structure is not None and structure.terminology.modifier is not None
    side = concept(SIDE_CODES[structure.side]) if structure and sided else None
    return sr.FindingSite(concept(_structure_code(name)), laterality=side)


def _measurements(row: pandas.Series, columns: Any) -> list[Any]:
    coded = {"lung_ml": VOLUME, "mean_hu": ATTENUATION}
    return [_measurement(column, row, coded.get(column)) for column in columns]


def _measurement(column: str, row: pandas.Series, code: Code | None) -> Any:
    from highdicom import sr

    definition = DEFINITIONS[column]
    return sr.Measurement(
        name=concept(code or _private(column)),
        value=float(row[column]),
        unit=concept(UNITS[definition.unit]),
        derivation=concept(MEAN) if column == "mean_hu" else None,
    )


def _private(column: str) -> Code:
    """A code of our own: the column, which a code value has 16 characters for at most."""
    definition = DEFINITIONS[column]
    value = column.replace("_percent", "_pct").replace("consolidation", "consolid")
    meaning = f"{definition.name} {'volume' if definition.unit == 'ml' else 'share'}"
    return Code(SCHEME, value, (meaning if _is_of_tissue(column) else definition.name)[:LONGEST_MEANING])


def _is_of_tissue(column: str) -> bool:
    """A tissue's volume and share have one name in the table, told apart by their unit."""
    return any(column.startswith(f"{tissue.key}_") for tissue in REPORTED)
