"""Online label smoothing with its table."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, distributed

from maxsup import functional
from maxsup._batch import check_choice, check_number
from maxsup.losses.base import Loss
from maxsup.methods.common import Number
from maxsup.methods.online_label_smoothing import first_table, next_table


class OnlineLabelSmoothingLoss(Loss):
    """`maxsup.functional.online_label_smoothing_cross_entropy` with its table, which `next_epoch()` renews.

    In training mode the module adds up, per class, the predictions of the samples that are predicted right. At the
    epoch's end call `next_epoch()`: their means become the table, a class without any gets the uniform row. Under
    `torch.distributed` sums and counts are added over the processes first. Table, sums and counts are buffers and in
    `state_dict`. Keep the module out of a DDP wrapper, which would overwrite its sums with those of rank 0.

    Args:
        num_classes: C.
        alpha: weight of the soft loss, in [0, 1]; kept in the buffer `alpha`, assignable.
        init: the first epoch is ``"uniform"``, label smoothing of strength `smoothing`, or ``"zeros"``, where the soft
            loss is 0 and (1 − alpha) of the cross-entropy remains (the authors' way on CIFAR).
        smoothing: strength of the first epoch's label smoothing, at most `alpha`.
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.

    Example:
        >>> loss = OnlineLabelSmoothingLoss(3)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))  # label smoothing of 0.1
        tensor(0.5076)
        >>> loss.next_epoch()
        >>> loss.table  # class 0 was predicted right, with these probabilities; the others not
        tensor([[0.6652, 0.2447, 0.0900],
                [0.3333, 0.3333, 0.3333],
                [0.3333, 0.3333, 0.3333]])
    """

    bounds: ClassVar[dict[str, float]] = {"alpha": 1.0}
    exact: ClassVar[tuple[str, ...]] = ("alpha", "table", "sums")
    table: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        num_classes: int,
        alpha: float = 0.5,
        *,
        init: Literal["uniform", "zeros"] = "uniform",
        smoothing: float = 0.1,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        check_choice("init", init, ("uniform", "zeros"))
        table = torch.zeros(num_classes, num_classes)
        if init == "uniform" and alpha > 0:
            smoothing = check_number("smoothing", smoothing, high=alpha)
            # The soft loss has weight alpha, so its label smoothing of smoothing / alpha is one of `smoothing` overall.
            table = first_table(num_classes, smoothing / alpha)
        self.register_buffer("table", table)
        self.register_buffer("sums", torch.zeros(num_classes, num_classes))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at class indices `target`; in training mode the predictions are remembered."""
        return functional.online_label_smoothing_cross_entropy(
            input,
            target,
            self.table,
            self.alpha,
            accumulate=(self.sums, self.counts) if self.training else None,
            num_items=num_items,
            **self._options(),
        )

    @torch.no_grad()
    def next_epoch(self, group: distributed.ProcessGroup | None = None) -> None:
        """Makes the epoch's means the table and starts afresh; every process of `group` has to call it."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.sums, group=group)
            distributed.all_reduce(self.counts, group=group)
        self.table.copy_(next_table(self.sums, self.counts))
        self.sums.zero_()
        self.counts.zero_()
