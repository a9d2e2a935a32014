import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maxsup.lab.segmentation.data import IGNORE
from maxsup.lab.segmentation.objective import learning_rate, loss_function, pixel_loss
from maxsup.lab.segmentation.recipes import AdamW


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 6, generator=generator, requires_grad=True)
    labels = torch.randint(0, 5, (2, 8, 12), generator=generator).byte()
    labels[:, :2] = IGNORE
    return logits, labels


@pytest.mark.parametrize("name", ["cross-entropy", "label-smoothing", "max-sup"])
def test_the_loss_is_the_sum_over_labelled_pixels_by_hand(name):
    logits, labels = logits_and_labels()
    found = pixel_loss(loss_function(name, 0.2), logits, labels)
    scaled = F.interpolate(logits, (8, 12), mode="bilinear", align_corners=False)
    expected = torch.zeros(())
    for image in range(2):
        for row in range(2, 8):
            for column in range(12):
                z, y = scaled[image, :, row, column], int(labels[image, row, column])
                penalty = {"cross-entropy": 0.0, "label-smoothing": z[y] - z.mean(), "max-sup": z.max() - z.mean()}
                expected = expected + torch.logsumexp(z, 0) - z[y] + 0.2 * penalty[name]
    assert_close(found, expected)
    (of_found,) = torch.autograd.grad(found, logits, retain_graph=True)
    (of_expected,) = torch.autograd.grad(expected, logits)
    assert_close(of_found, of_expected)


def test_an_unlabelled_batch_costs_nothing():
    logits, labels = logits_and_labels()
    for name in ("cross-entropy", "label-smoothing", "max-sup"):
        loss = pixel_loss(loss_function(name, 0.2), logits, torch.full_like(labels, IGNORE))
        assert loss == 0
        assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_the_learning_rate_warms_up_and_falls_as_the_papers():
    paper = AdamW()
    rates = [learning_rate(i, 160_000, paper) for i in (0, 750, 1500, 80_750, 159_999)]
    assert rates == pytest.approx([1e-6, 0.5 + 0.5e-6, 1, 0.5, 1 / 158_500])
    assert learning_rate(55, 100, AdamW(warmup=10, power=0.9)) == pytest.approx(0.5**0.9)
    assert learning_rate(0, 100, AdamW(warmup=0)) == 1
    # Fewer iterations than the warm-up has.
    assert learning_rate(3, 4, AdamW(warmup=10)) == 1
