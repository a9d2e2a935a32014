import itertools
import math

import numpy as np
import pytest
from scipy import stats

from maxsup.lab.statistics import (
    bootstrap_interval,
    describe,
    detectable_effect,
    holm,
    judge_family,
    least_n,
    paired_difference,
    sign_flip_p,
)


def test_describe_agrees_with_scipy():
    values = [0.91, 0.94, 0.90, 0.97]
    sample = describe(values)
    interval = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (sample.n, sample.mean, sample.std) == (4, pytest.approx(0.93), pytest.approx(np.std(values, ddof=1)))
    assert sample.interval == pytest.approx(interval)


def test_describe_claims_nothing_that_n_does_not_allow():
    assert describe([]).mean is None
    one = describe([0.5])
    assert (one.n, one.mean, one.std, one.interval) == (1, 0.5, None, None)


def test_the_sign_flip_test_enumerates_every_pattern():
    x = np.array([0.3, -0.1, 0.4, 0.2, 0.35])
    patterns = [abs(np.dot(signs, x)) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean(np.array(patterns) >= abs(x.sum()) - 1e-12)
    assert sign_flip_p(x) == expected
    # SciPy's permutation test is the same test.
    theirs = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(x) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("n", [1, 5, 8])
def test_the_sign_flip_test_reaches_its_floor_and_no_lower(n):
    assert sign_flip_p([1.0] * n) == 2 / 2**n
    assert paired_difference(dict.fromkeys(range(n), 1.0), dict.fromkeys(range(n), 0.0)).floor == 2 / 2**n


def test_sign_flip_refuses_what_it_cannot_enumerate():
    with pytest.raises(ValueError, match="from 1 to 40 values, got 0"):
        sign_flip_p([])
    with pytest.raises(ValueError, match="from 1 to 40 values, got 41"):
        sign_flip_p([1.0] * 41)


@pytest.mark.parametrize("n", [2, 3, 9, 14])  # odd and even: the halves differ in length or not
def test_the_sign_flip_test_counts_ties_as_every_pattern_does(n):
    x = np.random.default_rng(n).integers(-3, 4, size=n) / 10
    patterns = np.abs(np.array(list(itertools.product([1, -1], repeat=n))) @ x)
    assert sign_flip_p(x) == np.mean(patterns >= abs(x.sum()) - 1e-9)


def test_the_sign_flip_test_of_forty_pairs():
    x = np.ones(40)
    assert sign_flip_p(x) == 2 / 2**40
    # One value against the others: the patterns that reach 38 of 40 are all equal, or one off.
    x[7] = -1
    assert sign_flip_p(x) == 2 * 41 / 2**40


def test_pairs_are_matched_by_seed():
    ours, reference = {0: 0.9, 1: 0.8, 3: 0.5, 2: 0.95}, {1: 0.7, 0: 0.85, 2: 0.9, 9: 0.1}
    paired = paired_difference(ours, reference)
    assert paired.n == 3
    assert paired.mean == pytest.approx((0.05 + 0.1 + 0.05) / 3)
    test = stats.ttest_rel([0.9, 0.8, 0.95], [0.85, 0.7, 0.9])
    assert paired.p_t == pytest.approx(test.pvalue)
    assert paired.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert paired.p_sign_flip == 0.25


def test_few_or_equal_pairs():
    one = paired_difference({0: 1.0}, {0: 0.5})
    assert (one.n, one.mean, one.interval, one.p_t, one.p_sign_flip) == (1, 0.5, None, None, None)
    assert paired_difference({0: 1.0}, {1: 0.5}).mean is None
    same = paired_difference({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5})
    assert (same.mean, same.p_t, same.p_sign_flip) == (0.0, 1.0, 1.0)


def test_holm_worked_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert not any(math.isnan(p) for p in holm([0.5]))


def test_bootstrap_agrees_with_scipy_and_with_itself():
    x = [0.3, -0.1, 0.4, 0.2, 0.35, 0.05, 0.6, -0.2]
    theirs = stats.bootstrap((x,), np.mean, method="BCa", n_resamples=50_000, rng=np.random.default_rng(7))
    assert bootstrap_interval(x) == bootstrap_interval(x)
    assert bootstrap_interval(x) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert paired_difference(dict(enumerate(x)), dict.fromkeys(range(8), 0.0)).bootstrap == bootstrap_interval(x)


def test_bootstrap_of_few_or_equal_values():
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)
    low, high = bootstrap_interval([0.0, 0.0, 1.0])
    assert 0 <= low <= 1 / 3 <= high <= 1


def test_least_n_worked_by_hand():
    # m·2/2ⁿ ≤ 0.05: 2/64 = 0.031 but 2/32 = 0.063; 12/256 = 0.047 but 12/128 = 0.094.
    assert [least_n(m) for m in (1, 2, 3, 6, 7)] == [6, 7, 7, 8, 9]
    assert least_n(1, level=0.5) == 2
    with pytest.raises(ValueError, match="comparisons must be at least 1, got 0"):
        least_n(0)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 5"):
        least_n(1, level=5)


@pytest.mark.parametrize(("n", "comparisons"), [(7, 1), (8, 2), (9, 6)])
def test_the_detectable_effect_has_the_power_that_it_says(n, comparisons):
    std = 0.3
    effect = detectable_effect(n, std, comparisons)
    draws = np.random.default_rng(1).normal(effect, std, (4000, n))
    power = np.mean([sign_flip_p(of) <= 0.05 / comparisons for of in draws])
    assert power == pytest.approx(0.8, abs=0.02)  # three standard errors


