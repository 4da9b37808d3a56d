"""Reading and writing the files of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from DiffSegLungLib.decision.fusion import FusionSettings
from DiffSegLungLib.decision.mixture import Mixture, Projection
from DiffSegLungLib.decision.model import Model, ModelInfo
from DiffSegLungLib.decision.naming import NamingRule
from DiffSegLungLib.decision.regions import RegionSettings
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.io.atomic import atomic_path, write_json
from DiffSegLungLib.lungs.network import LungNetwork, build_unet
from DiffSegLungLib.models.format import DESCRIPTION, FORMAT, LUNGS, MIXTURE, TISSUES, WEIGHTS, sha256_of
from DiffSegLungLib.representation.features import EmbeddingPlan
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet

MOST_LEVELS, WIDEST = 8, 1024
"""Of a network."""
FINEST_MM, COARSEST_MM = 0.5, 4.0
"""Of a working grid; memory goes with the third power."""


def read_model(info: ModelInfo, description: dict[str, Any], device: str) -> Model:
    """Build a :class:`Model` from a folder whose checksums were verified."""
    try:
        student = read_student(info.folder, description, device)
        arrays = load_arrays(str(info.folder / MIXTURE))
        return Model(
            info=info,
            student=student,
            projection=Projection(arrays["projection_mean"], arrays["projection_matrix"]),
            mixture=Mixture(arrays["weights"], arrays["means"], arrays["covariances"]),
            labels=arrays["labels"],
            spacing=_spacing(description),
            plan=_plan(description["embedding"]),
            rule=NamingRule(**description["naming"]),
            fusion=FusionSettings(**description["fusion"]),
            regions=RegionSettings(**description["regions"]),
            sharpness=float(description["sharpness"]),
            description=description,
            lungs=read_lung_network(info.folder, description, device),
            tissues=read_tissue_network(info.folder, description, device),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        # The last line: torch's first one only says that there are errors.
        reason = str(error).splitlines()[-1].strip()
        raise MissingPartError(
            f"the model in {info.folder} does not fit this version ({reason}); get one for it, or train again"
        ) from None


def read_student(folder: Path, description: dict[str, Any], device: str) -> Student:
    """The student alone, in evaluation mode."""
    form = description["architecture"]
    _require_sane(form["channels"], form["hidden"])
    student = Student(form["channels"], hidden=form["hidden"])
    student.load_state_dict(load_file(str(folder / WEIGHTS)))
    # torch's own signature leaves memory_format out.
    student = student.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return student.eval().requires_grad_(False)


def read_lung_network(folder: Path, description: Mapping[str, Any], device: str) -> LungNetwork | None:
    """The lung network of a model folder, None where it has none."""
    if "lungs" not in description:
        return None
    _require_sane(description["lungs"]["channels"])
    unet = build_unet(description["lungs"]["channels"])
    unet.load_state_dict(load_file(str(folder / LUNGS)))
    return LungNetwork(unet.to("cpu" if device == "mps" else device))  # mps lacks some 3D operations


def read_tissue_network(folder: Path, description: Mapping[str, Any], device: str) -> TissueNetwork | None:
    """The diffusion U-Net that decides, None in a model that has none."""
    if "tissue_network" not in description:
        return None
    form = description["tissue_network"]
    _require_sane(form["widths"])
    bias = tuple(float(value) for value in form["bias"])
    if len(bias) != CLASSES:
        raise ValueError(f"the network has {CLASSES} classes, not {len(bias)}")
    temperature = float(form["temperature"])
    if not (np.isfinite([temperature, *bias]).all() and temperature > 0):
        raise ValueError("the network's calibration holds no usable numbers")
    unet = TissueUNet(tuple(form["widths"]))
    weights = load_file(str(folder / TISSUES))
    unet.load_state_dict({key: value.float() for key, value in weights.items()})
    unet = unet.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return TissueNetwork(unet.eval().requires_grad_(False), temperature, bias)


def _require_sane(channels: Any, hidden: int = 1) -> None:
    """A network is built as its description says: a hostile one must not ask for all the memory.

    Raises:
        ValueError: more or wider layers than any model of this project.
    """
    if not (isinstance(channels, list) and 1 <= len(channels) <= MOST_LEVELS):
        raise ValueError("the network's channels are no short list")
    if not all(isinstance(width, int) and 1 <= width <= WIDEST for width in (*channels, hidden)):
        raise ValueError(f"the network's channels are not from 1 to {WIDEST}")


def _spacing(description: dict[str, Any]) -> float:
    spacing = float(description["spacing_mm"])
    if not FINEST_MM <= spacing <= COARSEST_MM:
        raise ValueError(f"spacing_mm {spacing} is not from {FINEST_MM} to {COARSEST_MM}")
    return spacing


def _plan(stored: dict[str, Any]) -> EmbeddingPlan:
    window, stride = tuple(stored["window"]), tuple(stored["stride"])
    return EmbeddingPlan(window, stride, tuple(stored["timesteps"]), int(stored["batch"]))  # type: ignore[arg-type]


def write_student(folder: Path, student: dict[str, torch.Tensor]) -> None:
    """Write ``weights.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in student.items()}, str(folder / WEIGHTS))


