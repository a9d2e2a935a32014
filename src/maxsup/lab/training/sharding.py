"""A run whose weights, gradients and optimizer state are spread over the processes (FSDP2)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from maxsup.lab.models import Classifier


def shard(model: Classifier, device: torch.device) -> None:
    """Shards each block of `model`, then the rest; to be called before its optimizer is made.

    Blocks are the members of the backbone's lists and sequences of modules.
    """
    # PyTorch's caches keep the group of a sharded model for good, and gloo's threads with it: see `processes.leave`.
    mesh = DeviceMesh.from_group(cast(ProcessGroup, distributed.new_group()), "cpu") if device.type == "cpu" else None
    for part in model.backbone.children():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "features_and_logits")


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers in whole, on the CPU, in the first process; elsewhere nothing. All have to call it."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: value.clone() for name, value in cast(dict[str, Tensor], whole).items()}


def whole_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """The optimizer's state by the weights' names, likewise."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # an evaluation leaves the last weights it used whole, which are not the optimizer's
    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, several: bool) -> None:
    """Gives `model` the first process's `weights`; `several` says whether there are other processes."""
    # A copy, for PyTorch puts the pieces into the dict that it is given.
    set_model_state_dict(model, dict[str, Any](weights), options=_whole_of_first(several))


def load_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, Any], *, several: bool) -> None:
    """Gives `optimizer` the first process's `state`, likewise."""
    set_optimizer_state_dict(model, optimizer, state, options=_whole_of_first(several))


def _whole_of_first(several: bool) -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=several)
