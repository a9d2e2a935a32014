import math

import pytest
import torch
from sklearn.metrics import jaccard_score, precision_score, recall_score

from maxsup.metrics import localization


def sample(n=6, size=9, seed=0):
    torch.manual_seed(seed)
    cam = torch.rand(n, size, size) * torch.tensor([0.01, 1.0, 50.0]).repeat(n // 3)[:, None, None]
    mask = torch.rand(n, size, size) < torch.linspace(0.1, 0.9, n)[:, None, None]
    return cam, mask


def test_scikit_learns_scores_agree():
    cam, mask = sample()
    result = localization(cam, mask)
    assert [values.shape for values in result] == [(9,), (9,), (9,), (), ()]
    assert {values.dtype for values in result} == {torch.float64}
    for t in range(9):
        above = [(image >= (t + 1) / 10 * image.max()).flatten().numpy() for image in cam]
        inside = [image.flatten().numpy() for image in mask]
        for values, score in zip(result, (precision_score, recall_score, jaccard_score), strict=False):
            expected = sum(score(m, b) for m, b in zip(inside, above, strict=True)) / len(cam)
            assert values[t].item() == pytest.approx(expected)
    energy = [(image[m].double().sum() / image.double().sum()).item() for image, m in zip(cam, mask, strict=True)]
    assert result.energy_inside.item() == pytest.approx(sum(energy) / len(cam))
    hits = [m.flatten()[image.argmax()].item() for image, m in zip(cam, mask, strict=True)]
    assert result.pointing_game.item() == pytest.approx(sum(hits) / len(cam))


def test_hand_made_values():
    cam = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]]])
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    result = localization(cam, mask, (0.25, 0.5, 0.75, 1.0))
    # B of 4, 3, 2 and 1 pixels, of which the one with value 2 lies in the mask of 3.
    assert result.precision.tolist() == pytest.approx([1 / 4, 1 / 3, 0, 0])
    assert result.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert result.iou.tolist() == pytest.approx([1 / 6, 1 / 5, 0, 0])
    assert result.energy_inside.item() == pytest.approx(2 / 10)
    assert result.pointing_game.item() == 0


def test_a_map_that_is_its_mask_is_perfect():
    _, mask = sample()
    result = localization(3 * mask.double(), mask)
    assert all((values == 1).all() for values in result)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_value_at_the_threshold_counts_in_every_type(dtype):
    # 0.7 in float32 is below 0.7 in float64.
    cam = torch.tensor([[[1.0, 0.7], [0.3, 0.0]]], dtype=dtype)
    mask = torch.tensor([[[True, True], [True, False]]])
    assert localization(cam, mask, (0.3, 0.7, 1.0)).recall.tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_half_precision_sums_do_not_overflow():
    cam = torch.full((1, 40, 40), 60000.0, dtype=torch.float16)
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, :10] = True
    assert localization(cam, mask).energy_inside.item() == 0.25


def test_the_scale_of_a_map_and_the_order_of_images_do_not_matter():
    cam, mask = sample()
    order = torch.randperm(6)
    expected = localization(cam.double(), mask)
    scaled = localization(cam.double()[order] * 2**-60, mask[order])  # a power of two rounds nothing
    torch.testing.assert_close(scaled, expected, rtol=1e-12, atol=0)


def test_a_map_of_zeros_is_a_miss():
    cam, mask = sample()
    alone = localization(torch.zeros_like(cam), mask)
    assert all((values == 0).all() for values in alone)
    among = localization(torch.cat((cam, torch.zeros_like(cam))), torch.cat((mask, mask)))
    for values, halved in zip(localization(cam, mask), among, strict=True):
        torch.testing.assert_close(halved, values / 2)


def test_the_first_of_equal_maxima_points():
    cam = torch.ones(1, 2, 2)
    mask = torch.tensor([[[True, False], [False, False]]])
    assert localization(cam, mask).pointing_game.item() == 1
    assert localization(cam, ~mask).pointing_game.item() == 0


CAM, MASK = torch.ones(2, 3, 3), torch.ones(2, 3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("cam", "mask", "thresholds", "message"),
    [
        (CAM[0], MASK[0], (0.5,), r"cam must be floating point of shape \(N, H, W\) .* got torch.float32, \(3, 3\)"),
        (CAM[:0], MASK[:0], (0.5,), "cam must be floating point .* without an empty dimension"),
        (MASK, MASK, (0.5,), "cam must be floating point .* got torch.bool"),
        (CAM, MASK[:, :2], (0.5,), r"mask must be bool of shape \(2, 3, 3\), got torch.bool, \(2, 2, 3\)"),
        (CAM, CAM, (0.5,), "mask must be bool .* got torch.float32"),
        (CAM * math.nan, MASK, (0.5,), "cam must be finite and at least 0, got values from nan"),
        (CAM * math.inf, MASK, (0.5,), "cam must be finite and at least 0, got values from inf"),
        (-CAM, MASK, (0.5,), "cam must be finite and at least 0, got values from -1.0"),
        (CAM, MASK & torch.tensor([True, False])[:, None, None], (0.5,), "at least one pixel .* none in image 1"),
        (CAM, MASK, (0.5, 0.0), "thresholds must be above 0 and at most 1, at least one, got 0.0"),
        (CAM, MASK, (1.1,), "thresholds must be above 0 and at most 1, at least one, got 1.1"),
        (CAM, MASK, (), "thresholds must be above 0 and at most 1, at least one, got none"),
    ],
)
def test_bad_input_is_named(cam, mask, thresholds, message):
    with pytest.raises(ValueError, match=message):
        localization(cam, mask, thresholds)
