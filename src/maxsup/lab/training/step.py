"""One micro-batch of training: forward, loss and backward; eager, compiled, or replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from maxsup.integrations.timm import DenseLogits
from maxsup.lab.training.graph import Graph

Precision = Literal["auto", "float32", "bfloat16"]
Micro = Callable[[Tensor, Tensor, Tensor], Tensor]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The precision of a recipe on `device`: ``"auto"`` is bfloat16 on a GPU and float32 elsewhere."""
    bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


class Step:
    """Adds the gradients of a micro-batch to the weights' and returns (loss · N, images predicted right, N).

    Called with images (N, C, H, W), labels (N,) or (N, K) and the weight of the micro-batch's mean loss, a tensor. The
    result is float64, shape (3,), on the device: nothing waits for it.

    `compile` fuses forward and loss by `torch.compile`; `graph` replays the launches of a step, which costs the host
    next to nothing and gives the eager result bit by bit. Both are for micro-batches of `full_size`; others, as the
    last of an epoch, run eagerly, so that no second shape is compiled or captured. `model` may be wrapped to average
    the gradients over processes; then there is no graph.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        *,
        precision: Precision,
        full_size: int,
        dense: DenseLogits | None = None,
        teacher: nn.Module | None = None,
        compile: bool = False,
        graph: bool = False,
    ) -> None:
        self.model = model
        self._full_size = full_size
        # Nothing here refers to the step: without a circle, the memory of a graph is free when the run is over.
        objective = _Objective(model, loss, precision, dense, teacher)
        whole = torch.compile(objective.value, dynamic=False) if compile else objective.value
        self._eager: Micro = partial(_backward, objective.value)
        self._full: Micro = partial(_backward, whole)
        if graph:
            self._full = Graph(self._full, model)

    def __call__(self, images: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        run = self._full if len(images) == self._full_size else self._eager
        return run(images, labels, weight)


@dataclass(frozen=True, eq=False)
class _Objective:
    model: nn.Module
    loss: nn.Module
    precision: Precision
    dense: DenseLogits | None
    teacher: nn.Module | None

    def value(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss and how many images are predicted right."""
        with autocast(self.precision, images.device):
            logits = self.model(images).float()
            # What the loss takes besides: dense logits, or a teacher's of the same images.
            more = [self.dense().float()] if self.dense is not None else []
            more += [self.teacher(images).float()] if self.teacher is not None else []
        loss = self.loss(logits, labels, *more)
        return loss, (logits.detach().argmax(1) == (labels if labels.dim() == 1 else labels.argmax(1))).sum()


def _backward(
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: Tensor, labels: Tensor, weight: Tensor
) -> Tensor:
    loss, right = objective(images, labels)
    (loss * weight).backward()
    n = len(images)
    return torch.stack([loss.detach().double() * n, right.double(), torch.full_like(right, n, dtype=torch.float64)])
