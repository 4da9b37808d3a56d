"""How a case of the battery is run and judged; the cases themselves are in ``cases``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import SimpleITK as sitk

from DiffSegLungLib.io.volume import load_volume
from Testing.robustness.scans import Maker

OUTPUT = "out/result.seg.nrrd"
LARGEST_HASHED = 50_000_000
WRONG_USE, MISSING = 2, 3


@dataclass(frozen=True)
class Case:
    """One input and what must come of it.

    Attributes:
        name: unique; the test's name.
        make: writes the input into a folder and returns the CT's path.
        sentence: what the refusal says, a regular expression; empty where the CT is taken.
        status: exit status.
        checks: what must hold of the result; each raises AssertionError.
        words: more of the command line; ``{folder}`` is the case's folder.
        within: a program that the command runs within, in a process of its own.
    """

    name: str
    make: Maker
    sentence: str = ""
    status: int = 0
    checks: tuple[Check, ...] = ()
    words: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    @property
    def is_slow(self) -> bool:
        """Whether it computes a whole segmentation or needs a process of its own."""
        return self.status == 0 or bool(self.within)


def refused(
    name: str, make: Maker, sentence: str, *words: str, status: int = WRONG_USE, within: Sequence[str] = ()
) -> Case:
    """A case that ends with one sentence and without any file."""
    return Case(name, make, sentence, status, words=words, within=tuple(within))


def taken(name: str, make: Maker, *checks: Check, words: Sequence[str] = ()) -> Case:
    """A case that gives a segmentation; every one is also checked for geometry, numbers and its manifest."""
    return Case(name, make, checks=checks, words=tuple(words))


@dataclass(frozen=True)
class Outcome:
    """What the command left."""

    folder: Path
    source: Path
    status: int
    error: str
    plain: Outcome | None = field(default=None, repr=False)
    """The outcome of the unchanged chest, to compare with."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "out/result.manifest.json").read_text("utf-8"))
        return content

    @cached_property
    def labels(self) -> sitk.Image:
        return sitk.ReadImage(str(self.folder / OUTPUT))

    @cached_property
    def measures(self) -> pandas.Series:
        """Of the whole lung."""
        return pandas.read_csv(self.folder / "out/measures.csv", index_col=0).loc["whole lung"]

    @property
    def files(self) -> list[str]:
        """All that lies where the output was asked for, temporary files included."""
        return sorted(path.name for path in (self.folder / "out").rglob("*") if path.is_file())


Check = Callable[[Outcome], None]


def command_for(case: Case, source: Path, folder: Path) -> list[str]:
    """The words of the command line; a case's own ``-o`` takes the place of the usual one."""
    own = [word.replace("{folder}", str(folder)) for word in case.words]
    usual = (
        [] if "-o" in own else ["-o", str(folder / OUTPUT), "--measures", str(folder / "out/measures.csv")]
    )
    quality = [] if "--quality" in own else ["--quality", "fast"]
    device = [] if "--device" in own else ["--device", "cpu"]
    return ["segment", str(source), *usual, *quality, *device, "--progress", "none", *own]


def judge(case: Case, outcome: Outcome) -> None:
    """Raises AssertionError where the outcome is not the expected one."""
    assert outcome.status == case.status, f"exit status {outcome.status}: {outcome.error}"
    if case.sentence:
        _judge_refusal(case, outcome)
    else:
        _judge_result(outcome)
        for check in case.checks:
            check(outcome)


def _judge_refusal(case: Case, outcome: Outcome) -> None:
    """One line with what, where and a remedy; nothing written."""
    lines = outcome.error.splitlines()
    assert len(lines) == 1 and lines[0].startswith("diffseglung: error: "), outcome.error
    assert re.search(case.sentence, lines[0]), lines[0]
    assert re.search(r"[;:(] ?\w|\. [A-Z]", lines[0][20:]), f"no remedy: {lines[0]}"
    assert outcome.files == []


def _judge_result(outcome: Outcome) -> None:
    """Quiet, whole, on the CT's own grid, with numbers that the labels bear out."""
    assert outcome.error == ""
    assert not [name for name in outcome.files if name.startswith(".")]
    volume, labels = load_volume(outcome.source), outcome.labels
    assert labels.GetSize() == volume.input_geometry.size
    assert np.allclose(labels.GetSpacing(), volume.input_geometry.spacing, rtol=1e-5)
    assert np.allclose(labels.GetOrigin(), volume.input_geometry.origin, atol=1e-3)
    assert np.allclose(labels.GetDirection(), volume.input_geometry.direction, atol=1e-5)
    assert set(np.unique(sitk.GetArrayViewFromImage(labels))) <= set(range(7))
    measures = outcome.measures.astype(float)
    tissues = [name for name in measures.index if name.endswith("_percent") and name.split("_")[0] in SHARES]
    assert measures[tissues].sum() == (0 if measures[tissues].isna().all() else _about(100))
    labelled = np.count_nonzero(sitk.GetArrayViewFromImage(labels)) * volume.voxel_ml
    assert labelled + measures["vessel_ml"] == _about(measures["lung_ml"])


SHARES = ("healthy", "emphysema", "ground-glass", "fibrosis", "consolidation", "cavity")


def _about(number: float, rel: float = 1e-3) -> Any:
    import pytest

    return pytest.approx(number, rel=rel, abs=0.05)


# --- checks ----------------------------------------------------------------------------------------------


def warns(*sentences: str) -> Check:
    """The manifest warns with each of the sentences (regular expressions)."""

    def check(outcome: Outcome) -> None:
        for sentence in sentences:
            assert any(re.search(sentence, each) for each in outcome.manifest["warnings"]), outcome.manifest[
                "warnings"
            ]

    return check


def silent(sentence: str) -> Check:
    """The manifest does not warn so."""

    def check(outcome: Outcome) -> None:
        assert not [each for each in outcome.manifest["warnings"] if re.search(sentence, each)]

    return check


def between(measure: str, least: float, most: float) -> Check:
    """A measure of the whole lung lies in a range."""

    def check(outcome: Outcome) -> None:
        assert least <= outcome.measures[measure] <= most, f"{measure} {outcome.measures[measure]:.2f}"

    return check


def like_the_plain_chest(relative: float = 0.03, points: float = 2.0) -> Check:
    """Lung volume within a share, tissues within percentage points of the unchanged chest's."""

    def check(outcome: Outcome) -> None:
        assert outcome.plain is not None
        here, there = outcome.measures, outcome.plain.measures
        assert here["lung_ml"] == _about(there["lung_ml"], relative), (here["lung_ml"], there["lung_ml"])
        for name in SHARES:
            change = here[f"{name}_percent"] - there[f"{name}_percent"]
            assert abs(change) <= points, f"{name} {change:+.2f} points"

    return check


def same_labels(back: Callable[[sitk.Image], sitk.Image], share: float = 0.99) -> Check:
    """Turned ``back``, the labels are those of the unchanged chest, voxel by voxel within the lungs."""

    def check(outcome: Outcome) -> None:
        assert outcome.plain is not None
        ours = sitk.GetArrayFromImage(back(outcome.labels))
        theirs = sitk.GetArrayFromImage(outcome.plain.labels)
        lungs = (ours > 0) | (theirs > 0)
        agree = float((ours == theirs)[lungs].mean())
        assert agree >= share, f"{agree:.4f} of the labels agree"

    return check


def digest(path: Path) -> str:
    """What an input holds, so that a case can tell whether it was changed."""
    if not os.path.isfile(path) or path.stat().st_size > LARGEST_HASHED:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()
