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

Precision = Literal["auto", "float32", "bfloat16"]
Micro = Callable[[Tensor, Tensor, Tensor], Tensor]

# Eager steps before a capture: cuDNN and cuBLAS choose and allocate in the first, the allocator settles in the others.
EAGER_STEPS = 3


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
            self._full = _Graph(self._full, model)

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


class _Graph:
    """Runs `function` eagerly a few times, captures it, and replays it from then on.

    The eager calls are steps of the training like all others: a warm-up on made-up data would have to be undone in
    batch norm's statistics, in the losses' tables and in the random state.

    The graph writes the gradients where they were at the capture, if there were any then it adds to them.
    """

    def __init__(self, function: Micro, model: nn.Module) -> None:
        self._function = function
        self._weights = list(model.parameters())
        self._gradients: list[Tensor | None] = []
        self._eager = 0
        # One for all: each stream keeps the memory of a step for itself.
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        inputs = (images, labels, weight)
        if self._eager < EAGER_STEPS:
            self._eager += 1
            return self._beside(inputs)
        if self._graph is None:
            self._inputs = tuple(value.clone() for value in inputs)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, as the one that pins memory for the images, may allocate meanwhile.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._output = self._function(*self._inputs)
            self._gradients = [weight.grad for weight in self._weights]
        for own, value in zip(self._inputs, inputs, strict=True):
            own.copy_(value)
        for parameter, gradient in zip(self._weights, self._gradients, strict=True):
            parameter.grad = gradient  # `zero_grad` or an eager step may have put others there
        self._graph.replay()
        return self._output

    def _beside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """A call on a stream of its own, as a capture asks of what warms it up."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            output = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return output
