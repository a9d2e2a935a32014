import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from maxsup.metrics import (
    aurc,
    choose_p,
    coverage_at_risk,
    logit_normalization,
    max_probability,
    risk_coverage,
)


def curve(confidence, correct):
    """The definition, sample by sample, for confidences without ties."""
    errors, risks = 0, []
    for i, j in enumerate(np.argsort(-confidence.numpy()), start=1):
        errors += not correct[j]
        risks.append(errors / i)
    return np.arange(1, len(risks) + 1) / len(risks), np.array(risks)


def sample(n=300, seed=0):
    torch.manual_seed(seed)
    confidence = torch.rand(n, dtype=torch.float64)
    return confidence, torch.rand(n) < 0.5 + confidence / 2


@pytest.mark.parametrize("n", [2, 3, 300])
def test_the_definition_agrees(n):
    confidence, correct = sample(n)
    coverage, risk = curve(confidence, correct)
    result = risk_coverage(confidence, correct)
    assert result.coverage.numpy() == pytest.approx(coverage)
    assert result.risk.numpy() == pytest.approx(risk)
    assert aurc(confidence, correct).item() == pytest.approx(auc(coverage, risk), rel=1e-12)
    for target in (0, 0.01, 0.05, 0.1, 0.25, 1):
        expected = max(coverage[risk <= target], default=0)
        assert coverage_at_risk(confidence, correct, target).item() == expected


def test_hand_made_values():
    # Sorted: right, wrong, right, right, wrong: R = 0, 1/2, 1/3, 1/4, 2/5.
    confidence = torch.tensor([0.1, 0.9, 0.5, 0.8, 0.3])
    correct = torch.tensor([False, True, True, False, True])
    result = risk_coverage(confidence, correct)
    assert result.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])
    assert result.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    # Trapezoids of width 1/5: half of the ends, whole of the middle.
    assert aurc(confidence, correct).item() == pytest.approx((0 / 2 + 1 / 2 + 1 / 3 + 1 / 4 + 0.4 / 2) / 5)
    assert coverage_at_risk(confidence, correct, 0.25).item() == 0.8  # beyond the bump at 1/2
    assert coverage_at_risk(confidence, correct, 0.24).item() == 0.2


def test_no_threshold_meets_a_risk_that_the_surest_sample_breaks():
    confidence, correct = torch.tensor([0.9, 0.8]), torch.tensor([False, True])
    assert coverage_at_risk(confidence, correct, 0.4).item() == 0
    assert coverage_at_risk(confidence, correct, 0.5).item() == 1


def test_ties_count_as_the_mean_over_their_orders():
    confidence = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    correct = torch.tensor([True, False, True, True, False, False])
    tied = [1, 2, 3, 4]
    curves = []
    for order in itertools.permutations(tied):
        correct_so = correct.clone()
        correct_so[tied] = correct[list(order)]
        curves.append(curve(torch.arange(6, 0, -1), correct_so)[1])
    expected = np.mean(curves, 0)
    assert risk_coverage(confidence, correct).risk.numpy() == pytest.approx(expected)
    areas = [auc(np.arange(1, 7) / 6, risk) for risk in curves]
    assert aurc(confidence, correct).item() == pytest.approx(np.mean(areas), rel=1e-12)


def test_a_threshold_takes_ties_together_or_not_at_all():
    confidence, correct = torch.tensor([0.9, 0.5, 0.5, 0.5]), torch.tensor([True, False, True, False])
    # R = 0, 1/3, 4/9, 1/2: only the ends of the groups, 0 and 1/2, can be realised.
    assert coverage_at_risk(confidence, correct, 0.45).item() == 0.25
    assert coverage_at_risk(confidence, correct, 0.5).item() == 1


def test_a_risk_is_met_exactly():
    # 3 errors in 300 that share confidence by threes: sums of thirds must not round past 1%.
    correct = torch.ones(300, dtype=torch.bool)
    correct[[1, 100, 200]] = False
    assert coverage_at_risk(torch.arange(100).repeat_interleave(3).double(), correct, 0.01).item() == 1


def test_the_order_of_samples_does_not_matter():
    confidence, correct = sample()
    confidence = (confidence * 20).round()  # many ties
    order = torch.randperm(300)
    torch.testing.assert_close(
        risk_coverage(confidence[order], correct[order]), risk_coverage(confidence, correct), rtol=1e-12, atol=0
    )


def test_perfect_and_infinite_confidences():
    confidence = torch.tensor([math.inf, 1.0, -math.inf])
    assert aurc(confidence, torch.tensor([True, True, True])).item() == 0
    assert risk_coverage(confidence, torch.tensor([True, True, False])).risk.tolist() == pytest.approx([0, 0, 1 / 3])


