"""Strokes in a result that somebody corrects: what was painted, spread, taken back, and spread again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.correction import NO_FIELD, corrected_manifest
from DiffSegLungLib.export.deciding import deciding_weights
from DiffSegLungLib.tissues import BY_KEY, OUTSIDE, VESSEL

if TYPE_CHECKING:
    from DiffSegLungLib.decision.field import Field
    from DiffSegLungLib.decision.strokes import Spread
    from DiffSegLungLib.io.volume import Volume

NOTHING_PAINTED = "Nothing was painted since the segmentation: paint or erase where it is wrong, then spread."
OTHER_WEIGHTS = (
    "This result was made by other weights ({:.8}) than those at hand ({:.8}): segment the CT again, then "
    "paint."
)
LEAST_ML = 0.1
"""Less that moved from tissue to tissue is not worth a line."""


@dataclass(frozen=True)
class Done:
    """One spread.

    Attributes:
        before: labels as they were shown, strokes painted in them.
        after: labels as they are shown then; what is no segment is 0.
        strokes: all that counted.
        spread: what the library says of it.
    """

    before: np.ndarray
    after: np.ndarray
    strokes: np.ndarray
    spread: Spread

    def holds(self, labels: np.ndarray) -> bool:
        """Whether it was not taken back: most of what it changed is still as it left it."""
        changed = self.before != self.after
        return not changed.any() or bool((labels[changed] == self.after[changed]).mean() > 0.5)


@dataclass
class Spreads:
    """The spreads of one result.

    Attributes:
        labels: uint8 (z, y, x), as the run or a file left them, with 0 for what is no segment.
        sides: uint8 (z, y, x), 1 right lung, 2 left.
        manifest: of the run.
        field: what the run kept for strokes; None before the first spread.
        decided: what the run decided; None before the first spread.
        done: spreads so far, those that were taken back among them.
    """

    labels: np.ndarray
    sides: np.ndarray
    manifest: Mapping[str, Any]
    field: Field | None = None
    decided: np.ndarray | None = None
    done: list[Done] = dataclasses.field(default_factory=list)

    def load(self, path: Path, volume: Volume) -> None:
        """Read what a run kept.

        Raises:
            UnusableInputError: nothing was kept, it is damaged, of another CT, or by other weights.
        """
        from DiffSegLungLib.decision.field import load
        from DiffSegLungLib.decision.strokes import decided_labels

        if not path.is_file():
            raise UnusableInputError(NO_FIELD)
        kept = load(path)
        kept.require_fits(volume)
        _, made_by = deciding_weights(self.manifest.get("model", {}))
        if made_by and made_by != kept.model:
            raise UnusableInputError(OTHER_WEIGHTS.format(made_by, kept.model))
        self.field, self.decided = kept, decided_labels(kept, volume)

    def start_from_decided(self) -> None:
        """Whatever was changed since the run counts as painted; ``load`` comes before."""
        assert self.field is not None and self.decided is not None
        self.labels = np.where(self.decided == VESSEL, np.uint8(OUTSIDE), self.decided)
        self.sides = self.field.sides_on_ct()

    def last(self, labels: np.ndarray) -> Done | None:
        """The spread that holds; None where there is none."""
        return next((each for each in reversed(self.done) if each.holds(labels)), None)

    def strokes(self, labels: np.ndarray) -> np.ndarray:
        """What was painted since the run, the strokes of spreads that hold among it: uint8 (z, y, x).

        A voxel in the lungs that has no tissue any more counts as vessel, as it is measured.
        """
        last = self.last(labels)
        shown = self.labels if last is None else last.after
        strokes = np.zeros_like(labels) if last is None else last.strokes.copy()
        changed = labels != np.where(shown == VESSEL, OUTSIDE, shown)
        erased = changed & (labels == OUTSIDE)
        strokes[changed & ~erased] = labels[changed & ~erased]
        strokes[erased & (self.sides > 0)] = VESSEL
        return strokes

    def spread(self, labels: np.ndarray, volume: Volume) -> Done:
        """Decide anew; ``load`` comes before.

        Args:
            labels: as they are shown, (z, y, x).
            volume: the CT.

        Raises:
            UnusableInputError: nothing was painted, or nothing of it in the lungs.
        """
        strokes = self.strokes(labels)
        if not strokes.any():
            raise UnusableInputError(NOTHING_PAINTED)
        made = self._made(labels, strokes, volume)
        self.done = [each for each in self.done if each.holds(labels)] + [made]
        return made

    def replay(self, strokes: np.ndarray, volume: Volume) -> None:
        """Begin with strokes of an earlier session: what they gave is not painted, but was spread.

        Strokes that were all taken back, or that lie beyond the lungs as they are now, gave nothing.
        """
        assert self.field is not None
        if self.field.to_cells(strokes).any():
            self.done = [self._made(self.labels, strokes, volume)]

    def _made(self, labels: np.ndarray, strokes: np.ndarray, volume: Volume) -> Done:
        from DiffSegLungLib.decision.strokes import spread

        assert self.field is not None and self.decided is not None
        empty = (self.sides > 0) & (self.labels == OUTSIDE)
        start = np.where(empty, np.uint8(VESSEL), self.labels)
        spread_over = spread(self.field, strokes, start, volume, self.decided)
        after = np.where(spread_over.labels == VESSEL, np.uint8(OUTSIDE), spread_over.labels)
        return Done(labels, after, strokes, spread_over)

    def manifest_of(self, labels: np.ndarray) -> Mapping[str, Any]:
        """Of the run, and of the spread that holds."""
        last = self.last(labels)
        if last is None:
            return self.manifest
        return corrected_manifest(self.manifest, last.spread, last.strokes)

    def moved(self, labels: np.ndarray) -> list[str]:
        """What the spread that holds moved, a line each."""
        last = self.last(labels)
        return [] if last is None else lines_of(last)


def lines_of(done: Done) -> list[str]:
    """What a spread moved, a line each, most first."""
    pairs = [(ml, old, new) for old, to in done.spread.moved_ml.items() for new, ml in to.items()]
    known = sorted((pair for pair in pairs if pair[0] >= LEAST_ML), reverse=True)
    return [f"{ml:.1f} ml: {_name(old)} to {_name(new)}" for ml, old, new in known]


def _name(key: str) -> str:
    """The reader's name of a tissue, or what it is where it is none."""
    return BY_KEY[key].name if key in BY_KEY else "Not lung"
