"""The command ``measure``: a segmentation that is there already, perhaps corrected by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.app.commands import check_dicom
from DiffSegLungLib.app.compare_command import check_compare, table_writers
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.correction import CORRECTED
from DiffSegLungLib.export.labels import model_provenance, write_report_of, write_table
from DiffSegLungLib.io.atomic import require_places
from DiffSegLungLib.io.files import require_different, require_suffix
from DiffSegLungLib.quantify.comparison import Compared, CompareRequest, compare

if TYPE_CHECKING:
    from DiffSegLungLib.export.dicom_writers import DicomWriters
    from DiffSegLungLib.quantify.remeasure import Measured

OTHER_LUNGS = "The run was given a lung mask and this measuring was not: the lungs may be others (--lungs)."


@dataclass(frozen=True)
class MeasureRequest:
    """One call of ``measure``: what to read, and what to write.

    Attributes:
        source: the CT; a file or a DICOM folder.
        segmentation: the tissues.
        series: Series Number or UID to take of a DICOM folder, None for the one that a reader would take.
        name: what the report calls the CT, None for a name that tells nobody's.
        lungs: the lung mask they belong to, None to find the lungs.
        regions: lobes or other regions to measure, None for right and left lung.
        output: the table (.csv), None for none.
        report: folder of the report, None for none.
        dicom_seg: the segmentation as DICOM SEG (.dcm), None for none.
        dicom_sr: the measures as DICOM SR (.dcm), which refers to the DICOM SEG; None for none.
        manifest: of the run that made the segmentation, None if it is not known.
        corrected: whether somebody corrected it.
    """

    source: Path
    segmentation: Path
    series: str | None = None
    name: str | None = None
    lungs: Path | None = None
    regions: Path | None = None
    output: Path | None = None
    report: Path | None = None
    dicom_seg: Path | None = None
    dicom_sr: Path | None = None
    manifest: Path | None = None
    corrected: bool = False

    @property
    def inputs(self) -> list[Path]:
        """What is read and must not be overwritten."""
        given = (self.source, self.segmentation, self.lungs, self.regions, self.manifest)
        return [path for path in given if path]

    @property
    def outputs(self) -> list[Path]:
        """The files to write, beside the report."""
        return [path for path in (self.output, self.dicom_seg, self.dicom_sr) if path]


def measure_to_files(
    request: MeasureRequest, earlier: CompareRequest | None = None
) -> tuple[Measured, Compared | None]:
    """Measures a segmentation, compares it with an earlier one, and writes all that was asked for.

    Args:
        request: inputs and outputs.
        earlier: the earlier point in time and the tables of changes; None for none.

    Returns:
        Measures and warnings, those of the run's manifest and of the comparison included; the comparison.

    Raises:
        DiffSegLungError: unusable input or output, or something missing.
    """
    if earlier:
        check_compare(earlier, request.source)
    require_suffix("table", request.output, (".csv",))
    check_dicom(request.dicom_seg, request.dicom_sr, request.source)
    require_different(request.inputs, request.outputs)
    require_places(request.outputs, request.report)
    run = read_manifest(request.manifest) if request.manifest else {}
    from DiffSegLungLib.export.dicom_writers import DicomWriters
    from DiffSegLungLib.export.output_checks import require_fitting
    from DiffSegLungLib.io.atomic import write_together
    from DiffSegLungLib.quantify.remeasure import remeasure

    require_fitting(request.source, request.series, request.outputs, request.dicom_seg is not None)

    measured = remeasure(
        request.source,
        request.segmentation,
        lungs=request.lungs,
        regions=request.regions,
        series=request.series,
        name=request.name,
    )
    compared = compare(earlier, measured, request.regions) if earlier and earlier.compare else None
    said = [*_warnings(request, measured, run), *(compared.warnings if compared else ())]
    manifest = manifest_of(request, measured, run, said)
    dicom = DicomWriters(
        measured.labels, measured.volume, measured.measures, model_provenance(manifest), request.corrected
    )
    writers = _writers(request, measured, manifest, compared, dicom)
    write_together(writers | (table_writers(earlier, compared) if earlier and compared else {}))
    dicom.raise_fault()
    return replace(measured, warnings=tuple(said)), compared


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        UnusableInputError: it cannot be read, or is no manifest.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInputError(f"Manifest {path} cannot be read: {error}.") from None
    if not isinstance(manifest, dict) or "software" not in manifest:
        raise UnusableInputError(f"{path} is no manifest of DiffSegLung: give the .manifest.json of the run.")
    return manifest


def _warnings(request: MeasureRequest, measured: Measured, run: dict[str, Any]) -> list[str]:
    """This measuring's warnings and the run's, each once.

    Raises:
        UnusableInputError: the run was of another CT.
    """
    size = list(measured.volume.input_geometry.size)
    if run and run.get("input", {}).get("size") != size:
        raise UnusableInputError(
            f"{request.manifest} is of another CT (its size is {run.get('input', {}).get('size')}, "
            f"this CT's {size}): give the manifest of this segmentation's run."
        )
    said = [CORRECTED] if request.corrected else []
    if run.get("parameters", {}).get("lungs") == "given" and request.lungs is None:
        said.append(OTHER_LUNGS)
    return list(dict.fromkeys([*said, *map(str, run.get("warnings", [])), *measured.warnings]))


def manifest_of(
    request: MeasureRequest, measured: Measured, run: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    """What the report says: the run's own manifest where there is one, and the warnings."""
    from DiffSegLungLib.export.manifest import describe_input, describe_software

    own = {"software": describe_software(), "parameters": {"segmentation": "given"}}
    return {**(run or own), "input": describe_input(measured.volume), "warnings": warnings}


def _writers(
    request: MeasureRequest,
    measured: Measured,
    manifest: dict[str, Any],
    compared: Compared | None,
    dicom: DicomWriters,
) -> dict[Path, Callable[[Path], None]]:
    """What writes each file; the report's folder is written here, before them."""
    writers: dict[Path, Callable[[Path], None]] = {}
    if request.output:
        writers[request.output] = partial(write_table, measures=measured.measures)
    paths = {"dicom_seg": request.dicom_seg, "dicom_sr": request.dicom_sr}
    for what, write in dicom.writers(request.dicom_seg, request.dicom_sr).items():
        if path := paths[what]:
            writers[path] = write
    if request.report:
        write_report_of(
            request.report, measured.volume, measured.labels, measured.measures, manifest, compared
        )
    return writers
