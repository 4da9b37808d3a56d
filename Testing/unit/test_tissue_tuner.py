"""What keeps a fine-tuned network from forgetting, measured on a host held back with weights in training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet
from DiffSegLungLib.tissues import FIBROSIS
from DiffSegLungLib.training import tissue_tuner
from DiffSegLungLib.training.guard import DRIFT_POINTS
from DiffSegLungLib.training.painted_judge import PaintedTruth, figures, paint_truth
from DiffSegLungLib.training.painting import Painter
from DiffSegLungLib.training.painting_hosts import PaintingHost, depth_below_pleura, prepare
from DiffSegLungLib.training.request import DEFAULT_RATE
from DiffSegLungLib.training.steady_patches import SteadyPatches
from DiffSegLungLib.training.tissue_training import IGNORED
from DiffSegLungLib.training.tissue_tuner import KEEP, TissueTuner, TunerSettings
from Testing.unit.small_network import PATCH, shrink, small_network
from Testing.unit.test_tissue_training import half_and_half

WEIGHTS = Path(__file__).parents[2] / "Resources" / "models" / "2026-12-ct10" / "tissues.safetensors"
STEPS = 10


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        yield


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small patients without lesions; the second is held back."""
    folder = tmp_path_factory.mktemp("hosts")
    files = []
    for seed in (0, 1):
        phantom = make_phantom((4.0, 4.0, 4.0), seed=seed, lesions=())
        volume = replace(load_volume(phantom_image(phantom)), spacing=(2.0, 2.0, 2.0))
        host = prepare(volume, (phantom.truth > 0).astype(np.uint8), np.zeros(volume.hu.shape, bool))
        files.append(folder / f"p{seed}_100.npz")
        host.save(files[-1])
    return files


@pytest.fixture(scope="module")
def base() -> TissueNetwork:
    if not WEIGHTS.exists():
        pytest.skip("no weights in training are in this tree")
    unet = TissueUNet()
    unet.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
    return TissueNetwork(unet.eval().requires_grad_(False), 1.0, (0.0,) * CLASSES)


@pytest.fixture(scope="module")
def truth(hosts: list[Path], base: TissueNetwork) -> PaintedTruth:
    return paint_truth(hosts[1:], base, PATCH, seed=0, count=8)


def tuned(base: TissueNetwork, hosts: list[Path], folder: Path, rate: float, keep: float) -> TissueNetwork:
    """The weights as they are after some steps: their mean would hide how far they went."""
    tuner = TissueTuner(base, hosts[:1], TunerSettings(STEPS, rate, 2, PATCH, keep=keep), folder)
    tuner.run()
    return replace(base, unet=tuner.net.eval().requires_grad_(False))


def distance(base: TissueNetwork, tuned: TissueNetwork, truth: PaintedTruth) -> float:
    """Mean Kullback-Leibler divergence of the posteriors on unpainted patches held back, in nats."""
    total = 0.0
    with torch.inference_mode():
        for patch in truth.plain:
            hu = torch.from_numpy(patch)[None, None]
            first, second = (one.unet(hu).tissues.log_softmax(1) for one in (base, tuned))
            total += float((first.exp() * (first - second)).sum(1).mean())
    return total / len(truth.plain)


def test_the_drift_on_a_host_held_back_is_small(
    base: TissueNetwork, hosts: list[Path], truth: PaintedTruth, tmp_path: Path
) -> None:
    """At the rate that users have; without the base's posterior and at a high rate it is not."""
    gentle = tuned(base, hosts, tmp_path / "gentle", DEFAULT_RATE, KEEP)
    hasty = tuned(base, hosts, tmp_path / "hasty", 10 * DEFAULT_RATE, 0.0)
    held = tuned(base, hosts, tmp_path / "held", 10 * DEFAULT_RATE, 4 * KEEP)
    before, after = (figures(network, truth) for network in (base, gentle))
    assert before["healthy_now_diseased_percent"] == 0.0
    assert after["healthy_now_diseased_percent"] < DRIFT_POINTS
    assert after["mean_dice"] > before["mean_dice"] - 0.05
    gone = {
        name: distance(base, one, truth)
        for name, one in (("gentle", gentle), ("hasty", hasty), ("held", held))
    }
    assert gone["gentle"] < 0.2 * gone["hasty"], gone
    assert gone["held"] < 0.8 * gone["hasty"], "the base's posterior holds what the rate would lose"


