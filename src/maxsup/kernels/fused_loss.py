"""The fused loss for autograd, for the compiler and for callers that want the gradient in the logits' place.

In eager mode with a mean or a sum, the forward pass writes the gradient for an upstream gradient of 1, and the backward
pass multiplies it unless the factor is 1, which the device decides. Two cases compute the gradient in the backward pass
instead, from the logits: upstream gradients that differ by row (``reduction="none"``), and float16, whose gradient can
round to 0 before a GradScaler's factor comes. So does compiled code, where a buffer that the forward pass filled could
not be scaled in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maxsup._batch import check, indices
from maxsup.kernels.arrangement import LEAST_PIXELS, arranged, arranged_like, rows_in
from maxsup.kernels.launch import Rows, losses_and_gradient, scale_
from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number, readable


def fused_loss(
    input: Tensor,
    target: Tensor,
    terms: Terms,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    num_items: Number | None,
    *,
    inplace: bool,
) -> Tensor:
    """Cross-entropy with `terms`, of arguments as `maxsup.functional.max_sup_cross_entropy` takes them."""
    checked = check(input, target, weight, ignore_index, reduction, num_items)
    logits = arranged(input)
    if checked.probabilities:
        target = arranged_like(logits, target)
    else:
        target = target.reshape(-1).contiguous()
        if readable(target):
            indices(target.long(), ignore_index, checked.classes)
    if weight is not None:
        weight = weight.to(input.device).contiguous()
    needed = torch.is_grad_enabled() and input.requires_grad
    if inplace and needed:
        _check_inplace(input, logits)
    divisor: Number | None = 1.0
    if reduction == "mean":
        divisor = _placed(num_items, input.device)
    terms = Terms(
        _placed(terms.max_sup, input.device),
        _placed(terms.smoothing, input.device),
        _placed(terms.penalty, input.device),
        _placed(terms.z_loss, input.device),
        terms.strict,
    )
    rows = Rows(target, weight, ignore_index, terms, divisor)
    if torch.compiler.is_compiling():
        loss = _compiled(logits, rows, reduction, checked.dtype)
    elif needed:
        loss = _Fused.apply(logits, rows, reduction, checked.dtype, inplace)
    else:
        loss = _loss_of(logits, reduction, checked.dtype)
        losses_and_gradient(logits, rows, loss=loss, gradient=None)
    return loss.reshape(checked.shape) if reduction == "none" else loss


def _placed(number: Number | None, device: torch.device) -> Number | None:
    """A strength as the kernel takes it: read if that is free, and else on the logits' device."""
    if not isinstance(number, Tensor) or number.device == device:
        return number
    return float(number) if readable(number) else number.to(device)


def _loss_of(logits: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    return logits.new_empty((rows_in(logits),) if reduction == "none" else (), dtype=dtype)


def _check_inplace(input: Tensor, logits: Tensor) -> None:
    """Raises where the logits are needed after the loss, as far as that can be known."""
    if torch.compiler.is_compiling():
        raise ValueError("inplace=True works in eager mode only: under torch.compile the logits belong to the compiler")
    base = input if input._base is None else input._base
    if base.is_leaf:
        raise ValueError("inplace=True would overwrite a leaf: input must be computed from what requires the gradient")
    if logits.data_ptr() != input.data_ptr() or not logits.is_contiguous():
        raise ValueError(
            f"inplace=True needs input without gaps whose classes, or at least {LEAST_PIXELS} positions of each, are "
            f"adjacent in memory, got shape {tuple(input.shape)} with strides {input.stride()}"
        )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Rows, reduction: str, dtype: torch.dtype, inplace: bool) -> Tensor:
        loss = _loss_of(logits, reduction, dtype)
        ctx.rows, ctx.inplace = rows, inplace
        ctx.ready = reduction != "none" and logits.dtype != torch.float16
        if not ctx.ready:
            losses_and_gradient(logits, rows, loss=loss, gradient=None)
            ctx.save_for_backward(logits)
            return loss
        gradient = logits.detach() if inplace else torch.empty_like(logits, memory_format=torch.contiguous_format)
        losses_and_gradient(logits, rows, loss=loss, gradient=gradient)
        if inplace:
            # Whoever saved the logits for a backward pass of their own is told by autograd that they changed.
            torch.autograd.graph.increment_version(logits)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (saved,) = ctx.saved_tensors
        kept = torch._C._autograd._get_current_graph_task_keep_graph()  # is there to be another backward pass?
        if ctx.ready:
            # Detached it has no other owner, so that a leaf may take it as its .grad without a copy.
            gradient = saved.clone() if kept else saved.detach()
            scale_(gradient, upstream)
        else:
            overwrite = ctx.inplace and not kept
            gradient = saved.detach() if overwrite else torch.empty_like(saved, memory_format=torch.contiguous_format)
            losses_and_gradient(saved.detach(), ctx.rows, loss=None, gradient=gradient, upstream=upstream)
            if overwrite:
                torch.autograd.graph.increment_version(saved)
        if torch.is_grad_enabled():
            gradient = _Once.apply(gradient, torch.empty(0, requires_grad=True))
        return gradient, None, None, None, None


