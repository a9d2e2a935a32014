"""The loss of a linear layer's output without that output: arguments and autograd, over `_linear_chunks`.

With a mean or a sum the forward pass computes the gradients too, for an upstream gradient of 1, and the backward pass
scales them. For upstream gradients that differ by row (``reduction="none"``), and for float16, whose gradient can round
to 0 before a GradScaler's factor comes, the backward pass computes them and, for that, the logits a second time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maxsup._batch import check, check_choice, check_number, indices
from maxsup._linear_chunks import Head, exact_type, losses_and_gradients
from maxsup.kernels.choice import IMPLEMENTATIONS, use_triton
from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number, in_function_transform, readable
from maxsup.methods.row_sums import without_derivative


def linear_max_sup(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Number,
    bias: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    num_items: Number | None,
    impl: str,
    accumulate: torch.dtype,
) -> Tensor:
    """The loss of arguments as `maxsup.functional.linear_max_sup_cross_entropy` takes them."""
    alpha = check_number("alpha", alpha)
    label_smoothing = check_number("label_smoothing", label_smoothing, high=1.0)
    check_choice("impl", impl, IMPLEMENTATIONS)
    compute = _check_tensors(hidden, weight, target, alpha, bias, class_weight)
    if label_smoothing and class_weight is not None:
        raise ValueError(
            "label_smoothing smooths each class by its own class_weight, which this head does not: pass one"
        )
    if accumulate not in (torch.float32, weight.dtype):
        raise ValueError(f"accumulate must be torch.float32 or the type of weight, {weight.dtype}, got {accumulate}")
    classes = weight.shape[0]
    rows = hidden.reshape(-1, hidden.shape[-1])
    y = target.reshape(-1)
    # Logits for the checks, without memory.
    logits = hidden.new_empty(1, 1, dtype=compute).expand(rows.shape[0], classes)
    dtype = check(logits, y, None, ignore_index, reduction, num_items, probabilities=False).dtype
    smoothing = label_smoothing or None
    terms = Terms(max_sup=alpha, smoothing=smoothing, strict=smoothing is not None)
    triton = use_triton(impl, logits, y, terms, class_weight, inplace=False)
    alpha = _placed(alpha, hidden.device)
    if class_weight is not None:
        class_weight = class_weight.to(hidden.device).contiguous()
    place = None
    y = y.long().contiguous()
    if readable(y):
        _, keep = indices(y, ignore_index, classes)
        if keep is not None:  # looking is free here, and saves the products of the ignored rows
            place = keep.nonzero().squeeze(1)
            rows, y = rows[place], y[place]
    head = Head(y, class_weight, alpha, float(label_smoothing), ignore_index, triton, compute, accumulate)
    divisor = _divisor(head, reduction, num_items)
    loss = _loss(rows, weight, bias, head, divisor)
    if reduction != "none":
        return loss.to(dtype)
    if place is not None:
        loss = loss.new_zeros(target.numel()).index_copy(0, place, loss)
    return loss.reshape(target.shape).to(dtype)


def _check_tensors(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Number,
    bias: Tensor | None,
    class_weight: Tensor | None,
) -> torch.dtype:
    """Raises unless the tensors fit together; the type of the logits."""
    if in_function_transform():
        raise ValueError("the linear head does not work within torch.func transforms: pass its logits to the loss")
    given = {"hidden": hidden, "weight": weight, "target": target, "bias": bias, "class_weight": class_weight}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) and not (tensor is None and name in ("bias", "class_weight")):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if isinstance(tensor, Tensor) and name != "target" and not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")
    if hidden.dim() == 0:
        raise ValueError("hidden must have shape (…, D), got a 0-dim tensor")
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[-1] or weight.shape[0] == 0:
        raise ValueError(f"weight must have shape (K, {hidden.shape[-1]}), K > 0, got {tuple(weight.shape)}")
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"target must hold class indices of shape {tuple(hidden.shape[:-1])}, for hidden of shape "
            f"{tuple(hidden.shape)}, got {tuple(target.shape)}"
        )
    for name, vector in (("bias", bias), ("class_weight", class_weight)):
        if vector is not None and vector.shape != weight.shape[:1]:
            raise ValueError(f"{name} must have shape {tuple(weight.shape[:1])}, got {tuple(vector.shape)}")
    for name, number in (("alpha", alpha), ("class_weight", class_weight)):
        if isinstance(number, Tensor) and number.requires_grad:
            raise ValueError(f"{name} requires a gradient, which the linear head does not compute")
    types = {tensor.dtype for tensor in (hidden, weight, bias) if tensor is not None}
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        types = {x if x == torch.float64 else torch.get_autocast_dtype(device) for x in types}
    if len(types) > 1:
        raise TypeError(
            f"hidden, weight and bias must have the same dtype, got {hidden.dtype}, {weight.dtype}"
            + ("" if bias is None else f", {bias.dtype}")
        )
    return types.pop()


def _placed(number: Number, device: torch.device) -> Number:
    """The number, read if that is free, and else on the device."""
    if not isinstance(number, Tensor) or number.device == device:
        return number
    return float(number) if readable(number) else number.to(device)


def _divisor(head: Head, reduction: str, num_items: Number | None) -> Tensor | None:
    """What the sum of the losses is divided by, 0-dim; None for reduction="none"."""
    exact, device = exact_type(head.compute), head.target.device
    if reduction == "none":
        return None
    if reduction == "sum":
        return torch.ones((), dtype=exact, device=device)
    if num_items is not None:
        number = _placed(num_items, device)
        return number.to(exact) if isinstance(number, Tensor) else torch.full((), number, dtype=exact, device=device)
    keep = head.target != head.ignore_index
    if head.class_weight is None:
        return keep.sum(dtype=exact)
    weights = head.class_weight.to(exact)[torch.where(keep, head.target, 0).long()]
    return torch.where(keep, weights, 0.0).sum()


def _loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, divisor: Tensor | None) -> Tensor:
    """The losses per row, or their sum over the divisor where there is one; in float32 or float64."""
    needs = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in (hidden, weight, bias)]
    if not any(needs):
        value = losses_and_gradients(hidden, weight, bias, None, needs, head)[0]
        return value if divisor is None else value.sum() / divisor
    if divisor is not None and head.compute != torch.float16:
        ready: Tensor = _Ready.apply(hidden, weight, bias, divisor, needs, *head)
        return ready
    losses: Tensor = _Later.apply(hidden, weight, bias, needs, *head)
    return losses if divisor is None else losses.sum() / divisor


class _Ready(torch.autograd.Function):
    """The sum of the losses over the divisor, with gradients that the forward pass computes."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, divisor: Tensor, needs: list[bool], *rest: Any
    ) -> Tensor:
        head = Head(*rest)
        losses, gradients = losses_and_gradients(hidden, weight, bias, divisor.reciprocal(), needs, head)
        ctx.save_for_backward(*gradients)
        ctx.triton, ctx.types = head.triton, _types(hidden, weight, bias)
        return losses.sum() / divisor

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        kept = not torch.compiler.is_compiling() and torch._C._autograd._get_current_graph_task_keep_graph()
        gradients = [_scaled(x, upstream, kept, ctx.triton) for x in ctx.saved_tensors]
        return *_finished(gradients, ctx.types), *(None,) * (2 + len(Head._fields))