def test_the_base_teaches_only_where_no_disease_was_painted(
    base: TissueNetwork, hosts: list[Path], tmp_path: Path
) -> None:
    tuner = TissueTuner(base, hosts, TunerSettings(1, 1e-4, 0, PATCH), tmp_path)
    hu = torch.full((1, 1, *PATCH), -800.0)
    torch.nn.init.normal_(tuner.net.tissues.weight)  # else it would agree with its base
    labels = torch.full((1, *PATCH), FIBROSIS)
    none, low, high = torch.tensor([0]), torch.tensor([5]), torch.tensor([40])
    assert tuner.more_losses(hu, none, labels, tuner.net(hu, none)) == {}
    labels[:, :8] = IGNORED  # the patient's own disease
    for levels in (none, low):
        weight, loss = tuner.more_losses(hu, levels, labels, tuner.net(hu, levels))["kept"]
        assert weight == KEEP and float(loss.detach()) > 0.1
    assert tuner.more_losses(hu, high, labels, tuner.net(hu, high)) == {}, "much noise is never read"


def test_the_base_itself_is_not_changed(base: TissueNetwork, hosts: list[Path], tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in base.unet.state_dict().items()}
    tuned(base, hosts, tmp_path, 1e-2, 0.0)
    assert all(torch.equal(before[key], value) for key, value in base.unet.state_dict().items())


def test_a_number_is_always_the_same_patch(hosts: list[Path]) -> None:
    """Whoever paints it, and whatever was painted before."""
    one, other = (SteadyPatches(hosts, Painter(0), PATCH, seed=0) for _ in range(2))
    first = [one[number] for number in (3, 70, 4)]
    again = [other[number] for number in (4, 3)]
    for (hu, labels), (hu_again, labels_again) in zip((first[2], first[0]), again, strict=True):
        assert torch.equal(hu, hu_again) and torch.equal(labels, labels_again)
    assert not torch.equal(first[0][0], first[2][0])


@pytest.fixture
def simple(tmp_path: Path) -> tuple[TissueNetwork, Path]:
    """A small network, and a host that is a box of lung."""
    lungs = np.zeros((16, 48, 48), bool)
    lungs[:, 8:40, 8:40] = True
    none, hu = np.zeros_like(lungs), np.where(lungs, -850, 30).astype(np.int16)
    file = tmp_path / "one_100.npz"
    PaintingHost(hu, lungs, none, none, none, depth_below_pleura(lungs)).save(file)
    return TissueNetwork(small_network().eval().requires_grad_(False), 1.0, (0.0,) * CLASSES), file


def test_a_step_that_is_not_finite_is_made_in_float32(
    simple: tuple[TissueNetwork, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights stay as they were before it; in float32 it is the end."""
    monkeypatch.setattr(tissue_tuner, "precision", lambda device: "bfloat16")
    settings = TunerSettings(2, 1e-4, 0, (8, 32, 32))
    tuner = TissueTuner(simple[0], [simple[1]], settings, tmp_path, painter=half_and_half)

    def broken(*values: Any) -> dict[str, tuple[float, torch.Tensor]]:
        return {"kept": (float("nan") if tuner.plan.bfloat16 else 1.0, values[3].tissues.float().mean())}

    monkeypatch.setattr(tuner, "more_losses", broken)
    tuner.run()
    assert tuner.step == 2 and not tuner.plan.bfloat16
    assert all(torch.isfinite(values).all() for values in tuner.net.parameters())
    monkeypatch.setattr(
        tuner, "more_losses", lambda *values: {"kept": (float("nan"), values[3].noise.mean())}
    )
    tuner.batches = itertools.repeat(
        (torch.zeros(1, 1, 8, 32, 32), torch.ones(1, 8, 32, 32, dtype=torch.int64))
    )
    with pytest.raises(DiffSegLungError, match="no longer a number at step 3"):
        tuner.train_step()


def test_a_process_that_paints_beside_changes_nothing(
    simple: tuple[TissueNetwork, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for workers in (0, 1):
        monkeypatch.setattr(tissue_tuner, "painters", lambda device, workers=workers: workers)
        settings, folder = TunerSettings(2, 1e-4, 0, (8, 32, 32)), tmp_path / str(workers)
        tuner = TissueTuner(simple[0], [simple[1]], settings, folder, painter=half_and_half)
        drawn.append(list(tuner._batches()))
    assert len(drawn[0]) == len(drawn[1]) == 2
    for one, other in zip(*drawn, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(one, other, strict=True))
