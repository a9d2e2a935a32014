import math

import numpy as np
import pytest
import torch

from maxsup.lab.analysis import curves


def outputs(n, k=7, scale=3.0, seed=0):
    """Logits with a lead for the label, so that most predictions are right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    logits = scale * torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += scale
    return logits, labels


def test_reliability_has_every_image_in_one_bin():
    logits, labels = outputs(500)
    bins = curves.reliability(logits, labels)
    q, predicted = logits.double().softmax(1).max(1)
    assert sum(bins["count"]) == 500
    for b in range(15):
        inside = (q >= b / 15) & ((q < (b + 1) / 15) | (b == 14))
        assert bins["count"][b] == int(inside.sum())
        if not inside.any():
            assert (bins["confidence"][b], bins["accuracy"][b]) == (None, None)
            continue
        assert bins["confidence"][b] == pytest.approx(float(q[inside].mean()), rel=1e-5)
        assert bins["accuracy"][b] == pytest.approx(
            float((predicted == labels)[inside].double().mean()), rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize(("n", "points"), [(37, 37), (200, 200), (1234, 200)])
def test_risks_are_exact_at_evenly_spread_coverages(n, points):
    logits, labels = outputs(n)
    curve = curves.risk_coverage(logits, labels, p=2.0)
    assert len(curve["coverage"]) == points
    assert curve["coverage"][-1] == 1
    gaps = np.diff(curve["coverage"])
    assert gaps.max() < 1 / points + 1 / n
    centred = logits.double() - logits.double().mean(1, keepdim=True)
    scores = {
        "max_probability": logits.double().softmax(1).amax(1),
        "logit_norm": centred.amax(1) / centred.norm(dim=1),
    }
    for name, score in scores.items():
        wrong = (logits.argmax(1) != labels)[score.argsort(descending=True)].double()
        for coverage, risk in zip(curve["coverage"], curve[name], strict=True):
            i = round(coverage * n)
            assert coverage == pytest.approx(i / n, rel=1e-5)
            assert risk == pytest.approx(float(wrong[:i].mean()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 0.7, 40.0])
def test_a_density_counts_what_numpy_counts(scale):
    logits, labels = outputs(300, scale=scale)
    of = curves.logit_density(logits, labels)
    width = of["width"]
    assert math.log2(width).is_integer()
    kinds = {"all": logits.flatten(), "top1": logits.amax(1), "true": logits[torch.arange(300), labels]}
    for kind, values in kinds.items():
        first, count = of[kind]["first"], of[kind]["count"]
        edges = width * np.arange(first, first + len(count) + 1)
        np.testing.assert_array_equal(count, np.histogram(values.double().numpy(), edges)[0])
        assert sum(count) == values.numel()
        assert count[0] > 0
        assert count[-1] > 0
    # The span takes 128 to 256 bins, and one more where it begins inside a bin.
    assert curves.DENSITY_BINS / 2 <= len(of["all"]["count"]) <= curves.DENSITY_BINS + 1


def test_equal_logits_have_a_density_too():
    of = curves.logit_density(torch.full((4, 3), -1.5), torch.zeros(4, dtype=torch.long))
    assert of["all"]["count"] == [12]
    assert of["all"]["first"] * of["width"] == -1.5


def test_near_zero_shares_worked_out_by_hand():
    q = torch.tensor([0.9, 0.05, 0.05]).log()
    # Shifted so that the largest is 0; then the two others are log(1/18) = −2.89 below it.
    logits = torch.stack([q - q[0], q - q[1], torch.zeros(3), torch.tensor([0.49, -0.49, -0.5])])
    of = curves.near_zero(logits)
    assert of["bound"] == 0.5
    assert of["top1_edges"] == [round(0.05 * i, 2) for i in range(21)]
    assert sum(of["count"]) == 4
    # 0.9 lies in the bin from 0.9, unless rounding puts it below: it is softmax's here, a little above or below.
    top = logits.double().softmax(1).amax(1)
    for place in range(20):
        inside = [i for i in range(4) if int(float(top[i]) * 20) == place]
        assert of["count"][place] == len(inside)
        expected = np.mean([[1 / 3, 2 / 3, 1, 2 / 3][i] for i in inside]) if inside else None
        assert of["share"][place] == (None if expected is None else pytest.approx(expected, rel=1e-5))


def test_certainty_belongs_to_the_last_bin():
    of = curves.near_zero(torch.tensor([[100.0, 0.0]]))
    assert of["count"] == [0] * 19 + [1]
    assert of["share"][-1] == 0.5


def test_significant_digits_and_undefined_values():
    assert curves.significant(torch.tensor([123456.789, -0.000123456, math.nan, math.inf]).double(), 4) == [
        123500.0,
        -0.0001235,
        None,
        None,
    ]
