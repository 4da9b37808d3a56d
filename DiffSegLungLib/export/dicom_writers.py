"""Write the DICOM segmentation and report of a result, without letting a fault of theirs take the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from DiffSegLungLib.errors import DiffSegLungError, IncompleteOutputError, is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from pydicom import Dataset

    from DiffSegLungLib.io.volume import Volume


@dataclass
class DicomWriters:
    """Write the DICOM segmentation and the report that refers to it: both need the same new identifiers.

    Attributes:
        labels: uint8 (z, y, x), canonical axes.
        volume: the CT.
        measures: of the labels.
        provenance: of the model; see `commands.model_provenance`.
        corrected: whether a person corrected the labels.
        faults: of what could not be made, by what it is.
    """

    labels: np.ndarray
    volume: Volume
    measures: pandas.DataFrame
    provenance: Mapping[str, str]
    corrected: bool = False
    faults: dict[str, Exception] = field(default_factory=dict)

    @cached_property
    def _segmentation(self) -> Dataset:
        from DiffSegLungLib.export.dicom_seg import build_dicom_seg

        return build_dicom_seg(self.labels, self.volume, self.corrected, self.provenance)

    @cached_property
    def _report(self) -> Dataset:
        from DiffSegLungLib.export.dicom_sr import build_dicom_sr

        return build_dicom_sr(self._segmentation, self.volume, self.measures)

    def segmentation(self, path: Path) -> None:
        """Writes the DICOM SEG."""
        self._segmentation.save_as(path)

    def report(self, path: Path) -> None:
        """Writes the DICOM SR."""
        self._report.save_as(path)

    def writers(self, segmentation: Path | None, report: Path | None) -> dict[str, Callable[[Path], None]]:
        """What writes ``dicom_seg`` and ``dicom_sr``, of those that are wanted and could be made.

        Why one could not is kept in ``faults``, for `raise_fault` when all else is written.
        """
        made: dict[str, Callable[[Path], None]] = {}
        for what, path, write in (
            ("dicom_seg", segmentation, self.segmentation),
            ("dicom_sr", report, self.report),
        ):
            try:
                if path:
                    self._make(what)
                    made[what] = write
            except Exception as error:  # noqa: BLE001 - the library has many ways to fail
                if is_out_of_memory(error):
                    raise
                self.faults[what] = error
        return made

    def _make(self, what: str) -> None:
        _ = self._segmentation if what == "dicom_seg" else self._report

    def raise_fault(self) -> None:
        """Says, once all else is written, what could not be.

        Raises:
            IncompleteOutputError: the DICOM segmentation or report could not be made.
        """
        for what, error in self.faults.items():
            name = {"dicom_seg": "DICOM segmentation", "dicom_sr": "DICOM report"}[what]
            reason = str(error) if isinstance(error, DiffSegLungError) else f"{type(error).__name__}: {error}"
            raise IncompleteOutputError(
                f"The {name} could not be made ({reason.rstrip('.')}); all other files were written."
            ) from error
