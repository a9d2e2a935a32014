"""A step's kernels, captured once and launched together from then on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Eager steps before a capture: cuDNN and cuBLAS choose and allocate in the first, the allocator settles in the others.
EAGER_STEPS = 3


class Graph:
    """Runs `function`, which adds gradients to `model`'s weights, eagerly `EAGER_STEPS` times, then replays it.

    `function` takes tensors on one GPU, of the same shapes and types each time, and gives one; the next call overwrites
    that.

    The eager calls are steps of the training like all others: a warm-up on made-up data would have to be undone in
    batch norm's statistics, in the losses' tables and in the random state.

    The graph writes the gradients where they were at the capture, if there were any then it adds to them.
    """

    def __init__(self, function: Callable[..., Tensor], model: nn.Module) -> None:
        self._function = function
        self._weights = list(model.parameters())
        self._gradients: list[Tensor | None] = []
        self._eager = 0
        # One for all: each stream keeps the memory of a step for itself.
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """See the class."""
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
            # A copy would spread or convert what does not fit, and the step would be another one.
            if value.shape != own.shape or value.dtype != own.dtype:
                raise ValueError(
                    f"a graph captured with {tuple(own.shape)}, {own.dtype}, "
                    f"cannot take {tuple(value.shape)}, {value.dtype}"
                )
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
