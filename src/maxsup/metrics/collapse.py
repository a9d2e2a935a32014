"""How far a model's features and last layer have collapsed: variability collapse index and neural collapse."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from maxsup.metrics._checks import check_features, check_label_range, check_logits

# Numbers converted to float64 at a time, 32 MiB.
_CHUNK = 4 * 1024 * 1024
_EPS = torch.finfo(torch.float64).eps


class NeuralCollapseResult(NamedTuple):
    """The four measures, each a 0-dimensional float64 tensor that is 0 at full collapse."""

    nc1: Tensor
    """Variability within the classes against that between them."""
    nc2: Tensor
    """Distance of the last layer's Gram matrix from that of a simplex equiangular tight frame."""
    nc3: Tensor
    """The same for the last layer times the class means: near 0 if the two are aligned."""
    nc4: Tensor
    """Share of samples for which the network disagrees with the nearest class mean."""


class NeuralCollapse:
    r"""Collapse of features that arrive in parts, on one process or several.

    The state is `counts` (K,), int64, `means` (K, D), the class means, and `scatter` (D, D), the sum over samples of
    (x − μ_y)(x − μ_y)ᵀ, both float64. Parts are joined by the parallel update of Chan et al., in which nothing
    cancels, however far the features lie from the origin.

    Samples weigh equally: Σ_W = scatter / N, Σ_B = Σ_k N_k/N (μ_k − μ)(μ_k − μ)ᵀ with μ the mean of all samples, and
    Σ_T = Σ_W + Σ_B is the covariance of all. With classes of one size this is the average over classes of the
    literature. Classes without a sample do not count.

    An eigenvalue of Σ_T or Σ_B counts as zero up to ε·max(K, D) times the largest, ε = 2⁻⁵², or times ε·mean ‖x‖² if
    that is more; Σ_B has at most K − 1 others.

    Args:
        num_classes: K, at least 2.

    Reference: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
    COMPSTAT 1982.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self.counts: Tensor | None = None
        self.means: Tensor | None = None
        self.scatter: Tensor | None = None

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Adds features (N, D), floating point, with their labels (N,), integer, from 0 to num_classes − 1.

        Raises:
            ValueError: if shapes do not fit, a label is out of range, or a feature or its square is not finite.
        """
        check_features(features, labels)
        if features.shape[1] == 0:
            raise ValueError(f"features must have at least one column, got shape {tuple(features.shape)}")
        if len(labels) == 0:
            return
        check_label_range(labels, self.num_classes)
        self._join(*_moments(features.detach(), labels.long(), self.num_classes))

    def merge(self, other: NeuralCollapse) -> None:
        """Adds what `other` has seen."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"other must have num_classes={self.num_classes}, got {other.num_classes}")
        if other.counts is not None:
            self._join(*other._state())

    def variability_collapse_index(self) -> Tensor:
        """The index of all that was added, as `variability_collapse_index` describes it.

        Raises:
            ValueError: if fewer than two classes have a sample.
        """
        spread = self._spread()
        values, vectors = torch.linalg.eigh(spread.within + spread.root.T @ spread.root)
        kept = values > spread.tolerance(values)
        if not bool(kept.any()):
            return torch.full_like(values[0], math.nan)
        explained: Tensor = ((spread.root @ vectors[:, kept]).square().sum(0) / values[kept]).sum()
        classes, columns = spread.root.shape
        return 1 - explained / min(columns, classes - 1)

    def compute(self, weight: Tensor, parts: Iterable[tuple[Tensor, Tensor]]) -> NeuralCollapseResult:
        """The measures over all that was added, as `neural_collapse` describes them.

        Args:
            weight: (K, D), floating point; the last layer's.
            parts: features (N, D) with their logits (N, K), part by part. NC4 needs the final class means, so that the
                samples have to be seen again.

        Raises:
            ValueError: if fewer than two classes have a sample, or the shape of `weight` or of a part does not fit.
        """
        spread = self._spread()
        counts, means, _ = self._state()
        if weight.shape != means.shape or not weight.is_floating_point() or not bool(weight.isfinite().all()):
            raise ValueError(
                f"weight must be finite, floating point, of shape {tuple(means.shape)}, "
                f"got {weight.dtype}, {tuple(weight.shape)}"
            )
        weight = weight.detach().to(means)
        centred = means - spread.mean
        nc3 = _distance_from_simplex(weight @ centred.T)
        if not bool((counts > 0).all()):
            nc3 = torch.full_like(nc3, math.nan)
        return NeuralCollapseResult(
            _within_against_between(spread),
            _distance_from_simplex(weight @ weight.T),
            nc3,
            self._disagreement(parts, centred, spread.mean),
        )

    def _disagreement(self, parts: Iterable[tuple[Tensor, Tensor]], centred: Tensor, mean: Tensor) -> Tensor:
        """NC4. About the global mean, where ‖x‖² − 2 x·μ_k + ‖μ_k‖² does not cancel; ‖x‖² is the same for all k."""
        assert self.counts is not None
        length = torch.where(self.counts > 0, centred.square().sum(1), torch.inf)
        seen, differ = 0, torch.zeros((), dtype=torch.int64, device=mean.device)
        for features, logits in parts:
            _check_part(features, logits, centred)
            rows = max(1, _CHUNK // max(centred.shape))
            for some, decided in zip(features.split(rows), logits.argmax(1).split(rows), strict=True):
                nearest = (length - 2 * (some.double() - mean) @ centred.T).argmin(1)
                differ += (nearest != decided).sum()
            seen += len(features)
        if seen == 0:
            raise ValueError("parts must hold at least one sample, got none")
        return differ.double() / seen

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.counts is None or self.means is None or self.scatter is None:
            raise ValueError("nothing to measure: update was never called with a sample")
        return self.counts, self.means, self.scatter

    def _join(self, counts: Tensor, means: Tensor, scatter: Tensor) -> None:
        if self.counts is None or self.means is None or self.scatter is None:
            self.counts, self.means, self.scatter = counts.clone(), means.clone(), scatter.clone()
            return
        if means.shape != self.means.shape:
            raise ValueError(f"features must have {self.means.shape[1]} columns as before, got {means.shape[1]}")
        counts, means, scatter = (tensor.to(self.means.device) for tensor in (counts, means, scatter))
        total = self.counts + counts
        share = (counts.double() / total.clamp_min(1)).unsqueeze(1)
        difference = means - self.means
        self.scatter += scatter
        self.scatter.addmm_((difference * share * self.counts.unsqueeze(1)).T, difference)
        self.means += share * difference
        self.counts = total

    def _spread(self) -> _Spread:
        counts, means, scatter = self._state()
        present = counts > 0
        if int(present.sum()) < 2:
            raise ValueError(f"labels must name at least two classes, got {int(present.sum())}")
        shares = (counts[present].double() / counts.sum()).unsqueeze(1)
        means = means[present]
        # From one of the means, since the shares add up to 1 only but for rounding.
        mean = means[0] + (shares * (means - means[0])).sum(0)
        return _Spread(scatter / counts.sum(), shares.sqrt() * (means - mean), mean)


class _Spread(NamedTuple):
    within: Tensor  # Σ_W, (D, D)
    root: Tensor  # B, (K, D), with BᵀB = Σ_B; classes with a sample only
    mean: Tensor  # μ, (D,)

    def tolerance(self, values: Tensor) -> Tensor:
        """Up to where an eigenvalue counts as zero, next to `values` of its matrix."""
        # Class means carry rounding of the size of the features, which is all that is left if they coincide.
        size = self.mean.square().sum() + self.within.trace() + self.root.square().sum()
        return _EPS * max(self.root.shape) * torch.maximum(values.max(), _EPS * size)


def variability_collapse_index(features: Tensor, labels: Tensor) -> Tensor:
    r"""Variability collapse index of features: 0 where the classes' means tell all, 1 where they tell nothing.

    VCI = 1 − tr(Σ_T⁺ Σ_B) / min(D, K − 1), with Σ_B the covariance of the class means, Σ_T that of the samples, and ⁺
    the pseudo-inverse (`NeuralCollapse` has the conventions). It does not change under invertible linear maps of the
    features. NaN where all features coincide.

    Args:
        features: (N, D), floating point; penultimate features.
        labels: (N,), integer; K is the number of classes that occur.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: if shapes do not fit, fewer than two classes occur, a label is negative, or a feature or its square
            is not finite.

    Example:
        >>> features = torch.tensor([[-1.0], [-3.0], [1.0], [3.0]])  # Σ_W = 1, Σ_B = 4
        >>> round(float(variability_collapse_index(features, torch.tensor([0, 0, 1, 1]))), 4)
        0.2

    Reference: Xu and Liu, "Quantifying the Variability Collapse of Neural Networks", ICML 2023, arXiv 2306.03440.
    """
    check_features(features, labels)
    if len(labels) == 0:
        raise ValueError("features must hold at least one sample, got none")
    state = NeuralCollapse(max(2, int(labels.max()) + 1))
    state.update(features, labels)
    return state.variability_collapse_index()


def neural_collapse(features: Tensor, labels: Tensor, weight: Tensor, logits: Tensor) -> NeuralCollapseResult:
    r"""Neural collapse NC1 to NC4 of penultimate features and the last layer.

    With H (K, D) the class means about the mean of all samples, W the last layer's weight, and E = (I − 11ᵀ/K) / √(K −
    1) the normalised Gram matrix of a simplex equiangular tight frame:

    - NC1 = tr(Σ_W Σ_B⁺) / K, K counting the classes that occur; NaN where their means coincide.
    - NC2 = ‖WWᵀ / ‖WWᵀ‖_F − E‖_F.
    - NC3 = ‖WHᵀ / ‖WHᵀ‖_F − E‖_F; NaN if a class has no sample.
    - NC4 = share of samples where the nearest class mean (Euclidean) is not the class of the largest logit; at equal
      distances or logits the lowest index counts.

    `NeuralCollapse` has the conventions for covariances and ranks.

    Args:
        features: (N, D), floating point.
        labels: (N,), integer, from 0 to K − 1.
        weight: (K, D), floating point.
        logits: (N, K), floating point.

    Raises:
        ValueError: if shapes do not fit, fewer than two classes occur, a label is out of range, or a feature, its
            square or a weight is not finite.

    Example:
        >>> features = torch.tensor([[-1.0], [-3.0], [1.0], [3.0]])  # Σ_W = 1, Σ_B = 4
        >>> weight = torch.tensor([[-1.0], [1.0]])
        >>> result = neural_collapse(features, torch.tensor([0, 0, 1, 1]), weight, features @ weight.T)
        >>> [round(float(x), 4) for x in result]
        [0.125, 0.0, 0.0, 0.0]

    Reference: Papyan, Han and Donoho, "Prevalence of Neural Collapse during the Terminal Phase of Deep Learning
    Training", PNAS 2020; in the form of Zhu et al., "A Geometric Analysis of Neural Collapse with Unconstrained
    Features", NeurIPS 2021, arXiv 2105.02375.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (K, D), got {tuple(weight.shape)}")
    state = NeuralCollapse(len(weight))
    state.update(features, labels)
    return state.compute(weight, [(features, logits)])


