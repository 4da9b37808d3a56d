"""Training of the lung network: masks of healthy lungs and of experts, dense lung pasted in."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.lungs.lungs import lungs_from_mask, segment_lungs
from DiffSegLungLib.lungs.network import (
    CHANNELS,
    NETWORK_MM,
    STEP,
    build_unet,
    from_hounsfield,
    to_network_grid,
)
from DiffSegLungLib.lungs.shapes import to_work_grid
from DiffSegLungLib.models import storage
from DiffSegLungLib.models.format import LUNGS
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.signals import handled
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.lung_lesions import depth_of, paint_disease
from DiffSegLungLib.training.run_files import CHECKPOINT, LOG, TRAINING_STAGE

MASK_SUFFIX = "_lungmask.nii.gz"
"""A file of the CT's name with this ending is the expert's mask of its lungs."""
PHANTOM_SEEDS = range(101, 107)


@dataclass(frozen=True)
class Settings:
    """What a run is made of.

    Attributes:
        channels: channels of the U-Net's levels.
        crop: sides in voxels of what it sees at a time, (z, y, x); multiples of 16.
        steps: steps in all, one crop each.
        healthy: share of crops without anything pasted in.
        phantoms: share of crops from phantoms.
        learning_rate: of AdamW at its highest.
        decay: of the moving average of the weights.
        seed: of everything random.
    """

    channels: tuple[int, ...] = CHANNELS
    crop: tuple[int, int, int] = (48, 80, 112)
    steps: int = 1000
    healthy: float = 0.2
    phantoms: float = 0.12
    learning_rate: float = 2e-3
    decay: float = 0.99
    seed: int = 0


@dataclass(frozen=True)
class LungPatient:
    """One CT on the network's grid.

    Attributes:
        name: of the CT.
        hu: float32 (z, y, x).
        sides: uint8, 1 right and 2 left lung.
        depth: float32, mm below the surface of the lungs.
    """

    name: str
    hu: np.ndarray
    sides: np.ndarray
    depth: np.ndarray


# --- data ------------------------------------------------------------------------------------------------


def load_patients(sources: Iterable[Path]) -> list[LungPatient]:
    """Read CT and their lungs: an expert's mask beside the CT, else the lungs found without a network."""
    return [_load_patient(source) for source in sources]


def _load_patient(source: Path) -> LungPatient:
    volume = load_volume(source)
    expert = source.with_name(source.name.split(".")[0] + MASK_SUFFIX)
    if expert.exists():
        sides = lungs_from_mask(load_mask(expert, volume), volume.hu, volume.spacing).sides
    else:
        sides = segment_lungs(volume.hu, volume.spacing).sides
    return on_network_grid(source.name.split(".")[0], volume.hu, sides, volume.spacing)


@cache
def load_phantom(seed: int) -> LungPatient:
    """A synthetic chest with a wide field of view, with lesions for every second seed."""
    phantom = make_phantom((NETWORK_MM,) * 3, seed, lesions=None if seed % 2 else ())
    return on_network_grid(f"phantom {seed}", phantom.hu, phantom.sides, phantom.spacing)


def on_network_grid(
    name: str, hu: np.ndarray, sides: np.ndarray, spacing: tuple[float, float, float]
) -> LungPatient:
    """Bring a CT to the grid in the two steps that it takes in use."""
    coarse = _coarse(to_work_grid(hu, spacing))
    shares = [_coarse(to_work_grid((sides == side).astype(np.float32), spacing)) for side in (RIGHT, LEFT)]
    labels = _largest(shares[0], shares[1])
    return LungPatient(name, coarse, labels, depth_of(labels))


def _coarse(work: np.ndarray) -> np.ndarray:
    padded = np.pad(work.astype(np.float32), [(0, -side % STEP) for side in work.shape], mode="edge")
    return to_network_grid(torch.from_numpy(padded)[None, None])[0, 0].numpy()


