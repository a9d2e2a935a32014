import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from maxsup.lab.analysis import logistic
from maxsup.lab.analysis.logistic import STRENGTHS, PathPoint, Regression, Solver

EXACT = Solver(tolerance=1e-9)


def digits(count, classes=range(10), start=0):
    """Raw pixels: correlated features of unlike scales, three of them constant, that are far from centred."""
    data = load_digits()
    chosen = np.flatnonzero(np.isin(data.target, list(classes)))[start : start + count]
    return data.data[chosen] + 7.0, data.target[chosen].astype(np.int64)


def raw_weights(regression):
    """Weights (K, D) and intercepts (K,) on the raw features; of two classes as the softmax has them."""
    model, coordinates = regression._model, regression.coordinates
    weights, intercepts = model.coef_ / coordinates.scale, model.intercept_
    if len(weights) == 1:
        weights, intercepts = np.vstack([-weights, weights]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    return weights, intercepts - weights @ coordinates.mean


def test_the_strengths_are_45_from_1e_6_to_1e5_evenly_in_their_logarithm():
    assert len(STRENGTHS) == 45
    assert (STRENGTHS[0], STRENGTHS[24], STRENGTHS[-1]) == (1e-6, 1.0, 1e5)
    np.testing.assert_allclose(np.diff(np.log10(STRENGTHS)), 0.25, rtol=1e-9)


@pytest.mark.parametrize("strength", [0.1, 10.0, 1000.0])
def test_it_is_the_regression_on_the_raw_features(strength):
    x, y = digits(300)
    ours = Regression(x, y, EXACT)
    assert ours.fit(strength).converged
    plain = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-10).fit(x, y)
    weights, _ = raw_weights(ours)
    np.testing.assert_allclose(weights, plain.coef_, atol=2e-5)
    np.testing.assert_allclose(ours.probabilities(x), plain.predict_proba(x), atol=2e-5)
    other, labels = digits(200, start=300)
    assert ours.accuracy(other, labels) == pytest.approx(float((plain.predict(other) == labels).mean()), abs=1 / 200)


@pytest.mark.parametrize("classes", [range(10), (3, 8)])
@pytest.mark.parametrize("strength", [0.1, 100.0])
def test_the_gradient_of_the_summed_cross_entropy_and_the_penalty_is_zero(classes, strength):
    x, y = digits(200, classes)
    ours = Regression(x, y, EXACT)
    ours.fit(strength)
    weights, intercepts = raw_weights(ours)
    labels = np.searchsorted(np.unique(y), y)
    q = softmax(x @ weights.T + intercepts, axis=1)
    np.testing.assert_allclose(ours.probabilities(x), q, atol=1e-12)
    residual = q - np.eye(len(weights))[labels]
    # λ multiplies ‖W‖²/2; the intercepts are free. Measured against the size of the sum's terms.
    gradient = residual.T @ x + strength * weights
    assert np.abs(gradient).max() < 1e-5 * np.abs(residual).T.dot(np.abs(x)).max()
    assert np.abs(residual.sum(axis=0)).max() < 1e-5


def test_the_path_goes_from_strong_to_weak_and_agrees_with_single_fits():
    x, y = digits(300)
    held, labels = digits(200, start=300)
    strengths = (1.0, 1e5, 100.0)
    points = logistic.path(x, y, held, labels, strengths, EXACT)
    assert [point.strength for point in points] == [1e5, 100.0, 1.0]
    assert all(point.converged and point.iterations > 0 for point in points)
    for point in points:
        alone = LogisticRegression(C=1 / point.strength, solver="newton-cholesky", tol=1e-10).fit(x, y)
        assert point.accuracy == pytest.approx(alone.score(held, labels), abs=1 / 200)


def test_a_warm_start_does_not_change_the_result():
    x, y = digits(300)
    warm, cold = Regression(x, y, EXACT), Regression(x, y, EXACT)
    for strength in (1e5, 300.0, 10.0):
        of = warm.fit(strength)
    fresh = cold.fit(10.0)
    assert of.converged
    assert fresh.converged
    np.testing.assert_allclose(raw_weights(warm)[0], raw_weights(cold)[0], atol=2e-5)


def test_the_most_accurate_point_is_chosen_and_of_equals_the_strongest():
    def point(strength, accuracy):
        return PathPoint(strength, 1, True, accuracy)

    assert logistic.choose([point(10.0, 0.5), point(1.0, 0.75), point(0.1, 0.75), point(0.01, 0.7)]).strength == 1.0
    assert logistic.choose([point(0.1, 0.75), point(1.0, 0.75)]).strength == 1.0


def test_a_fit_that_does_not_converge_says_so_and_warns_nobody():
    x, y = digits(300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of = Regression(x, y, Solver(max_iter=1)).fit(1.0)
    assert (of.iterations, of.converged) == (1, False)


def test_other_warnings_are_passed_on(monkeypatch):
    x, y = digits(100)
    regression = Regression(x, y, Solver(max_iter=1))
    fit = regression._model.fit

    def warning(features, labels):
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return fit(features, labels)

    monkeypatch.setattr(regression._model, "fit", warning)
    with pytest.warns(RuntimeWarning, match="something else") as caught:
        assert not regression.fit(1.0).converged
    assert not any(issubclass(of.category, ConvergenceWarning) for of in caught)


def test_constant_features_are_no_division_by_zero():
    x, y = np.full((20, 3), 5.0), np.arange(20) % 2
    regression = Regression(x, y, EXACT)
    assert regression.fit(1.0).converged
    np.testing.assert_allclose(regression.probabilities(x), 0.5, atol=1e-9)
