"""Statistics over seeds: description of a sample, and paired comparison of two methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """n values: mean, standard deviation (ddof 1) and the t-interval of the mean; None where n does not allow it."""

    n: int
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class PairedDifference:
    """Differences over the seeds that both methods finished: their description and tests of a difference of 0.

    `p_sign_flip` is exact and two-sided; with n pairs it cannot be below `floor` = 2 / 2ⁿ, whatever the data.
    """

    n: int
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None
    p_t: float | None
    p_sign_flip: float | None
    floor: float


def describe(values: Sequence[float]) -> Sample:
    """Mean, std (ddof 1) and 95% t-interval of the mean.

    >>> describe([1.0, 2.0, 3.0])
    Sample(n=3, mean=2.0, std=1.0, interval=(-0.4841..., 4.4841...))
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n == 0:
        return Sample(0, None, None, None)
    mean = float(x.mean())
    if n == 1:
        return Sample(1, mean, None, None)
    # The mean of equal values can be off by a rounding, which would then look like a spread.
    if np.ptp(x) == 0:
        mean = float(x[0])
    std = float(np.sqrt(np.square(x - mean).sum() / (n - 1)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return Sample(n, mean, std, (mean - half, mean + half))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided p of the paired sign-flip permutation test on the mean.

    Under the null hypothesis each difference is as likely to have either sign: p is the share of the 2ⁿ sign patterns
    whose mean is at least as far from 0 as the observed one.

    Raises:
        ValueError: for no differences, or for more than 24 (their patterns would not fit into memory).

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    x = np.asarray(differences, dtype=np.float64)
    if not 1 <= len(x) <= 24:
        raise ValueError(f"differences must hold from 1 to 24 values, got {len(x)}")
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(x.sum())
    # A pattern that equals the observed one up to rounding counts as equal.
    return float(np.mean(np.abs(sums) >= observed - 1e-12 * np.abs(x).sum()))


def paired_difference(values: dict[int, float], reference: dict[int, float]) -> PairedDifference:
    """The difference `values` − `reference`, paired by seed; seeds that either lacks are left out."""
    seeds = sorted(values.keys() & reference.keys())
    pairs = np.array([(values[seed], reference[seed]) for seed in seeds], dtype=np.float64).reshape(-1, 2)
    x = pairs[:, 0] - pairs[:, 1]
    # Shares of a small test set often differ by the same count; a spread that is only the rounding of the subtractions
    # is none.
    if len(x) and np.ptp(x) <= 4 * np.finfo(np.float64).eps * np.abs(pairs).max():
        x[:] = x[0]
    of = describe(x)
    p_t = p_flip = None
    if of.n > 1:
        # Without any spread t is infinite, or undefined for a difference of exactly 0 throughout.
        p_t = float(stats.ttest_1samp(x, 0.0).pvalue) if of.std else (0.0 if of.mean else 1.0)
        p_flip = sign_flip_p(x) if of.n <= 24 else None
    return PairedDifference(of.n, of.mean, of.std, of.interval, p_t, p_flip, 2.0 / 2**of.n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that control the family-wise error over all of them.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
