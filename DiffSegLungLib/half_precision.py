"""float16 to keep what is large: torch converts it by instructions of the processor, numpy in loops."""

from __future__ import annotations

import numpy as np


def to_half(values: np.ndarray) -> np.ndarray:
    """float32 of any shape -> float16, rounded to the nearest."""
    import torch

    return torch.from_numpy(values).half().numpy()


def from_half(values: np.ndarray) -> np.ndarray:
    """float16 of any shape -> float32."""
    import torch

    return torch.from_numpy(values).float().numpy()
