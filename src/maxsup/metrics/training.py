"""What to look at while a regularised model trains: numbers of one batch, for any logger."""

from __future__ import annotations

import torch
from torch import Tensor

from maxsup._batch import prepare
from maxsup.methods.common import mean_of_present, without_absent

__all__ = ["diagnostics"]


@torch.no_grad()
def diagnostics(logits: Tensor, target: Tensor, *, ignore_index: int = -100) -> dict[str, Tensor]:
    r"""What MaxSup acts on, of one batch; nothing is differentiated and the host waits for nothing.

    Args:
        logits: (C,), (N, C) or (N, C, d1, …), floating point; −inf leaves a class out.
        target: class indices or probabilities, as the losses take them.
        ignore_index: class index of the samples to leave out.

    Returns:
        0-dimensional tensors on the device of `logits`, in float32 (float64 for such logits), NaN of no sample:

        - ``penalty``: mean of z_max − mean_k z_k, what MaxSup multiplies by alpha;
        - ``top1_gap``: mean of the difference between the largest logit and the next, over the samples that have two;
        - ``wrong_top1``: share of the samples whose largest logit (the lowest index among equals) is not the target's,
          which for probabilities is the class of the largest.

    Raises:
        TypeError, ValueError, IndexError: as the losses, of arguments that do not fit together.

    Example:
        >>> logits, target = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 2])
        >>> {name: float(value) for name, value in diagnostics(logits, target).items()}  # means of 1 and 3, of 1 and 4
        {'penalty': 2.0, 'top1_gap': 2.5, 'wrong_top1': 0.5}

    Reference:
        arXiv 2502.15798, Eq. 6-9.
    """
    batch = prepare(logits, target, None, ignore_index, "none", None)
    rows = batch.logits
    top = rows.argmax(1, keepdim=True)
    largest = rows.gather(1, top).squeeze(1)
    next_largest = rows.scatter(1, top, -torch.inf).amax(1)
    true = batch.target.argmax(1) if batch.probabilities else batch.target
    keep = torch.ones_like(largest, dtype=torch.bool) if batch.keep is None else batch.keep
    return {
        "penalty": _mean(largest - mean_of_present(rows), keep),
        "top1_gap": _mean(largest - without_absent(next_largest), keep & (next_largest != -torch.inf)),
        "wrong_top1": _mean((top.squeeze(1) != true).to(rows.dtype), keep),
    }


def _mean(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, 0.0).sum() / keep.sum()
