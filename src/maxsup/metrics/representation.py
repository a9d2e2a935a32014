"""How a model's features spread within and between classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maxsup.metrics._checks import check_features, check_label_range

# Numbers normalised at a time: their copies (float32 and float64, 6 MiB together) stay in a processor's cache.
_CHUNK = 512 * 1024


class ClassSeparationResult(NamedTuple):
    """Cosine distances, each a 0-dimensional float64 tensor."""

    d_within: Tensor
    """Mean distance between samples of one class, classes weighing equally; 0 (collapsed) to 1."""
    d_total: Tensor
    """Mean distance between any two samples, classes weighing equally."""
    r_squared: Tensor
    """1 − d_within / d_total: the share of the spread that lies between the classes."""


class ClassSeparation:
    r"""Class separation of features that arrive in parts, on one process or several.

    The state is the sum of the normalised features per class, `sums` (K, D), float64, and `counts` (K,), int64. Both
    add up: `merge` joins two states, and an all-reduce of the two tensors joins those of many processes.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.sums: Tensor | None = None
        self.counts: Tensor | None = None

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Adds features (N, D), floating point, with their labels (N,), integer, from 0 to num_classes − 1.

        A feature of length 0 has similarity 0 to everything, itself included, as in
        `torch.nn.functional.cosine_similarity`.

        Raises:
            ValueError: if shapes do not fit, a label is out of range, or a feature is not finite.
        """
        check_features(features, labels)
        if len(labels) == 0:
            return
        check_label_range(labels, self.num_classes)
        labels = labels.long()
        if self.sums is None or self.counts is None:
            self.sums = torch.zeros(self.num_classes, features.shape[1], dtype=torch.float64, device=features.device)
            self.counts = torch.zeros(self.num_classes, dtype=torch.int64, device=features.device)
        if self.sums.shape[1] != features.shape[1]:
            raise ValueError(f"features must have {self.sums.shape[1]} columns as before, got {features.shape[1]}")
        new = torch.zeros_like(self.sums)
        chunk = max(1, _CHUNK // max(1, features.shape[1]))
        for rows, classes in zip(features.split(chunk), labels.split(chunk), strict=True):
            # float64 from the sum on; the norm of a half-precision feature could overflow in its own type.
            wide = rows if rows.dtype == torch.float64 else rows.float()
            new.index_add_(0, classes, F.normalize(wide, dim=1, eps=torch.finfo(wide.dtype).tiny).double())
        if not bool(torch.isfinite(new).all()):
            raise ValueError("features must be finite, got NaN or infinity")
        self.sums += new
        self.counts += labels.bincount(minlength=self.num_classes)

    def merge(self, other: ClassSeparation) -> None:
        """Adds what `other` has seen."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"other must have num_classes={self.num_classes}, got {other.num_classes}")
        if other.sums is None or other.counts is None:
            return
        if self.sums is None or self.counts is None:
            self.sums, self.counts = other.sums.clone(), other.counts.clone()
            return
        if other.sums.shape != self.sums.shape:
            raise ValueError(f"other must hold {self.sums.shape[1]} columns, got {other.sums.shape[1]}")
        self.sums += other.sums.to(self.sums.device)
        self.counts += other.counts.to(self.counts.device)

    def compute(self) -> ClassSeparationResult:
        """The measures over all that was added; classes without a sample do not count.

        Raises:
            ValueError: if nothing was added.
        """
        if self.sums is None or self.counts is None:
            raise ValueError("nothing to measure: update was never called with a sample")
        present = self.counts > 0
        means = self.sums[present] / self.counts[present].unsqueeze(1)
        d_within = 1 - means.square().sum(1).mean()
        d_total = 1 - means.mean(0).square().sum()
        return ClassSeparationResult(d_within, d_total, 1 - d_within / d_total)


def class_separation(features: Tensor, labels: Tensor) -> ClassSeparationResult:
    r"""Within-class distance, total distance and R² of features, by cosine distance.

    With :math:`\mu_k` the mean of class k's normalised features: d_within = 1 − mean_k ‖μ_k‖², d_total = 1 − ‖mean_k
    μ_k‖², R² = 1 − d_within / d_total. This equals the mean over all pairs, self-pairs included, classes weighing
    equally, in O(N·D) time and O(K·D) memory. R² is NaN where all features point one way (d_total = 0).

    Args:
        features: (N, D), floating point; penultimate features in the paper.
        labels: (N,), integer.

    Raises:
        ValueError: if shapes do not fit, there is no sample, a label is negative, or a feature is not finite.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> [round(float(x), 4) for x in class_separation(features, labels)]
        [0.25, 0.375, 0.3333]

    Reference: Kornblith et al., "Why Do Better Loss Functions Lead to Less Transferable Features?", NeurIPS 2021;
    Tables 2 and 9 of arXiv 2502.15798.
    """
    check_features(features, labels)
    if len(labels) == 0:
        raise ValueError("features must hold at least one sample, got none")
    state = ClassSeparation(max(1, int(labels.max()) + 1))
    state.update(features, labels)
    return state.compute()
