"""The losses as modules: `__init__` stores the options, `forward` makes one call into `maxsup.functional`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, distributed, nn

from maxsup import functional
from maxsup._batch import REDUCTIONS, check_choice, check_number, check_weight
from maxsup.kernels.choice import IMPLEMENTATIONS
from maxsup.methods.common import Number
from maxsup.methods.online_label_smoothing import first_table, next_table

__all__ = [
    "ConfidencePenaltyLoss",
    "LabelSmoothingCrossEntropyLoss",
    "LabelSmoothingErrorEnhancementLoss",
    "LabelSmoothingRegularizationLoss",
    "LogitPenaltyLoss",
    "MaxSupCrossEntropyLoss",
    "OnlineLabelSmoothingLoss",
    "ZipfLabelSmoothingLoss",
]


class _Loss(nn.Module):
    """`alpha`, `weight`, `ignore_index` and `reduction`, which all losses have.

    `alpha` is a 0-dim buffer, because a compiled step reads it at run time: a new value recompiles nothing, and
    `state_dict` has it. Assigning a number (``loss.alpha = 0.2``) checks it and writes into the buffer.
    """

    bounds: ClassVar[dict[str, float]] = {
        "alpha": math.inf
    }  # numbers in buffers: the highest accepted; the lowest is 0
    exact: ClassVar[tuple[str, ...]] = ("alpha",)  # buffers that are never cast to 16 bits
    alpha: Tensor
    weight: Tensor | None

    def __init__(
        self,
        alpha: float,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("impl", impl, IMPLEMENTATIONS)
        check_number("alpha", alpha, high=self.bounds["alpha"])
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("weight", None if weight is None else check_weight(weight))
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.impl = impl
        self.inplace = inplace

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.bounds and not isinstance(value, Tensor):
            value = check_number(name, value, high=self.bounds[name])
            buffer = self._buffers[name]
            assert buffer is not None
            buffer.fill_(value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> _Loss:
        """As of every module, but `half()` and `bfloat16()` leave the numbers in float32, where schedules need them."""
        before = {name: buffer for name, buffer in self._buffers.items() if name in self.exact and buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            now = self._buffers[name]
            if now is not None and now.dtype.itemsize < buffer.dtype.itemsize:
                self._buffers[name] = buffer.to(now.device)
        return self

    def _options(self) -> dict[str, Any]:
        return {"weight": self.weight, "ignore_index": self.ignore_index, "reduction": self.reduction}

    def _implementation(self) -> dict[str, Any]:
        """The options of the losses that the kernel knows."""
        return {"impl": self.impl, "inplace": self.inplace}

    def extra_repr(self) -> str:
        """The numbers, and the options that differ from their defaults."""
        numbers = {name: getattr(self, name) for name in self.bounds}
        parts = [f"{name}={'…' if number.is_meta else f'{float(number):g}'}" for name, number in numbers.items()]
        if self.weight is not None:
            parts.append(f"weight=<{len(self.weight)} classes>")
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        if self.impl != "auto":
            parts.append(f"impl={self.impl!r}")
        if self.inplace:
            parts.append("inplace=True")
        return ", ".join(parts)


class MaxSupCrossEntropyLoss(_Loss):
    """`maxsup.functional.max_sup_cross_entropy` as a module; replaces ``nn.CrossEntropyLoss(label_smoothing=0.1)``.

    Args:
        alpha: strength of the penalty, at least 0; kept in the buffer `alpha`, assignable (``loss.alpha = 0.2``).
        weight: one weight per class.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: smoothing of the cross-entropy part, in [0, 1].
        impl, inplace: which implementation, and whether the gradient overwrites the logits; see the function.

    Example:
        >>> loss = MaxSupCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor(0.5076)
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__(
            alpha, weight=weight, ignore_index=ignore_index, reduction=reduction, impl=impl, inplace=inplace
        )
        self.label_smoothing = check_number("label_smoothing", label_smoothing, high=1.0)

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.max_sup_cross_entropy(
            input,
            target,
            self.alpha,
            label_smoothing=self.label_smoothing,
            num_items=num_items,
            **self._options(),
            **self._implementation(),
        )

    def extra_repr(self) -> str:
        """As of every loss, and the smoothing if there is any."""
        smoothing = f", label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing


