"""What the commands do: which library call, which files, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.export.labels import model_provenance, write_labels, write_report_of, write_table
from DiffSegLungLib.io.atomic import require_places
from DiffSegLungLib.io.files import (
    LABEL_SUFFIXES,
    SEGMENTATION_SUFFIX,
    bare_name,
    require_different,
    require_suffix,
    require_there,
    same_file,
    seen_from,
)
from DiffSegLungLib.progress import Progress, part
from DiffSegLungLib.representation.quality import STANDARD, quality_of

if TYPE_CHECKING:
    from DiffSegLungLib.export.result import Result

Writer = Callable[[Path], None]
FIELD_SUFFIX = ".safetensors"
WRITING_STARTS = 0.95
"""Share of the progress that is computing; the rest is writing."""


@dataclass(frozen=True)
class SegmentRequest:
    """One call of ``segment``: what to read, how, and what to write.

    Attributes:
        source: the CT; a file or a DICOM folder.
        output: the segmentation (.seg.nrrd) or a plain label map (.nrrd, .nii.gz).
        lungs: a lung mask, None to find the lungs.
        series: Series Number or UID to take of a DICOM folder, None for the one that a reader would take.
        name: what manifest, pictures and report call the CT, None for a name that tells nobody's.
        classical_lungs: find the lungs without the model's lung network.
        regions: lobes or other regions to report, None for right and left lung.
        model: name or folder of the weights, None for the default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        quality: ``fast``, ``standard`` or ``best``.
        save_lungs: the lung mask, named like the output; None for none.
        save_field: what strokes need to correct the result (.safetensors), None for none.
        measures: the table (.csv), None for none.
        dicom_seg: the segmentation as DICOM SEG (.dcm), None for none.
        dicom_sr: the measures as DICOM SR (.dcm), which refers to the DICOM SEG; None for none.
        report: folder of the report, None for none.
        uncertainty: image of the normalised entropy, None for none.
        overview: one picture, None for none.
        manifest: None for a name made from the output's.
    """

    source: Path
    output: Path
    series: str | None = None
    name: str | None = None
    lungs: Path | None = None
    classical_lungs: bool = False
    regions: Path | None = None
    model: str | None = None
    device: str = "auto"
    seed: int = 0
    quality: str = STANDARD
    save_lungs: Path | None = None
    save_field: Path | None = None
    measures: Path | None = None
    dicom_seg: Path | None = None
    dicom_sr: Path | None = None
    report: Path | None = None
    uncertainty: Path | None = None
    overview: Path | None = None
    manifest: Path | None = None

    @property
    def manifest_path(self) -> Path:
        """Beside the output: ``ct.seg.nrrd`` has ``ct.manifest.json``."""
        return self.manifest or self.output.with_name(bare_name(self.output) + ".manifest.json")

    @property
    def inputs(self) -> list[Path]:
        """What is read and must not be overwritten."""
        return [path for path in (self.source, self.lungs, self.regions) if path]

    @property
    def outputs(self) -> dict[str, Path]:
        """The files to write, by what they are; the manifest first, since it shall appear last."""
        wanted = {
            "manifest": self.manifest_path,
            "uncertainty": self.uncertainty,
            "overview": self.overview,
            "measures": self.measures,
            "lungs": self.save_lungs,
            "field": self.save_field,
            "dicom_seg": self.dicom_seg,
            "dicom_sr": self.dicom_sr,
            "segmentation": self.output,
        }
        return {name: path for name, path in wanted.items() if path}


def segment_to_files(request: SegmentRequest, progress: Progress) -> Result:
    """Segments one CT and writes all that was asked for; no file appears unless all could be written.

    Only a DICOM output that cannot be made of the CT's headers is left out, and said when the rest is there.

    Args:
        request: inputs, parameters, outputs.
        progress: told of the whole work, writing included.

    Returns:
        The library's result.

    Raises:
        DiffSegLungError: unusable input or output, something missing, or cancelled.
    """
    check_request(request)
    from DiffSegLungLib.pipeline import segment

    result = segment(
        request.source,
        lungs=request.lungs,
        regions=request.regions,
        model=request.model,
        device=request.device,
        seed=request.seed,
        quality=request.quality,
        classical_lungs=request.classical_lungs,
        series=request.series,
        name=request.name,
        progress=part(progress, 0.0, WRITING_STARTS),
    )
    progress("writing", WRITING_STARTS, str(request.output))
    write_results(request, result)
    progress("done", 1.0)
    return result


def check_request(request: SegmentRequest) -> None:
    """Refuses what cannot end well, before the long work.

    Raises:
        UnusableInputError: a wrong suffix or quality, an output that is an input or another output, a place
            to which nothing can be written, a DICOM SEG of what is no DICOM or has no identifiers, a NIfTI of
            a sheared CT.
        MissingPartError: the package that writes DICOM SEG.
    """
    from DiffSegLungLib.anatomy import THIRDS
    from DiffSegLungLib.export.segmentation_file import IMAGE_SUFFIXES

    quality_of(request.quality)
    require_suffix("output", request.output, LABEL_SUFFIXES)
    require_suffix("lung mask", request.save_lungs, LABEL_SUFFIXES)
    require_suffix("uncertainty", request.uncertainty, IMAGE_SUFFIXES)
    if request.uncertainty and request.uncertainty.name.endswith(SEGMENTATION_SUFFIX):
        raise UnusableInputError(f"{request.uncertainty} would not be a segmentation: end its name in .nrrd.")
    require_suffix("overview", request.overview, (".png",))
    require_suffix("manifest", request.manifest, (".json",))
    require_suffix("field", request.save_field, (FIELD_SUFFIX,))
    require_suffix("measures", request.measures, (".csv",))
    require_different(request.inputs, request.outputs.values())
    for path in request.inputs:
        if str(path) != THIRDS:
            require_there(path)
    check_dicom(request.dicom_seg, request.dicom_sr, request.source)
    require_places(request.outputs.values(), request.report)
    from DiffSegLungLib.export.output_checks import require_fitting

    outputs = request.outputs.values()
    require_fitting(request.source, request.series, outputs, request.dicom_seg is not None)


def check_dicom(segmentation: Path | None, report: Path | None, source: Path) -> None:
    """Refuses a DICOM SEG or SR that could not be written in the end.

    Raises:
        UnusableInputError: a wrong suffix, the CT is no DICOM, or an SR without its SEG.
        MissingPartError: highdicom is not installed.
    """
    if segmentation is None and report is None:
        return
    require_suffix("DICOM segmentation", segmentation, (".dcm",))
    require_suffix("DICOM report", report, (".dcm",))
    if segmentation is None:
        raise UnusableInputError("A DICOM report refers to the DICOM segmentation: give --dicom-seg, too.")
    from DiffSegLungLib.export.dicom_seg import require_dicom, require_highdicom

    require_highdicom()
    require_dicom(source)


def write_results(request: SegmentRequest, result: Result) -> None:
    """Write all that was asked for of a result, together."""
    from DiffSegLungLib.export.correction import NO_FIELD, is_corrected
    from DiffSegLungLib.export.dicom_writers import DicomWriters
    from DiffSegLungLib.io.atomic import write_together

    provenance = model_provenance(result.manifest)
    corrected = is_corrected(result.manifest)
    dicom = DicomWriters(result.label_array, result.volume, result.measures, provenance, corrected)
    made = dicom.writers(request.dicom_seg, request.dicom_sr)
    keeps_nothing = request.save_field is not None and result.field is None
    left_out = dict.fromkeys([*dicom.faults, *(["save_field"] if keeps_nothing else [])])
    wanted = replace(request, **left_out)  # type: ignore[arg-type]
    warnings = [*result.manifest["warnings"], *([NO_FIELD] if keeps_nothing else [])]
    manifest = {**result.manifest, "warnings": warnings, "outputs": _written_names(wanted)}
    writers = {
        path: made.get(what) or _writer(what, request, result, manifest)
        for what, path in wanted.outputs.items()
    }
    if request.report:
        write_report_of(request.report, result.volume, result.label_array, result.measures, manifest)
    write_together(writers)
    dicom.raise_fault()


def _writer(what: str, request: SegmentRequest, result: Result, manifest: dict[str, Any]) -> Writer:
    """The function that writes one of `SegmentRequest.outputs`, beside DICOM, to the path it is given."""
    from DiffSegLungLib.export.segmentation_file import LUNG_SEGMENTS, TISSUE_SEGMENTS, write_image
    from DiffSegLungLib.io.atomic import write_json

    writers: dict[str, Writer] = {
        "manifest": partial(write_json, content=manifest),
        "uncertainty": lambda path: write_image(path, result.uncertainty),  # made when it is asked for
        "overview": partial(_write_overview, result=result),
        "measures": partial(write_table, measures=result.measures),
        "field": partial(_write_field, result=result),
        "lungs": partial(write_labels, labels=result.lungs, segments=LUNG_SEGMENTS),
        "segmentation": partial(write_labels, labels=result.labels, segments=TISSUE_SEGMENTS),
    }
    return writers[what]


def _write_field(path: Path, result: Result) -> None:
    from DiffSegLungLib.decision.field import save

    assert result.field is not None
    save(result.field, path)


def _write_overview(path: Path, result: Result) -> None:
    from DiffSegLungLib.export.report import write_overview

    volume = result.volume
    write_overview(path, volume.hu, result.label_array, volume.spacing, volume.name, measures=result.measures)


def _written_names(request: SegmentRequest) -> dict[str, str]:
    """What was written, as seen from the manifest's folder: the folder may move as a whole."""
    folder = request.manifest_path.resolve().parent
    from DiffSegLungLib.export.report import PDF_NAME

    folders = {"report": request.report, "report_pdf": request.report / PDF_NAME} if request.report else {}
    written = request.outputs | folders
    return {what: seen_from(folder, path) for what, path in written.items() if what != "manifest"}


