"""Results as files: labels, tables and the report of one CT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.deciding import deciding_weights
from DiffSegLungLib.io.files import SEGMENTATION_SUFFIX

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import SimpleITK

    from DiffSegLungLib.export.segmentation_file import Segment
    from DiffSegLungLib.io.volume import Volume
    from DiffSegLungLib.quantify.comparison import Compared


def model_provenance(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Name, version and checksum of the model, as a DICOM segmentation keeps them; empty if unknown.

    The checksum is that of the weights that decide.
    """
    model = manifest.get("model")
    if not isinstance(model, Mapping):
        return {}
    facts = {
        "model": model.get("name"),
        "version": model.get("version"),
        "sha256": deciding_weights(model)[1],
    }
    return {name: str(value) for name, value in facts.items() if value}


def write_labels(path: Path, labels: SimpleITK.Image, segments: Sequence[Segment]) -> None:
    """As the name says: a segmentation of the segments, or the whole label map with what is no segment."""
    from DiffSegLungLib.export.segmentation_file import write_image, write_segmentation

    if path.name.endswith(SEGMENTATION_SUFFIX):
        write_segmentation(path, labels, segments)
    else:
        write_image(path, labels)


def write_table(path: Path, measures: pandas.DataFrame) -> None:
    """The measures as CSV, every digit kept; the same file as in the report's folder."""
    from DiffSegLungLib.io.atomic import write_text

    write_text(path, measures.to_csv(lineterminator="\n"))


def write_report_of(
    folder: Path,
    volume: Volume,
    labels: np.ndarray,
    measures: pandas.DataFrame,
    manifest: Mapping[str, Any],
    compared: Compared | None = None,
) -> None:
    """Writes the report's folder.

    Args:
        folder: made if it is not there.
        volume: the CT.
        labels: uint8 (z, y, x), canonical axes.
        measures: of the labels.
        manifest: of the run.
        compared: with an earlier point in time, None for none.

    Raises:
        UnusableInputError: it cannot be written there.
    """
    from DiffSegLungLib.export.report import write_report

    try:
        write_report(
            folder,
            hu=volume.hu,
            labels=labels,
            spacing=volume.spacing,
            measures=measures,
            manifest=manifest,
            name=volume.name,
            compared=compared,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"Cannot write the report to {folder}: {reason}. Choose another folder."
        raise UnusableInputError(message) from error
