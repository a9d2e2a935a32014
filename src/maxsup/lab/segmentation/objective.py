"""What an iteration of a fine-tuning minimises and adds, by which optimizer, and at which learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

import maxsup
from maxsup.lab.processes import Processes
from maxsup.lab.segmentation.data import IGNORE
from maxsup.lab.segmentation.model import Segmenter, parameter_groups
from maxsup.lab.segmentation.recipes import AdamW, Loss, SegmentationRecipe
from maxsup.lab.training.graph import Graph
from maxsup.lab.training.step import autocast

Step = Callable[[Tensor, Tensor], Tensor]


def loss_function(name: Loss, alpha: float) -> nn.Module:
    """The loss of a recipe: logits (M, K) and labels (M,) to the sum over the pixels that have one."""
    if name == "cross-entropy":
        return nn.CrossEntropyLoss(ignore_index=IGNORE, reduction="sum")
    if name == "label-smoothing":
        return maxsup.LabelSmoothingCrossEntropyLoss(alpha, ignore_index=IGNORE, reduction="sum")
    return maxsup.MaxSupCrossEntropyLoss(alpha, ignore_index=IGNORE, reduction="sum")


def pixel_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of a `loss_function` over pixels: logits (N, K, h, w), scaled to the size of the labels (N, H, W)."""
    scaled = nn.functional.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
    # As rows: on a GPU the loss of maps adds up in any order.
    rows = scaled.permute(0, 2, 3, 1).reshape(-1, scaled.shape[1])
    return cast(Tensor, loss(rows, labels.reshape(-1).long()))


def batch_loss(
    loss: nn.Module, outputs: tuple[Tensor, Tensor | None], labels: Tensor, auxiliary_weight: float
) -> Tensor:
    """The summed loss of what a `Segmenter` gives in training, the auxiliary head's share included."""
    logits, auxiliary = outputs
    summed = pixel_loss(loss, logits, labels)
    return summed if auxiliary is None else summed + auxiliary_weight * pixel_loss(loss, auxiliary, labels)


def step_of(model: nn.Module, recipe: SegmentationRecipe, processes: Processes, *, graph: bool = False) -> Step:
    """A function that adds the gradients of a batch to the weights', and gives its loss per labelled pixel.

    It takes images (N, C, H, W), uint8, and labels (N, H, W) on the processes' device, and does not wait for it. The
    loss, the auxiliary head's share included, is this process's part: the mean over the processes, as `model` takes it
    of the gradients, is that of all their labelled pixels. With `graph`, for one process with a GPU, the launches of a
    step are replayed: batches must have one shape, and the next call overwrites the loss.
    """
    loss = loss_function(recipe.loss, recipe.alpha)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with autocast("auto", images.device):
            outputs = model(images)
        summed = batch_loss(loss, outputs, labels, recipe.decoder.auxiliary_weight)
        count = processes.sum((labels != IGNORE).sum()).clamp(min=1)
        mean = summed * (processes.world / count)
        mean.backward()
        return mean.detach()

    return Graph(step, model) if graph else step


def optimizer_of(model: Segmenter, settings: AdamW) -> torch.optim.AdamW:
    """The optimizer of a model that is on its device; as one kernel where that is a GPU."""
    groups = parameter_groups(model, settings)
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True if model.mean.is_cuda else None)


def learning_rate(iteration: int, iterations: int, optimizer: AdamW) -> float:
    """The share of the peak learning rate in an iteration: linear warm-up from a millionth, polynomial decay to 0.

    >>> [learning_rate(i, 30, AdamW(warmup=10)) for i in (10, 20, 30)]
    [1.0, 0.5, 0.0]
    """
    warmup = min(optimizer.warmup, iterations - 1)
    if iteration < warmup:
        return 1e-6 + (1 - 1e-6) * iteration / warmup
    return float((1 - (iteration - warmup) / (iterations - warmup)) ** optimizer.power)
