"""The CT that readers marked: what each serves for, and its scores and those of what stands beside us.

The readers saw the CT alone, never a software's result; they are careful, but no radiologists.  The network
is not trained on what they marked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation import baselines
from DiffSegLungLib.evaluation.frozen import FrozenLabels
from DiffSegLungLib.evaluation.readings import (
    Reading,
    SliceTruth,
    load_reading,
    score,
    score_reader,
    truth_of,
)
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.pipeline import segment

OURS, SECOND_READER = "DiffSegLung", "second reader"
TUNING, REPORTED, FALSE_ALARMS = "tuning", "reported", "false alarms"
FOLDERS = ("ct", "train")
EDGE = 4
"""Voxels around the lungs, so that no filter sees an end."""


@dataclass(frozen=True)
class ReadCt:
    """A CT with readings.

    Attributes:
        name: path below the data folder, without suffix.
        use: ``tuning``: looked at while the method changes; ``reported``: run once a landing;
            ``false alarms``: holds so little disease that it is judged by false alarms and lesions found.
        counts_as: CT of the same name count as one in the mean; none for the CT's own.
        in_mean: whether the mean is over it.
        cropped: whether it is a crop that is run with its lung mask.
        trained_on: whether the model of d6e853b saw it, for models that do not say.
    """

    name: str
    use: str
    counts_as: str = ""
    in_mean: bool = True
    cropped: bool = False
    trained_on: bool = False

    @property
    def case(self) -> str:
        """As the readings call it."""
        return self.name.split("/")[-1]


ELASTIX = "elastix_lung"
READ_CT = (
    ReadCt("train/P001", TUNING, trained_on=True),
    ReadCt("train/P002", TUNING),
    ReadCt("train/cap001", TUNING, trained_on=True),
    ReadCt("train/LIDC-IDRI-0314", TUNING, trained_on=True),
    ReadCt("ct/LCTSC-Test-S1-203", REPORTED),
    ReadCt("ct/Lung_Dx-A0001_B", REPORTED),
    ReadCt("train/RIDERPilot-0109", REPORTED),
    ReadCt("train/elastix_lung_baseline", REPORTED, ELASTIX, cropped=True),
    ReadCt("train/elastix_lung_followup", REPORTED, ELASTIX, cropped=True),
    ReadCt("train/LCTSC-Test-S1-104", FALSE_ALARMS, in_mean=False, trained_on=True),
    ReadCt("train/4DLung-P113-40B", FALSE_ALARMS, in_mean=False),
)
"""The first eight, the two of one lung as one, are what the mean is over."""


def read_ct(data: Path, tuning: bool = False) -> list[ReadCt]:
    """The CT with readings below the data folder, those of the table first; the mean leaves others out.

    Args:
        data: the data folder.
        tuning: those alone that the method may be tuned on.

    Raises:
        MissingPartError: there is no reading.
    """
    there = {path.stem.rsplit("_", 1)[0] for path in (data / "readings").glob("*_?.json")}
    if not there:
        raise MissingPartError(f"no readings in {data / 'readings'}: take the data folder that holds them.")
    known = [ct for ct in READ_CT if ct.case in there]
    if tuning:
        return [ct for ct in known if ct.use == TUNING]
    others = sorted(there - {ct.case for ct in known})
    return known + [ReadCt(_place(case, data), REPORTED, in_mean=False) for case in others]


def _place(case: str, data: Path) -> str:
    """Path of a CT below the data folder, without suffix."""
    for folder in FOLDERS:
        if (data / folder / f"{case}.nii.gz").exists():
            return f"{folder}/{case}"
    raise MissingPartError(f"{case} has a reading, but no CT in {data}: put {case}.nii.gz into ct.")


def readings_of(ct: ReadCt, data: Path) -> list[Reading]:
    """Every reading of a CT, by reader."""
    return [load_reading(path) for path in sorted((data / "readings").glob(f"{ct.case}_?.json"))]


def segment_read(ct: ReadCt, data: Path, model: str | None) -> Result:
    """Segment a CT as it is to be scored: a crop with its lung mask."""
    mask = data / f"{ct.name}_lungmask.nii.gz"
    return segment(data / f"{ct.name}.nii.gz", lungs=mask if ct.cropped else None, model=model)


def score_ct(
    ct: ReadCt, result: Result, readings: Sequence[Reading], frozen: FrozenLabels | None = None
) -> dict[str, Any]:
    """The scores of a CT: ours, simpler methods, frozen labels and the other reader, by each reading.

    Args:
        ct: which.
        result: of :func:`segment_read`.
        readings: of it.
        frozen: labels of an earlier state, where there are some.

    Returns:
        Plain numbers, ``scores``: {reader: {method: figures}}; and ``picture``, for :mod:`reading_figures`.
    """
    hu, spacing = result.volume.hu, result.volume.spacing
    truths = {reading.reader: truth_of(reading, hu, spacing) for reading in readings}
    maps = {OURS: result.label_array, **rivals(result)}
    maps |= frozen.labels(ct.case) if frozen else {}
    scores: dict[str, dict[str, Any]] = {}
    for reader, truth in truths.items():
        scores[reader] = {method: score(truth, labels, spacing) for method, labels in maps.items()}
        for other in truths.keys() - {reader}:
            lungs = result.label_array > 0
            scores[reader][SECOND_READER] = score_reader(truth, truths[other], lungs, spacing)
    return {
        "name": ct.name,
        "scores": scores,
        "picture": _picture(readings[0], truths[readings[0].reader], result),
        "warnings": list(result.manifest["warnings"]),
    }


def rivals(result: Result) -> dict[str, np.ndarray]:
    """Labels by thresholds, before and after an opening, on our lungs and the CT's own grid."""
    lungs = result.label_array > 0
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(lungs))
    # What lies around the lungs is aerated for them: the chest wall would make a rim of disease.
    around = np.where(lungs[box], result.volume.hu[box], baselines.AROUND_HU).astype(np.float32)
    hu = np.pad(around, EDGE, constant_values=baselines.AROUND_HU)
    found = {
        "thresholds": baselines.fixed_thresholds(hu),
        "thresholds after opening": baselines.opened_thresholds(hu, result.volume.spacing),
    }
    inner = (slice(EDGE, -EDGE),) * 3
    maps = {name: np.zeros(lungs.shape, np.uint8) for name in found}
    for name, labels in found.items():
        maps[name][box] = labels[inner] * lungs[box]
    return maps