def write_lung_network(folder: Path, unet: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``lungs.safetensors`` into a model folder and enter it into ``model.json``.

    Args:
        folder: holds a model.
        unet: the network's weights.
        facts: ``channels``, and what else shall be known of the training.
    """
    _write_network(folder, LUNGS, "lungs", unet, facts)


def write_tissue_network(folder: Path, unet: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``tissues.safetensors`` into a model folder and enter it into ``model.json``.

    Args:
        folder: holds a model.
        unet: the weights of a :class:`TissueUNet`.
        facts: ``widths``, ``temperature``, ``bias`` of each class, and what shall be known of the training.
    """
    _write_network(folder, TISSUES, "tissue_network", unet, facts)


def write_calibration(folder: Path, found: Mapping[str, Any]) -> None:
    """Enter temperature and bias of the network that decides into ``model.json``.

    Args:
        folder: holds a model with such a network.
        found: ``temperature``, ``bias`` of each class, and what shall be known of how they were found.
    """
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    known = {name: value for name, value in found.items() if name not in ("temperature", "bias")}
    description["tissue_network"] |= {name: found[name] for name in ("temperature", "bias")}
    description["tissue_network"]["calibration"] = known
    write_json(folder / DESCRIPTION, description)


def _write_network(
    folder: Path, file: str, part: str, unet: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    with atomic_path(folder / file) as partial:
        save_file({key: value.contiguous() for key, value in unet.items()}, str(partial))
    description[part] = dict(facts)
    description["sha256"][file] = sha256_of(folder / file)
    write_json(folder / DESCRIPTION, description)


def write_mixture(folder: Path, projection: Projection, mixture: Mixture, labels: np.ndarray) -> None:
    """Write ``mixture.safetensors``."""
    arrays = {
        "projection_mean": projection.mean,
        "projection_matrix": np.ascontiguousarray(projection.matrix),
        "weights": mixture.weights,
        "means": mixture.means,
        "covariances": mixture.covariances,
        "labels": labels.astype(np.uint8),
    }
    save_arrays(arrays, str(folder / MIXTURE))


def write_description(
    folder: Path,
    facts: dict[str, Any],
    plan: EmbeddingPlan,
    rule: NamingRule,
    fusion: FusionSettings,
    regions: RegionSettings,
) -> None:
    """Write ``model.json`` last: it holds the checksums of the other files."""
    optional = [file for part, file in (("lungs", LUNGS), ("tissue_network", TISSUES)) if part in facts]
    files = (WEIGHTS, MIXTURE, *optional)
    checksums = {name: sha256_of(folder / name) for name in files}
    content = {
        "format": FORMAT,
        **facts,
        "embedding": asdict(plan),
        "naming": rule.stored(),
        "fusion": fusion.stored(),
        "regions": regions.stored(),
        "sha256": checksums,
    }
    write_json(folder / DESCRIPTION, content)
