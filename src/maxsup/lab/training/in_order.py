"""Scaling and pooling of feature maps with gradients that add up in one order on a GPU.

PyTorch's own kernels for these gradients add in any order. Where deterministic algorithms are asked for, it scales with
gathers instead, whose gradients are sorted first, and only warns of adaptive pooling. Both are linear along the rows
and along the columns: here they are two products with small matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional


@contextmanager
def in_order() -> Iterator[None]:
    """In this process, PyTorch's bilinear `interpolate` to a size and its `adaptive_avg_pool2d` are those below.

    The functions themselves are exchanged. A mode that intercepts them would also see all other calls, the optimizer's
    among them, which costs milliseconds a step, and would be off in a backward pass that computes activations anew.
    """
    module = cast(Any, functional)
    interpolate, pool = module.interpolate, module.adaptive_avg_pool2d

    def interpolate_in_order(
        input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", *more: Any, **named: Any
    ) -> Any:
        other = scale_factor is not None or any(more) or any(named.values())
        if mode != "bilinear" or other or not _takes(input, size):
            return interpolate(input, size, scale_factor, mode, *more, **named)
        return bilinear(input, size)

    def pool_in_order(input: Tensor, output_size: Any) -> Any:
        wanted = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        if input.ndim == 4 and len(wanted) == 2:
            wanted = tuple(own if side is None else side for side, own in zip(wanted, input.shape[2:], strict=True))
        # A pool of one place is a mean, whose gradient adds nothing up.
        if tuple(wanted) == (1, 1) or not _takes(input, wanted):
            return pool(input, output_size)
        return average_pool(input, wanted)

    module.interpolate, module.adaptive_avg_pool2d = interpolate_in_order, pool_in_order
    try:
        yield
    finally:
        module.interpolate, module.adaptive_avg_pool2d = interpolate, pool


def _takes(x: Tensor, size: Any) -> bool:
    """Whether it is a batch of maps and a size in whole places; PyTorch does the rest, or says what is wrong."""
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, tuple | list) or len(sides) != 2 or x.ndim != 4 or not x.is_floating_point():
        return False
    return all(isinstance(side, int) and side > 0 for side in sides) and x.numel() > 0


def bilinear(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """(N, C, H, W) to (N, C, *size), as ``torch.nn.functional.interpolate(x, size, mode="bilinear")``."""
    rows, columns = (size, size) if isinstance(size, int) else size
    if (rows, columns) == tuple(x.shape[2:]):
        return x.clone()
    return _products(x, _scaling, rows, columns)


def average_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) to (N, C, *size), as ``torch.nn.functional.adaptive_avg_pool2d(x, size)``."""
    return _products(x, _averaging, *size)


def _products(x: Tensor, weights: Callable[..., Tensor], rows: int, columns: int) -> Tensor:
    """Rows and columns of x (N, C, H, W) times their weights, in float32 or more, rounded to x's type once."""
    n, channels, height, width = x.shape
    precise = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        # Channels last, as convolutions leave the maps: then neither product copies its factor.
        wide = x.permute(0, 2, 3, 1).to(precise).reshape(n, height, width * channels)
        wide = weights(height, rows, precise, x.device) @ wide
        wide = weights(width, columns, precise, x.device) @ wide.view(n * rows, width, channels)
        return wide.view(n, rows, columns, channels).permute(0, 3, 1, 2).to(x.dtype)


def _kept(weights: Callable[[int, int], Tensor]) -> Callable[..., Tensor]:
    """Keeps what `weights(length, new length)` gives, on its device: a copy in each step would make the host wait."""

    @lru_cache(maxsize=256)
    def on_device(length: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):  # a test may ask first, and training takes the same
            return weights(length, new).to(device, dtype)

    return on_device


@_kept
def _scaling(length: int, new: int) -> Tensor:
    """(new, length): a new place lies between the middles of two old ones, or beyond the last."""
    places = ((torch.arange(new, dtype=torch.float64) + 0.5) * length / new - 0.5).clamp(0, length - 1)
    return (1 - (places[:, None] - torch.arange(length)).abs()).clamp(min=0)


@_kept
def _averaging(length: int, new: int) -> Tensor:
    """(new, length): the mean over a part; the parts' bounds are those of PyTorch, and overlap."""
    parts, places = torch.arange(new)[:, None], torch.arange(length)
    belongs = (places >= parts * length // new) & (places < -(-(parts + 1) * length // new))
    return belongs.double() / belongs.sum(1, keepdim=True)