class LabelSmoothingCrossEntropyLoss(_Loss):
    """`maxsup.functional.label_smoothing_cross_entropy` as a module.

    Args:
        alpha: strength, in [0, 1]; kept in the buffer `alpha`, assignable.
        weight, ignore_index, reduction, impl, inplace: as in `MaxSupCrossEntropyLoss`.

    Example:
        >>> loss = LabelSmoothingCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
        tensor(1.4076)
    """

    bounds: ClassVar[dict[str, float]] = {"alpha": 1.0}

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__(
            alpha, weight=weight, ignore_index=ignore_index, reduction=reduction, impl=impl, inplace=inplace
        )

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.label_smoothing_cross_entropy(
            input, target, self.alpha, num_items=num_items, **self._options(), **self._implementation()
        )


class LabelSmoothingRegularizationLoss(_Loss):
    """`maxsup.functional.label_smoothing_regularization_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        form: what divides the sum: ``"terms"`` (Table 1) or ``"classes"`` (Eq. 5).
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        form: Literal["terms", "classes"] = "terms",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("form", form, ("terms", "classes"))
        self.form = form

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at class indices `target`."""
        return functional.label_smoothing_regularization_cross_entropy(
            input, target, self.alpha, form=self.form, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the form."""
        return f"{super().extra_repr()}, form={self.form!r}"


class LabelSmoothingErrorEnhancementLoss(_Loss):
    """`maxsup.functional.label_smoothing_error_enhancement_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        form: ``"terms"`` or ``"max"`` (the two rows of Table 1), or ``"classes"`` (Eq. 5).
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        form: Literal["terms", "classes", "max"] = "terms",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("form", form, ("terms", "classes", "max"))
        self.form = form

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at class indices `target`."""
        return functional.label_smoothing_error_enhancement_cross_entropy(
            input, target, self.alpha, form=self.form, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the form."""
        return f"{super().extra_repr()}, form={self.form!r}"


class OnlineLabelSmoothingLoss(_Loss):
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


class ZipfLabelSmoothingLoss(_Loss):
    """`maxsup.functional.zipf_label_smoothing_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        ranking: ``"dense"``, or ``"logits"`` to rank by the sample's own logits (not in the publication).
        upsample: bilinear scale of the map of dense logits before the vote.
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        ranking: Literal["dense", "logits"] = "dense",
        upsample: int = 1,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("ranking", ranking, ("dense", "logits"))
        self.ranking = ranking
        self.upsample = upsample

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        dense_logits: Tensor | None = None,
        *,
        num_items: Number | None = None,
    ) -> Tensor:
        """The loss of logits `input` at class indices `target`, with the logits of the positions that vote."""
        return functional.zipf_label_smoothing_cross_entropy(
            input,
            target,
            dense_logits,
            self.alpha,
            ranking=self.ranking,
            upsample=self.upsample,
            num_items=num_items,
            **self._options(),
        )

    def extra_repr(self) -> str:
        """As of every loss, and how the classes are ranked."""
        return f"{super().extra_repr()}, ranking={self.ranking!r}, upsample={self.upsample}"


class LogitPenaltyLoss(_Loss):
    """`maxsup.functional.logit_penalty_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0 (β of the publication); kept in the buffer `alpha`, assignable.
        weight, ignore_index, reduction, impl, inplace: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 2e-3,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__(
            alpha, weight=weight, ignore_index=ignore_index, reduction=reduction, impl=impl, inplace=inplace
        )

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.logit_penalty_cross_entropy(
            input, target, self.alpha, num_items=num_items, **self._options(), **self._implementation()
        )


class ConfidencePenaltyLoss(_Loss):
    """`maxsup.functional.confidence_penalty_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0 (β of the publication); kept in the buffer `alpha`, assignable.
        threshold: Γ of the hinge in nats, or None for the plain penalty.
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        threshold: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.threshold = None if threshold is None else check_number("threshold", threshold)

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.confidence_penalty_cross_entropy(
            input, target, self.alpha, threshold=self.threshold, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the threshold if there is one."""
        threshold = "" if self.threshold is None else f", threshold={self.threshold:g}"
        return super().extra_repr() + threshold
