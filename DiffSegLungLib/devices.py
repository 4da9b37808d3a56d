"""Where to compute."""

from __future__ import annotations

from DiffSegLungLib.errors import MissingPartError


def choose_device(device: str) -> str:
    """``auto`` takes a CUDA device where there is one; a device asked for must be there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        raise MissingPartError(f"device {device!r} is not available on this computer; use --device cpu")
    return device
