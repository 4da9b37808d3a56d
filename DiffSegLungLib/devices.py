"""Where to compute."""

from __future__ import annotations

from DiffSegLungLib.errors import MissingPartError

SEGMENTS_GB, LEARNS_GB = 1.5, 2.0
"""Memory of a graphics card that segments, and that fine-tunes.

Tensors take 0.6 GB at the most while a window is read, and 0.8 GB while two patches are learnt from (counted
in float32 on a processor); the rest is the driver's and the screen's.
"""


def choose_device(device: str) -> str:
    """``auto`` takes a CUDA device where one is large enough; a device asked for must be there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() and card_gb() >= SEGMENTS_GB else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        raise MissingPartError(f"device {device!r} is not available on this computer; use --device cpu")
    return device


def card_gb() -> float:
    """Memory of the first CUDA device in GB (1e9 bytes)."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
