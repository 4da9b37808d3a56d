"""TensorBoard: the figures of each step and sample pictures at each checkpoint (optional extra ``train``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.export.report.slices import windowed

if TYPE_CHECKING:
    from DiffSegLungLib.training.judge import HeldBack
    from DiffSegLungLib.training.trainer import Trainer

FOLDER = "tensorboard"
SAMPLE_COUNT, SAMPLE_STEPS = 4, 10


class Board:
    """A watcher of a run that writes TensorBoard's event files into its folder.

    Args:
        run: the run's folder.
        every: steps between sample pictures.

    Raises:
        MissingPartError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, every: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPartError(
                "TensorBoard is not installed: pip install 'diffseglung[train]', or leave out --tensorboard."
            ) from None
        self.writer = SummaryWriter(str(run / FOLDER))
        self.every = every
        self.shown: HeldBack | None = None

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> bool:
        """Write the figures of a step; never ends the run."""
        step = trainer.step
        for name, value in facts.items():
            if name != "step":
                self.writer.add_scalar(name, value, step)
        if step % self.every == 0:
            self.shown = self.shown or patches_of(trainer, SAMPLE_COUNT)
            picture = samples_picture(trainer, self.shown, SAMPLE_STEPS)
            self.writer.add_image("samples", picture, step, dataformats="HW")
            self.writer.flush()
        return False


def patches_of(trainer: Trainer, count: int) -> HeldBack:
    """Patches of the CT that are trained on, as scanned."""
    from DiffSegLungLib.training.judge import draw_held_back

    settings = trainer.settings
    return draw_held_back(trainer.sampler.patients, settings.patch, count, settings.seed)


def samples_picture(trainer: Trainer, shown: HeldBack, steps: int) -> np.ndarray:
    """Real patches above, samples of the averaged network in the same lungs below; grey (rows, columns)."""
    from DiffSegLungLib.representation.diffusion.sampling import sample

    made = sample(trainer.average, shown.mask, steps, method="ddim", seed=trainer.settings.seed)
    return patches_picture([shown.hu, np.where(shown.mask > 0, made, shown.hu)])


def patches_picture(rows: list[np.ndarray]) -> np.ndarray:
    """The middle slices of stacks of patches, a stack a row, in the lung window; grey (rows, columns)."""
    lines = [np.concatenate(list(windowed(stack[:, stack.shape[1] // 2])), axis=1) for stack in rows]
    return np.concatenate(lines, axis=0).astype(np.float32)
