"""Checkpoints: one safetensors file with everything a run needs to go on, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from DiffSegLungLib.io.atomic import atomic_path


def save(
    path: Path,
    modules: dict[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    random: np.random.Generator,
    facts: dict[str, Any],
) -> None:
    """Write modules, optimiser, random states and ``facts`` (step, settings; anything JSON can hold)."""
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    state = optimiser.state_dict()
    for index, moments in state["state"].items():
        tensors |= {f"optimiser/{index}/{key}": value for key, value in moments.items()}
    tensors["random/torch"] = torch.get_rng_state()
    header = {"facts": facts, "groups": state["param_groups"], "random": random.bit_generator.state}
    with atomic_path(path) as partial:
        # Cloned: safetensors refuses tensors that share memory.
        tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
        save_file(tensors, str(partial), metadata={"run": json.dumps(header)})


def load(
    path: Path,
    modules: dict[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Bring modules, optimiser and random states back as they were saved; returns the ``facts``."""
    with safe_open(str(path), framework="pt") as stored:
        header = json.loads(stored.metadata()["run"])
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (not a dict)
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, name))
    optimiser.load_state_dict({"state": _optimiser_state(tensors), "param_groups": header["groups"]})
    torch.set_rng_state(tensors["random/torch"])
    random.bit_generator.state = header["random"]
    return header["facts"]


def load_facts(path: Path) -> dict[str, Any]:
    """The ``facts`` of a checkpoint."""
    with safe_open(str(path), framework="pt") as stored:
        return json.loads(stored.metadata()["run"])["facts"]


def load_module(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one module of a checkpoint."""
    with safe_open(str(path), framework="pt") as stored:
        return _below({key: stored.get_tensor(key) for key in stored.keys()}, name)  # noqa: SIM118


def _below(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _optimiser_state(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _below(tensors, "optimiser").items():
        index, moment = key.split("/", 1)
        state.setdefault(int(index), {})[moment] = value
    return state