@pytest.mark.parametrize(("n", "comparisons"), [(6, 1), (7, 3), (8, 6)])
def test_where_all_pairs_must_have_one_sign_the_detectable_effect_has_a_closed_form(n, comparisons):
    assert comparisons * 2 / 2**n <= 0.05 < comparisons * 4 / 2**n
    assert detectable_effect(n, 1.0, comparisons) == pytest.approx(stats.norm.ppf(0.8 ** (1 / n)), rel=3e-3)


def test_with_many_pairs_the_detectable_effect_is_the_t_tests():
    std, n, comparisons = 0.3, 30, 3
    # The power of the two-sided test by integrating over the sampled std, whose square is chi-squared.
    critical = stats.t.isf(0.05 / comparisons / 2, n - 1)
    shift = detectable_effect(n, std, comparisons) / std * math.sqrt(n)
    scales = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))
    power = np.mean(stats.norm.sf(critical * scales - shift) + stats.norm.cdf(-critical * scales - shift))
    assert power == pytest.approx(0.8, abs=1e-4)
    # And where it takes over, the two agree.
    few, many = (detectable_effect(n, 1.0, 2) * math.sqrt(n) for n in (12, 13))
    assert many == pytest.approx(few, rel=0.02)


def test_the_detectable_effect_is_proportional_to_the_spread():
    assert detectable_effect(10, 0.0, 2) == 0
    assert detectable_effect(10, 3.0, 2) == pytest.approx(3 * detectable_effect(10, 1.0, 2))
    assert detectable_effect(7, 1.0, 6) == math.inf  # the least p of 7 pairs, times 6, is 0.094
    # Cohen's table gives the t-test of 10 pairs, d = 1.0, two-sided 5%, a power of 0.80; the exact test takes no less.
    assert 1.0 < detectable_effect(10, 1.0, 1) < 1.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1.0, 1), "n must be at least 2, got 1"),
        ((5, math.nan, 1), "std must be a finite number of at least 0, got nan"),
        ((5, 1.0, 1, 0.05, 0.01), "power must be between level = 0.05 and 1, got 0.01"),
    ],
)
def test_the_detectable_effect_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        detectable_effect(*arguments)


def _against_zero(values):
    return paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))


def test_a_family_is_corrected_and_judged():
    clear, none = [0.5, 0.6, 0.4, 0.55, 0.45, 0.52, 0.61, 0.39], [0.1, -0.1, 0.2, -0.2, 0.05, -0.06, 0.3, -0.28]
    judged = judge_family({"clear": _against_zero(clear), "none": _against_zero(none)})
    assert judged["clear"].outcome == "significant"
    assert judged["clear"].p_sign_flip_holm == 2 * 2 / 2**8
    assert judged["clear"].p_t_holm == pytest.approx(2 * stats.ttest_1samp(clear, 0).pvalue)
    assert judged["clear"].detectable is None
    assert judged["none"].outcome == "not seen"
    assert judged["none"].p_sign_flip_holm == sign_flip_p(none)  # the largest p of Holm's family keeps its value
    assert judged["none"].detectable == detectable_effect(8, np.std(none, ddof=1), 2)
    assert (judged["none"].comparisons, judged["none"].least_n) == (2, 7)


def test_a_family_claims_nothing_that_n_could_not_show():
    # Five pairs, as clear as can be: t is sure, but the exact test cannot go below 0.0625.
    judged = judge_family({"a": _against_zero([1.0, 1.1, 0.9, 1.05, 0.95])})["a"]
    assert judged.p_t_holm < 0.001
    assert (judged.outcome, judged.p_sign_flip_holm, judged.least_n) == ("n too small", 0.0625, 6)
    assert judged.detectable is None
    judged = judge_family({"one": _against_zero([1.0]), "no": _against_zero([]), "many": _against_zero([1.0] * 41)})
    assert [of.outcome for of in judged.values()] == ["n too small", "untested", "untested"]
    # A method without runs still counts: 6 pairs suffice for one comparison and not for two.
    judged = judge_family({"six": _against_zero([1.0, 1.1, 0.9, 1.0, 1.2, 0.8]), "no": _against_zero([])})
    assert (judged["six"].outcome, judged["six"].p_sign_flip_holm) == ("n too small", 0.0625)
    assert judge_family({}) == {}


def test_what_n_can_show_depends_on_where_holms_correction_comes_to_it():
    clear, six, five = [1.0] * 10, [1.0, 1.1, 0.9, 1.0, 1.2, -0.1], [1.0] * 5
    # Beside a smaller p that is significant, six pairs are multiplied by 1: 2/2⁶ = 0.031 was within reach.
    judged = judge_family({"ten": _against_zero(clear), "six": _against_zero(six)})
    assert judged["six"].p_sign_flip_holm == 4 / 2**6
    assert (judged["six"].outcome, judged["six"].least_n) == ("not seen", 7)
    assert judged["six"].detectable == detectable_effect(6, np.std(six, ddof=1), 1)
    assert judge_family({"ten": _against_zero(clear), "six": _against_zero([1.0] * 6)})["six"].outcome == "significant"
    # Beside one that is not, they are multiplied by 2; and five can show nothing anywhere.
    judged = judge_family({"ten": _against_zero([1.0, -1.0] * 5), "six": _against_zero(six)})
    assert judged["six"].outcome == "n too small"
    judged = judge_family({"ten": _against_zero(clear), "five": _against_zero(five)})
    assert judged["five"].outcome == "n too small"
