"""What the panel offers to choose from."""

from __future__ import annotations

import enum

import slicer
from slicer.i18n import tr as _

from . import results


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


def mostLikelyChestCt():
    """The first volume whose values reach from air to bone; else none is preselected."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        image = node.GetImageData()
        if node.GetAttribute(results.ATTRIBUTE) or node.IsA("vtkMRMLLabelMapVolumeNode") or image is None:
            continue
        low, high = image.GetScalarRange()
        if low < -800 and high > 100:
            return node
    return None


def segmentsOf(segmentationNode) -> tuple[list[str], list[str]]:
    """IDs and labels to choose one segment from; the first, an empty ID, means all of them."""
    segmentation = segmentationNode.GetSegmentation() if segmentationNode else None
    ids = list(segmentation.GetSegmentIDs()) if segmentation else []
    labels = [_("all segments"), *(segmentation.GetSegment(segmentId).GetName() for segmentId in ids)]
    return ["", *ids], labels
