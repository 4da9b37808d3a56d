"""The lungs of a CT: found, or as a given mask has them."""

from __future__ import annotations

from DiffSegLungLib.io.segmentations import Source, load_lungs
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.lungs.lungs import Lungs, lungs_from_mask, segment_lungs
from DiffSegLungLib.lungs.network import LungNetwork


def find_lungs(volume: Volume, given: Source | None, network: LungNetwork | None = None) -> Lungs:
    """The lungs of a CT: found, with a lung network where there is one, or as a given mask has them."""
    if given is None:
        return segment_lungs(volume.hu, volume.spacing, network)
    mask, sides_are_named = load_lungs(given, volume)
    return lungs_from_mask(mask, volume.hu, volume.spacing, sides_are_named)
