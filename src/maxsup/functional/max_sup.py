"""MaxSup, of logits and of a linear head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maxsup._batch import Batch, check_number
from maxsup._dispatch import picked_rows, reduced_loss
from maxsup._linear_head import linear_max_sup
from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number
from maxsup.methods.picked import penalty as picked_penalty


def max_sup_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    num_items: Number | None = None,
    impl: str = "auto",
    inplace: bool = False,
) -> Tensor:
    r"""Cross-entropy with Max Suppression: the top-1 logit is penalised, whichever class it belongs to.

    Per sample, with logits z: ``loss = cross_entropy(z, target) + alpha * (max_k z_k - mean_k z_k)``. The maximum's
    sub-gradient goes to the lowest index that attains it; the mean runs over the logits that are not −inf. Gradient:
    ``q_k - y_k - alpha / K + alpha * [k = argmax]``.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, …), floating point. 16-bit logits are computed in float32.
        target: class indices, () or (N,) or (N, d1, …), int64; or probabilities in the shape of `input`.
        alpha: strength of the penalty, at least 0. At 0 the result is that of `torch.nn.functional.cross_entropy`. A
            0-dim tensor is read by the host only where that is free, on the CPU.
        weight: one weight per class, (C,). For class indices it scales the sample's whole loss, penalty included; for
            probabilities it acts within the cross-entropy, as in PyTorch, and the penalty stays unweighted.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"`` (over the weights of the samples that count), ``"sum"`` or ``"none"``.
        label_smoothing: smoothing of the cross-entropy part, in [0, 1], with PyTorch's meaning.
        num_items: with ``reduction="mean"``, divides the sum instead of the mean's own divisor (gradient accumulation).
        impl: ``"torch"``; ``"triton"``, one kernel for loss and gradient on CUDA, for float32 or 16-bit logits and
            probabilities, no gradient for `target`, `alpha` or `weight`, and no second derivative (an error of the
            backward pass); with it an index out of range makes the loss NaN. ``"auto"`` takes the
            kernel on CUDA where it applies, and so no second derivative there, and else PyTorch.
        inplace: the kernel writes the gradient in the place of the logits, so that it needs no memory of its own. The
            caller says with it that nobody reads the logits, or a view of them, after the loss: no metric, hook or
            second loss. An operation that saved them for its backward pass raises there. Without a gradient to write
            it changes nothing.

    Returns:
        A scalar, or for ``reduction="none"`` a tensor of the target's sample shape, in the dtype of `cross_entropy`.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape or value is not accepted, or if ``impl="triton"`` or `inplace` does not apply (it says
            why).
        IndexError: if a class index on the CPU is out of range.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> max_sup_cross_entropy(logits, torch.tensor([0]), alpha=0.1)  # 0.4076 + 0.1 * (2 - 1)
        tensor(0.5076)

    Reference:
        Zhou et al., MaxSup: Overcoming Representation Collapse in Label Smoothing, arXiv 2502.15798, Eq. 6-9.
    """
    label_smoothing = check_number("label_smoothing", label_smoothing, high=1.0)
    options = (alpha, weight, ignore_index, reduction, num_items)
    how: dict[str, Any] = {"impl": impl, "inplace": inplace}
    if label_smoothing == 0.0:
        return reduced_loss(picked_rows("top"), input, target, *options, terms=lambda a: Terms(max_sup=a), **how)

    def smoothed_rows(batch: Batch, alpha: Number) -> Tensor:
        # PyTorch's smoothing does not scale with the class weight of the sample.
        smoothed = F.cross_entropy(
            batch.logits, batch.target, weight=batch.weight, reduction="none", label_smoothing=label_smoothing
        )
        penalty = picked_penalty(batch.logits, batch.logits.log_softmax(1), batch.target, "top")
        return smoothed + batch.weigh(alpha * penalty)

    return reduced_loss(
        smoothed_rows,
        input,
        target,
        *options,
        weigh=False,
        label_smoothing=label_smoothing,
        terms=lambda a: Terms(max_sup=a, smoothing=label_smoothing, strict=True),
        **how,
    )


def linear_max_sup_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    bias: Tensor | None = None,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    num_items: Number | None = None,
    impl: str = "auto",
    accumulate: torch.dtype = torch.float32,
) -> Tensor:
    r"""`max_sup_cross_entropy` of ``F.linear(hidden, weight, bias)``, which never exists as a whole.

    For large vocabularies. The logits are made for one chunk of rows at a time, and so are the gradients, which the
    forward pass computes; K being the number of classes and N that of rows, memory does not grow with N·K. A chunk has
    1024 rows, or more as long as its logits stay below 512 MB. With ``reduction="none"`` and in float16 the backward
    pass makes the logits a second time.

    Args:
        hidden: (…, D), floating point; on a CPU the rows to ignore cost nothing.
        weight: (K, D), as in `torch.nn.functional.linear`, in the dtype of `hidden`. Under autocast `hidden`, `weight`
            and `bias` are cast, as that function does it.
        target: class indices in the shape of `hidden` without D, int64.
        alpha: strength, at least 0; it may not require a gradient.
        bias: (K,).
        class_weight: one weight per class, (K,); scales the sample's whole loss. Not together with `label_smoothing`.
        ignore_index, reduction, label_smoothing, num_items, impl: as in `max_sup_cross_entropy`; the kernel's place is
            between the products, which are PyTorch's.
        accumulate: the type in which the gradient of a 16-bit `weight` is added up if there are several chunks.
            float32 takes 4 more bytes per element for the time of the step; the type of `weight` takes none and
            rounds once per chunk. A CPU, ROCm, and a PyTorch whose CUDA `torch.addmm` has no `out_dtype`, round each
            chunk's product to 16 bits before it is added, which takes the memory of that product.

    Returns:
        A scalar, or for ``reduction="none"`` a tensor of the target's shape, in the dtype of `max_sup_cross_entropy`.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape or value is not accepted, or ``impl="triton"`` does not apply (it says why).
        IndexError: if a class index on the CPU is out of range.
        RuntimeError: if a second derivative is asked for.

    Example:
        >>> import torch
        >>> hidden, weight = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
        >>> linear_max_sup_cross_entropy(hidden, weight, torch.tensor([0]))  # logits 2, 1, 0: 0.4076 + 0.1 * (2 - 1)
        tensor(0.5076)

    Reference:
        Zhou et al., arXiv 2502.15798, Eq. 6-9; the chunks follow Hsu et al., Liger Kernel, arXiv 2410.10989.
    """
    return linear_max_sup(
        hidden,
        weight,
        target,
        alpha,
        bias,
        class_weight,
        ignore_index,
        reduction,
        label_smoothing,
        num_items,
        impl,
        accumulate,
    )
