"""Label smoothing, its exact decomposition, and its two parts as penalties of their own."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from maxsup._batch import Batch, check_choice, check_number, prepare
from maxsup._dispatch import penalised_loss, picked_rows, reduced_loss
from maxsup.kernels.terms import Terms
from maxsup.methods import label_smoothing as ls
from maxsup.methods.common import Number


def label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
    impl: str = "auto",
    inplace: bool = False,
) -> Tensor:
    r"""Cross-entropy with label smoothing, written as what it adds to the loss.

    Per sample: ``loss = cross_entropy(z, target) + alpha * (z_gt - mean_k z_k)``, equal to cross-entropy against
    ``(1 - alpha) * y + alpha / K`` and to PyTorch's ``label_smoothing=alpha``, but for two cases: the mean runs over
    the logits that are not −inf, where PyTorch gives inf; and with class indices a class weight scales the sample's
    whole loss, where PyTorch weighs each term of the smoothed sum by its own class.

    Args:
        input: logits.
        target: class indices; or probabilities, for which z_gt is ``sum_k target_k z_k`` (Mixup, CutMix; Eq. 27).
        alpha: strength, in [0, 1].
        weight, ignore_index, reduction, num_items, impl, inplace: as in `max_sup_cross_entropy`, and so are returns
            and errors.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> label_smoothing_cross_entropy(logits, torch.tensor([1]), alpha=0.1)  # 1.4076 + 0.1 * (1 - 1)
        tensor(1.4076)

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, CVPR 2016; arXiv 2502.15798, Eq. 1-3.
    """

    return reduced_loss(
        picked_rows("true"),
        input,
        target,
        alpha,
        weight,
        ignore_index,
        reduction,
        num_items,
        highest=1.0,
        terms=lambda a: Terms(smoothing=a),
        impl=impl,
        inplace=inplace,
    )


class LabelSmoothingParts(NamedTuple):
    """Per-sample terms that add up to the label smoothing loss."""

    cross_entropy: Tensor
    regularization: Tensor  # at least 0: pulls z_gt down to the logits below it
    error_enhancement: Tensor  # at most 0: rewards the logits above z_gt


def label_smoothing_parts(
    input: Tensor, target: Tensor, alpha: Number = 0.1, *, ignore_index: int = -100
) -> LabelSmoothingParts:
    r"""The exact decomposition of label smoothing (Corollary 3.4), per sample.

    ``regularization = alpha / K * sum over z_m < z_gt of (z_gt - z_m)`` and ``error_enhancement = alpha / K * sum over
    z_n > z_gt of (z_gt - z_n)``; with the cross-entropy they add up to `label_smoothing_cross_entropy`. K counts the
    logits that are not −inf.

    Args:
        input: logits.
        target: class indices. Probabilities have no single z_gt and raise a ValueError.
        alpha: strength, in [0, 1].
        ignore_index: class index of the samples whose terms are 0.

    Example:
        >>> import torch
        >>> parts = label_smoothing_parts(torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([1]), alpha=0.3)
        >>> parts.regularization, parts.error_enhancement  # 0.3 / 3 * 2, -0.3 / 3 * 1
        (tensor([0.2000]), tensor([-0.1000]))
    """
    alpha = check_number("alpha", alpha, high=1.0)
    batch = prepare(input, target, None, ignore_index, "none", None, probabilities=False)
    terms = (
        batch.cross_entropy(batch.logits.log_softmax(1)),
        alpha * ls.regularization(batch.logits, batch.target, "classes"),
        alpha * ls.error_enhancement(batch.logits, batch.target, "classes"),
    )
    return LabelSmoothingParts(*(batch.reduce(term, "none", None) for term in terms))


def label_smoothing_regularization_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    form: Literal["terms", "classes"] = "terms",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Cross-entropy with the regularisation part of label smoothing alone.

    Per sample: ``cross_entropy + alpha * sum over z_m < z_gt of (z_gt - z_m) / D``; an empty sum is 0.

    Args:
        input: logits.
        target: class indices (a ValueError for probabilities, which have no single z_gt).
        alpha: strength, at least 0.
        form: D is the number of terms (``"terms"``, Table 1 of the paper) or of classes (``"classes"``, Eq. 5).
        weight, ignore_index, reduction, num_items: as in `max_sup_cross_entropy`, and so are returns and errors.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([1])
        >>> label_smoothing_regularization_cross_entropy(logits, target, alpha=0.3)  # 1.3490 + 0.3 * 2
        tensor(1.9490)

    Reference:
        arXiv 2502.15798, Eq. 5 and Table 1.
    """
    check_choice("form", form, ("terms", "classes"))

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        return ls.regularization(batch.logits, batch.target, form)

    return penalised_loss(
        penalty, input, target, alpha, weight, ignore_index, reduction, num_items, probabilities=False
    )


def label_smoothing_error_enhancement_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    form: Literal["terms", "classes", "max"] = "terms",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Cross-entropy with the error-enhancement part of label smoothing alone: an ablation, not a method to train with.

    Per sample: ``cross_entropy + alpha * sum over z_n > z_gt of (z_gt - z_n) / D``; an empty sum is 0. It rewards wrong
    logits and is not bounded below for large `alpha`.

    Args:
        input: logits.
        target: class indices (a ValueError for probabilities, which have no single z_gt).
        alpha: strength, at least 0.
        form: D is the number of terms (``"terms"``, Table 1 of the paper) or of classes (``"classes"``, Eq. 5);
            ``"max"`` adds ``alpha * (z_gt - z_max)`` instead (Table 1, second row of its kind).
        weight, ignore_index, reduction, num_items: as in `max_sup_cross_entropy`, and so are returns and errors.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([1])
        >>> label_smoothing_error_enhancement_cross_entropy(logits, target, alpha=0.3)  # 1.3490 - 0.3 * 1
        tensor(1.0490)

    Reference:
        arXiv 2502.15798, Eq. 5 and Table 1.
    """
    check_choice("form", form, ("terms", "classes", "max"))

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        return ls.error_enhancement(batch.logits, batch.target, form)

    return penalised_loss(
        penalty, input, target, alpha, weight, ignore_index, reduction, num_items, probabilities=False
    )
