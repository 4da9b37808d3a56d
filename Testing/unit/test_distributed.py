"""Two processes that train together learn what one does on the same batch (gloo, processor only)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.distributed import Ranks, SharedBatchNorm
from DiffSegLungLib.training.store import Patient
from DiffSegLungLib.training.trainer import Settings, Trainer

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(
    channels=(8, 8, 8, 8), patch=(16, 16, 16), batch=4, steps=3, stage_two=0, warm_up=1, seed=3
)


def train(patient: Patient, folder: Path, ranks: Ranks) -> Trainer:
    torch.set_num_threads(1)
    trainer = Trainer([patient], SETTINGS, folder, ranks=ranks)
    trainer.run()
    return trainer


def phantom(file: Path) -> Patient:
    with np.load(file) as stored:
        return Patient("phantom", stored["hu"], stored["mask"])


def one_of_two(folder: Path) -> None:
    """What each of the two processes runs."""
    from DiffSegLungLib.training.distributed import joined

    with joined("cpu") as (ranks, _):
        trainer = train(phantom(folder / "phantom.npz"), folder / "two", ranks)
        weights = torch.cat([one.detach().flatten() for one in trainer.student.parameters()])
        np.save(folder / f"rank{ranks.number}.npy", weights.numpy())


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    """A run of two processes, and one of one process with the same settings."""
    folder = tmp_path_factory.mktemp("ranks")
    made = make_phantom((4.0, 4.0, 4.0))
    np.savez(folder / "phantom.npz", hu=np.rint(made.hu).astype(np.int16), mask=made.truth > 0)
    code = "from pathlib import Path\nfrom Testing.unit.test_distributed import one_of_two\n"
    code += f"one_of_two(Path({str(folder)!r}))\n"
    (folder / "run.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, str(folder / "run.py")], check=True, cwd=ROOT, env=environment, timeout=300)
    return folder, train(phantom(folder / "phantom.npz"), folder / "one", Ranks())


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_ranks_have_the_losses_of_one(together: tuple[Path, Trainer]) -> None:
    folder, _ = together
    one, two = log(folder / "one"), log(folder / "two")
    assert len(one) == len(two) == 3
    for name in ("noise", "info_nce", "regression", "spread"):
        assert name == "noise" or name in one[2], "the contrast is on"
        expected = [line.get(name, 0.0) for line in one]
        assert [line.get(name, 0.0) for line in two] == pytest.approx(expected, abs=1e-4)


def test_two_ranks_end_with_the_weights_of_one(together: tuple[Path, Trainer]) -> None:
    folder, alone = together
    first, second = (np.load(folder / f"rank{number}.npy") for number in (0, 1))
    assert np.array_equal(first, second), "both hold the same network"
    expected = torch.cat([one.detach().flatten() for one in alone.student.parameters()]).numpy()
    change = np.abs(first - expected)
    # Where the true gradient is 0 (a bias before a normalisation) rounding decides, and Adam steps fully.
    assert (change > 1e-5).mean() < 0.01 and np.median(change) < 1e-7


def test_the_statistics_of_the_normalisation_are_those_of_the_whole_batch(
    together: tuple[Path, Trainer],
) -> None:
    folder, alone = together
    stored = checkpoint.load_module(folder / "two" / "checkpoint.safetensors", "student")
    for name, value in alone.student.named_buffers():
        if "running" in name:
            assert torch.allclose(stored[name], value, atol=1e-5), name


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UnusableInputError, match="batch of 5 cannot be shared by 2"):
        Ranks(0, 2).part(5)


@pytest.mark.parametrize("affine", [True, False])
def test_shared_normalisation_of_one_rank_is_torchs_own(affine: bool) -> None:
    torch.manual_seed(0)
    own = torch.nn.BatchNorm3d(4, affine=affine)
    shared = SharedBatchNorm(own, Ranks())
    x = torch.randn(3, 4, 2, 3, 5) * 7 + 2
    assert torch.allclose(shared(x), own(x), atol=1e-5)
    assert torch.allclose(shared.running_var, own.running_var)  # type: ignore[arg-type]
    assert torch.allclose(shared.eval()(x), own.eval()(x), atol=1e-5)
