"""Several processes that train one network, as ``torchrun`` starts them: the same numbers as one would give.

Every rank draws the random numbers of the whole batch and works on its own part of it; what the contrastive
loss and the batch normalisation need of the others is exchanged with its gradient.  The mean of the ranks'
gradients is that of the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from DiffSegLungLib.errors import UnusableInputError

PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and which of them this one is.

    Attributes:
        number: this process, 0 to ``count`` - 1; number 0 writes the files.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    def part(self, length: int) -> slice:
        """The items of a batch of ``length`` that are this rank's."""
        if length % self.count:
            raise UnusableInputError(
                f"A batch of {length} cannot be shared by {self.count} processes: give --batch a multiple."
            )
        share = length // self.count
        return slice(self.number * share, (self.number + 1) * share)

    def own(self, batch: torch.Tensor) -> torch.Tensor:
        """This rank's part of a whole batch."""
        return batch[self.part(len(batch))]

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all ranks in their order; gradients find their way back."""
        return values if self.count == 1 else _Gather.apply(values, self)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks, with gradient."""
        return values if self.count == 1 else _Mean.apply(values, self)

    def mean_facts(self, facts: dict[str, float]) -> dict[str, float]:
        """Each figure's mean over the ranks; all must have the same names."""
        if self.count == 1:
            return facts
        means = self.mean(torch.tensor(list(facts.values()), dtype=torch.float64, device=_device()))
        return dict(zip(facts, means.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is true of any rank: all must stop at the same step."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=_device())) > 0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            self.any(False)  # an exchange, which unlike a barrier needs no device told

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every rank the mean gradient, in one exchange."""
        if self.count == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        parts = (together / self.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _device() -> str:
    """Where tensors of an exchange must lie."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        context.ranks = ranks
        return _sum(values) / ranks.count

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _sum(gradients[0]) / context.ranks.count, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        context.ranks = ranks
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(ranks.count)]
        distributed.all_gather(parts, values)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Every rank computes the loss of all: the gradient of a part is the sum of what each says of it.
        return context.ranks.own(_sum(gradients[0])), None


def _sum(values: torch.Tensor) -> torch.Tensor:
    total = values.detach().clone().contiguous()
    distributed.all_reduce(total)
    return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all ranks (torch's own needs a graphics card for that).

    Args:
        own: the layer whose place it takes; weights and statistics go over.
        ranks: the processes.
    """

    def __init__(self, own: nn.modules.batchnorm._BatchNorm, ranks: Ranks) -> None:
        assert own.running_mean is not None
        where = own.running_mean.device
        super().__init__(own.num_features, own.eps, own.momentum, own.affine, device=where)
        self.load_state_dict(own.state_dict())
        self.ranks = ranks

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of axes behind the channels."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise, with the statistics of all ranks while training."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        mean = self.ranks.mean(input.float().mean(axes))
        centred = input - _as_channels(mean, input)
        variance = self.ranks.mean(centred.float().square().mean(axes))
        count = self.ranks.count * input.numel() / input.shape[1]
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scaled = centred * _as_channels((variance + self.eps).rsqrt(), input)
        if not self.affine:
            return scaled
        return scaled * _as_channels(self.weight, input) + _as_channels(self.bias, input)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        momentum = self.momentum or 0.1
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
        self.num_batches_tracked.add_(1)


def _as_channels(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def share_batch_norm(module: nn.Module, ranks: Ranks) -> None:
    """Let the batch normalisations inside a module look at the batches of all ranks."""
    if ranks.count == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, SharedBatchNorm(child, ranks))
        else:
            share_batch_norm(child, ranks)


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the other processes where ``torchrun`` started this one; alone it is rank 0 of 1.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``; of several graphics cards each process takes its own.

    Yields:
        The ranks, and this process's device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # One may prepare hours of CT while the others wait; torchrun ends all when one fails.
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
