"""A run's parts, built from its recipe, and what of them a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import set_seed
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from maxsup import schedules
from maxsup.integrations.timm import collect_dense_logits
from maxsup.lab import models
from maxsup.lab.data import DataSet
from maxsup.lab.methods import METHODS
from maxsup.lab.recipes import Alpha, Optimizer, Recipe
from maxsup.lab.records import Json
from maxsup.lab.training.step import Step

# PyTorch's own, which it can run as one kernel; timm's others know no such option.
FUSED = ("sgd", "momentum", "adam", "adamw")


def seed_of(seed: int, part: int) -> int:
    """The seed of a run's weights (part 0) or of its epoch `part - 1`; below NumPy's limit of 2³²."""
    return (seed * 100_003 + part) % 2**32


def alpha_schedule(loss: nn.Module, alpha: Alpha, epochs: int) -> Any:
    """The recipe's schedule over `loss.alpha`, one step an epoch."""
    if alpha.schedule == "constant":
        return schedules.ConstantAlpha(loss, alpha.start)
    kind = schedules.LinearAlpha if alpha.schedule == "linear" else schedules.CosineAlpha
    return kind(loss, start=alpha.start, end=alpha.end, total_steps=epochs)


@dataclass
class Run:
    """What a run carries from epoch to epoch; `state_dict` of it is the checkpoint."""

    method: str
    model: models.Classifier
    optimizer: torch.optim.Optimizer
    scheduler: Any
    loss: nn.Module
    alpha: Any | None
    step: Step
    epoch: int = 0
    history: list[Json] = field(default_factory=list)
    selected: dict[str, Tensor] = field(default_factory=dict)
    selected_epoch: int = -1
    best: float = -math.inf

    def state_dict(self) -> Json:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "history": self.history,
            "selected": self.selected,
            "selected_epoch": self.selected_epoch,
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            "alpha": None if self.alpha is None else self.alpha.state_dict(),
        }

    def load_state_dict(self, state: Json) -> None:
        """Takes over what `state_dict` gave."""
        for name in ("epoch", "history", "selected", "selected_epoch", "best"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        if self.alpha is not None:
            self.alpha.load_state_dict(state["alpha"])


def _optimizer(model: nn.Module, settings: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    fused: dict[str, Any] = {"fused": True} if device.type == "cuda" and settings.name in FUSED else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=settings.name,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        **fused,
    )
    return optimizer


@contextmanager
def building(recipe: Recipe, method: str, seed: int, data: DataSet, device: torch.device) -> Iterator[Run]:
    """A run before its first epoch; hooks on its model are gone afterwards."""
    set_seed(seed_of(seed, 0))
    network = models.build(recipe.model, data.channels, data.num_classes)
    model = models.Classifier(network, *data.mean_and_std()).to(device).to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, recipe.optimizer, device)
    updates_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=recipe.epochs,
        warmup_epochs=min(recipe.optimizer.warmup_epochs, recipe.epochs - 1),
        warmup_lr=recipe.optimizer.lr / 100,
        min_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    how = METHODS[method]
    loss = how.build(recipe.alpha.start, data.num_classes).to(device)
    alpha = alpha_schedule(loss, recipe.alpha, recipe.epochs) if how.scheduled else None
    # For the whole run: a model that was compiled with the hook keeps it.
    with collect_dense_logits(network) if how.dense else nullcontext() as dense:
        step = Step(
            model,
            loss,
            precision=recipe.precision,
            full_size=recipe.batch_size,
            dense=dense,
            compile=recipe.compile,
            graph=recipe.cuda_graph and device.type == "cuda",
        )
        yield Run(method, model, optimizer, scheduler, loss, alpha, step)
