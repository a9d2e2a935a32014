"""What the methods share: the cross-entropy of a row, means over the classes that are present, when to look."""

from __future__ import annotations

import torch
from torch import Tensor

Number = float | Tensor


def readable(*tensors: Tensor) -> bool:
    """Whether Python may look at the values: free on the CPU, a host synchronisation elsewhere.

    Never while compiling (a graph break) nor inside a `torch.func` transform (an error).
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return all(tensor.device.type == "cpu" for tensor in tensors)


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
    total = log_q.sum(1)
    # Rows without absent classes are the rule, and the masks cost three passes over (N, K); so look where that is
    # free. Compiled, the passes fuse into one and there is no need to.
    if readable(log_q) and bool(total.isfinite().all()):
        return total / log_q.shape[1]
    present = log_q != -torch.inf
    return torch.where(present, log_q, 0.0).sum(1) / present.sum(1)
