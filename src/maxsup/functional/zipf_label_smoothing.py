"""Zipf label smoothing."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from maxsup._batch import Batch
from maxsup._dispatch import penalised_loss
from maxsup._zipf_votes import zipf_scores
from maxsup.methods.common import Number
from maxsup.methods.zipf import zipf_penalty


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
