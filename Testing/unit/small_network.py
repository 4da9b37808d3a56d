"""A model folder for tests that a small network decides, which tells lung from soft tissue by HU alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from DiffSegLungLib.models import storage
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet
from DiffSegLungLib.tissues import HEALTHY, OUTSIDE
from DiffSegLungLib.training import own_hosts, tissue_tuning
from DiffSegLungLib.training.painting import textures
from Testing.unit.tiny_model import write_tiny_model

WIDTHS = (8, 8, 8)
PATCH = (16, 48, 48)
TILE = (24, 64, 64)
"""Of the textures that are painted with."""
SOFT = 2
"""The window of HU that shows soft tissue."""


def small_network() -> TissueUNet:
    """Few channels, at random but for one that sees soft tissue: that is outside, all else healthy lung."""
    torch.manual_seed(0)
    net = TissueUNet(WIDTHS)
    with torch.no_grad():
        net.tissues.weight.mul_(0.05)
        biases = {name: part.bias for name, part in net.named_children() if isinstance(part, torch.nn.Conv3d)}
        fine, join, tissues = (biases[name] for name in ("fine", "join", "tissues"))
        assert fine is not None and join is not None and tissues is not None
        net.fine.weight[0], net.join.weight[0], join[0] = 0.0, 0.0, 0.0
        net.fine.weight[0, SOFT, 0, 1, 1], fine[0] = 1.0, 0.9  # from -180 HU on
        net.join.weight[0, WIDTHS[0]] = 1.0
        tissues.zero_()
        net.tissues.weight[OUTSIDE, 0], tissues[HEALTHY] = 20.0, 3.0
    return net


def write_small_network_model(folder: Path, spacing: float) -> Path:
    """A tiny model with that network, slightly calibrated; returns the folder."""
    write_tiny_model(folder, spacing)
    facts = {
        "widths": list(WIDTHS),
        "temperature": 1.25,
        "bias": [0.1] * CLASSES,
        "hosts": ["CT-of-the-base"],
    }
    storage.write_tissue_network(folder, small_network().state_dict(), {**facts, "steps": 100})
    return folder


def shrink(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Fine-tuning that a test can wait for: few small patches, small textures, each host at one size.

    Args:
        put: sets an attribute; pytest's own takes it back at the end.
    """
    put(tissue_tuning, "PATCH", PATCH)
    put(tissue_tuning, "PATCHES", 8)
    put(textures, "FIELD_TILE", TILE)
    put(textures, "FOAM_TILE", TILE)
    put(own_hosts, "ZOOMS", (1.0,))