def _moments(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (K,), class means (K, D) and scatter about them (D, D), in two passes."""
    columns = features.shape[1]
    rows = max(1, _CHUNK // max(1, columns))
    counts = labels.bincount(minlength=num_classes)
    means = torch.zeros(num_classes, columns, dtype=torch.float64, device=features.device)
    scatter = torch.zeros(columns, columns, dtype=torch.float64, device=features.device)
    for some, classes in zip(features.split(rows), labels.split(rows), strict=True):
        means.index_add_(0, classes, some.double())
    sizes = counts.clamp_min(1).unsqueeze(1)
    means /= sizes
    # What the sums have rounded off the means is the mean of the residuals (the corrected two-pass algorithm).
    missing = torch.zeros_like(means)
    for some, classes in zip(features.split(rows), labels.split(rows), strict=True):
        residual = some.double() - means[classes]
        scatter.addmm_(residual.T, residual)
        missing.index_add_(0, classes, residual)
    scatter.addmm_(missing.T, missing / sizes, alpha=-1)
    means += missing / sizes
    if not bool(scatter.isfinite().all()):
        raise ValueError("features must be finite, and their squares too, got NaN or infinity")
    return counts, means, scatter


def _within_against_between(spread: _Spread) -> Tensor:
    """NC1, from the singular values of the root of Σ_B: more exact than the eigenvalues of Σ_B itself."""
    classes, columns = spread.root.shape
    _, singular, vectors = torch.linalg.svd(spread.root, full_matrices=False)
    values = singular.square()
    kept = values > spread.tolerance(values)
    # The shares weigh the rows to zero sum, so that one singular value is rounding where K ≤ D.
    kept[min(columns, classes - 1) :] = False
    if not bool(kept.any()):
        return torch.full_like(values[0], math.nan)
    directions = vectors[kept]
    ratios: Tensor = (directions @ spread.within * directions).sum(1) / values[kept]
    return ratios.sum() / classes


def _distance_from_simplex(gram: Tensor) -> Tensor:
    classes = len(gram)
    frame = torch.eye(classes, dtype=gram.dtype, device=gram.device) - 1 / classes
    distance: Tensor = torch.linalg.matrix_norm(gram / torch.linalg.matrix_norm(gram) - frame / math.sqrt(classes - 1))
    return distance


def _check_part(features: Tensor, logits: Tensor, means: Tensor) -> None:
    check_logits(logits)
    if features.ndim != 2 or features.shape[1] != means.shape[1] or not features.is_floating_point():
        raise ValueError(
            f"features must be floating point of shape (N, {means.shape[1]}), "
            f"got {features.dtype}, {tuple(features.shape)}"
        )
    if logits.shape != (len(features), len(means)):
        raise ValueError(f"logits must have shape {(len(features), len(means))}, got {tuple(logits.shape)}")
