"""One pass over the training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from accelerate.utils import set_seed
from torch import Tensor

from maxsup import OnlineLabelSmoothingLoss
from maxsup.lab.data import AnySplit, training_batches
from maxsup.lab.processes import Processes
from maxsup.lab.recipes import Recipe
from maxsup.lab.training.optimization import updates_per_epoch
from maxsup.lab.training.run import Run, seed_of

T = TypeVar("T")


def train_epoch(run: Run, split: AnySplit, recipe: Recipe, seed: int) -> tuple[float, float]:
    """Trains `run` on `split` once; returns the mean loss and the accuracy on the augmented images of all processes."""
    processes = run.processes
    # Seeding each epoch by its number, with no generator that lives on, makes a resumed run equal an unbroken one.
    epoch_seed = seed_of(seed, run.epoch + 1)
    # What the network draws differs between processes, as their images do.
    set_seed((epoch_seed + processes.rank) % 2**32)
    run.model.train()
    run.loss.train()
    total = torch.zeros(3, dtype=torch.float64, device=processes.device)
    update = run.epoch * updates_per_epoch(recipe, len(split))
    batches = training_batches(
        split,
        recipe.data,
        recipe.batch_size // recipe.accumulate,
        seed=epoch_seed,
        device=processes.device,
        rank=processes.rank,
        world=processes.world,
        num_classes=run.num_classes,
        normalization=(run.model.mean, run.model.std),
    )
    for group in _groups(batches, recipe.accumulate):
        run.scheduler.step_update(update)
        weights = _weights([len(labels) for _, labels in group], processes)
        for place, ((images, labels), weight) in enumerate(zip(group, weights, strict=True), start=1):
            with processes.without_averaging(run.step.model, place < len(group)):
                # Sums stay on the device: the host reads them once an epoch.
                total += run.step(images.contiguous(memory_format=torch.channels_last), labels, weight)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_norm)
        run.optimizer.step()
        # A graph adds the gradients of further micro-batches where those of the first are.
        run.optimizer.zero_grad(set_to_none=recipe.accumulate == 1)
        if run.ema is not None:
            run.ema.update(run.model)
        update += 1
    processes.same_buffers(run.model)
    if isinstance(run.loss, OnlineLabelSmoothingLoss):
        run.loss.next_epoch()
    loss, right, count = processes.sum(total).tolist()
    return loss / count, right / count


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _weights(counts: list[int], processes: Processes) -> list[Tensor]:
    """What the mean loss of each micro-batch weighs, so that the gradient is that of the mean over the update's images.

    Averaging over `world` processes divides by `world`, which the weights make up for.
    """
    device = processes.device
    if processes.world == 1:
        return [torch.full((), count / sum(counts), device=device) for count in counts]
    images = processes.sum(torch.full((), float(sum(counts)), device=device))
    return [count * processes.world / images for count in counts]
