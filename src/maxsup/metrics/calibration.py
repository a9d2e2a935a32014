"""Whether probabilities mean what they say: functions of logits (N, K) and labels (N,)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maxsup.metrics._checks import check_logits_and_labels
from maxsup.metrics._ties import mean_over_ties

# Numbers converted to float64 at a time, 32 MiB.
_CHUNK = 4 * 1024 * 1024


class Reliability(NamedTuple):
    """The reliability diagram: one entry per bin, from low to high confidence, each (bins,)."""

    counts: Tensor
    """Samples in the bin, int64."""
    confidence: Tensor
    """Mean top-1 probability in the bin, float64; NaN in an empty bin."""
    accuracy: Tensor
    """Share of the bin's samples that are predicted rightly, float64; NaN in an empty bin."""


class TemperatureFit(NamedTuple):
    """A fitted temperature."""

    temperature: float
    """T, by which to divide logits."""
    at_bound: bool
    """Whether the likelihood still rises beyond T: T is then the bound itself."""


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Brier score in the multi-class sum form, mean_i Σ_k (q_ik − [k = y_i])², q = softmax(z); 0 (best) to 2 (worst).

    It is twice what is called the Brier score of a two-class problem by some. torchmetrics has no multi-class form.

    Args:
        logits: (N, K), floating point; −inf leaves a class out.
        labels: (N,), integer, from 0 to K − 1.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: if shapes do not fit, there is no sample, a label is out of range, or a logit is NaN or +inf.

    Example:
        >>> logits = torch.tensor([[0.6, 0.3, 0.1]]).log()  # (0.6 − 1)² + 0.3² + 0.1²
        >>> round(float(brier(logits, torch.tensor([0]))), 4)
        0.26

    Reference: Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 1950.
    """
    check_logits_and_labels(logits, labels)
    q = logits.double().softmax(1)
    return (q - F.one_hot(labels.long(), q.shape[1])).square().sum(1).mean()


def reliability(logits: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    r"""Confidence and accuracy of the top-1 predictions in equal-width bins of the top-1 probability.

    Bin b holds probabilities from b/bins up to but not including (b + 1)/bins; the last includes 1. Among equal logits
    the lowest index is the prediction.

    Args:
        logits: (N, K), floating point; −inf leaves a class out.
        labels: (N,), integer, from 0 to K − 1.
        bins: number of bins, at least 1.

    Raises:
        ValueError: as in `brier`, or if `bins` is below 1.

    Example:
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]).log()
        >>> result = reliability(logits, torch.tensor([0, 1, 1]), bins=4)
        >>> result.counts.tolist(), [round(x, 2) for x in result.confidence[2:].tolist()], result.accuracy[2:].tolist()
        ([0, 0, 1, 2], [0.6, 0.85], [1.0, 0.5])

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    return _binned(*_top1(logits, labels, bins), bins)


def _binned(confidence: Tensor, correct: Tensor, bins: int) -> Reliability:
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    index = torch.bucketize(confidence, edges[1:-1], right=True)
    counts = index.bincount(minlength=bins)
    sums = torch.zeros(2, bins, dtype=torch.float64, device=confidence.device)
    sums.index_add_(1, index, torch.stack((confidence, correct)))
    return Reliability(counts, sums[0] / counts, sums[1] / counts)


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15, adaptive: bool = False) -> Tensor:
    r"""Expected calibration error of the top-1 probability: Σ_b (n_b / N) |accuracy_b − confidence_b|.

    The bins are those of `reliability`. This is torchmetrics' ``multiclass_calibration_error(norm="l1")``, which the
    core library cannot import; but for probabilities that are exactly 1, which torchmetrics puts into a bin of their
    own (and which its float32 reaches at a margin of 17 between logits).

    With ``adaptive=True`` the bins hold equal numbers of samples: sorted by confidence, bin b takes positions from
    ⌊b·N/bins⌋ up to but not including ⌊(b + 1)·N/bins⌋, so that sizes differ by at most 1 and with N < bins some are
    empty. Samples of equal confidence that lie on both sides of a boundary count with their common accuracy in each
    bin, which makes the result independent of the order of the samples. torchmetrics has no adaptive form.

    Args:
        logits: (N, K), floating point; −inf leaves a class out.
        labels: (N,), integer, from 0 to K − 1.
        bins: number of bins, at least 1.
        adaptive: whether bins hold equal numbers of samples instead of having equal width.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: as in `reliability`.

    Example:
        >>> logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]).log()
        >>> labels = torch.tensor([0, 1, 1])
        >>> round(float(expected_calibration_error(logits, labels, bins=4)), 4)  # (|1 − 0.6| + 2 |0.5 − 0.85|) / 3
        0.3667
        >>> round(float(expected_calibration_error(logits, labels, bins=3, adaptive=True)), 4)  # (0.4 + 0.8 + 0.1) / 3
        0.4333

    Reference: Guo et al., ICML 2017; adaptive: Nguyen and O'Connor, "Posterior Calibration and Exploratory Analysis for
    Natural Language Processing Models", EMNLP 2015.
    """
    if not adaptive:
        return calibration_error_of(*_top1(logits, labels, bins), bins)
    confidence, correct = _top1(logits, labels, bins)
    confidence, order = confidence.sort()
    gap = mean_over_ties(confidence, correct[order]) - confidence
    ends = torch.arange(bins + 1, device=gap.device) * len(gap) // bins
    total = torch.cat((gap.new_zeros(1), gap.cumsum(0)))[ends]
    return total.diff().abs().sum() / len(labels)


