"""Scaling and pooling of feature maps with gradients that add up in one order on a GPU.

PyTorch's own kernels for these gradients add in any order. Where deterministic algorithms are asked for, it scales with
gathers instead, whose gradients sort every pixel of every channel and take most of a step's time, and only warns of
adaptive pooling. Both are linear along the rows and along the columns: here they are two products with small matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class InOrder(TorchFunctionMode):
    """While it is entered, `interpolate` (bilinear, to a size) and `adaptive_avg_pool2d` of PyTorch are those below."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.interpolate:
            return _interpolate(*args, **kwargs)
        if func is functional.adaptive_avg_pool2d:
            return average_pool(*args, **kwargs)
        return func(*args, **kwargs)


def _interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **other: Any) -> Any:
    """As PyTorch's; its names of arguments are the caller's."""
    whole = other.get("align_corners") or other.get("antialias")
    if mode != "bilinear" or whole or scale_factor is not None or input.ndim != 4:
        return functional.interpolate(input, size, scale_factor, mode, **other)
    return bilinear(input, size)


def bilinear(x: Tensor, size: int | Iterable[int]) -> Tensor:
    """(N, C, H, W) to (N, C, *size), as ``torch.nn.functional.interpolate(x, size, mode="bilinear")``."""
    rows, columns = (size, size) if isinstance(size, int) else tuple(size)
    if (rows, columns) == tuple(x.shape[2:]):
        return x.clone()
    return _products(x, _scaling, rows, columns)


def average_pool(x: Tensor, output_size: Any) -> Tensor:
    """(N, C, H, W) to (N, C, *output_size), as ``torch.nn.functional.adaptive_avg_pool2d(x, output_size)``."""
    wanted = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows, columns = (own if length is None else length for length, own in zip(wanted, x.shape[2:], strict=True))
    return _products(x, _averaging, rows, columns)


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
