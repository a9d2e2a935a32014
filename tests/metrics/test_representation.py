import math

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist

from maxsup.metrics import ClassSeparation, class_separation


def quadratic(features, labels):
    """The definition, pair by pair: self-pairs count, classes weigh equally."""
    classes = labels.unique()
    between = torch.tensor(
        [
            [
                (1 - F.cosine_similarity(features[labels == a][:, None], features[labels == b][None], dim=2)).mean()
                for b in classes
            ]
            for a in classes
        ],
        dtype=torch.float64,
    )
    within, total = between.diagonal().mean(), between.mean()
    return within, total, 1 - within / total


@pytest.mark.parametrize("classes", [2, 7])
def test_the_closed_form_is_the_quadratic_one(classes):
    torch.manual_seed(classes)
    labels = torch.randint(classes, (150,)) ** 2 % classes  # uneven, some classes may be absent
    features = torch.randn(150, 12, dtype=torch.float64) + 2 * F.one_hot(labels, 12)
    for ours, expected in zip(class_separation(features, labels), quadratic(features, labels), strict=True):
        assert ours.item() == pytest.approx(expected.item(), abs=1e-12)


def test_scipys_cosine_distance_agrees():
    torch.manual_seed(0)
    features = torch.randn(40, 5, dtype=torch.float64)
    distance = cdist(features.numpy(), features.numpy(), "cosine").mean()
    assert class_separation(features, torch.zeros(40, dtype=torch.int64)).d_within.item() == pytest.approx(distance)


def test_hand_made_values():
    # Class 0 on two orthogonal axes, class 1 on the second: half of class 0's four pairs are at distance 1.
    features = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    result = class_separation(features, torch.tensor([0, 0, 1]))
    assert result.d_within.item() == pytest.approx((0.5 + 0) / 2)
    # Mean over class pairs: (0,0) 0.5, (0,1) and (1,0) 0.5, (1,1) 0.
    assert result.d_total.item() == pytest.approx(1.5 / 4)
    assert result.r_squared.item() == pytest.approx(1 - 0.25 / 0.375)


def test_classes_weigh_equally_whatever_their_size_or_number():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([2, 2, 9])
    repeated = class_separation(features.repeat(3, 1)[[0, 1, 2, 5, 8]], labels.repeat(3)[[0, 1, 2, 5, 8]])
    assert [x.item() for x in repeated] == pytest.approx([x.item() for x in class_separation(features, labels)])


def test_merged_parts_equal_one_pass_in_any_order():
    torch.manual_seed(1)
    features, labels = torch.randn(100, 6), torch.randint(5, (100,))
    whole = class_separation(features, labels)
    left, right, nothing = ClassSeparation(5), ClassSeparation(5), ClassSeparation(5)
    left.update(features[:30], labels[:30])
    right.update(features[70:], labels[70:])
    right.update(features[30:70], labels[30:70])
    nothing.merge(left)
    nothing.merge(right)
    nothing.merge(ClassSeparation(5))
    torch.testing.assert_close(nothing.compute(), whole, rtol=1e-12, atol=1e-12)
    assert nothing.counts.sum().item() == 100
    assert left.counts.sum().item() == 30  # merging leaves its source alone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_features_are_measured_in_high_precision(dtype):
    torch.manual_seed(2)
    features = (torch.randn(5000, 16) * 300).to(dtype)  # norms beyond float16's 65,504 squared
    labels = torch.randint(3, (5000,))
    expected = class_separation(features.double(), labels)
    torch.testing.assert_close(class_separation(features, labels), expected, rtol=1e-6, atol=1e-7)


def test_a_feature_of_length_zero_is_similar_to_nothing():
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([0, 0])
    assert class_separation(features, labels).d_within.item() == pytest.approx(quadratic(features, labels)[0].item())
    assert class_separation(features, labels).d_within.item() == pytest.approx(0.75)


def test_identical_features_have_no_r_squared():
    result = class_separation(torch.ones(4, 1), torch.tensor([0, 0, 1, 1]))
    assert result.d_within.item() == 0
    assert math.isnan(result.r_squared.item())


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (
            torch.ones(2, 3),
            torch.tensor([0, 1, 1]),
            r"labels must be integers of shape \(2,\), got torch.int64, \(3,\)",
        ),
        (torch.ones(2, 3), torch.tensor([0.0, 1.0]), "labels must be integers"),
        (torch.ones(2, 3, dtype=torch.int64), torch.tensor([0, 1]), "features must be floating point"),
        (torch.ones(2), torch.tensor([0, 1]), r"features must be floating point of shape \(N, D\)"),
        (torch.ones(2, 3), torch.tensor([0, -1]), "labels must be from 0 to 0, got -1"),
        (torch.tensor([[float("nan")], [1.0]]), torch.tensor([0, 1]), "features must be finite"),
        (torch.ones(0, 3), torch.ones(0, dtype=torch.int64), "at least one sample"),
    ],
)
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        class_separation(features, labels)


def test_bad_state_is_named():
    state = ClassSeparation(2)
    with pytest.raises(ValueError, match="update was never called"):
        state.compute()
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 2"):
        state.update(torch.ones(1, 3), torch.tensor([2]))
    state.update(torch.ones(1, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="features must have 3 columns as before, got 4"):
        state.update(torch.ones(1, 4), torch.tensor([1]))
    with pytest.raises(ValueError, match="other must have num_classes=2, got 3"):
        state.merge(ClassSeparation(3))
    # A refused update leaves the state as it was.
    with pytest.raises(ValueError, match="finite"):
        state.update(torch.full((1, 3), float("inf")), torch.tensor([0]))
    assert state.counts.tolist() == [0, 1]