def calibration_error_of(confidence: Tensor, correct: Tensor, bins: int = 15) -> Tensor:
    """`expected_calibration_error` in bins of equal width, of what logits told, where they are not kept.

    Args:
        confidence: (N,), top-1 probabilities.
        correct: (N,), whether the prediction is right, as 0 or 1.
        bins: number of bins, at least 1.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: if shapes do not fit, there is no sample, a probability is outside 0..1, or `bins` is below 1.

    Example:
        >>> round(float(calibration_error_of(torch.tensor([0.9, 0.8, 0.6]), torch.tensor([1, 0, 1]), bins=4)), 4)
        0.3667
    """
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        shapes = f"{tuple(confidence.shape)} and {tuple(correct.shape)}"
        raise ValueError(f"confidence and correct must both be of shape (N,) with N > 0, got {shapes}")
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("confidence must be from 0 to 1")
    _check_bins(bins)
    counts, mean, accuracy = _binned(confidence.double(), correct.double(), bins)
    return torch.where(counts > 0, counts * (accuracy - mean).abs(), 0.0).sum() / len(confidence)


def fit_temperature(logits: Tensor, labels: Tensor, *, lowest: float = 1e-2, highest: float = 1e2) -> TemperatureFit:
    r"""The temperature T that minimises the NLL of softmax(z / T) on held-out data.

    The NLL is convex in β = 1/T, with derivative mean_i (E_q[z_i] − z_i,y) and second derivative mean_i Var_q[z_i], q =
    softmax(β z_i). Newton steps in β, kept within a bracket on the sign of the derivative, find its zero in float64, to
    about twelve digits.

    With every prediction right the NLL falls as long as T does, and with predictions that tell less than nothing as
    long as T grows: T is then `lowest` or `highest` and `at_bound` is true. Where T changes nothing, since the logits
    of every row are equal, T is 1.

    Args:
        logits: (N, K), floating point, finite; of data that the model was not trained on.
        labels: (N,), integer, from 0 to K − 1.
        lowest: least temperature, above 0.
        highest: largest temperature.

    Raises:
        ValueError: if shapes do not fit, there is no sample, a label is out of range, a logit is not finite, or the
            bounds are not 0 < lowest ≤ 1 ≤ highest < ∞.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0]] * 4)  # 3 of 4 right: softmax(z / T) = (3/4, 1/4) at T = 3 / log 3
        >>> fit = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
        >>> round(fit.temperature, 4), fit.at_bound
        (2.7307, False)

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    check_logits_and_labels(logits, labels, finite=True)
    if not 0 < lowest <= 1 <= highest < math.inf:
        raise ValueError(f"lowest and highest must be 0 < lowest <= 1 <= highest < inf, got {lowest} and {highest}")
    labels = labels.long()
    if bool((logits.amax(1) == logits.amin(1)).all()):
        return TemperatureFit(1.0, False)
    low, high = 1 / highest, 1 / lowest
    if _nll_derivatives(logits, labels, high)[0] <= 0:
        return TemperatureFit(lowest, True)
    if _nll_derivatives(logits, labels, low)[0] >= 0:
        return TemperatureFit(highest, True)
    beta, last_change = 1.0, math.inf
    # Every round halves the change or the logarithm of the bracket: 100 are never reached.
    for _ in range(100):
        first, second = _nll_derivatives(logits, labels, beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        step = beta - first / second if second > 0 else math.inf
        if not low <= step <= high or abs(step - beta) > last_change / 2:
            step = math.sqrt(low * high)
        last_change, beta = abs(step - beta), step
        if last_change <= 1e-13 * beta:
            break
    return TemperatureFit(1 / beta, False)


def _nll_derivatives(logits: Tensor, labels: Tensor, beta: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL of softmax(β z) with respect to β."""
    first = second = 0.0
    rows = max(1, _CHUNK // logits.shape[1])
    for some, classes in zip(logits.split(rows), labels.split(rows), strict=True):
        wide = some.double()
        z = wide - wide.gather(1, classes.unsqueeze(1))
        q = (beta * z).softmax(1)
        mean = (q * z).sum(1, keepdim=True)
        first += float(mean.sum())
        second += float((q * (z - mean).square()).sum())
    return first / len(labels), second / len(labels)


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")


def _top1(logits: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The top-1 probability and whether the prediction is right, both (N,), float64."""
    check_logits_and_labels(logits, labels)
    _check_bins(bins)
    return logits.double().softmax(1).amax(1), (logits.argmax(1) == labels).double()
