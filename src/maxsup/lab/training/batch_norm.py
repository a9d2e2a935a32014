"""Batch norm whose statistics are those of the whole batch, however many processes share it."""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with batch norm over all processes: PyTorch's on a GPU, and ours on a CPU, where PyTorch has none."""
    from timm.layers import convert_sync_batchnorm

    if device.type == "cuda":
        return cast(nn.Module, convert_sync_batchnorm(model))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return model


class _Sum(torch.autograd.Function):
    """Σ over the processes; the gradient of a process's summand is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _forward(self: _BatchNorm, x: Tensor) -> Tensor:
    """As batch norm's own, of (N, C, …); the processes' N may differ."""
    if not self.training:
        return type(self).forward(self, x)
    shape = (1, -1, *[1] * (x.dim() - 2))
    dims = [d for d in range(x.dim()) if d != 1]
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    sums = cast(Tensor, _Sum.apply(torch.cat([values.sum(dims), values.new_full((1,), x.numel() / x.shape[1])])))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    # Squares of deviations, and not of values, whose difference from mean² would lose digits.
    deviation = values - mean.view(shape)
    variance = cast(Tensor, _Sum.apply(deviation.square().sum(dims))) / count
    if self.running_mean is not None and self.running_var is not None:
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), momentum)
    out = deviation * (variance + self.eps).rsqrt().view(shape)
    if self.affine:
        out = out * self.weight.view(shape) + self.bias.view(shape)
    out = out.to(x.dtype)
    # timm's batch norm with an activation has these two.
    for name in ("drop", "act"):
        after = getattr(self, name, None)
        out = out if after is None else after(out)
    return out
