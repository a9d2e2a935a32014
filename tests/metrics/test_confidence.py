import math

import pytest
import torch

from maxsup.metrics import confidence

LOGITS = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.35, 0.25], [0.3, 0.3, 0.4]]))
LABELS = torch.tensor([0, 1, 0, 2])


def test_values_worked_out_by_hand():
    assert confidence.accuracy(LOGITS, LABELS).item() == 0.75
    assert confidence.nll(LOGITS, LABELS).item() == pytest.approx(-math.log(0.7 * 0.1 * 0.4 * 0.4) / 4)
    right, wrong = confidence.top1_confidence(LOGITS, LABELS)
    assert right.item() == pytest.approx((0.7 + 0.4 + 0.4) / 3)
    assert wrong.item() == pytest.approx(0.8)


def test_no_error_has_no_confidence():
    right, wrong = confidence.top1_confidence(LOGITS[:1], LABELS[:1])
    assert right.item() == pytest.approx(0.7)
    assert math.isnan(wrong.item())


def test_equal_logits_count_for_the_lowest_index():
    logits = torch.tensor([[1.0, 1.0]])
    assert confidence.accuracy(logits, torch.tensor([0])).item() == 1
    assert confidence.accuracy(logits, torch.tensor([1])).item() == 0


@pytest.mark.parametrize("measure", [confidence.accuracy, confidence.nll, confidence.top1_confidence])
def test_bad_shapes_are_named(measure):
    with pytest.raises(
        ValueError, match=r"logits must be \(N, K\) and labels \(N,\) with N > 0, got \(4, 3\) and \(3,\)"
    ):
        measure(LOGITS, LABELS[:3])
