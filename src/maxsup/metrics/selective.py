"""Selective classification: predict only where confidence is high, and count the errors that remain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maxsup.metrics._checks import check_logits, check_logits_and_labels
from maxsup.metrics._ties import last_of_ties, mean_over_ties

# Cattelan and Silva search the integers up to 10 as well.
P_CANDIDATES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)


class RiskCoverage(NamedTuple):
    """The risk-coverage curve, both (N,), float64."""

    coverage: Tensor
    """i / N, i = 1..N."""
    risk: Tensor
    """R_i: share of errors among the i most confident samples."""


def risk_coverage(confidence: Tensor, correct: Tensor) -> RiskCoverage:
    r"""Risk at every coverage: R_i = errors among the i most confident samples / i.

    Samples of equal confidence have no order. Each counts with the mean error of its equals, so that R_i is the
    expectation over their random orders, whatever order they come in.

    Args:
        confidence: (N,), floating point, larger is surer; infinite values are compared like any other.
        correct: (N,), bool.

    Raises:
        ValueError: if shapes or types do not fit, there is no sample, or a confidence is NaN.

    Example:
        >>> curve = risk_coverage(torch.tensor([0.9, 0.8, 0.8, 0.7]), torch.tensor([True, False, True, False]))
        >>> [round(r, 4) for r in curve.risk.tolist()]
        [0.0, 0.25, 0.3333, 0.5]

    Reference: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
    """
    return _curve(confidence, correct)[0]


def aurc(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Area under the risk-coverage curve, by trapezoids over coverage from 1/N to 1; no point is added at 0.

    AURC = Σ_{i=1}^{N−1} (R_i + R_{i+1}) / (2N), with equal confidences as in `risk_coverage`: the expectation over
    their random orders.

    Args:
        confidence: (N,), floating point, N ≥ 2.
        correct: (N,), bool.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: as in `risk_coverage`, or for a single sample, whose curve has no area.

    Example:
        >>> round(float(aurc(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]))), 4)  # R = 0, 1/2, 1/3
        0.2222

    Reference: Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR
    2019; Xia et al., "Towards Understanding Why Label Smoothing Degrades Selective Classification and How to Fix It",
    ICLR 2025, arXiv 2403.14715.
    """
    curve = risk_coverage(confidence, correct)
    if len(curve.risk) < 2:
        raise ValueError("confidence must hold at least two samples, got 1")
    return torch.trapezoid(curve.risk, curve.coverage)


