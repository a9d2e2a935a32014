"""The modules: they pass their options on, and their numbers are buffers."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

import maxsup
from maxsup import functional

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3, 4, -1])
WEIGHT = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])
PAIRS = [
    (maxsup.MaxSupCrossEntropyLoss, functional.max_sup_cross_entropy),
    (maxsup.LabelSmoothingCrossEntropyLoss, functional.label_smoothing_cross_entropy),
]


@pytest.mark.parametrize(("module", "function"), PAIRS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_module_is_its_function(module, function, reduction):
    options = {"weight": WEIGHT, "ignore_index": -1, "reduction": reduction}
    loss = module(0.3, **options)
    assert_close(loss(LOGITS, TARGET), function(LOGITS, TARGET, 0.3, **options))
    assert_close(
        module(0.3, ignore_index=-1)(LOGITS, TARGET, num_items=3),
        function(LOGITS, TARGET, 0.3, ignore_index=-1, num_items=3),
    )


def test_label_smoothing_on_top():
    loss = maxsup.MaxSupCrossEntropyLoss(0.3, label_smoothing=0.2, ignore_index=-1)
    expected = functional.max_sup_cross_entropy(LOGITS, TARGET, 0.3, label_smoothing=0.2, ignore_index=-1)
    assert_close(loss(LOGITS, TARGET), expected)


@pytest.mark.parametrize(("module", "function"), PAIRS)
def test_alpha_is_a_buffer_that_takes_numbers(module, function):
    loss = module(0.1, ignore_index=-1)
    storage = loss.alpha.data_ptr()
    loss.alpha = 0.25
    assert (float(loss.alpha), loss.alpha.data_ptr()) == (0.25, storage)
    assert_close(loss(LOGITS, TARGET), function(LOGITS, TARGET, 0.25, ignore_index=-1))
    with pytest.raises(ValueError, match=r"alpha must be .*, got -1"):
        loss.alpha = -1.0
    other = module()
    other.load_state_dict(loss.state_dict())
    assert float(other.alpha) == 0.25
    other.alpha = 0.0
    assert_close(
        other(LOGITS[:5], TARGET[:5]), torch.nn.functional.cross_entropy(LOGITS[:5], TARGET[:5]), rtol=0, atol=0
    )


@pytest.mark.parametrize(("module", "function"), PAIRS)
def test_bad_options_are_refused_at_construction(module, function):
    for options, message in [
        ({"alpha": -0.1}, "alpha must be .*, got -0.1"),
        ({"reduction": "avg"}, "reduction must be .*, got 'avg'"),
        ({"weight": torch.tensor([1.0, math.nan])}, "weight must .*, got nan for class 1"),
        ({"weight": torch.ones(2, 2)}, r"weight must .*, got shape \(2, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            module(**options)


def test_repr_shows_what_was_asked_for():
    loss = maxsup.MaxSupCrossEntropyLoss(0.2, weight=WEIGHT, ignore_index=3, reduction="sum", label_smoothing=0.1)
    assert repr(loss) == (
        "MaxSupCrossEntropyLoss(alpha=0.2, weight=<5 classes>, ignore_index=3, reduction='sum', label_smoothing=0.1)"
    )
    assert repr(maxsup.LabelSmoothingCrossEntropyLoss()) == "LabelSmoothingCrossEntropyLoss(alpha=0.1)"


def test_copies_are_independent():
    loss = maxsup.MaxSupCrossEntropyLoss(0.2)
    other = copy.deepcopy(loss)
    other.alpha = 0.4
    assert float(loss.alpha) == pytest.approx(0.2)
