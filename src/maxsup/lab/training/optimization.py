"""The optimizer of a recipe, and its learning rate over the updates."""

from __future__ import annotations

import math
from typing import Any

import torch.optim
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from maxsup.lab.recipes import Optimizer, Recipe

# PyTorch's own, which it can run as one kernel; timm's others know no such option.
FUSED = ("sgd", "momentum", "adam", "adamw")


def optimizer_of(model: nn.Module, settings: Optimizer, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer, as one kernel if `fused` and it can be; weight decay spares what settings and model say."""
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


def updates_per_epoch(recipe: Recipe, images: int) -> int:
    """Steps of the optimizer in an epoch of `images` images, the last perhaps on fewer."""
    return math.ceil(images / recipe.batch_size)


def scheduler_of(optimizer: torch.optim.Optimizer, recipe: Recipe, images: int) -> Any:
    """timm's scheduler; `step_update(t)` sets the learning rate of update t = 0, 1, …."""
    settings = recipe.optimizer
    updates = updates_per_epoch(recipe, images)
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
