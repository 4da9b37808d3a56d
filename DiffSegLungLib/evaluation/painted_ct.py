"""The painted kinds: scores of each by us and by what stands beside us."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.evaluation.frozen import FrozenLabels
from DiffSegLungLib.evaluation.painted import KINDS, VERSION, PaintedCase, make_painted, score, truth_sha256
from DiffSegLungLib.evaluation.read_ct import OURS, rivals
from DiffSegLungLib.io.volume import canonical_image
from DiffSegLungLib.pipeline import segment


def frozen_name(kind: str) -> str:
    """What the frozen labels of a kind are called."""
    return "painted_" + re.sub(r"[^\w-]+", "_", kind)


def as_scanned(case: PaintedCase) -> sitk.Image:
    """The painted CT as a scanner stores it, in whole HU."""
    return canonical_image(np.rint(case.volume.hu).astype(np.int16), case.volume)


def score_kind(
    kind: str, data: Path, model: str | None, frozen: FrozenLabels | None = None
) -> dict[str, Any]:
    """Paint a kind, segment it, and score ours, simpler methods and frozen labels.

    Returns:
        ``kind``, ``tissue``, ``host``, ``seed``, ``truth_sha256``, and ``scores``: {method: figures}.
    """
    case = make_painted(kind, data)
    result = segment(as_scanned(case), model=model)
    sha256 = truth_sha256(case)
    maps = {OURS: result.label_array, **rivals(result)}
    maps |= frozen.labels(frozen_name(kind), sha256) if frozen else {}
    scores = {method: score(labels, case) for method, labels in maps.items()}
    return {
        "kind": kind,
        "tissue": scores[OURS]["tissue"],
        "host": case.kind.host,
        "seed": case.kind.seed,
        "truth_sha256": sha256,
        "scores": scores,
    }


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in the order of the kinds."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(rows, key=lambda row: order[row["kind"]])


def dice_by_kind(rows: Sequence[Mapping[str, Any]], method: str = OURS) -> dict[str, float]:
    """``painted`` of ``results.json``: Dice of each kind of disease; what is no disease has none."""
    return {
        row["kind"]: row["scores"][method]["dice"]
        for row in in_order(rows)
        if "dice" in row["scores"].get(method, {})
    }


def painted_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Version of the painter, and host, seed and hash of the truth of each kind."""
    kept = ("host", "seed", "truth_sha256")
    return {
        "version": VERSION,
        "kinds": {row["kind"]: {key: row[key] for key in kept} for row in in_order(rows)},
    }
