"""A thorax phantom: a CT made from geometry, with all six tissues and the truth of every voxel.

It stands in for a patient wherever no real CT may lie at hand: the demo and the tests.  ``grid`` holds the
millimetre world and its partial volume, ``anatomy`` the large organs, ``trees`` vessels and airways,
``lesions`` the diseases, ``scan`` puts them together into a scan.  May import every room up to the pipeline.
"""

from __future__ import annotations

from DiffSegLungLib.phantom.lesions import LESIONS
from DiffSegLungLib.phantom.scan import Phantom, make_phantom, phantom_image, phantom_truth_image

__all__ = ["LESIONS", "Phantom", "make_phantom", "phantom_image", "phantom_truth_image"]
