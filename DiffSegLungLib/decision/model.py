"""A model at hand, and loaded: the networks, the mixture and the settings that decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from DiffSegLungLib.decision.fusion import FusionSettings
    from DiffSegLungLib.decision.mixture import Mixture, Projection
    from DiffSegLungLib.decision.naming import NamingRule
    from DiffSegLungLib.decision.regions import RegionSettings
    from DiffSegLungLib.lungs.network import LungNetwork
    from DiffSegLungLib.representation.features import EmbeddingPlan
    from DiffSegLungLib.representation.network import TissueNetwork
    from DiffSegLungLib.representation.student import Student


@dataclass(frozen=True)
class ModelInfo:
    """A model at hand.

    Attributes:
        name: what ``--model`` takes.
        folder: where it lies.
        version: as its description states.
        sha256: of the weights that decide.
    """

    name: str
    folder: Path
    version: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """A model loaded and checked.

    Attributes:
        info: name and place.
        student: the network, in evaluation mode.
        projection: embedding to principal components.
        mixture: the reference mixture.
        labels: uint8 (components,), the tissue of each component.
        spacing: the voxel side in mm that the network was trained at.
        plan: windows and timesteps of the embedding.
        rule: the naming rule.
        fusion: the fusion's parameters.
        regions: the least sizes of lesions.
        sharpness: exponent on the mixture's likelihood.
        description: all of ``model.json``.
        lungs: the lung network, None in a model that has none.
        tissues: the diffusion U-Net that decides, None in a model that has none.
    """

    info: ModelInfo
    student: Student
    projection: Projection
    mixture: Mixture
    labels: Any
    spacing: float
    plan: EmbeddingPlan
    rule: NamingRule
    fusion: FusionSettings
    regions: RegionSettings
    sharpness: float
    description: dict[str, Any]
    lungs: LungNetwork | None = None
    tissues: TissueNetwork | None = None
