"""A model folder for tests: a shipped one's mixture and rules around an untrained network of few channels."""

from __future__ import annotations

from pathlib import Path

import torch

from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.representation.student import Student

CHANNELS = (8, 8, 8, 8)

OTHER_NETWORKS = ("lungs", "tissue_network")
"""Parts of the shipped model's description that the tiny one has not."""


def write_tiny_model(folder: Path, spacing: float) -> Path:
    """Write it.

    Args:
        folder: the model's, whose last name is its name.
        spacing: voxel side in mm that it works on.

    Returns:
        The folder.
    """
    shipped = models.load()
    architecture = shipped.description["architecture"] | {"channels": CHANNELS}
    torch.manual_seed(0)
    student = Student(CHANNELS)
    storage.write_student(folder, student.state_dict())
    storage.write_mixture(folder, shipped.projection, shipped.mixture, shipped.labels)
    facts = {"name": folder.name, "spacing_mm": spacing, "architecture": architecture}
    facts = {
        key: value for key, value in shipped.description.items() if key not in ("lungs", "tissue_network")
    } | facts
    storage.write_description(folder, facts, shipped.plan, shipped.rule, shipped.fusion, shipped.regions)
    return folder
