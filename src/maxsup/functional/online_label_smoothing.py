"""Online label smoothing."""

from __future__ import annotations

import torch
from torch import Tensor

from maxsup._batch import Batch
from maxsup._dispatch import penalised_loss
from maxsup.methods.common import Number
from maxsup.methods.online_label_smoothing import correct_predictions, online_label_smoothing_penalty


def online_label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    table: Tensor,
    alpha: Number = 0.5,
    *,
    accumulate: tuple[Tensor, Tensor] | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Online label smoothing: part of the target is a distribution per class, taken from earlier predictions.

    Per sample: ``(1 - alpha) * cross_entropy(z, y) + alpha * sum_k -table[y, k] * log q_k``. The publication's a, the
    weight of the hard loss, is ``1 - alpha``. Classes whose logit is −inf are left out of the sum.

    Args:
        input: logits.
        target: class indices (a ValueError for probabilities: the table has a row per class).
        table: (C, C), row c the soft label of class c.
        alpha: weight of the soft loss, in [0, 1].
        accumulate: sums (C, C) and counts (C,), to which the probabilities of the rightly predicted samples and their
            number are added in place, by class; see `maxsup.OnlineLabelSmoothingLoss`.
        weight, ignore_index, reduction, num_items: as in `max_sup_cross_entropy`, and so are returns and errors.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
        >>> online_label_smoothing_cross_entropy(logits, target, torch.full((3, 3), 1 / 3))  # (0.4076 + 1.4076) / 2
        tensor(0.9076)

    Reference:
        Zhang et al., Delving Deep into Label Smoothing, IEEE TIP 2021.
    """

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        classes = log_q.shape[1]
        if table.shape != (classes, classes):
            raise ValueError(f"table must have shape {(classes, classes)}, got {tuple(table.shape)}")
        if accumulate is not None:
            probabilities, right = correct_predictions(batch.logits, log_q, batch.target, batch.keep)
            sums, counts = accumulate
            # The batch's own sum first: added one by one, samples would be lost in a large float32 sum.
            sums += torch.zeros_like(sums).index_add_(0, batch.target, probabilities.to(sums.dtype))
            counts.index_add_(0, batch.target, right.to(counts.dtype))
        return online_label_smoothing_penalty(log_q, batch.target, table.to(log_q.dtype))

    return penalised_loss(
        penalty,
        input,
        target,
        alpha,
        weight,
        ignore_index,
        reduction,
        num_items,
        highest=1.0,
        probabilities=False,
        shortcut=accumulate is None,
    )
