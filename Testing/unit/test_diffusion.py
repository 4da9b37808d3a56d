"""The diffusion model: its noise schedule, its HU window, and the encoder path that inference takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from torch.utils.flop_counter import FlopCounterMode

from DiffSegLungLib.representation.diffusion import (
    DOWNSAMPLING,
    TIMESTEPS,
    build_unet,
    encode,
    from_hounsfield,
    noise_schedule,
    to_hounsfield,
)
from DiffSegLungLib.representation.diffusion.network import DiffusionUNet
from DiffSegLungLib.representation.diffusion.unet import predict_noise_and_encode

OFFSET = 0.008
"""``s`` of Nichol and Dhariwal 2021, section 3.2."""
LARGEST_BETA = 0.999
"""Where they clip beta, to avoid a singular last step."""


def closed_form(timesteps: int) -> np.ndarray:
    """Their equation 17 at the end of each step: alpha_bar(t) = f(t) / f(0)."""
    time = np.arange(timesteps + 1) / timesteps
    level = np.cos((time + OFFSET) / (1 + OFFSET) * np.pi / 2) ** 2
    return level[1:] / level[0]


def tiny_unet() -> DiffusionUNet:
    torch.manual_seed(0)
    # Two channels a group: with one, the normalisation would take out what the timestep adds.
    unet = build_unet((8, 8, 8, 8), groups=4).eval()
    # The last convolution of every block starts at zero; a trained one is not.
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return unet


@pytest.mark.parametrize(("channels", "groups"), [((8, 8, 8, 8), 4), ((16, 32, 48, 64), 8), ((32, 64), 8)])
def test_the_network_is_that_of_monai(channels: tuple[int, ...], groups: int) -> None:
    """Names, order and random start of the parameters, and the numbers that come out."""
    levels = len(channels)
    torch.manual_seed(3)
    theirs = DiffusionModelUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=1,
        num_res_blocks=[1] * levels,
        channels=list(channels),
        attention_levels=[False] * levels,
        norm_num_groups=groups,
        num_head_channels=[groups] * (levels - 1) + [channels[-1]],
    ).eval()
    torch.manual_seed(3)
    ours = build_unet(channels, groups).eval()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in state.items())
    trained = {name: value + 0.05 * torch.randn(value.shape) for name, value in state.items()}
    theirs.load_state_dict(trained)
    ours.load_state_dict(trained)
    x, timesteps = torch.randn(2, 2, 16, 16, 24), torch.tensor([7, 180])
    expected = theirs(x, timesteps)
    expected = expected.detach()
    assert float(expected.abs().max()) > 0.1
    assert torch.allclose(ours(x, timesteps), expected, atol=2e-5)  # with gradients
    with torch.inference_mode():
        assert torch.allclose(ours(x, timesteps), expected, atol=2e-5)  # in place


def test_the_schedule_is_that_of_monai() -> None:
    theirs = DDPMScheduler(num_train_timesteps=TIMESTEPS, schedule="cosine", clip_sample=False)
    assert torch.equal(noise_schedule().betas, theirs.betas)
    assert torch.equal(noise_schedule().alphas_cumprod, theirs.alphas_cumprod)
    x, noise, timesteps = torch.randn(3, 1, 4, 4, 4), torch.randn(3, 1, 4, 4, 4), torch.tensor([0, 90, 249])
    expected = theirs.add_noise(x, noise, timesteps)
    assert torch.allclose(noise_schedule().add_noise(x, noise, timesteps), expected, atol=1e-6)


def test_the_schedule_is_the_cosine_of_nichol_and_dhariwal() -> None:
    schedule = noise_schedule()
    assert schedule.num_train_timesteps == TIMESTEPS == 250
    # Only the very last beta reaches the clip.
    assert schedule.alphas_cumprod.numpy()[:-1] == pytest.approx(closed_form(250)[:-1], abs=1e-5)
    assert float(schedule.betas.max()) <= LARGEST_BETA + 1e-6
    assert 0 <= float(schedule.alphas_cumprod[-1]) < 1e-4


def test_noising_keeps_the_variance_of_unit_images() -> None:
    schedule = noise_schedule()
    generator = torch.Generator().manual_seed(1)
    image, noise = (torch.randn((3, 1, 24, 24, 24), generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 100, 249])
    noised = schedule.add_noise(image, noise, timesteps)
    assert noised.std(dim=(1, 2, 3, 4)).numpy() == pytest.approx(1, abs=0.03)
    level = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
    assert torch.allclose(noised, level.sqrt() * image + (1 - level).sqrt() * noise, atol=1e-6)


def test_the_window_keeps_hounsfield_units_physical() -> None:
    hu = torch.tensor([-1000.0, -300.0, 400.0])
    assert from_hounsfield(hu).tolist() == pytest.approx([-1, 0, 1])
    assert to_hounsfield(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-1000, -300, 400])
    inside = torch.linspace(-1000, 400, 57)
    assert torch.allclose(to_hounsfield(from_hounsfield(inside)), inside, atol=1e-3)


def test_the_window_clips_what_lies_beyond() -> None:
    assert from_hounsfield(torch.tensor([-1024.0, 3071.0])).tolist() == pytest.approx([-1, 1])


def test_the_window_does_not_depend_on_the_rest_of_the_volume() -> None:
    lung = torch.full((4, 4, 4), -860.0)
    beside_bone = torch.cat([lung, torch.full((4, 4, 4), 1500.0)])
    assert torch.equal(from_hounsfield(beside_bone)[:4], from_hounsfield(lung))


def test_the_network_takes_ct_and_mask_and_gives_noise() -> None:
    noise = tiny_unet()(torch.randn(2, 2, 16, 16, 16), torch.tensor([3, 200]))
    assert noise.shape == (2, 1, 16, 16, 16)


def test_the_mask_and_the_timestep_are_looked_at() -> None:
    unet, x = tiny_unet(), torch.randn(1, 2, 16, 16, 16)
    without_mask = x.clone()
    without_mask[:, 1] = 0
    with torch.inference_mode():
        whole = encode(unet, x, torch.tensor([50]))
        assert not torch.allclose(whole, encode(unet, without_mask, torch.tensor([50])), atol=1e-4)
        assert not torch.allclose(whole, encode(unet, x, torch.tensor([150])), atol=1e-4)


def test_encode_gives_what_the_middle_block_gives() -> None:
    unet, x, timesteps = tiny_unet(), torch.randn(2, 2, 16, 24, 32), torch.tensor([7, 180])
    with torch.inference_mode():
        noise, bottleneck = predict_noise_and_encode(unet, x, timesteps)
        encoded = encode(unet, x, timesteps)
        assert torch.equal(noise, unet(x, timesteps))
    assert encoded.shape == (2, 8, 16 // DOWNSAMPLING, 24 // DOWNSAMPLING, 32 // DOWNSAMPLING)
    assert float(encoded.std()) > 0.01
    assert torch.allclose(encoded, bottleneck, atol=1e-6)


@torch.no_grad()
def test_one_noise_level_for_all_is_each_ones_own() -> None:
    """It then goes into the first convolution of each block instead of being added behind it."""
    torch.manual_seed(0)
    unet = build_unet((8, 16), 4).eval()
    for parameter in unet.parameters():  # the last convolution of every block starts at zero
        parameter.add_(0.05 * torch.randn(parameter.shape))
    x = torch.randn(3, 2, 8, 8, 8)
    one, each = encode(unet, x, torch.tensor([50])), encode(unet, x, torch.tensor([50, 50, 50]))
    assert torch.allclose(one, each, atol=1e-4)
    assert not torch.allclose(one, encode(unet, x, torch.tensor([200])), atol=1e-2)


def test_no_hook_is_left_on_the_network() -> None:
    unet = tiny_unet()
    predict_noise_and_encode(unet, torch.randn(1, 2, 16, 16, 16), torch.tensor([5]))
    assert not unet.middle_block._forward_hooks
    with pytest.raises(RuntimeError):
        predict_noise_and_encode(unet, torch.randn(1, 3, 16, 16, 16), torch.tensor([5]))
    assert not unet.middle_block._forward_hooks


def test_encode_is_at_most_a_quarter_of_the_work() -> None:
    # On the meta device operations are counted and not carried out.
    unet = build_unet().eval().to("meta")
    x, timesteps = torch.empty((1, 2, 16, 32, 32), device="meta"), torch.zeros(1, device="meta")
    with FlopCounterMode(display=False) as encoder:
        encode(unet, x, timesteps)
    with FlopCounterMode(display=False) as whole:
        unet(x, timesteps)
    assert 0 < encoder.get_total_flops() <= 0.25 * whole.get_total_flops()