class _Once(torch.autograd.Function):
    """The gradient itself, whose derivative is an error; `anchor` is there to require one."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, anchor: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> None:
        raise RuntimeError('the fused kernel has no second derivative: pass impl="torch" to the loss')


# What the compiler sees: two operators of tensors and numbers. The strengths, in the order of Terms, and the divisor
# are `numbers`, or the elements of the tensor `values` where there is one; those that are not `used` are None.


def _compiled(logits: Tensor, rows: Rows, reduction: str, dtype: torch.dtype) -> Tensor:
    given = (rows.terms.max_sup, rows.terms.smoothing, rows.terms.penalty, rows.terms.z_loss, rows.divisor)
    values = None
    if any(isinstance(x, Tensor) for x in given):
        device = logits.device
        values = torch.stack(
            [torch.as_tensor(0.0 if x is None else x, dtype=torch.float32, device=device) for x in given]
        )
    result: Tensor = torch.ops.maxsup.fused_loss(
        logits,
        rows.target,
        rows.weight,
        values,
        [0.0 if x is None or isinstance(x, Tensor) else float(x) for x in given],
        [x is not None for x in given],
        rows.terms.strict,
        rows.ignore_index,
        reduction,
        dtype,
    )
    return result


def _rows_of_arguments(
    target: Tensor,
    weight: Tensor | None,
    values: Tensor | None,
    numbers: list[float],
    used: list[bool],
    strict: bool,
    ignore_index: int,
) -> Rows:
    every: list[Number] = list(numbers if values is None else values)
    given = [number if there else None for number, there in zip(every, used, strict=True)]
    return Rows(target, weight, ignore_index, Terms(given[0], given[1], given[2], given[3], strict), given[4])


@torch.library.custom_op("maxsup::fused_loss", mutates_args=())
def _fused_loss_op(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    values: Tensor | None,
    numbers: list[float],
    used: list[bool],
    strict: bool,
    ignore_index: int,
    reduction: str,
    dtype: torch.dtype,
) -> Tensor:
    rows = _rows_of_arguments(target, weight, values, numbers, used, strict, ignore_index)
    loss = _loss_of(logits, reduction, dtype)
    losses_and_gradient(logits, rows, loss=loss, gradient=None, keep_counter=False)
    return loss


@_fused_loss_op.register_fake
def _(logits: Tensor, *arguments: Any) -> Tensor:
    reduction, dtype = arguments[-2:]
    return _loss_of(logits, reduction, dtype)


@torch.library.custom_op("maxsup::fused_loss_gradient", mutates_args=())
def _gradient_op(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    values: Tensor | None,
    numbers: list[float],
    used: list[bool],
    strict: bool,
    ignore_index: int,
) -> Tensor:
    rows = _rows_of_arguments(target, weight, values, numbers, used, strict, ignore_index)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    losses_and_gradient(logits, rows, loss=None, gradient=gradient, upstream=upstream)
    return gradient


@_gradient_op.register_fake
def _(upstream: Tensor, logits: Tensor, *arguments: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:8]


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    gradient: Tensor = torch.ops.maxsup.fused_loss_gradient(upstream, *ctx.saved_tensors, *ctx.rest)
    return gradient, *(None,) * 9


_fused_loss_op.register_autograd(_backward, setup_context=_save)


def _no_second_derivative(ctx: Any, upstream: Tensor) -> None:
    raise RuntimeError('the fused kernel has no second derivative: pass impl="torch" to the loss')


_gradient_op.register_autograd(_no_second_derivative)