def _largest(right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Sides from the share of each lung in a voxel."""
    sides = np.where(right >= left, np.uint8(RIGHT), np.uint8(LEFT))
    sides[right + left < 0.5] = 0
    return sides


# --- what the network sees -------------------------------------------------------------------------------


def draw(
    patient: LungPatient, settings: Settings, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One crop with lesions, moved, turned and scanned anew: HU, sides and weights."""
    hu, sides, weight = patient.hu, patient.sides, np.ones(patient.hu.shape, np.float32)
    if random.random() >= settings.healthy:
        hu, sides, weight = paint_disease(hu, sides, patient.depth, random)
    hu, sides, weight = _move(hu, sides, weight, settings.crop, random)
    hu = _scan_anew(hu, random)
    if random.random() < 0.15:
        _cut_field(hu, weight, random)
    return hu, sides, weight


def _move(
    hu: np.ndarray,
    sides: np.ndarray,
    weight: np.ndarray,
    crop: tuple[int, int, int],
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn, stretch, mirror and cut; what lies beyond the CT is air, or goes on as at its border."""
    matrix = _turn(random)
    mirrored = random.random() < 0.5
    if mirrored:
        matrix = matrix @ np.diag([1.0, 1.0, -1.0])
    room = np.array([max(side - cut, 0) / 2 + 8 for side, cut in zip(hu.shape, crop, strict=True)])
    room[1:] = np.minimum(room[1:], 10)
    middle = (np.array(hu.shape) - 1) / 2 + random.uniform(-room, room)
    offset = middle - matrix @ ((np.array(crop) - 1) / 2)
    beyond = "nearest" if random.random() < 0.5 else "constant"

    def moved(values: np.ndarray, outside: float) -> np.ndarray:
        return ndimage.affine_transform(
            values.astype(np.float32), matrix, offset, crop, order=1, mode=beyond, cval=outside
        )

    right, left = moved(sides == RIGHT, 0.0), moved(sides == LEFT, 0.0)
    if mirrored:
        right, left = left, right
    return moved(hu, LOWEST_HU), _largest(right, left), moved(weight, 1.0)


def _turn(random: np.random.Generator) -> np.ndarray:
    """A random rotation of up to about 10 degrees and a stretch, (3, 3)."""
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_euler("zyx", random.uniform(-10, 10, 3), degrees=True).as_matrix()
    return turned @ np.diag(random.uniform(0.85, 1.15) * random.uniform(0.93, 1.07, 3))


def _scan_anew(hu: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Other calibration, kernel, dose and slice thickness."""
    hu = hu * random.uniform(0.97, 1.03) + random.uniform(-25, 25)
    if random.random() < 0.3:
        hu = ndimage.gaussian_filter(hu, random.uniform(0.2, 0.8))
    if random.random() < 0.25:
        hu = _thick_slices(hu, int(random.integers(2, 4)))
    if random.random() < 0.5:
        hu = hu + random.uniform(0, 40) * random.standard_normal(hu.shape, np.float32)
    return hu.astype(np.float32)


def _thick_slices(hu: np.ndarray, count: int) -> np.ndarray:
    mean = ndimage.uniform_filter1d(hu, count, axis=0)[::count]
    return ndimage.zoom(mean, (hu.shape[0] / mean.shape[0], 1, 1), order=1)


def _cut_field(hu: np.ndarray, weight: np.ndarray, random: np.random.Generator) -> None:
    """Too narrow a field of view, in place: air up to the border; what it hides does not count."""
    for axis in (1, 2):
        for end in (0, 1):
            width = int(random.integers(0, 1 + hu.shape[axis] // 8))
            rows = np.arange(width) if end == 0 else np.arange(hu.shape[axis] - width, hu.shape[axis])
            np.moveaxis(hu, axis, 0)[rows] = LOWEST_HU
            np.moveaxis(weight, axis, 0)[rows] = 0.0


# --- the run ---------------------------------------------------------------------------------------------


class LungTrainer:
    """One run: ``LungTrainer(patients, settings, folder).run()``; call it again to go on where it stopped.

    Args:
        patients: the CT to learn from.
        settings: the run's settings; a resumed run must have the same ones, but for ``steps``.
        folder: takes the checkpoint and ``log.jsonl``.
        device: where the network lives.
    """

    def __init__(
        self, patients: list[LungPatient], settings: Settings, folder: Path, device: str = "cpu"
    ) -> None:
        if not patients:
            raise UnusableInputError("no CT to train the lung network on; name at least one")
        torch.manual_seed(settings.seed)
        self.patients, self.settings, self.folder, self.device = patients, settings, folder, device
        self.random = np.random.default_rng(settings.seed)
        self.unet = build_unet(settings.channels).to(device)
        self.average = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.unet.parameters(), lr=settings.learning_rate)
        self.step = 0
        self.stop_requested = False

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.folder / CHECKPOINT

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"unet": self.unet, "average": self.average}

    def run(self, progress: Progress | None = None, save_every: int = 50) -> Path:
        """Train to ``settings.steps``; SIGTERM ends it at the next step, with a checkpoint.

        Returns:
            The checkpoint's path.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            facts = checkpoint.load(self.checkpoint_path, self._modules(), self.optimiser, self.random)
            self.step = int(facts["step"])
        with handled(lambda *_: setattr(self, "stop_requested", True), "SIGTERM"):
            while self.step < self.settings.steps and not self.stop_requested:
                facts = self.train_step()
                self._log(facts)
                if self.step % save_every == 0:
                    self.save()
                if progress is not None:
                    progress(TRAINING_STAGE, self.step / self.settings.steps, f"loss {facts['loss']:.3f}")
            self.save()
        return self.checkpoint_path

    def train_step(self) -> dict[str, float]:
        """One step of the optimiser; returns what it cost."""
        started = time.perf_counter()
        hu, sides, weight = draw(self._patient(), self.settings, self.random)
        drawn = time.perf_counter() - started
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        logits = self.unet(from_hounsfield(torch.from_numpy(hu)[None, None].to(self.device)))
        truth = torch.from_numpy(sides.astype(np.int64))[None].to(self.device)
        loss = lung_loss(logits, truth, torch.from_numpy(weight)[None].to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self._update_average()
        self.step += 1
        seconds = time.perf_counter() - started
        return {"step": self.step, "loss": float(loss.detach()), "draw": drawn, "seconds": seconds}

    def _patient(self) -> LungPatient:
        """A CT, now and then a phantom."""
        if self.random.random() < self.settings.phantoms:
            return load_phantom(PHANTOM_SEEDS[int(self.random.integers(len(PHANTOM_SEEDS)))])
        return self.patients[int(self.random.integers(len(self.patients)))]

    def _learning_rate(self) -> float:
        """Rises over 50 steps, then falls along a half cosine to a fiftieth."""
        share = min(self.step / self.settings.steps, 1.0)
        fall = 0.02 + 0.49 * (1 + np.cos(np.pi * share))
        return float(self.settings.learning_rate * fall * min((self.step + 1) / 50, 1.0))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early averages would drag the random start along, hence the ramp.
        decay = min(self.settings.decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.unet.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    def save(self) -> None:
        """Write the checkpoint."""
        facts: dict[str, Any] = {
            "step": self.step,
            "settings": asdict(self.settings),
            "patients": [patient.name for patient in self.patients],
        }
        checkpoint.save(self.checkpoint_path, self._modules(), self.optimiser, self.random, facts)

    def _log(self, facts: dict[str, float]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({key: round(value, 5) for key, value in facts.items()}) + "\n")


def stored_settings(folder: Path, names: list[str]) -> Settings:
    """The settings of the run in a folder, else the defaults; a resumed run must have its own CT.

    Raises:
        UnusableInputError: the run began with other CT.
    """
    if not (folder / CHECKPOINT).exists():
        return Settings()
    facts = checkpoint.load_facts(folder / CHECKPOINT)
    if facts["patients"] != names:
        raise UnusableInputError(f"The run in {folder} began with other CT: name the same or another --run.")
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in facts["settings"].items()
    }
    return Settings(**stored)


def write_to_model(run: Path, model: Path) -> Path:
    """Put the averaged network of a run into a model folder; returns the file."""
    facts = checkpoint.load_facts(run / CHECKPOINT)
    described = {
        "channels": facts["settings"]["channels"],
        "training_data": [*facts["patients"], f"{len(PHANTOM_SEEDS)} phantoms"],
        "training": {"steps": facts["step"], "settings": facts["settings"]},
    }
    storage.write_lung_network(model, checkpoint.load_module(run / CHECKPOINT, "average"), described)
    return model / LUNGS


def lung_loss(logits: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy and soft Dice of the two lungs.

    Args:
        logits: (batch, 3, z, y, x).
        truth: int64 (batch, z, y, x).
        weight: float32 (batch, z, y, x), how much each voxel counts.
    """
    entropy = functional.cross_entropy(logits, truth, reduction="none")
    shares = torch.softmax(logits, dim=1)[:, 1:]
    wanted = functional.one_hot(truth, 3).movedim(-1, 1)[:, 1:].to(shares.dtype)
    overlap = (weight[:, None] * shares * wanted).sum(dim=(0, 2, 3, 4))
    total = (weight[:, None] * (shares + wanted)).sum(dim=(0, 2, 3, 4))
    dice = (2 * overlap + 1.0) / (total + 1.0)
    return (weight * entropy).sum() / weight.sum() + 1.0 - dice.mean()
