"""A run's parts, built from its recipe, and what of them a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from maxsup import schedules
from maxsup.integrations.timm import collect_dense_logits
from maxsup.lab import models
from maxsup.lab.data import DataSet
from maxsup.lab.methods import METHODS, Method
from maxsup.lab.processes import Processes
from maxsup.lab.recipes import Alpha, Recipe
from maxsup.lab.records import Json
from maxsup.lab.training import sharding
from maxsup.lab.training.batch_norm import synchronize_batch_norm
from maxsup.lab.training.distillation import Teacher, student_method
from maxsup.lab.training.optimization import optimizer_of, scheduler_of
from maxsup.lab.training.step import Step


def seed_of(seed: int, part: int) -> int:
    """The seed of a run's weights (part 0) or of its epoch `part - 1`; below NumPy's limit of 2³²."""
    return (seed * 100_003 + part) % 2**32


def alpha_schedule(loss: nn.Module, alpha: Alpha, epochs: int) -> Any:
    """The recipe's schedule over `loss.alpha`, one step an epoch."""
    if alpha.schedule == "constant":
        return schedules.ConstantAlpha(loss, alpha.start)
    kind = schedules.LinearAlpha if alpha.schedule == "linear" else schedules.CosineAlpha
    schedule = kind(loss, start=alpha.start, end=alpha.end, total_steps=epochs)
    # Ends the watch for a forgotten step now: with its hook's end, in the second epoch, PyTorch would compile anew.
    schedule.move_to(0)
    return schedule


@dataclass
class Run:
    """What a run carries from epoch to epoch; `state_dict` of it is the checkpoint."""

    method: str
    model: models.Classifier
    optimizer: torch.optim.Optimizer
    scheduler: Any
    loss: nn.Module
    alpha: Any | None
    ema: ModelEmaV3 | None
    step: Step
    processes: Processes
    num_classes: int
    sharded: bool
    """Whether the state is that of `sharding`, by name and in whole, which any number of processes can take up."""
    epoch: int = 0
    history: list[Json] = field(default_factory=list)
    selected: dict[str, Tensor] = field(default_factory=dict)
    selected_epoch: int = -1
    best: float = -math.inf

    @property
    def evaluated(self) -> models.Classifier:
        """The weights that are validated and tested: their moving average where the recipe asks for one."""
        return self.model if self.ema is None else cast(models.Classifier, self.ema.module)

    def select(self) -> None:
        """Keeps the present weights as those to be tested; all processes have to call it."""
        self.selected_epoch = self.epoch
        self.selected = self._weights(self.evaluated)

    def restore_selected(self) -> None:
        """Puts the kept weights into `evaluated`."""
        self._load_weights(self.evaluated, self.selected)

    def _weights(self, model: nn.Module) -> dict[str, Tensor]:
        if self.sharded:
            return sharding.whole_weights(model)
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    def _load_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        if self.sharded:
            sharding.load_weights(model, weights, several=self.processes.world > 1)
        else:
            model.load_state_dict(weights)

    def state_dict(self) -> Json:
        """Everything that the next epoch depends on, in the first process at least, and for any number of them.

        All processes have to call it.
        """
        whole = sharding.whole_state(self.optimizer, self.model) if self.sharded else self.optimizer.state_dict()
        return {
            "epoch": self.epoch,
            "history": self.history,
            "selected": self.selected,
            "selected_epoch": self.selected_epoch,
            "best": self.best,
            "model": self._weights(self.model),
            "optimizer": whole,
            "loss": self.loss.state_dict(),
            "alpha": None if self.alpha is None else self.alpha.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def load_state_dict(self, state: Json) -> None:
        """Takes over what `state_dict` gave."""
        for name in ("epoch", "history", "selected", "selected_epoch", "best"):
            setattr(self, name, state[name])
        self._load_weights(self.model, state["model"])
        if self.sharded:
            several = self.processes.world > 1
            sharding.load_state(self.optimizer, self.model, state["optimizer"], several=several)
        else:
            self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        if self.alpha is not None:
            self.alpha.load_state_dict(state["alpha"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])


@contextmanager
def _compiling(compile: bool) -> Iterator[None]:
    """Forgets afterwards what was compiled: PyTorch compiles a function for a few networks only, then no more."""
    try:
        yield
    finally:
        if compile:
            torch._dynamo.reset()


@contextmanager
def building(
    recipe: Recipe, method: str, seed: int, data: DataSet, processes: Processes, teacher: Teacher | None = None
) -> Iterator[Run]:
    """A run before its first epoch; hooks on its model are gone afterwards."""
    how: Method = METHODS[method] if teacher is None else student_method(recipe)
    if recipe.shard and how.dense:
        raise ValueError(f"shard: {method} applies the head by itself, whose weights are spread over the processes")
    set_seed(seed_of(seed, 0))
    device = processes.device
    network = models.build(recipe.model, data.channels, data.num_classes)
    if processes.world > 1 and recipe.sync_batch_norm:
        network = synchronize_batch_norm(network, device)
    model = models.Classifier(network, *data.mean_and_std()).to(device)
    if not recipe.shard:  # which knows no other order of a weight's memory
        model = model.to(memory_format=torch.channels_last)
    ema = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
    if recipe.shard and processes.world > 1:
        sharding.shard(model, device)
    optimizer = optimizer_of(model, recipe.optimizer, fused=device.type == "cuda" and not recipe.shard)
    loss = how.build(recipe.alpha.start, data.num_classes).to(device)
    # For the whole run: a model that was compiled with the hook keeps it.
    with collect_dense_logits(network) if how.dense else nullcontext() as dense, _compiling(recipe.compile):
        step = Step(
            model if recipe.shard else processes.wrap(model),
            loss,
            precision=recipe.precision,
            full_size=processes.share(recipe.batch_size // recipe.accumulate),
            dense=dense,
            teacher=None if teacher is None else teacher.to(device).to(memory_format=torch.channels_last),
            compile=recipe.compile,
            graph=recipe.cuda_graph and device.type == "cuda" and processes.world == 1,
        )
        yield Run(
            method=method,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler_of(optimizer, recipe, len(data.train), processes.world),
            loss=loss,
            alpha=alpha_schedule(loss, recipe.alpha, recipe.epochs) if how.scheduled else None,
            ema=ema,
            step=step,
            processes=processes,
            num_classes=data.num_classes,
            sharded=recipe.shard,
        )
