"""How much work goes into the reading: the one table of ``--quality``.

A network that decides reads once, or twice for ``best``.  A mixture's embedding takes most of the time: its
windows overlap, so that a cell is seen from several sides, and it looks at the lung through noise, so that
averaging draws of the noise steadies it.
"""

from __future__ import annotations

from dataclasses import dataclass

from DiffSegLungLib.errors import UnusableInputError

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Quality:
    """One step between fast and thorough.

    Attributes:
        step: distance of neighbouring windows as a share of the window, (z, y, x); 1 is no overlap.  None
            takes the model's own, which its mixture was fitted with.
        draws: independent draws of the noise that are averaged.
        mirrored: whether a network that decides reads the CT's mirror image, too; the mean counts.
    """

    step: tuple[float, float, float] | None
    draws: int
    mirrored: bool = False

    def stride(self, window: Triple, own: Triple, cell: int) -> Triple:
        """Distance of windows in voxels.

        Args:
            window: sides of a window in voxels.
            own: the model's own distance.
            cell: voxels of a cell; distances are whole cells.
        """
        if self.step is None:
            return own
        z, y, x = (
            max(cell, round(side * share / cell) * cell)
            for side, share in zip(window, self.step, strict=True)
        )
        return z, y, x


STANDARD = "standard"
QUALITIES: dict[str, Quality] = {
    "fast": Quality(step=(1.0, 1.0, 1.0), draws=1),
    STANDARD: Quality(step=None, draws=1),
    "best": Quality(step=(0.5, 0.75, 0.75), draws=2, mirrored=True),
}


def quality_of(name: str) -> Quality:
    """The quality of that name.

    Raises:
        UnusableInputError: there is none.
    """
    if name not in QUALITIES:
        raise UnusableInputError(f"Quality {name!r} is unknown: use {', '.join(QUALITIES)}.")
    return QUALITIES[name]
