"""Losses of a linear layer's output, and their gradients, from the logits of one chunk of rows at a time.

A chunk's logits become its losses and, in their own place, the gradient, from which the gradients of hidden, weight and
bias follow as products.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number, first_maximum
from maxsup.methods.row_sums import row_gradients_, row_losses, row_sums

# A product of fewer rows leaves a GPU idle, and more logits at once gain next to nothing.
LEAST_ROWS = 1024
CHUNK_BYTES = 1 << 29


class Head(NamedTuple):
    """What the loss takes beside hidden (N, D), weight (K, D) and bias (K,)."""

    target: Tensor  # (N,) class indices, int64
    class_weight: Tensor | None  # (K,)
    alpha: Number
    smoothing: float
    ignore_index: int
    triton: bool
    compute: torch.dtype  # of the logits
    accumulate: torch.dtype  # in which chunks of the weight's gradient are added up, if weight's own is not finer


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def rows_per_chunk(rows: int, classes: int, size: int) -> int:
    """Rows of a chunk whose logits have `size` bytes each; chunks are equally long, of a multiple of 64 rows."""
    most = max(LEAST_ROWS, CHUNK_BYTES // (classes * size))
    if rows <= most:
        return max(1, rows)
    chunks = -(-rows // most)
    return min(most, -(-rows // (64 * chunks)) * 64)


def exact_type(compute: torch.dtype) -> torch.dtype:
    """The type of the losses for logits of type `compute`."""
    return torch.float64 if compute == torch.float64 else torch.float32


def losses_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor | None, needs: list[bool], head: Head
) -> tuple[Tensor, Gradients]:
    """Losses per row (N,), and `factor` (0-dim or (N,)) times their gradients as far as they are needed.

    To the compiler the loop over the chunks is one operator.
    """
    if not torch.compiler.is_compiling():
        return _by_chunks(hidden, weight, bias, factor, needs, head)
    tensor, number = (head.alpha, 0.0) if isinstance(head.alpha, Tensor) else (None, float(head.alpha))
    options = (head.target, head.class_weight, tensor, number, *head[3:])
    losses, *gradients = torch.ops.maxsup.linear_head(hidden, weight, bias, factor, needs, *options)
    first, second, third = (x if needed else None for x, needed in zip(gradients, needs, strict=True))
    return losses, (first, second, third)


def _by_chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor | None, needs: list[bool], head: Head
) -> tuple[Tensor, Gradients]:
    rows, step = hidden.shape[0], _step(hidden, weight, head.compute)
    losses = hidden.new_empty(rows, dtype=exact_type(head.compute))
    of_hidden, of_weight, of_bias = _new_gradients(hidden, weight, needs, head.compute, head.accumulate)
    w = weight.to(head.compute)
    b = None if bias is None else bias.to(head.compute)

    def chunk(part: slice) -> None:  # a function, so that its logits are gone before the next has any
        keep = head.target[part] != head.ignore_index
        # What an ignored row holds would reach the gradient of weight as 0 · NaN.
        h = torch.where(keep.unsqueeze(1), hidden[part], 0.0).to(head.compute)
        logits = F.linear(h, w, b)
        f = factor[part] if factor is not None and factor.dim() else factor
        _loss_and_gradient_(logits, head.target[part], keep, losses[part], f, head)
        if of_hidden is not None:
            of_hidden[part] = logits @ w
        if of_weight is not None:
            _add_product(of_weight, logits, h, first=part.start == 0)
        if of_bias is not None:
            of_bias.add_(logits.sum(0, dtype=of_bias.dtype))

    # The types are chosen; autocast would add up the gradient of weight in 16 bits.
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, rows, step):
            chunk(slice(start, start + step))
    return losses, (of_hidden, of_weight, of_bias)


def _loss_and_gradient_(
    logits: Tensor, target: Tensor, keep: Tensor, losses: Tensor, factor: Tensor | None, head: Head
) -> None:
    """Writes the losses (n,) and, where there is a factor, the gradient in the place of the logits (n, K)."""
    if head.triton:
        from maxsup.kernels.launch import Rows, losses_and_gradient

        smoothing = head.smoothing or None
        terms = Terms(max_sup=head.alpha, smoothing=smoothing, strict=smoothing is not None)
        rows = Rows(target, head.class_weight, head.ignore_index, terms, 1.0)
        losses_and_gradient(logits, rows, loss=losses, gradient=None if factor is None else logits, upstream=factor)
        return
    z = logits.to(losses.dtype)
    y = torch.where(keep, target, 0)
    top = first_maximum(z)
    maximum = z.gather(1, top.unsqueeze(1)).squeeze(1)
    sums, exponentials = row_sums(z, y, maximum)
    scale = keep.to(z.dtype) if head.class_weight is None else torch.where(keep, head.class_weight[y], 0.0).to(z.dtype)
    loss = row_losses(sums, head.alpha, head.smoothing, z.shape[1])
    losses.copy_(torch.where(keep, loss * scale, 0.0))
    if factor is not None:
        factor = torch.where(keep, factor * scale, 0.0).to(z.dtype)
        strengths = (head.alpha, head.smoothing, z.shape[1])
        logits.copy_(row_gradients_(exponentials, z, y, top, sums, factor, *strengths))


def _add_product(total: Tensor, gradient: Tensor, hidden: Tensor, *, first: bool) -> None:
    """total (K, D) += gradientᵀ (K, n) · hidden (n, D), in the type of the total, which the `first` product sets.

    Where no product of 16-bit numbers comes in float32, each is rounded to 16 bits before it is added.
    """
    beta = 0 if first else 1
    if total.dtype == gradient.dtype:
        total.addmm_(gradient.t(), hidden, beta=beta)
    elif total.is_cuda and total.dtype == torch.float32 and has_products_in_float32():
        torch.addmm(total, gradient.t(), hidden, beta=beta, out_dtype=torch.float32, out=total)
    elif first:
        total.copy_(gradient.t() @ hidden)
    else:
        total.add_(gradient.t() @ hidden)


@functools.cache
def has_products_in_float32() -> bool:
    """Whether this PyTorch's addmm has an out_dtype on CUDA: asked of what is registered, not of the version."""
    return (
        torch.version.cuda is not None
        and "dtype_out" in torch.ops.aten.addmm.overloads()
        and torch._C._dispatch_has_kernel_for_dispatch_key("aten::addmm.dtype_out", "CUDA")
    )