def _picture(reading: Reading, truth: Mapping[int, SliceTruth], result: Result) -> dict[str, Any]:
    """The slice with most marked disease, cropped to the lungs."""
    z = max(truth, key=lambda index: int((truth[index].labels > 0).sum()))
    rows, columns = (np.flatnonzero((result.label_array > 0).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = tuple(
        slice(max(int(where[0]) - 12, 0), int(where[-1]) + 13) if where.size else slice(None)
        for where in (rows, columns)
    )
    return {
        "z": z,
        "reader": reading.reader,
        "origin": [side.start or 0 for side in box],
        "spacing": list(result.volume.spacing[1:]),
        "hu": result.volume.hu[z][box].astype(np.int16),
        "labels": result.label_array[z][box],
        "marks": [vars(mark) for mark in reading.marks if mark.z == z],
    }


# --- figures ---------------------------------------------------------------------------------------------


def figures_by_case(rows: Sequence[Mapping[str, Any]], trained: Mapping[str, bool]) -> dict[str, Any]:
    """``readings`` of ``results.json``: {case: {reader: figures}}."""
    result: dict[str, Any] = {}
    for ct, row in _in_order(rows):
        extra = {"use": ct.use, "trained_on": trained[ct.case]}
        result[ct.case] = {reader: {**methods[OURS], **extra} for reader, methods in row["scores"].items()}
    return result


def second_reader(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Dice of the other reader by the one who judges: {case: {reader: dice}}."""
    return {
        ct.case: {reader: methods[SECOND_READER]["dice"] for reader, methods in row["scores"].items()}
        for ct, row in _in_order(rows)
        if all(SECOND_READER in methods for methods in row["scores"].values())
    }


def dice_of(rows: Sequence[Mapping[str, Any]], method: str) -> dict[str, dict[str, float]]:
    """Dice of one method: {case: {reader: dice}}."""
    return {
        ct.case: {reader: by[method]["dice"] for reader, by in row["scores"].items() if method in by}
        for ct, row in _in_order(rows)
    }


def mean_dice(rows: Sequence[Mapping[str, Any]], method: str) -> float:
    """Mean Dice over the CT that count, the readers of a CT and the CT of one lung averaged first.

    NaN where the method is missing for one of them.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for ct, row in _in_order(rows):
        if ct.in_mean:
            values = [by[method]["dice"] if method in by else np.nan for by in row["scores"].values()]
            groups[ct.counts_as or ct.case].append(float(np.mean(values)))
    return float(np.mean([np.mean(values) for values in groups.values()])) if groups else float("nan")


def methods_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what stands beside us on every CT, in the order of the scores."""
    names = [name for row in rows for methods in row["scores"].values() for name in methods]
    return [name for name in dict.fromkeys(names) if name not in (OURS, SECOND_READER)]


def _in_order(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[ReadCt, Mapping[str, Any]]]:
    """Rows with their CT, in the table's order."""
    table = {ct.name: (place, ct) for place, ct in enumerate(READ_CT)}
    unknown = len(READ_CT)
    pairs = [
        (*table.get(row["name"], (unknown, ReadCt(row["name"], REPORTED, in_mean=False))), row)
        for row in rows
    ]
    for _, ct, row in sorted(pairs, key=lambda pair: (pair[0], pair[1].name)):
        yield ct, row


# --- training data ---------------------------------------------------------------------------------------


def trained_on(cases: Sequence[str], description: Mapping[str, Any]) -> dict[str, bool]:
    """Which CT a model was trained on, by its description; by the table where that says nothing.

    Args:
        cases: names of the CT.
        description: ``model.json``.
    """
    listed = {name for text in _training_data(description) for name in _names(text)}
    table = {ct.case: ct.trained_on for ct in READ_CT}
    return {case: case in listed if listed else table.get(case, False) for case in cases}


def _training_data(description: Any, within: bool = False) -> Iterator[str]:
    """Every text below a key ``training_data``, wherever it stands."""
    if isinstance(description, str) and within:
        yield description
    elif isinstance(description, list):
        for item in description:
            yield from _training_data(item, within)
    elif isinstance(description, dict):
        for key, item in description.items():
            yield from _training_data(item, within or key == "training_data")


def _names(text: str) -> list[str]:
    """Names of CT in a text; ``LIDC-IDRI-0003, -0314`` names two."""
    names: list[str] = []
    for word in re.split(r"[,\s]+", text):
        shortened = word.startswith("-") and names
        names.append(names[-1].rsplit("-", 1)[0] + word if shortened else word)
    return names
