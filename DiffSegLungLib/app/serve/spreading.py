"""What the page remembers of strokes, so that they can be spread, taken back, and spread again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.app.serve.results import Found
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.correction import NO_FIELD, corrected_manifest
from DiffSegLungLib.tissues import BY_KEY, OUTSIDE, VESSEL

if TYPE_CHECKING:
    from DiffSegLungLib.decision.field import Field
    from DiffSegLungLib.decision.strokes import Spread
    from DiffSegLungLib.io.volume import Volume

NOTHING_PAINTED = "Nothing was painted since the segmentation: paint or erase where it is wrong, then spread."
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
        found: what the run left.
        field: what the run kept for strokes; None before the first spread.
        decided: what the run decided; None before the first spread.
        done: spreads so far, those that were taken back among them.
    """

    found: Found
    field: Field | None = None
    decided: np.ndarray | None = None
    done: list[Done] = dataclasses.field(default_factory=list)

    def load(self, path: Path, volume: Volume) -> None:
        """Read what a run kept.

        Raises:
            UnusableInputError: nothing was kept, it is damaged, or of another CT.
        """
        from DiffSegLungLib.decision.field import load
        from DiffSegLungLib.decision.strokes import decided_labels

        if not path.is_file():
            raise UnusableInputError(NO_FIELD)
        kept = load(path)
        kept.require_fits(volume)
        self.field, self.decided = kept, decided_labels(kept, volume)

    def last(self, labels: np.ndarray) -> Done | None:
        """The spread that holds; None where there is none."""
        return next((each for each in reversed(self.done) if each.holds(labels)), None)

    def strokes(self, labels: np.ndarray) -> np.ndarray:
        """What was painted since the run, the strokes of spreads that hold among it: uint8 (z, y, x).

        A voxel in the lungs that has no tissue any more counts as vessel, as it is measured.
        """
        last = self.last(labels)
        shown = self.found.labels if last is None else last.after
        strokes = np.zeros_like(labels) if last is None else last.strokes.copy()
        changed = labels != np.where(shown == VESSEL, OUTSIDE, shown)
        erased = changed & (labels == OUTSIDE)
        strokes[changed & ~erased] = labels[changed & ~erased]
        strokes[erased & (self.found.sides > 0)] = VESSEL
        return strokes

    def spread(self, labels: np.ndarray, volume: Volume) -> Done:
        """Decide anew; ``load`` comes before.

        Args:
            labels: as they are shown, (z, y, x).
            volume: the CT.

        Raises:
            UnusableInputError: nothing was painted, or nothing of it in the lungs.
        """
        from DiffSegLungLib.decision.strokes import spread

        assert self.field is not None and self.decided is not None
        strokes = self.strokes(labels)
        if not strokes.any():
            raise UnusableInputError(NOTHING_PAINTED)
        empty = (self.found.sides > 0) & (self.found.labels == OUTSIDE)
        start = np.where(empty, np.uint8(VESSEL), self.found.labels)
        spread_over = spread(self.field, strokes, start, volume, self.decided)
        after = np.where(spread_over.labels == VESSEL, np.uint8(OUTSIDE), spread_over.labels)
        made = Done(labels, after, strokes, spread_over)
        self.done = [each for each in self.done if each.holds(labels)] + [made]
        return made

    def manifest(self, labels: np.ndarray) -> Mapping[str, Any]:
        """Of the run, and of the spread that holds."""
        last = self.last(labels)
        run = self.found.manifest
        return run if last is None else corrected_manifest(run, last.spread, last.strokes)

    def moved(self, labels: np.ndarray) -> list[str]:
        """What the spread that holds moved, a line each, most first."""
        last = self.last(labels)
        pairs = [
            (ml, old, new)
            for old, to in (last.spread.moved_ml if last else {}).items()
            for new, ml in to.items()
            if ml >= LEAST_ML
        ]
        return [f"{ml:.1f} ml: {_name(old)} to {_name(new)}" for ml, old, new in sorted(pairs, reverse=True)]


def _name(key: str) -> str:
    """The reader's name of a tissue, or what it is where it is none."""
    return BY_KEY[key].name if key in BY_KEY else "Not lung"
