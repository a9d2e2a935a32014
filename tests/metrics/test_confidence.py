import math

import pytest
import torch
import torch.nn.functional as F

from maxsup.metrics import confidence, error_enhancement_share

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


def test_error_enhancement_by_hand():
    logits = torch.tensor(
        [
            [3.0, 1.0, 0.0],  # right: all regularisation
            [2.0, 1.0, -2.0],  # wrong: 3 down to z_3, 1 up to z_1
            [4.0, 2.0, 1.0],  # wrong, and the least: all enhancement
            [1.0, 1.0, 1.0],  # the label shares the maximum: wrong for argmax, and neither part
        ]
    )
    result = error_enhancement_share(logits, torch.tensor([0, 1, 2, 1]))
    assert result.frequency.item() == 0.5
    assert result.share.item() == pytest.approx((0 + 0.25 + 1 + 0) / 4)
    assert result.share_wrong.item() == pytest.approx((0.25 + 1 + 0) / 3)


def test_error_enhancement_is_the_part_of_the_penalty_that_rises_with_wrong_logits():
    # Label smoothing's penalty is PyTorch's loss difference; its parts are summed here class by class.
    torch.manual_seed(0)
    logits, labels = torch.randn(60, 6, dtype=torch.float64), torch.randint(6, (60,))
    shares = []
    for z, y in zip(logits, labels, strict=True):
        gaps = [(z[y] - other).item() / 6 for other in z]
        up, down = -sum(g for g in gaps if g < 0), sum(g for g in gaps if g > 0)
        penalty = (F.cross_entropy(z, y, label_smoothing=1.0) - F.cross_entropy(z, y)).item()
        assert down - up == pytest.approx(penalty)
        shares.append(up / (up + down))
    result = error_enhancement_share(logits, labels)
    wrong = (logits.argmax(1) != labels).tolist()
    assert result.share.item() == pytest.approx(sum(shares) / 60)
    assert result.share_wrong.item() == pytest.approx(
        sum(s for s, w in zip(shares, wrong, strict=True) if w) / sum(wrong)
    )
    assert result.frequency.item() == pytest.approx(sum(wrong) / 60)  # without ties they are the errors
    order = torch.randperm(60)
    assert error_enhancement_share(logits[order], labels[order]).share.item() == pytest.approx(result.share.item())
    shifted = error_enhancement_share(5 * logits + 3, labels.int())
    assert shifted.share.item() == pytest.approx(result.share.item())


def test_no_error_enhances_none():
    result = error_enhancement_share(torch.tensor([[2.0, 1.0, -math.inf]]), torch.tensor([0]))
    assert (result.frequency.item(), result.share.item()) == (0, 0)
    assert math.isnan(result.share_wrong.item())


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:3], r"labels must be integers of shape \(4,\), got torch.int64, \(3,\)"),
        (LOGITS, LABELS + 1, "labels must be from 0 to 2, got 3"),
        (LOGITS[:0], LABELS[:0], r"logits must be floating point of shape \(N, K\) with N and K > 0"),
        (LOGITS * math.nan, LABELS, "logits must be finite or −inf, got NaN or infinity"),
    ],
)
def test_bad_input_of_error_enhancement_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        error_enhancement_share(logits, labels)
