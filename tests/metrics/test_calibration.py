import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from maxsup.metrics import brier, expected_calibration_error, fit_temperature, nll, reliability
from maxsup.metrics.calibration import calibration_error_of


def sample(n=2000, k=5, scale=2.0, seed=0):
    """Logits whose true classes are drawn from their softmax at half the scale: overconfident."""
    torch.manual_seed(seed)
    logits = scale * torch.randn(n, k, dtype=torch.float64)
    return logits, torch.multinomial((logits / 2).softmax(1), 1).squeeze(1)


def of(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_brier_by_hand():
    # (0.3² + 0.2² + 0.1²) and (0.1² + 0.9² + 0.8²); a wrong certainty costs 2.
    logits, labels = of([0.7, 0.2, 0.1], [0.1, 0.1, 0.8]), torch.tensor([0, 1])
    assert brier(logits, labels).item() == pytest.approx((0.14 + 1.46) / 2)
    assert brier(torch.tensor([[900.0, 0.0]]), torch.tensor([1])).item() == 2
    assert brier(torch.tensor([[1.0, -math.inf, 1.0]]), torch.tensor([0])).item() == 0.5


@pytest.mark.parametrize("k", [2, 7])
def test_scikit_learns_brier_agrees(k):
    logits, labels = sample(k=k)
    probabilities = logits.softmax(1).numpy()
    expected = brier_score_loss(labels.numpy(), probabilities, labels=np.arange(k), scale_by_half=False)
    assert brier(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_bins_by_hand():
    # The edge 0.5 belongs to the upper bin, and so does probability 1 to the last.
    logits = torch.cat((of([0.5, 0.5], [0.8, 0.2], [0.4, 0.6]), torch.tensor([[0.0, 800.0]])))
    result = reliability(logits, torch.tensor([0, 1, 1, 1]), bins=4)
    assert result.counts.tolist() == [0, 0, 2, 2]
    assert result.confidence[2:].tolist() == pytest.approx([0.55, 0.9])
    assert result.accuracy[2:].tolist() == [1, 0.5]
    assert result.confidence[:2].isnan().all()
    assert result.accuracy[:2].isnan().all()
    error = expected_calibration_error(logits, torch.tensor([0, 1, 1, 1]), bins=4)
    assert error.item() == pytest.approx((2 * 0.45 + 2 * 0.4) / 4)


def test_scikit_learns_calibration_curve_agrees():
    logits, labels = sample(k=2)
    correct = (logits.argmax(1) == labels).numpy()
    accuracy, confidence = calibration_curve(correct, logits.softmax(1).amax(1).numpy(), n_bins=10)
    result = reliability(logits, labels, bins=10)
    filled = result.counts > 0  # scikit-learn leaves empty bins out
    assert filled.tolist() == [False] * 5 + [True] * 5
    assert result.accuracy[filled].numpy() == pytest.approx(accuracy)
    assert result.confidence[filled].numpy() == pytest.approx(confidence)


@pytest.mark.parametrize("bins", [1, 4, 15, 100])
@pytest.mark.parametrize("k", [2, 10])
def test_torchmetrics_calibration_error_agrees(bins, k):
    logits, labels = sample(k=k)
    expected = multiclass_calibration_error(logits.softmax(1), labels, num_classes=k, n_bins=bins, norm="l1")
    assert expected_calibration_error(logits, labels, bins).item() == pytest.approx(expected.item(), abs=1e-6)


def test_certain_predictions_share_the_last_bin():
    # One certain and wrong, one at 0.95 and right: together 0.475 too sure, where bins apart give (1 + 0.05) / 2.
    logits, labels = torch.cat((torch.tensor([[800.0, 0.0]]).double(), of([0.95, 0.05]))), torch.tensor([1, 0])
    assert expected_calibration_error(logits, labels).item() == pytest.approx(0.475)
    confidence, correct = logits.softmax(1).amax(1), torch.tensor([0, 1])
    assert calibration_error_of(confidence, correct).item() == pytest.approx(0.475)
    apart = multiclass_calibration_error(logits.softmax(1), labels, num_classes=2, n_bins=15)
    assert apart.item() == pytest.approx(0.525)


@pytest.mark.parametrize(("n", "bins"), [(2000, 15), (7, 3), (4, 9), (5, 1)])
def test_adaptive_bins_are_equal_slices_of_the_sorted_samples(n, bins):
    logits, labels = sample(n=n)
    confidence = logits.softmax(1).amax(1).numpy()
    correct = (logits.argmax(1) == labels).numpy()
    order = np.argsort(confidence)
    expected = 0.0
    for b in range(bins):
        members = order[b * n // bins : (b + 1) * n // bins]
        if len(members):
            expected += len(members) / n * abs(correct[members].mean() - confidence[members].mean())
    assert expected_calibration_error(logits, labels, bins, adaptive=True).item() == pytest.approx(expected)


def test_equal_confidences_share_their_accuracy_whatever_their_order():
    # 0.6 four times, half of them right: two bins of gap 0.1 each, in any order. Sorted by luck it could be 0.5.
    logits = of(*[[0.6, 0.4]] * 4)
    for labels in ([0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]):
        error = expected_calibration_error(logits, torch.tensor(labels), bins=2, adaptive=True)
        assert error.item() == pytest.approx(0.1)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_order_of_samples_does_not_matter(adaptive):
    logits, labels = sample(n=500)
    logits = logits.round()  # many ties
    order = torch.randperm(500)
    expected = expected_calibration_error(logits, labels, adaptive=adaptive)
    shuffled = expected_calibration_error(logits[order], labels[order], adaptive=adaptive)
    assert shuffled.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("scale", "k"), [(0.05, 3), (2.0, 5), (30.0, 10)])
def test_scipy_finds_the_same_temperature(scale, k):
    logits, labels = sample(scale=scale, k=k)
    fit = fit_temperature(logits, labels)
    found = minimize_scalar(
        lambda log_t: nll(logits / math.exp(log_t), labels).item(),
        bounds=(math.log(1e-2), math.log(1e2)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert not fit.at_bound
    # The NLL is flat at its minimum, where comparing values of it locates T to half of the digits.
    assert fit.temperature == pytest.approx(math.exp(found.x), rel=1e-5)
    assert nll(logits / fit.temperature, labels).item() <= found.fun + 1e-15
    scaled = (logits / fit.temperature).requires_grad_()
    (gradient,) = torch.autograd.grad(nll(scaled, labels), scaled)
    assert (gradient * scaled.detach()).sum().item() == pytest.approx(0, abs=1e-12)


def test_the_temperature_of_a_known_answer():
    logits, labels = torch.tensor([[2.0, 0.0]] * 10), torch.tensor([0] * 9 + [1])
    assert fit_temperature(logits, labels).temperature == pytest.approx(2 / math.log(9), rel=1e-12)
    # Scaled logits scale the temperature, from far below 1 to far above.
    for factor in (0.03, 40.0):
        fit = fit_temperature(factor * logits.double(), labels)
        assert fit.temperature == pytest.approx(factor * 2 / math.log(9), rel=1e-12)


def test_one_wrong_certainty_among_many_right():
    # Newton's quadratic is far off here: the derivative is flat, then steep.
    logits = torch.tensor([[50.0, 0.0]] * 999 + [[80.0, 0.0]]).double()
    labels = torch.tensor([0] * 999 + [1])
    fit = fit_temperature(logits, labels)
    found = minimize_scalar(lambda b: nll(logits * b, labels).item(), bounds=(0.01, 1), options={"xatol": 1e-12})
    assert not fit.at_bound
    assert 1 / fit.temperature == pytest.approx(found.x, rel=1e-5)


def test_a_temperature_without_a_minimum_is_the_bound():
    logits, _ = sample(n=50)
    right, wrong = logits.argmax(1), logits.argmin(1)
    assert fit_temperature(logits, right) == (0.01, True)
    assert fit_temperature(logits * 1e4, right) == (0.01, True)
    assert fit_temperature(logits, wrong) == (100.0, True)
    assert fit_temperature(logits, right, lowest=0.5, highest=2) == (0.5, True)
    assert fit_temperature(logits, wrong, lowest=0.5, highest=2) == (2, True)
    # Nor is there one where the temperature changes nothing.
    assert fit_temperature(torch.ones(4, 3), torch.tensor([0, 1, 2, 0])) == (1.0, False)


LOGITS, LABELS = torch.zeros(3, 2), torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    "measure",
    [brier, reliability, expected_calibration_error, fit_temperature],
)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:2], r"labels must be integers of shape \(3,\), got torch.int64, \(2,\)"),
        (LOGITS, LABELS.double(), "labels must be integers"),
        (LOGITS, LABELS + 1, "labels must be from 0 to 1, got 2"),
        (LOGITS, LABELS - 1, "labels must be from 0 to 1, got -1"),
        (LOGITS[0], LABELS, r"logits must be floating point of shape \(N, K\) with N and K > 0, got .*\(2,\)"),
        (LOGITS[:0], LABELS[:0], r"logits must be floating point .* got torch.float32, \(0, 2\)"),
        (LOGITS.long(), LABELS, "logits must be floating point"),
        (LOGITS * math.nan, LABELS, "logits must be finite.*, got NaN or infinity"),
        (LOGITS + math.inf, LABELS, "logits must be finite"),
        (LOGITS - math.inf, LABELS, "logits must be finite"),
    ],
)
def test_bad_input_is_named(measure, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        measure(logits, labels)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        reliability(LOGITS, LABELS, bins=0)
    with pytest.raises(ValueError, match="bins must be at least 1, got -1"):
        expected_calibration_error(LOGITS, LABELS, bins=-1, adaptive=True)
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        calibration_error_of(torch.tensor([0.5]), torch.tensor([1]), bins=0)
    with pytest.raises(ValueError, match=r"both be of shape \(N,\) with N > 0, got \(2,\) and \(1,\)"):
        calibration_error_of(torch.tensor([0.5, 0.6]), torch.tensor([1]))
    for wrong in (1.5, -0.5, math.nan):
        with pytest.raises(ValueError, match="confidence must be from 0 to 1"):
            calibration_error_of(torch.tensor([wrong]), torch.tensor([1]))
    with pytest.raises(ValueError, match="logits must be finite, got NaN or infinity"):
        fit_temperature(torch.tensor([[0.0, -math.inf]]), torch.tensor([0]))
    for lowest, highest in ((0, 2), (2, 3), (0.1, 0.5), (0.1, math.inf), (math.nan, 2)):
        with pytest.raises(ValueError, match=f"highest < inf, got {lowest} and {highest}"):
            fit_temperature(LOGITS, LABELS, lowest=lowest, highest=highest)
