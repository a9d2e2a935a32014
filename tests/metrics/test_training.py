"""Diagnostics of a batch against numbers worked out by hand and sample by sample."""

import math
import statistics

import pytest
import torch

from maxsup.metrics import diagnostics


def numbers(*args, **options):
    return {name: float(value) for name, value in diagnostics(*args, **options).items()}


def by_sample(rows, target):
    """The three means in Python floats; `target` has a class or None, to ignore, for each row."""
    kept = [(row, y) for row, y in zip(rows, target, strict=True) if y is not None]
    present = [([value for value in row if value != -math.inf], row, y) for row, y in kept]
    return {
        "penalty": statistics.fmean(max(z) - statistics.fmean(z) for z, _, _ in present),
        "top1_gap": statistics.fmean(sorted(z)[-1] - sorted(z)[-2] for z, _, _ in present if len(z) > 1),
        "wrong_top1": statistics.fmean(row.index(max(row)) != y for _, row, y in present),
    }


def test_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0]])
    assert numbers(logits, torch.tensor([0, 2])) == {"penalty": 2.0, "top1_gap": 2.5, "wrong_top1": 0.5}


def test_ignored_rows_absent_classes_and_ties():
    rows = [[2.0, 2.0, 0.0], [1.0, -math.inf, 4.0], [9.0, 7.0, 3.0], [-math.inf, 3.0, -math.inf]]
    target = [1, 2, None, 1]  # the tie's top-1 class is 0; the last row has no second class
    result = numbers(torch.tensor(rows), torch.tensor([-100 if y is None else y for y in target]))
    assert result == pytest.approx(by_sample(rows, target))
    assert result["wrong_top1"] == pytest.approx(1 / 3)
    assert result["top1_gap"] == 1.5


def test_dense_input_counts_every_position_and_probabilities_their_largest():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    target = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(1))
    rows, labels = logits.movedim(1, 2).reshape(-1, 5), target.reshape(-1)
    expected = pytest.approx(by_sample(rows.tolist(), labels.tolist()), rel=1e-5)
    assert numbers(logits, target) == expected
    soft = 0.7 * torch.nn.functional.one_hot(labels, 5) + 0.3 / 5
    assert numbers(rows, soft) == expected


def test_zero_dimensional_without_gradient_and_nan_of_nothing():
    logits = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    for value in diagnostics(logits, torch.tensor([0, 1])).values():
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert not value.requires_grad
    assert all(math.isnan(value) for value in numbers(logits, torch.tensor([-100, -100])).values())


def test_the_penalty_is_what_the_loss_adds():
    from maxsup.functional import max_sup_cross_entropy

    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, -100])
    added = max_sup_cross_entropy(logits, target, 1.0) - torch.nn.functional.cross_entropy(logits, target)
    assert numbers(logits, target)["penalty"] == pytest.approx(float(added))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="target must have shape"):
        diagnostics(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(IndexError, match="target must hold class indices from 0 to 2"):
        diagnostics(torch.zeros(2, 3), torch.tensor([0, 3]))
