"""Statistics over seeds: description of a sample, paired comparison of two methods, and of several with one.

What decides is the exact sign-flip test after Holm's correction: it assumes nothing of the distribution but that,
without an effect, a seed's difference has either sign alike, and it says by itself what n pairs cannot show. The
t-test, the t-interval and the bootstrap interval stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE = 0.95
LEVEL = 0.05
POWER = 0.8
# The exact test counts 2ⁿ patterns through the sorted sums of two halves: at 40 pairs, twice 2²⁰ of them.
MOST_PAIRS = 40
RESAMPLES = 9999
# Up to so many pairs the effect that the exact test finds is computed from its 2ⁿ patterns, over so many draws.
FEW_PAIRS = 12
DRAWS = 2**13

Outcome = Literal["significant", "not seen", "n too small", "untested"]


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

    `interval` is the 95% t-interval of the mean, `bootstrap` the 95% BCa bootstrap interval (too narrow below some ten
    pairs). `p_sign_flip` is exact and two-sided; with n pairs it cannot be below `floor` = 2 / 2ⁿ, whatever the data.
    """

    n: int
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    p_t: float | None
    p_sign_flip: float | None
    floor: float


def describe(values: Sequence[float] | NDArray[np.float64]) -> Sample:
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


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float] | None:
    """95% BCa bootstrap interval of the mean (Efron 1987), always from the same resamples; None below two values.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    if np.ptp(x) == 0:  # every resample has the same mean, for which BCa is not defined
        return float(x[0]), float(x[0])
    resampled = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    low, high = resampled.confidence_interval
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Exact two-sided p of the paired sign-flip permutation test on the mean.

    Under the null hypothesis each difference is as likely to have either sign: p is the share of the 2ⁿ sign patterns
    whose mean is at least as far from 0 as the observed one.

    Raises:
        ValueError: for no differences, or for more than 40.

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    x = np.asarray(differences, dtype=np.float64)
    if not 1 <= len(x) <= MOST_PAIRS:
        raise ValueError(f"differences must hold from 1 to {MOST_PAIRS} values, got {len(x)}")
    # A pattern that equals the observed one up to rounding counts as equal.
    least = abs(x.sum()) - 1e-12 * np.abs(x).sum()
    if least <= 0:
        return 1.0
    left, right = (_signed_sums(half) for half in (x[: len(x) // 2], x[len(x) // 2 :]))
    reached = sum(len(right) - np.searchsorted(np.sort(right), least - left))
    return float(2 * reached / 2 ** len(x))  # the patterns on the other side of 0 are their mirror images


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all 2ⁿ sign patterns."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


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
        p_flip = sign_flip_p(x) if of.n <= MOST_PAIRS else None
    return PairedDifference(of.n, of.mean, of.std, of.interval, bootstrap_interval(x), p_t, p_flip, 2.0 / 2**of.n)


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


def least_n(comparisons: int, level: float = LEVEL) -> int:
    """The least number of pairs whose exact sign-flip test can reach `level` in Holm's family of `comparisons`.

    The smallest p of a family of m is multiplied by m, and cannot be below 2 / 2ⁿ: m·2 / 2ⁿ ≤ level.

    Raises:
        ValueError: if `comparisons` is below 1 or `level` is not between 0 and 1.

    >>> least_n(1), least_n(2), least_n(6)
    (6, 7, 8)
    """
    _check_family(comparisons, level)
    n = 1
    while comparisons * 2 / 2**n > level:
        n += 1
    return n


def detectable_effect(n: int, std: float, comparisons: int, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true mean difference that the exact sign-flip test finds with probability `power`.

    Of `n` pairs whose differences are normal with the standard deviation `std`, two-sided at `level` / `comparisons`,
    the first step of Holm's correction. In the unit of `std`; infinite where n pairs cannot reach that level.

    A pattern that flips the pairs S has a sum at least as far out where the mean of S is at most 0, and at most
    k = ⌊level / comparisons · 2ⁿ⁻¹⌋ of the patterns may have that. With differences effect + std·z it holds from the
    effect on that is the k-th largest of −std·(mean of z over S), of which the share `power` has to be met: a quantile
    over `DRAWS` quasi-random z, good to about 0.3%. With k = 1, n pairs of one sign, it is the Φ⁻¹(power^(1/n)) of one
    z. Above `FEW_PAIRS` it is that of the paired t-test (Cohen 1988), which is then within 2% of it.

    Raises:
        ValueError: if `n` is below 2, `std` negative or not finite, or `comparisons` or `level` as in `least_n`;
            if `power` is not between `level` and 1.

    >>> round(detectable_effect(6, 1.0, 1), 2), round(detectable_effect(10, 1.0, 1), 2)
    (1.79, 1.01)
    """
    _check_family(comparisons, level)
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    if not 0 <= std < math.inf:
        raise ValueError(f"std must be a finite number of at least 0, got {std}")
    if not level < power < 1:
        raise ValueError(f"power must be between level = {level} and 1, got {power}")
    if std == 0:
        return 0.0
    of_one = _found_by_sign_flips if n <= FEW_PAIRS else _found_by_t
    return of_one(n, level / comparisons, power) * std


