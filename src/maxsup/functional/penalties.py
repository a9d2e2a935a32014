"""Penalties that need no target: of the logits' size, and of confidence."""

from __future__ import annotations

from torch import Tensor

from maxsup._batch import Batch, check_number
from maxsup._dispatch import penalised_loss
from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number
from maxsup.methods.confidence_penalty import confidence_penalty
from maxsup.methods.logit_penalty import logit_penalty


def logit_penalty_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 2e-3,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
    impl: str = "auto",
    inplace: bool = False,
) -> Tensor:
    r"""Cross-entropy with a penalty on the size of the logits: ``cross_entropy + alpha * sum_k z_k^2 / 2`` per sample.

    Args:
        input: logits; those that are −inf are left out of the sum.
        target: class indices or probabilities.
        alpha: strength, the publication's β (6e-4 there; 2e-3 in the comparison of arXiv 2502.15798, Table 4).
        weight, ignore_index, reduction, num_items, impl, inplace: as in `max_sup_cross_entropy`, and so are returns
            and errors.

    Example:
        >>> import torch
        >>> logit_penalty_cross_entropy(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), alpha=0.1)  # 0.4076 + 0.25
        tensor(0.6576)

    Reference:
        Kornblith et al., Why Do Better Loss Functions Lead to Less Transferable Features?, NeurIPS 2021.
    """

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        return logit_penalty(batch.logits)

    return penalised_loss(
        penalty,
        input,
        target,
        alpha,
        weight,
        ignore_index,
        reduction,
        num_items,
        terms=lambda a: Terms(penalty=a),
        impl=impl,
        inplace=inplace,
    )


def confidence_penalty_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    threshold: Number | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Cross-entropy with a penalty on low entropy H(q) of the prediction.

    Per sample ``cross_entropy - alpha * H(q)``; with a threshold ``cross_entropy + alpha * max(0, threshold - H(q))``,
    which leaves predictions alone that are uncertain enough.

    Args:
        input: logits.
        target: class indices or probabilities.
        alpha: strength, the publication's β.
        threshold: Γ of the hinge, in nats, at least 0; None for the plain penalty.
        weight, ignore_index, reduction, num_items: as in `max_sup_cross_entropy`, and so are returns and errors.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 3), torch.tensor([0])  # H = log 3 = 1.0986, as the cross-entropy
        >>> confidence_penalty_cross_entropy(logits, target, alpha=0.1)
        tensor(0.9888)
        >>> confidence_penalty_cross_entropy(logits, target, alpha=0.1, threshold=1.0)
        tensor(1.0986)

    Reference:
        Pereyra et al., Regularizing Neural Networks by Penalizing Confident Output Distributions, 2017.
    """
    if threshold is not None:
        threshold = check_number("threshold", threshold)

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        return confidence_penalty(log_q, threshold)

    return penalised_loss(penalty, input, target, alpha, weight, ignore_index, reduction, num_items)