def test_max_probability_in_float64():
    logits = torch.tensor([[1.0, 2.0, -math.inf], [20.0, 0.0, 0.0], [21.0, 0.0, 0.0]])
    expected = [1 / (1 + math.exp(-1)), 1 / (1 + 2 * math.exp(-20)), 1 / (1 + 2 * math.exp(-21))]
    assert max_probability(logits).tolist() == pytest.approx(expected, rel=1e-15)
    assert max_probability(logits)[1] < max_probability(logits)[2]  # both are 1 in float32


@pytest.mark.parametrize("p", [0.5, 1, 2, 4, 10, math.inf])
def test_logit_normalization_in_numpy(p):
    torch.manual_seed(0)
    logits = 10 * torch.randn(50, 7)
    centred = logits.double().numpy() - logits.double().numpy().mean(1, keepdims=True)
    expected = centred.max(1) / np.linalg.norm(centred, ord=p, axis=1) if p >= 1 else None
    if p < 1:
        expected = centred.max(1) / (np.abs(centred) ** p).sum(1) ** (1 / p)
    assert logit_normalization(logits, p).numpy() == pytest.approx(expected, rel=1e-12)


def test_logit_normalization_by_hand_and_its_invariance():
    # About their mean 2: (3, −1, −2), whose norms are 6 and √14.
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    assert logit_normalization(logits, 1).item() == pytest.approx(3 / 6)
    assert logit_normalization(logits, 2).item() == pytest.approx(3 / math.sqrt(14))
    assert logit_normalization(100 * logits + 7, 2).item() == pytest.approx(3 / math.sqrt(14))
    # 1e5 to the power of 100 is beyond float64.
    assert logit_normalization(1e5 * logits, 100).item() == pytest.approx(1)


def test_equal_logits_are_the_least_sure():
    logits = torch.full((2, 3), 0.1, dtype=torch.float64)
    logits[1, 0] += 1e-9
    flat, hardly = logit_normalization(logits, 2).tolist()
    assert flat == 0
    assert hardly == pytest.approx(math.sqrt(2 / 3), rel=1e-6)


def test_the_chosen_p_has_the_least_area():
    torch.manual_seed(3)
    logits = 3 * torch.randn(400, 8, dtype=torch.float64)
    labels = torch.multinomial((logits / 3).softmax(1), 1).squeeze(1)
    correct = logits.argmax(1) == labels
    candidates = (1, 2, 3, 5, 8)
    areas = [auc(*curve(logit_normalization(logits, p), correct)) for p in candidates]
    assert len(set(areas)) == 5
    assert choose_p(logits, labels, candidates) == candidates[int(np.argmin(areas))]
    assert choose_p(logits, labels) in range(1, 11)
    # Two classes look the same at every p: the first is chosen.
    assert choose_p(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]), (4, 2)) == 4


CONFIDENCE, CORRECT = torch.tensor([0.5, 0.6, 0.7]), torch.tensor([True, False, True])


@pytest.mark.parametrize("measure", [risk_coverage, aurc, lambda x, y: coverage_at_risk(x, y, 0.1)])
@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        (CONFIDENCE[:0], CORRECT[:0], r"confidence must be floating point of shape \(N,\) with N > 0, got .*\(0,\)"),
        (CONFIDENCE[None], CORRECT[None], r"confidence must be floating point of shape \(N,\)"),
        (CORRECT, CORRECT, "confidence must be floating point .* got torch.bool"),
        (CONFIDENCE, CORRECT[:2], r"correct must be bool of shape \(3,\), got torch.bool, \(2,\)"),
        (CONFIDENCE, CORRECT.long(), "correct must be bool"),
        (CONFIDENCE * math.nan, CORRECT, "confidence must not be NaN"),
    ],
)
def test_bad_input_is_named(measure, confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        measure(confidence, correct)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="confidence must hold at least two samples, got 1"):
        aurc(CONFIDENCE[:1], CORRECT[:1])
    for risk in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"risk must be from 0 to 1, got {risk}"):
            coverage_at_risk(CONFIDENCE, CORRECT, risk)
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    for p in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"p must be above 0, got {p}"):
            logit_normalization(logits, p)
    with pytest.raises(ValueError, match="logits must be finite, got NaN or infinity"):
        logit_normalization(logits.log(), 2)
    with pytest.raises(ValueError, match="logits must be finite or −inf"):
        max_probability(logits * math.nan)
    with pytest.raises(ValueError, match=r"logits must be floating point of shape \(N, K\)"):
        max_probability(logits[0])
    with pytest.raises(ValueError, match="candidates must hold at least one p, got none"):
        choose_p(logits, labels, ())
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 2"):
        choose_p(logits, labels + 2)