def _step(hidden: Tensor, weight: Tensor, compute: torch.dtype) -> int:
    return rows_per_chunk(hidden.shape[0], weight.shape[0], compute.itemsize)


def _new_gradients(
    hidden: Tensor, weight: Tensor, needs: list[bool], compute: torch.dtype, accumulate: torch.dtype
) -> Gradients:
    """Memory for the gradients, that of weight and bias in the type in which the chunks are added up."""
    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format) if needs[0] else None
    of_weight = of_bias = None
    if needs[1]:
        one_chunk = hidden.shape[0] <= _step(hidden, weight, compute)
        dtype = weight.dtype if one_chunk else torch.promote_types(weight.dtype, accumulate)
        new = torch.empty_like if hidden.shape[0] else torch.zeros_like
        of_weight = new(weight, dtype=dtype, memory_format=torch.contiguous_format)
    if needs[2]:
        of_bias = weight.new_zeros(weight.shape[0], dtype=exact_type(compute))
    return of_hidden, of_weight, of_bias


@torch.library.custom_op("maxsup::linear_head", mutates_args=())
def _linear_head_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    factor: Tensor | None,
    needs: list[bool],
    target: Tensor,
    class_weight: Tensor | None,
    alpha_tensor: Tensor | None,
    alpha: float,
    smoothing: float,
    ignore_index: int,
    triton: bool,
    compute: torch.dtype,
    accumulate: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    strength: Number = alpha if alpha_tensor is None else alpha_tensor
    head = Head(target, class_weight, strength, smoothing, ignore_index, triton, compute, accumulate)
    losses, gradients = _by_chunks(hidden, weight, bias, factor, needs, head)
    first, second, third = (hidden.new_empty(0) if x is None else x for x in gradients)
    return losses, first, second, third


@_linear_head_op.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor | None, needs: list[bool], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute, accumulate = rest[-2:]
    gradients = _new_gradients(hidden, weight, needs, compute, accumulate)
    first, second, third = (hidden.new_empty(0) if x is None else x for x in gradients)
    return hidden.new_empty(hidden.shape[0], dtype=exact_type(compute)), first, second, third
