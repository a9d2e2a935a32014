"""One pass over the training images."""

from __future__ import annotations

import math

import torch
from accelerate.utils import set_seed

from maxsup import OnlineLabelSmoothingLoss
from maxsup.lab.data import Split, training_batches
from maxsup.lab.recipes import Recipe
from maxsup.lab.training.run import Run, seed_of


def train_epoch(run: Run, split: Split, recipe: Recipe, seed: int, device: torch.device) -> tuple[float, float]:
    """Trains `run` on `split` once; returns the mean loss and the accuracy on the augmented images."""
    # Seeding each epoch by its number, with no generator that lives on, makes a resumed run equal an unbroken one.
    epoch_seed = seed_of(seed, run.epoch + 1)
    set_seed(epoch_seed)
    run.model.train()
    run.loss.train()
    total = torch.zeros(3, dtype=torch.float64, device=device)
    one = torch.ones((), device=device)
    update = run.epoch * math.ceil(len(split) / recipe.batch_size)
    for images, labels in training_batches(split, recipe.data, recipe.batch_size, seed=epoch_seed, device=device):
        run.scheduler.step_update(update)
        # Sums stay on the device: the host reads them once an epoch.
        total += run.step(images.contiguous(memory_format=torch.channels_last), labels, one)
        run.optimizer.step()
        run.optimizer.zero_grad()
        update += 1
    if isinstance(run.loss, OnlineLabelSmoothingLoss):
        run.loss.next_epoch()
    loss, right, count = total.tolist()
    return loss / count, right / count
