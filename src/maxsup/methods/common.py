"""What the methods share: the cross-entropy of a row, means over the classes that are present, when to look."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Number = float | Tensor


def readable(*tensors: Tensor) -> bool:
    """Whether Python may look at the values: free on the CPU, a host synchronisation elsewhere.

    Never while compiling (a graph break) nor inside a `torch.func` transform (an error).
    """
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return False
    return not (torch.compiler.is_compiling() or in_function_transform())


def in_function_transform() -> bool:
    """Whether a `torch.func` transform is tracing."""
    return torch._C._are_functorch_transforms_active()


def first_maximum(logits: Tensor) -> Tensor:
    """Index of each row's maximum, the lowest among equals, a NaN counting as one: (N, K) -> (N,)."""
    return _first_in_blocks(logits) if _worth_blocks(logits) else logits.argmax(1)


def maximum_and_place(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's maximum and `first_maximum`: (N, K) -> (N, 1), (N, 1)."""
    if _worth_blocks(logits):
        return logits.amax(1, keepdim=True), _first_in_blocks(logits).unsqueeze(1)
    maximum, place = logits.max(1, keepdim=True)
    return maximum, place


_BLOCK = 64


def _worth_blocks(logits: Tensor) -> bool:
    # On a CPU PyTorch vectorises amax and not argmax.
    return logits.shape[1] >= 8 * _BLOCK and readable(logits)


def _first_in_blocks(logits: Tensor) -> Tensor:
    """The first block that has the maximum, and then its place in it."""
    classes, block = logits.shape[1], _BLOCK
    whole = classes // block
    maxima = logits[:, : whole * block].unflatten(1, (whole, block)).amax(2)
    if classes % block:
        maxima = torch.cat((maxima, logits[:, whole * block :].amax(1, keepdim=True)), 1)
    begin: Tensor = maxima.argmax(1) * block
    # Beyond the last column the last is repeated, which never comes first.
    columns = (begin.unsqueeze(1) + torch.arange(block, device=logits.device)).clamp_(max=classes - 1)
    return begin + logits.gather(1, columns).argmax(1)


def cross_entropy(log_q: Tensor, target: Tensor) -> Tensor:
    """−log q_y for class indices (N,), −Σ_k y_k log q_k for probabilities (N, K)."""
    if target.dim() == 2:
        return -(target * log_q).sum(1)
    return -log_q.gather(1, target.unsqueeze(1)).squeeze(1)


def target_logit(log_q: Tensor, target: Tensor) -> Tensor:
    """z_gt in the shift that log q has; its expectation Σ_k y_k z_k for probabilities; absent classes count 0.

    The cross-entropy of an absent target is inf by itself: −inf here would turn their sum into NaN.
    """
    if target.dim() == 2:
        return (target * without_absent(log_q)).sum(1)
    return without_absent(log_q.gather(1, target.unsqueeze(1)).squeeze(1))


def without_absent(log_q: Tensor) -> Tensor:
    """0 in place of −inf, with gradient 0; NaN stays."""
    return torch.where(log_q == -torch.inf, 0.0, log_q)


def mean_of_present(log_q: Tensor) -> Tensor:
    """Mean over the classes whose logit is not −inf: (N, K) -> (N,)."""
    return mean_and_whether_whole(log_q)[0]


def mean_and_whether_whole(log_q: Tensor) -> tuple[Tensor, bool]:
    """`mean_of_present`, and whether certainly no logit is −inf; False where Python may not look.

    Rows without absent classes are the rule, and the masks cost three passes over (N, K), which looking saves on the
    CPU. Compiled, the passes fuse into one, and there is no need to look.
    """
    total = log_q.sum(1)
    if readable(total) and math.isfinite(total.detach().sum()):
        return total / log_q.shape[1], True
    present = log_q != -torch.inf
    return torch.where(present, log_q, 0.0).sum(1) / present.sum(1), False
