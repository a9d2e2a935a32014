import itertools
import math

import numpy as np
import pytest
from scipy import stats

from maxsup.lab.statistics import describe, holm, paired_difference, sign_flip_p


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
    with pytest.raises(ValueError, match="from 1 to 24 values, got 0"):
        sign_flip_p([])


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
