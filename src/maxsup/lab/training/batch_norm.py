"""Batch norm whose statistics are those of the whole batch, however many processes share it."""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """`model` with batch norm over all processes, each of which has at least one image of every batch.

    On a GPU by PyTorch's kernels, which its own SyncBatchNorm puts together so that the host waits for the device three
    times a layer, to leave out processes without images.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return model


def _forward(self: _BatchNorm, x: Tensor) -> Tensor:
    """As batch norm's own, of (N, C, …); the processes' N may differ."""
    if not self.training:
        return type(self).forward(self, x)
    if self.num_batches_tracked is not None:
        self.num_batches_tracked += 1
    momentum = 0.0 if self.running_mean is None else self.momentum
    if momentum is None:
        momentum = 1.0 / float(cast(Tensor, self.num_batches_tracked))
    out = _by_kernels(self, x, momentum) if x.is_cuda else _by_hand(self, x, momentum)
    # timm's batch norm with an activation has these two.
    for name in ("drop", "act"):
        after = getattr(self, name, None)
        out = out if after is None else after(out)
    return out


def _by_kernels(of: _BatchNorm, x: Tensor, momentum: float) -> Tensor:
    statistics = of.running_mean, of.running_var
    return cast(Tensor, _Normalized.apply(x, of.weight, of.bias, *statistics, momentum, of.eps))


class _Normalized(torch.autograd.Function):
    """Batch norm by the kernels of `torch.nn.SyncBatchNorm`; DDP averages the gradients of weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x, channels = x.contiguous(memory_format=_format(x)), x.shape[1]
        mean, inverse_deviation = torch.batch_norm_stats(x, eps)
        own = torch.cat([mean, inverse_deviation, mean.new_full((1,), x.numel() // channels)])
        # A row for each process. Gathering has another name in each version of PyTorch, and adding zeros is exact.
        rows = own.new_zeros(distributed.get_world_size(), len(own))
        rows[distributed.get_rank()] = own
        distributed.all_reduce(rows)
        means, inverse_deviations, counts = rows.split([channels, channels, 1], dim=1)
        counts = counts.flatten()
        mean, inverse_deviation = torch.batch_norm_gather_stats_with_counts(
            x, means, inverse_deviations, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, inverse_deviation, counts.int())
        return torch.batch_norm_elemt(x, weight, bias, mean, inverse_deviation, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, counts = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=_format(x))
        needed = ctx.needs_input_grad[:3]
        *sums, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, x, mean, inverse_deviation, weight, *needed
        )
        of_x = None
        if needed[0]:
            both = torch.cat(sums)
            distributed.all_reduce(both)
            of_gradient, of_product = both.chunk(2)
            of_x = torch.batch_norm_backward_elemt(
                gradient, x, mean, inverse_deviation, weight, of_gradient, of_product, counts
            )
        return of_x, of_weight if needed[1] else None, of_bias if needed[2] else None, None, None, None, None


def _format(x: Tensor) -> torch.memory_format:
    """The arrangement in which the kernels take `x` and its gradient."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


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


def _by_hand(self: _BatchNorm, x: Tensor, momentum: float) -> Tensor:
    """On a CPU, for which PyTorch has no such kernels."""
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
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), momentum)
    out = deviation * (variance + self.eps).rsqrt().view(shape)
    if self.affine:
        out = out * self.weight.view(shape) + self.bias.view(shape)
    return out.to(x.dtype)
