"""The optimizer of a recipe, and its learning rate over the updates."""

from __future__ import annotations

import math
from typing import Any

import torch.optim
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from maxsup.lab.data import training_batches_number
from maxsup.lab.names import unknown
from maxsup.lab.recipes import Optimizer, Recipe

# PyTorch's own, which it can run as one kernel; timm's others know no such option.
FUSED = ("sgd", "momentum", "adam", "adamw")


def check_optimizer(name: str) -> None:
    """Raises UnknownNameError, with the nearest names, if timm has no such optimizer."""
    known = [str(of) for of in list_optimizers()]
    if name.lower().removeprefix("lookahead_") not in known:
        raise unknown("optimizer", name, known)


def optimizer_of(model: nn.Module, settings: Optimizer, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer, as one kernel if `fused` and it can be; weight decay spares what settings and model say.

    Raises:
        UnknownNameError: for an unknown optimizer.
    """
    check_optimizer(settings.name)
    options: dict[str, Any] = {"fused": True} if fused and settings.name in FUSED else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=settings.name,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        filter_bias_and_bn=not settings.decay_norm_bias,
        **options,
    )
    return optimizer


def updates_per_epoch(recipe: Recipe, images: int, world: int = 1) -> int:
    """Steps of the optimizer in an epoch of `images` images on `world` processes, the last perhaps on fewer.

    Batches that are left out make none: a last one that is too small for batch norm, or to be mixed.
    """
    batch_size = recipe.batch_size // recipe.accumulate
    return math.ceil(training_batches_number(images, recipe.data, batch_size, world=world) / recipe.accumulate)


def scheduler_of(optimizer: torch.optim.Optimizer, recipe: Recipe, images: int, world: int = 1) -> Any:
    """timm's scheduler; `step_update(t)` sets the learning rate of update t = 0, 1, …."""
    settings = recipe.optimizer
    updates = updates_per_epoch(recipe, images, world)
    # timm decays one update before a milestone; half an update later puts it at the epoch's first.
    milestones: list[Any] = [milestone + 0.5 / updates for milestone in settings.milestones]
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=settings.schedule,
        num_epochs=recipe.epochs,
        warmup_epochs=min(settings.warmup_epochs, recipe.epochs - 1),
        warmup_lr=settings.lr / 100 if settings.warmup_lr is None else settings.warmup_lr,
        min_lr=settings.min_lr,
        decay_epochs=settings.step_epochs,
        decay_milestones=milestones,
        decay_rate=settings.gamma,
        step_on_epochs=False,
        updates_per_epoch=updates,
    )
    return scheduler
