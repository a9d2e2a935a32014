"""MaxSup and label smoothing as functions, against hand-worked numbers, PyTorch and finite differences."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maxsup.functional import label_smoothing_cross_entropy, max_sup_cross_entropy
from maxsup.methods.common import first_maximum

INF = math.inf
BOTH = pytest.mark.parametrize("function", [max_sup_cross_entropy, label_smoothing_cross_entropy])


def batch(n=6, k=5, *more, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, *more, generator=generator, dtype=torch.float64).to(dtype) * 3
    target = torch.randint(k, (n, *more), generator=generator)
    return logits.requires_grad_(), target


def value_and_gradient(function, logits, *args, **kwargs):
    loss = function(logits, *args, **kwargs)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def test_worked_by_hand():
    # e² = 7.389056, e = 2.718282, 1: the sum is 11.107338, its logarithm 2.407606
    logits = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    expected = {0: 0.407606 + 0.1 * (2 - 1), 1: 1.407606 + 0.1 * (2 - 1), 2: 2.407606 + 0.1 * (2 - 1)}
    for target, loss in expected.items():
        assert_close(float(max_sup_cross_entropy(logits, torch.tensor(target))), loss, atol=1e-6, rtol=0)
    smoothed = label_smoothing_cross_entropy(logits, torch.tensor(2), alpha=0.3)
    assert_close(float(smoothed), 2.407606 + 0.3 * (0 - 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", [0, 2])  # right and wrong
def test_max_sup_gradient_is_the_formula(target):
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    _, gradient = value_and_gradient(max_sup_cross_entropy, logits, torch.tensor([target]), 0.2)
    y, top = torch.eye(4, dtype=torch.float64)[target], torch.eye(4, dtype=torch.float64)[0]
    assert_close(gradient[0], logits[0].softmax(0) - y - 0.2 / 4 + 0.2 * top)


@BOTH
def test_gradient_and_second_derivative_by_finite_differences(function):
    logits, target = batch()
    assert torch.autograd.gradcheck(lambda z: function(z, target, 0.3), logits)
    assert torch.autograd.gradgradcheck(lambda z: function(z, target, 0.3), logits)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: function(logits, target, a), alpha)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (6,), (3, 2), (2, 3, 4)])
@pytest.mark.parametrize("soft", [False, True])
def test_label_smoothing_is_pytorchs(shape, soft, reduction):
    k = 5
    logits = torch.randn(*shape[:1], k, *shape[1:], dtype=torch.float64, requires_grad=True)
    target = torch.randn_like(logits).softmax(1 if shape else 0) if soft else torch.randint(k, shape)
    ours = value_and_gradient(label_smoothing_cross_entropy, logits, target, 0.2, reduction=reduction)
    theirs = value_and_gradient(F.cross_entropy, logits, target, label_smoothing=0.2, reduction=reduction)
    assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (6,), (3, 2), (2, 3, 4)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_max_sup_is_cross_entropy_plus_penalty(shape, soft, reduction, smoothing, weighted):
    k, dim = 5, 1 if shape else 0
    logits = torch.randn(*shape[:1], k, *shape[1:], dtype=torch.float64)
    target = torch.randn_like(logits).softmax(dim) if soft else torch.randint(k, shape)
    weight = torch.rand(k, dtype=torch.float64) + 0.5 if weighted else None
    rows = F.cross_entropy(logits, target, weight=weight, label_smoothing=smoothing, reduction="none")
    row_weight = weight[target] if weighted and not soft else torch.ones(shape, dtype=torch.float64)
    rows = rows + 0.3 * row_weight * (logits.amax(dim) - logits.mean(dim))
    expected = {"none": rows, "sum": rows.sum(), "mean": rows.sum() / row_weight.sum()}[reduction]
    ours = max_sup_cross_entropy(logits, target, 0.3, weight=weight, reduction=reduction, label_smoothing=smoothing)
    assert_close(ours, expected)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0)])
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"reduction": "sum"}, {"ignore_index": 2}])
def test_alpha_zero_is_cross_entropy_to_the_bit(function, dtype, zero, options):
    logits, target = batch(dtype=dtype)
    weight = torch.linspace(0.5, 2, 5, dtype=dtype)
    ours = value_and_gradient(function, logits, target, zero, weight=weight, **options)
    theirs = value_and_gradient(F.cross_entropy, logits, target, weight=weight, **options)
    assert_close(ours, theirs, rtol=0, atol=0)


@BOTH
@pytest.mark.parametrize(
    ("logits", "target", "options"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), {}),
        (torch.zeros(2, 3), torch.tensor([0, 1, 1]), {}),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), {}),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), {}),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"reduction": "average"}),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"weight": torch.ones(2)}),
        (torch.zeros(2, 3), [0, 1], {}),
    ],
)
def test_alpha_zero_fails_as_cross_entropy_does(function, logits, target, options):
    with pytest.raises(Exception, match=r".") as theirs:
        F.cross_entropy(logits, target, **options)
    with pytest.raises(theirs.type) as ours:
        function(logits, target, 0.0, **options)
    assert str(ours.value) == str(theirs.value)


@BOTH
@pytest.mark.parametrize(
    ("logits", "target", "options", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), {}, IndexError, "target .* 0 to 2, or -100 .*, got 3"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), {}, IndexError, "target .*, got -1"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 1]), {}, ValueError, r"target .* \(2,\) .*, got \(3,\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), {}, TypeError, "target .* torch.int64 .*, got torch.float32"),
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), {}, TypeError, "target .* probabilities, got torch.int64"),
        (torch.zeros(2, 3), torch.zeros(2, 3), {"ignore_index": 1}, ValueError, "ignore_index .* got 1"),
        (torch.zeros(2, 3), [0, 1], {}, TypeError, "target must be a tensor, got list"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 1]), {}, TypeError, "input .* floating-point .*, got torch.int64"),
        (torch.zeros(()), torch.tensor(0), {}, ValueError, "input .* 0-dim"),
        (torch.zeros(2, 0), torch.tensor([0, 0]), {}, ValueError, "input .* at least one class"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"reduction": "avg"}, ValueError, "reduction .* got 'avg'"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"weight": torch.ones(2)}, ValueError, r"weight .* got shape \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"weight": [1, 1, 1]}, TypeError, "weight .* got list"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"weight": torch.tensor([1, 1, 1])}, TypeError, "got torch.int64"),
        (
            torch.zeros(2, 3),
            torch.tensor([0, 1]),
            {"weight": torch.tensor([1.0, INF - INF, 1.0])},
            ValueError,
            "weight .* got nan for class 1",
        ),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"alpha": -0.1}, ValueError, "alpha .* at least 0|alpha .* 0 to 1"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"alpha": math.nan}, ValueError, "alpha must be .*, got nan"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"alpha": "0.1"}, TypeError, "alpha must be .*, got '0.1'"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"alpha": torch.ones(2)}, ValueError, r"alpha .* shape \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"ignore_index": None}, TypeError, "ignore_index .* got None"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"num_items": 0}, ValueError, "num_items must be above 0"),
        (
            torch.zeros(2, 3),
            torch.tensor([0, 1]),
            {"num_items": 2, "reduction": "sum"},
            ValueError,
            "num_items .* got 'sum'",
        ),
    ],
)
def test_errors_name_the_argument_the_value_and_what_is_accepted(function, logits, target, options, error, message):
    with pytest.raises(error, match=message):
        function(logits, target, **options)


def test_alpha_ranges_differ():
    logits, target = batch()
    with pytest.raises(ValueError, match=r"alpha must be a number from 0 to 1, got 1\.5"):
        label_smoothing_cross_entropy(logits, target, 1.5)
    excess = max_sup_cross_entropy(logits, target, 1.5) - F.cross_entropy(logits, target)
    assert_close(excess, 1.5 * (logits.amax(1) - logits.mean(1)).mean())
    with pytest.raises(ValueError, match="label_smoothing must be a number from 0 to 1, got 2"):
        max_sup_cross_entropy(logits, target, label_smoothing=2)


@BOTH
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, np.int64])
def test_numbers_of_numpy_are_numbers(function, kind):
    logits, target = batch()
    found = function(logits, target, kind(1), num_items=np.int64(5))
    assert_close(found, function(logits, target, 1.0, num_items=5), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"alpha must be .*, got nan"):
        function(logits, target, np.float32("nan"))
    with pytest.raises(TypeError, match=r"alpha must be .*, got np\.True_"):
        function(logits, target, np.True_)


@BOTH
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignore_index", [-100, 2])
def test_an_ignored_row_is_a_row_deleted(function, reduction, ignore_index):
    logits, target = batch(8)
    target[[1, 4]] = ignore_index
    kept = target != ignore_index
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    options = {"weight": weight, "reduction": reduction}
    with torch.no_grad():
        logits[1, 3] = INF  # whatever the row holds
    loss, gradient = value_and_gradient(function, logits, target, 0.2, ignore_index=ignore_index, **options)
    few = logits.detach()[kept].requires_grad_()
    expected, expected_gradient = value_and_gradient(function, few, target[kept], 0.2, **options)
    assert_close(loss, expected)
    assert_close(gradient[kept], expected_gradient)
    assert gradient[4].eq(0).all()
    rows = function(logits, target, 0.2, ignore_index=ignore_index, weight=weight, reduction="none")
    assert rows[[1, 4]].eq(0).all()


@BOTH
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_class_weight_of_two_is_the_sample_twice(function, reduction):
    logits, target = batch(8)
    weight = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    repeats = weight[target].long()
    twice = logits.repeat_interleave(repeats, 0), target.repeat_interleave(repeats)
    ours = function(logits, target, 0.2, weight=weight, reduction=reduction)
    assert_close(ours, function(*twice, 0.2, reduction=reduction))


@BOTH
def test_empty_and_wholly_ignored_batches_are_as_in_pytorch(function):
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert float(function(empty, none, reduction="sum")) == 0.0
    assert function(empty, none, reduction="none").shape == (0,)
    assert math.isnan(function(empty, none))
    assert math.isnan(F.cross_entropy(empty, none))
    ignored = torch.full((2,), -100)
    assert math.isnan(function(torch.zeros(2, 3), ignored))
    assert math.isnan(F.cross_entropy(torch.zeros(2, 3), ignored))
    assert float(function(torch.zeros(2, 3), ignored, num_items=7)) == 0.0


@BOTH
def test_num_items_makes_parts_add_up_to_the_whole(function):
    logits, target = batch(8, dtype=torch.float32)
    target[3] = -100
    whole = function(logits, target)
    for items in (7, torch.tensor(7), torch.tensor(7.0)):
        parts = [function(logits[i : i + 4], target[i : i + 4], num_items=items) for i in (0, 4)]
        assert_close(sum(parts), whole)
    assert_close(function(logits, target, 0.0, num_items=7), F.cross_entropy(logits, target))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 2)])
def test_ties_go_to_the_lowest_index(shape):
    logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    target = torch.full((shape[0], *shape[2:]), 2)
    _, gradient = value_and_gradient(max_sup_cross_entropy, logits, target, 0.3, reduction="sum")
    _, plain = value_and_gradient(F.cross_entropy, logits, target, reduction="sum")
    expected = torch.tensor([0.3 - 0.1, -0.1, -0.1], dtype=torch.float64).expand(*shape[2:], 3).movedim(-1, 0)
    assert_close((gradient - plain)[0], expected)


def test_logits_that_differ_are_no_tie_though_their_log_probabilities_round_to_one():
    # Near 0 the logits are finer than near log q = −log 1000.
    logits = torch.full((1, 1000), -1e-9)
    logits[0, 1] = 1e-9
    logits.requires_grad_()
    log_q = logits.log_softmax(1)
    assert log_q[0, 0] == log_q[0, 1]  # or this case shows nothing
    _, gradient = value_and_gradient(max_sup_cross_entropy, logits, torch.tensor([2]), 0.3)
    assert_close(float(gradient[0, 1] - gradient[0, 0]), 0.3)


@BOTH
def test_absent_classes_count_as_if_they_were_not_there(function):
    logits, target = batch(4, 5)
    with torch.no_grad():
        logits[:, 3] = -INF
        logits[0, 4] = -INF
    target = torch.tensor([0, 1, 2, 0])
    loss, gradient = value_and_gradient(function, logits, target, 0.3, reduction="none")
    for row in range(4):
        present = logits[row].isfinite()
        few = logits[row, present].detach().requires_grad_()
        expected, expected_gradient = value_and_gradient(function, few, target[row], 0.3)
        assert_close(loss[row], expected)
        assert_close(gradient[row, present], expected_gradient)
        assert gradient[row, ~present].eq(0).all()


@BOTH
def test_nan_logits_give_nan_in_their_row_alone(function):
    logits, target = batch(3)
    with torch.no_grad():
        logits[1, 2] = math.nan
    loss = function(logits, target, 0.3, reduction="none")
    assert loss.isnan().tolist() == [False, True, False]
    assert math.isnan(function(logits, target, 0.3).item())


@BOTH
def test_absent_target_class_is_infinite_as_in_cross_entropy(function):
    logits = torch.tensor([[1.0, -INF, 0.0]])
    assert function(logits, torch.tensor([1]), 0.3) == INF
    assert F.cross_entropy(logits, torch.tensor([1])) == INF


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("soft", [False, True])
def test_sixteen_bit_logits_are_computed_in_float32(function, dtype, soft):
    logits, target = batch(16, 100, dtype=dtype)
    if soft:
        target = F.one_hot(target, 100).to(dtype)
    loss, gradient = value_and_gradient(function, logits, target, 0.3)
    wide = logits.detach().float().requires_grad_()
    expected, expected_gradient = value_and_gradient(function, wide, target.float() if soft else target, 0.3)
    assert loss.dtype == F.cross_entropy(logits, target).dtype == dtype
    assert gradient.dtype == dtype
    assert_close(loss, expected.to(dtype), rtol=0, atol=0)
    assert_close(gradient, expected_gradient.to(dtype), rtol=0, atol=0)


def test_half_precision_vocabulary_keeps_the_penalty_and_does_not_overflow():
    # 256k logits of 60000 add up to 1.5e10, far beyond float16; the mean must come out at -60000 + 120000 / 2^18.
    logits = torch.full((1, 2**18), -60000.0, dtype=torch.float16)
    logits[0, 7] = 60000.0
    loss = max_sup_cross_entropy(logits, torch.tensor([7]), 0.1, reduction="sum")
    assert_close(float(loss), 12000.0, rtol=1e-3, atol=0)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtype_under_autocast_is_cross_entropys(function, dtype):
    logits, target = batch(dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = F.cross_entropy(logits, target)
        ours = function(logits, target, 1e-6)
    assert ours.dtype == expected.dtype
    assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_result_dtype_with_wider_probabilities():
    logits = torch.randn(3, 4, dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.float64):
        target = torch.rand(3, 4, dtype=dtype).softmax(1)
        assert max_sup_cross_entropy(logits, target).dtype == F.cross_entropy(logits, target).dtype == dtype
    target, weight = torch.rand(3, 4).softmax(1).bfloat16(), torch.ones(4)
    theirs = F.cross_entropy(logits, target, weight=weight)
    assert max_sup_cross_entropy(logits, target, weight=weight).dtype == theirs.dtype == torch.float32


def test_mixup_and_cutmix_equations_27_to_40():
    logits, first = batch(8)
    second, lam = first.roll(1), 0.7
    hot = torch.eye(5, dtype=torch.float64)
    mixed = lam * hot[first] + (1 - lam) * hot[second]
    rows = torch.arange(8)
    z1, z2, mean = logits[rows, first], logits[rows, second], logits.mean(1)
    cross_entropy = -(lam * z1 + (1 - lam) * z2) + logits.logsumexp(1)  # Eq. 38
    # Eq. 27, and Eq. 28-40: the cross-entropy against the smoothed mixed label.
    smoothed = (1 - 0.1) * mixed + 0.1 / 5
    expected = cross_entropy + 0.1 * (lam * z1 + (1 - lam) * z2 - mean)
    assert_close(label_smoothing_cross_entropy(logits, mixed, 0.1, reduction="none"), expected)
    assert_close(-(smoothed * logits.log_softmax(1)).sum(1), expected)
    # MaxSup's penalty does not see the label.
    expected = cross_entropy + 0.1 * (logits.amax(1) - mean)
    assert_close(max_sup_cross_entropy(logits, mixed, 0.1, reduction="none"), expected)


def test_mean_of_dense_probabilities_divides_as_pytorch():
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    target = torch.randn(2, 5, 3, dtype=torch.float64).softmax(1)
    assert_close(
        label_smoothing_cross_entropy(logits, target, 0.1), F.cross_entropy(logits, target, label_smoothing=0.1)
    )


@BOTH
def test_transforms_of_torch_func(function):
    logits, target = batch()
    by_row = torch.vmap(lambda z, y: function(z, y, 0.3))(logits, target)
    assert_close(by_row, function(logits, target, 0.3, reduction="none"))
    _, expected = value_and_gradient(function, logits, target, 0.3, reduction="sum")
    assert_close(torch.func.grad(lambda z: function(z, target, 0.3, reduction="sum"))(logits), expected)
    by_row = torch.vmap(torch.func.grad(lambda z, y: function(z, y, 0.3)))(logits, target)
    assert_close(by_row, expected)
    alphas = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    over_alpha = torch.vmap(lambda a: function(logits, target, a))(alphas)
    assert_close(over_alpha, torch.stack([function(logits, target, float(a)) for a in alphas]))


@BOTH
def test_the_callers_tensors_are_left_alone(function):
    logits, target = batch()
    before = logits.detach().clone(), target.clone()
    function(logits, target, 0.3).backward()
    assert_close((logits.detach(), target), before, rtol=0, atol=0)


def test_blocks_find_the_first_maximum_whatever_the_default_device():
    logits = torch.zeros(3, 600)
    logits[1, 77] = logits[1, 590] = 1.0
    logits[2, 599] = math.nan
    torch.set_default_device("meta")
    try:
        places = first_maximum(logits)
    finally:
        torch.set_default_device(None)
    assert places.tolist() == [0, 77, 599]
