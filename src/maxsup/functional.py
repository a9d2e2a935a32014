"""The losses as functions: check the arguments, compute one loss per row, reduce once.

All are cross-entropy plus ``alpha`` times what the method adds, and ``alpha=0`` is
`torch.nn.functional.cross_entropy`. All take `input` (logits), `target` and the keyword arguments as that does; they
are explained at `max_sup_cross_entropy`, and `docs/losses.md` has the semantics that they share.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maxsup._batch import Batch, check_choice, check_number, prepare
from maxsup._dispatch import penalised_loss, picked_rows, reduced_loss
from maxsup._linear_head import linear_max_sup
from maxsup._zipf_votes import zipf_scores
from maxsup.kernels.choice import Terms
from maxsup.methods import label_smoothing as ls
from maxsup.methods.common import Number
from maxsup.methods.confidence_penalty import confidence_penalty
from maxsup.methods.logit_penalty import logit_penalty
from maxsup.methods.online_label_smoothing import correct_predictions, online_label_smoothing_penalty
from maxsup.methods.picked import penalty as picked_penalty
from maxsup.methods.zipf import zipf_penalty

__all__ = [
    "LabelSmoothingParts",
    "confidence_penalty_cross_entropy",
    "label_smoothing_cross_entropy",
    "label_smoothing_error_enhancement_cross_entropy",
    "label_smoothing_parts",
    "label_smoothing_regularization_cross_entropy",
    "linear_max_sup_cross_entropy",
    "logit_penalty_cross_entropy",
    "max_sup_cross_entropy",
    "online_label_smoothing_cross_entropy",
    "zipf_label_smoothing_cross_entropy",
]


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


def zipf_label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    dense_logits: Tensor | None,
    alpha: Number = 0.1,
    *,
    ranking: Literal["dense", "logits"] = "dense",
    upsample: int = 1,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Zipf label smoothing: among the other classes, the target follows 1/rank of the votes of an image's positions.

    Per sample: ``cross_entropy + alpha * KL(P || Q)``. Q is the softmax over the non-target logits, so z_gt gets no
    gradient from this term; P is proportional to 1/rank of all classes by descending votes (equals share the better
    rank, classes without a vote the worst), without the target, renormalised, detached.

    Args:
        input: logits, (C,) or (N, C); with ``ranking="logits"`` also (N, C, d1, …).
        target: class indices (a ValueError for probabilities, which have no single class to leave out).
        dense_logits: the classifier's logits at each position, (C, P), (N, C, P) or (N, C, H, W) with further
            position dimensions as they come: the last feature map's pixels, or a ViT's final-normed patch tokens.
            `maxsup.integrations.timm.collect_dense_logits` collects them. Never differentiated.
        alpha: strength, the publication's λ: 0.1 for CIFAR-100 and ImageNet, 1.0 for TinyImageNet.
        ranking: ``"logits"`` ranks by the sample's own logits instead and takes ``dense_logits=None``; a fallback that
            is not in the publication.
        upsample: bilinear scale of (N, C, H, W) dense logits before the vote (publication: 2 on CIFAR and Tiny).
        weight, ignore_index, reduction, num_items: as in `max_sup_cross_entropy`, and so are returns and errors.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 3), torch.tensor([0])
        >>> dense = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])  # both positions vote for class 1
        >>> zipf_label_smoothing_cross_entropy(logits, target, dense)  # P = (2/3, 1/3): 1.0986 + 0.1 * 0.0566
        tensor(1.1043)

    Reference:
        Liang et al., Efficient One Pass Self-distillation with Zipf's Label Smoothing, ECCV 2022.
    """

    def penalty(batch: Batch, log_q: Tensor) -> Tensor:
        scores = zipf_scores(input, batch.logits, dense_logits, ranking, upsample)
        return zipf_penalty(batch.logits, batch.target, scores)

    return penalised_loss(
        penalty, input, target, alpha, weight, ignore_index, reduction, num_items, probabilities=False
    )


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