@lru_cache(maxsize=256)
def _found_by_sign_flips(n: int, level: float, power: float) -> float:
    """The effect, in standard deviations, that the exact test of n pairs finds with probability `power`."""
    k = math.floor(level * 2 ** (n - 1) + 1e-9)
    if k == 0:
        return math.inf
    z = stats.norm.ppf(stats.qmc.Sobol(n, rng=np.random.default_rng(0)).random(DRAWS))
    subsets = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    means = (subsets / subsets.sum(1, keepdims=True)).T
    parts = np.array_split(z, max(1, DRAWS * 2**n >> 22))  # a few at a time, for the memory's sake
    needed = np.concatenate([np.partition(-part @ means, -k, axis=1)[:, -k] for part in parts])
    return float(np.quantile(needed, power))


def _found_by_t(n: int, level: float, power: float) -> float:
    """The same of the paired t-test, from the noncentral t distribution."""
    critical = float(stats.t.isf(level / 2, n - 1))

    def missing_power(noncentrality: float) -> float:
        # The far tail adds less than level / 2 at 0 and nothing where the power is large.
        return power - float(stats.nct.sf(critical, n - 1, noncentrality))

    return float(optimize.brentq(missing_power, 0.0, 2 * critical + 10)) / math.sqrt(n)


def _check_family(comparisons: int, level: float) -> None:
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


@dataclass(frozen=True)
class Judgement:
    """What one difference of a family shows after Holm's correction over its `comparisons`.

    `outcome`: "significant" if the sign-flip p, corrected, is at most 5%; else "n too small" where so few pairs could
    not have reached 5% whatever they are, beside what the family's others are; else "not seen", and then `detectable`
    is the effect that had an 80% chance to be found. "untested": no pair, or more than 40. `least_n` pairs can reach 5%
    whatever the others are; fewer can where Holm's correction comes to them after others that are significant.
    """

    comparisons: int
    least_n: int
    p_t_holm: float | None
    p_sign_flip_holm: float | None
    outcome: Outcome
    detectable: float | None


def judge_family(differences: Mapping[str, PairedDifference]) -> dict[str, Judgement]:
    """Corrects the tests of one measure over the methods compared with one reference (Holm 1979), and judges each.

    A difference that has no p, for want of pairs, counts into the family all the same: what other runs did must not
    make a test more lenient.
    """
    values = {
        name: [1.0 if p is None else p for p in (getattr(of, name) for of in differences.values())]
        for name in ("p_t", "p_sign_flip")
    }
    corrected = {name: holm(of) for name, of in values.items()}
    family = len(differences)
    judged = {}
    for place, (method, of) in enumerate(differences.items()):
        p_t = None if of.p_t is None else corrected["p_t"][place]
        p_flip = None if of.p_sign_flip is None else corrected["p_sign_flip"][place]
        least = least_n(family)
        outcome: Outcome
        if of.n == 0 or of.n > MOST_PAIRS:
            outcome = "untested"
        elif p_flip is not None and p_flip <= LEVEL:
            outcome = "significant"
        else:
            clearest = [of.floor if other == place else p for other, p in enumerate(values["p_sign_flip"])]
            outcome = "not seen" if holm(clearest)[place] <= LEVEL else "n too small"
        detectable = None
        if outcome == "not seen" and of.std is not None:
            # Holm's step at which it would be judged if it were as clear as can be.
            before = sum(p < of.floor for other, p in enumerate(values["p_sign_flip"]) if other != place)
            detectable = detectable_effect(of.n, of.std, family - before)
        judged[method] = Judgement(family, least, p_t, p_flip, outcome, detectable)
    return judged