class _Later(torch.autograd.Function):
    """The losses per row, with gradients that the backward pass computes."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: list[bool], *rest: Any) -> Tensor:
        head = Head(*rest)
        tensor = head.alpha if isinstance(head.alpha, Tensor) else None
        ctx.save_for_backward(hidden, weight, bias, head.target, head.class_weight, tensor)
        ctx.number = 0.0 if isinstance(head.alpha, Tensor) else head.alpha
        ctx.needs, ctx.rest, ctx.types = needs, rest[3:], _types(hidden, weight, bias)
        return losses_and_gradients(hidden, weight, bias, None, [False, False, False], head)[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, class_weight, tensor = ctx.saved_tensors
        head = Head(target, class_weight, ctx.number if tensor is None else tensor, *ctx.rest)
        with torch.no_grad():
            _, gradients = losses_and_gradients(hidden, weight, bias, upstream, ctx.needs, head)
        return *_finished(gradients, ctx.types), *(None,) * (1 + len(Head._fields))


def _types(*tensors: Tensor | None) -> list[torch.dtype | None]:
    return [None if tensor is None else tensor.dtype for tensor in tensors]


def _scaled(gradient: Tensor | None, upstream: Tensor, kept: bool, triton: bool) -> Tensor | None:
    """gradient · upstream (0-dim), in place unless the graph is `kept` for another backward pass."""
    if gradient is None or torch.compiler.is_compiling():
        return None if gradient is None else gradient * upstream
    gradient = gradient.clone() if kept else gradient.detach()
    if triton:
        from maxsup.kernels.launch import scale_

        scale_(gradient, upstream)
    elif not readable(upstream) or float(upstream) != 1.0:
        gradient.mul_(upstream)
    return gradient


def _finished(gradients: Any, types: list[torch.dtype | None]) -> list[Tensor | None]:
    """The gradients in the types of what they are gradients of, not to be differentiated again."""
    finished = [None if x is None else x.to(dtype) for x, dtype in zip(gradients, types, strict=True)]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return [None if x is None else without_derivative(x, "the linear head") for x in finished]
    return finished
