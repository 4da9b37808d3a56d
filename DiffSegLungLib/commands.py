"""What the commands do: which library call, which files, in which order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingPartError, UnusableInputError
from .progress import Progress, part

if TYPE_CHECKING:
    import SimpleITK

    from .pipeline import Result

SEGMENTATION_SUFFIX = ".seg.nrrd"
LABEL_SUFFIXES = (SEGMENTATION_SUFFIX, ".nrrd", ".nii.gz")
Writer = Callable[[Path], None]
WRITING_STARTS = 0.95
"""Share of the progress that is computing; the rest is writing."""


@dataclass(frozen=True)
class SegmentRequest:
    """One call of ``segment``: what to read, how, and what to write.

    Attributes:
        source: the CT; a file or a DICOM folder.
        output: the segmentation (.seg.nrrd) or a plain label map (.nrrd, .nii.gz).
        lungs: a lung mask, None to find the lungs.
        regions: a label map of lobes or other regions to report, None for right and left lung.
        model: name or folder of the weights, None for the default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        report: folder of the report, None for none.
        uncertainty: image of the normalised entropy, None for none.
        overview: one picture, None for none.
        manifest: None for a name made from the output's.
    """

    source: Path
    output: Path
    lungs: Path | None = None
    regions: Path | None = None
    model: str | None = None
    device: str = "auto"
    seed: int = 0
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
            "segmentation": self.output,
        }
        return {name: path for name, path in wanted.items() if path}


def bare_name(path: Path) -> str:
    """The file's name without the suffix of a label map."""
    for suffix in LABEL_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def segment_to_files(request: SegmentRequest, progress: Progress) -> Result:
    """Segments one CT and writes all that was asked for; no file appears unless all could be written.

    Args:
        request: inputs, parameters, outputs.
        progress: told of the whole work, writing included.

    Returns:
        The library's result.

    Raises:
        DiffSegLungError: unusable input or output, something missing, or cancelled.
    """
    check_request(request)
    from .pipeline import segment

    result = segment(
        request.source,
        lungs=request.lungs,
        regions=request.regions,
        model=request.model,
        device=request.device,
        seed=request.seed,
        progress=part(progress, 0.0, WRITING_STARTS),
    )
    progress("writing", WRITING_STARTS, str(request.output))
    _write_results(request, result)
    progress("done", 1.0)
    return result


def check_request(request: SegmentRequest) -> None:
    """Refuses what cannot end well, before the long work.

    Raises:
        UnusableInputError: a wrong suffix, an output that is an input or another output, a place to
            which nothing can be written.
    """
    from .outputs import IMAGE_SUFFIXES, require_writable

    _require_suffix("output", request.output, LABEL_SUFFIXES)
    _require_suffix("uncertainty", request.uncertainty, IMAGE_SUFFIXES)
    if request.uncertainty and request.uncertainty.name.endswith(SEGMENTATION_SUFFIX):
        raise UnusableInputError(f"{request.uncertainty} would not be a segmentation: end its name in .nrrd.")
    _require_suffix("overview", request.overview, (".png",))
    _require_suffix("manifest", request.manifest, (".json",))
    _require_different(request)
    for path in request.outputs.values():
        require_writable(path)
    if request.report and request.report.exists() and not request.report.is_dir():
        raise UnusableInputError(f"Report {request.report} is a file: give the name of a folder.")


def _require_suffix(what: str, path: Path | None, suffixes: Sequence[str]) -> None:
    if path and not path.name.endswith(tuple(suffixes)):
        allowed = " or ".join(suffixes)
        raise UnusableInputError(f"The name of the {what}, {path}, must end in {allowed}.")


def _require_different(request: SegmentRequest) -> None:
    for source in request.inputs:
        for output in request.outputs.values():
            if _same_file(source, output):
                raise UnusableInputError(f"Output {output} is also an input: give another name.")
    for first, second in combinations(request.outputs.values(), 2):
        if _same_file(first, second):
            raise UnusableInputError(f"Two outputs have the same name, {first}: give each its own.")


def _same_file(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.normcase(first.resolve()) == os.path.normcase(second.resolve())


def _write_results(request: SegmentRequest, result: Result) -> None:
    from .outputs import write_together

    manifest = {**result.manifest, "outputs": _written_names(request)}
    writers = {path: _writer(what, request, result, manifest) for what, path in request.outputs.items()}
    if request.report:
        _write_report(request.report, result, manifest)
    write_together(writers)


def _writer(what: str, request: SegmentRequest, result: Result, manifest: dict[str, Any]) -> Writer:
    """The function that writes one of `SegmentRequest.outputs` to the path it is given."""
    from .outputs import write_image, write_json

    if what == "manifest":
        return partial(write_json, content=manifest)
    if what == "uncertainty":
        return partial(write_image, image=result.uncertainty)
    if what == "overview":
        return partial(_write_overview, result=result)
    return partial(_write_labels, labels=result.labels)


def _write_labels(path: Path, labels: SimpleITK.Image) -> None:
    """As the name says: the segmentation of the reported tissues, or the whole label map with the vessels."""
    from .outputs import write_image, write_segmentation

    write = write_segmentation if path.name.endswith(SEGMENTATION_SUFFIX) else write_image
    write(path, labels)


def _write_overview(path: Path, result: Result) -> None:
    from .report import write_overview

    volume = result.volume
    write_overview(path, volume.hu, result.label_array, volume.spacing, volume.name, measures=result.measures)


def _write_report(folder: Path, result: Result, manifest: dict[str, Any]) -> None:
    from .report import write_report

    try:
        write_report(
            folder,
            hu=result.volume.hu,
            labels=result.label_array,
            spacing=result.volume.spacing,
            measures=result.measures,
            manifest=manifest,
            name=result.volume.name,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"Cannot write the report to {folder}: {reason}. Choose another folder."
        raise UnusableInputError(message) from error


def _written_names(request: SegmentRequest) -> dict[str, str]:
    """What was written, as seen from the manifest's folder: the folder may move as a whole."""
    folder = request.manifest_path.resolve().parent
    written = request.outputs | ({"report": request.report} if request.report else {})
    return {what: _seen_from(folder, path) for what, path in written.items() if what != "manifest"}


def _seen_from(folder: Path, path: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()


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
    from .outputs import IMAGE_SUFFIXES, require_writable, write_image, write_together

    if truth and _same_file(output, truth):
        raise UnusableInputError(f"CT and truth have the same name, {output}: give each its own.")
    for path in filter(None, (output, truth)):
        _require_suffix("phantom", path, IMAGE_SUFFIXES)
        require_writable(path)
    from .phantom import make_phantom, phantom_image, phantom_truth_image

    phantom = make_phantom((spacing,) * 3, seed, lesions)
    writers: dict[Path, Writer] = {output: lambda path: write_image(path, phantom_image(phantom))}
    if truth:
        writers[truth] = lambda path: _write_labels(path, phantom_truth_image(phantom))
    write_together(writers)


def models_table() -> str:
    """The installed models, one a line: name, version, start of the checksum, folder."""
    from .models import list_models

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
    from .models import list_models, verify

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