def coverage_at_risk(confidence: Tensor, correct: Tensor, risk: float) -> Tensor:
    r"""Largest share of samples that can be kept at no more than the given risk: max{i/N : R_i ≤ risk}, 0 if none.

    Only those i count that a threshold on confidence can realise: equal confidences are kept or refused together.

    Args:
        confidence: (N,), floating point.
        correct: (N,), bool.
        risk: share of errors, from 0 to 1.

    Returns:
        A 0-dimensional float64 tensor.

    Raises:
        ValueError: as in `risk_coverage`, or if `risk` is outside of [0, 1].

    Example:
        >>> confidence, correct = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([True, False, True, True])
        >>> float(coverage_at_risk(confidence, correct, 0.3)), float(coverage_at_risk(confidence, correct, 0.2))
        (1.0, 0.25)

    Reference: as `aurc`.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk must be from 0 to 1, got {risk}")
    curve, realisable = _curve(confidence, correct)
    return torch.where(realisable & (curve.risk <= risk), curve.coverage, 0.0).amax()


def max_probability(logits: Tensor) -> Tensor:
    r"""Confidence max_k softmax(z)_k, the usual score: logits (N, K) -> (N,), float64.

    Leads of the top logit beyond about 37 round to probability 1 and are equal.

    Raises:
        ValueError: if the shape does not fit, there is no sample, or a logit is NaN or +inf.

    Example:
        >>> max_probability(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]).double().log())
        tensor([0.7000, 0.5000], dtype=torch.float64)
    """
    check_logits(logits)
    return logits.double().softmax(1).amax(1)


def logit_normalization(logits: Tensor, p: float) -> Tensor:
    r"""Confidence max_k (z_k − z̄) / ‖z − z̄‖_p: how far the top logit stands out, whatever the scale of the logits.

    A row of equal logits has confidence 0, below that of any other.

    Args:
        logits: (N, K), floating point, finite.
        p: order of the norm, above 0; may be `math.inf`.

    Returns:
        (N,), float64.

    Raises:
        ValueError: if the shape does not fit, there is no sample, a logit is not finite, or `p` is not above 0.

    Example:
        >>> logit_normalization(torch.tensor([[4.0, 1.0, 1.0]]), p=1)  # (2, −1, −1): 2 / 4
        tensor([0.5000], dtype=torch.float64)

    Reference: Cattelan and Silva, "How to Fix a Broken Confidence Estimator: Evaluating Post-hoc Methods for Selective
    Classification with Deep Neural Networks", UAI 2024, arXiv 2305.15508; Xia et al., ICLR 2025, arXiv 2403.14715.
    """
    check_logits(logits, finite=True)
    if not p > 0:
        raise ValueError(f"p must be above 0, got {p}")
    wide = logits.double()
    centred = wide - wide.mean(1, keepdim=True)
    # In units of the largest entry powers of large p neither overflow nor vanish altogether.
    size = centred.abs().amax(1, keepdim=True)
    centred = torch.where(wide.amin(1, keepdim=True) < wide.amax(1, keepdim=True), centred / size, 0.0)
    norm = torch.linalg.vector_norm(centred, ord=p, dim=1)
    return torch.where(norm > 0, centred.amax(1) / norm, 0.0)


def choose_p(logits: Tensor, labels: Tensor, candidates: Sequence[float] = P_CANDIDATES) -> float:
    r"""The p of `logit_normalization` with the least AURC on held-out data; the first among equals.

    Args:
        logits: (N, K), floating point, finite, N ≥ 2; of data that the final measure does not use.
        labels: (N,), integer, from 0 to K − 1.
        candidates: orders to try, each above 0.

    Raises:
        ValueError: if shapes do not fit, there are fewer than two samples, a label is out of range, a logit is not
            finite, or there is no candidate or one that is not above 0.

    Example:
        >>> logits = torch.tensor([[5.0, 1.0, 1.0, 3.0], [4.0, 2.0, 0.0, 1.0], [1.0, 1.0, 2.0, 3.0]])
        >>> choose_p(logits, torch.tensor([0, 0, 0]), candidates=(1, 2, 4))
        2.0

    Reference: Cattelan and Silva, UAI 2024, arXiv 2305.15508.
    """
    check_logits_and_labels(logits, labels, finite=True)
    if len(candidates) == 0:
        raise ValueError("candidates must hold at least one p, got none")
    correct = logits.argmax(1) == labels
    best, least = math.nan, math.inf
    for p in candidates:
        area = float(aurc(logit_normalization(logits, p), correct))
        if area < least:
            best, least = float(p), area
    return best


def _curve(confidence: Tensor, correct: Tensor) -> tuple[RiskCoverage, Tensor]:
    """The curve, and at which of its points a threshold can stop (N,)."""
    if confidence.ndim != 1 or len(confidence) == 0 or not confidence.is_floating_point():
        raise ValueError(
            f"confidence must be floating point of shape (N,) with N > 0, "
            f"got {confidence.dtype}, {tuple(confidence.shape)}"
        )
    if correct.shape != confidence.shape or correct.dtype != torch.bool:
        raise ValueError(
            f"correct must be bool of shape {tuple(confidence.shape)}, got {correct.dtype}, {tuple(correct.shape)}"
        )
    if bool(confidence.isnan().any()):
        raise ValueError("confidence must not be NaN")
    score, order = confidence.sort(descending=True)
    wrong = (~correct[order]).double()
    last = last_of_ties(score)
    # Sums of fractions round: where there are none the count itself decides whether a risk is met.
    errors = torch.where(last, wrong.cumsum(0), mean_over_ties(score, wrong).cumsum(0))
    position = torch.arange(1, len(score) + 1, dtype=torch.float64, device=score.device)
    return RiskCoverage(position / len(score), errors / position), last
