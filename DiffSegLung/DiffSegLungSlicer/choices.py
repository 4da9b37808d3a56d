"""What the panel offers to choose from."""

from __future__ import annotations

import enum

import slicer
from slicer.i18n import tr as _

from . import results

SAMPLES = 64
"""Along each axis, about."""


class Quality(enum.Enum):
    """How much work is done; the values are the command line's."""

    FAST = "fast"
    STANDARD = "standard"
    BEST = "best"

    def label(self) -> str:
        """What the panel shows."""
        return {"fast": _("fast"), "standard": _("standard"), "best": _("best (slow)")}[self.value]


class Device(enum.Enum):
    """Where the computation runs; the values are the command line's."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        """What the panel shows."""
        return {
            "auto": _("automatic"),
            "cpu": _("processor"),
            "cuda": _("NVIDIA graphics card"),
            "mps": _("Apple graphics"),
        }[self.value]


class Stage(enum.Enum):
    """What a fine-tuning trains; the values are the command line's."""

    BOTH = "both"
    DIFFUSION = "diffusion"
    DISTILLATION = "distillation"

    def label(self) -> str:
        """What the panel shows."""
        return {
            "both": _("diffusion, then distillation"),
            "diffusion": _("diffusion only"),
            "distillation": _("distillation only"),
        }[self.value]


def fillSelector(selector, values: list[str], labels: list[str], wanted: str) -> None:
    """Fills a combo box whose entries change, without telling anybody that the choice did."""
    blocked = selector.blockSignals(True)
    selector.clear()
    for value, label in zip(values, labels, strict=True):
        selector.addItem(label, value)
    selector.currentIndex = values.index(wanted) if wanted in values else 0
    selector.blockSignals(blocked)


def mostLikelyChestCt(nodes=None):
    """The first volume whose values reach from air to bone; else none is preselected.

    Args:
        nodes: to choose from; None for all volumes of the scene.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if nodes is None else nodes:
        isThere = node.GetScene() is slicer.mrmlScene and isVolume(node)
        if isThere and not node.GetAttribute(results.ATTRIBUTE) and _reachesFromAirToBone(node):
            return node
    return None


def isVolume(node) -> bool:
    """Whether a node may be a CT, by its class."""
    return node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLLabelMapVolumeNode")


def _reachesFromAirToBone(volumeNode) -> bool:
    """A voxel in some hundred tells it."""
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return False
    voxels = slicer.util.arrayFromVolume(volumeNode)
    some = voxels[tuple(slice(None, None, 1 + size // SAMPLES) for size in voxels.shape[:3])]
    return bool(some.min() < -800 and some.max() > 100)


def segmentsOf(segmentationNode) -> tuple[list[str], list[str]]:
    """IDs and labels to choose one segment from; the first, an empty ID, means all of them."""
    segmentation = segmentationNode.GetSegmentation() if segmentationNode else None
    ids = list(segmentation.GetSegmentIDs()) if segmentation else []
    labels = [_("all segments"), *(segmentation.GetSegment(segmentId).GetName() for segmentId in ids)]
    return ["", *ids], labels