def phantom_to_files(
    output: Path,
    truth: Path | None = None,
    spacing: float = 1.5,
    seed: int = 0,
    lesions: Sequence[str] | None = None,
) -> None:
    """Writes a synthetic CT and, if asked for, its true label map; both or none appear.

    Args:
        output: name of the CT.
        truth: name of the label map.
        spacing: in mm, the same along each axis.
        seed: of shapes and noise.
        lesions: keys of `tissues.DISEASES`; None for all, empty for none.

    Raises:
        UnusableInputError: an unknown lesion, an impossible spacing, or a place where nothing can be written.
    """
    from DiffSegLungLib.export.segmentation_file import IMAGE_SUFFIXES, TISSUE_SEGMENTS, write_image
    from DiffSegLungLib.io.atomic import require_writable, write_together

    if truth and same_file(output, truth):
        raise UnusableInputError(f"CT and truth have the same name, {output}: give each its own.")
    for path in filter(None, (output, truth)):
        require_suffix("phantom", path, IMAGE_SUFFIXES)
        require_writable(path)
    from DiffSegLungLib.phantom import make_phantom, phantom_image, phantom_truth_image

    phantom = make_phantom((spacing,) * 3, seed, lesions)
    writers: dict[Path, Writer] = {output: lambda path: write_image(path, phantom_image(phantom))}
    if truth:
        writers[truth] = lambda path: write_labels(path, phantom_truth_image(phantom), TISSUE_SEGMENTS)
    write_together(writers)


def models_table() -> str:
    """The installed models, one a line: name, version, start of the checksum, folder."""
    from DiffSegLungLib.models.store import list_models

    rows = [("name", "version", "sha256", "folder")]
    rows += [(model.name, model.version, model.sha256[:12], str(model.folder)) for model in list_models()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    return "\n".join(lines)


def verify_models(name: str | None, report: Callable[[str], None]) -> None:
    """Checks the checksums of one model, or of all installed ones.

    Args:
        name: name or folder of a model; None for all.
        report: told one line for each model that is sound.

    Raises:
        MissingPartError: no model is there, or the first damaged one; the others are checked all the same.
    """
    from DiffSegLungLib.models.store import list_models, verify

    names = [name] if name else [model.name for model in list_models()]
    if not names:
        raise MissingPartError("No model is installed: reinstall DiffSegLung, or set DIFFSEGLUNG_MODELS.")
    damaged: list[MissingPartError] = []
    for each in names:
        try:
            verify(each)
            report(f"{each}: sound")
        except MissingPartError as error:
            report(f"{each}: damaged")
            damaged.append(error)
    if damaged:
        raise damaged[0]
