"""What holds for every method: its formula, cross-entropy at 0, weights, ignored rows, absent classes, transforms."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.loss_cases import CASES, batch, expected_rows, value_and_gradient

ALL = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
SOFT = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.soft])
HARD = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if not case.soft])
DENSE = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.dense])


@ALL
def test_formula(case):
    logits, target = batch(12, 5)
    assert_close(case(logits, target, 0.3, reduction="none"), expected_rows(case, logits, target, 0.3))


@SOFT
def test_formula_for_probabilities(case):
    logits, _ = batch(12, 5)
    target = batch(12, 5, seed=1)[0].detach().softmax(1)
    assert_close(case(logits, target, 0.3, reduction="none"), expected_rows(case, logits, target, 0.3))


@HARD
def test_methods_without_a_definition_for_probabilities_say_so(case):
    logits, _ = batch()
    with pytest.raises(ValueError, match=r"target must hold class indices.*no definition for probabilities.*\(6, 5\)"):
        case(logits, logits.detach().softmax(1), 0.3)


@ALL
def test_gradient_and_second_derivative_by_finite_differences(case):
    logits, target = batch()
    assert torch.autograd.gradcheck(lambda z: case(z, target, 0.3), logits)
    assert torch.autograd.gradgradcheck(lambda z: case(z, target, 0.3), logits)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: case(logits.detach(), target, a), alpha)


@SOFT
def test_gradient_for_probabilities_by_finite_differences(case):
    logits, _ = batch()
    target = batch(seed=1)[0].detach().softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, y: case(z, y, 0.3), (logits, target))


@ALL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_alpha_zero_is_cross_entropy_to_the_bit(case, dtype, reduction):
    logits, target = batch(dtype=dtype)
    target[1] = 2
    options = {"weight": torch.linspace(0.5, 2, 5, dtype=dtype), "ignore_index": 2, "reduction": reduction}
    theirs = value_and_gradient(F.cross_entropy, logits, target, **options)
    for zero in (0.0, 0, torch.tensor(0.0)):
        assert_close(value_and_gradient(case, logits, target, zero, **options), theirs, rtol=0, atol=0)


@ALL
@pytest.mark.parametrize("target", [torch.tensor([0, 5]), torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0])])
def test_alpha_zero_fails_as_cross_entropy_does(case, target):
    logits = torch.zeros(2, 5)
    with pytest.raises((IndexError, ValueError, RuntimeError)) as theirs:
        F.cross_entropy(logits, target)
    with pytest.raises(theirs.type) as ours:
        case(logits, target, 0.0)
    assert str(ours.value) == str(theirs.value)


@ALL
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.tensor([0, 5])}, IndexError, "target .* 0 to 4, or -100 .*, got 5"),
        ({"target": torch.tensor([0, 1, 1])}, ValueError, r"target .* \(2,\) .*, got \(3,\)"),
        ({"logits": torch.zeros(2, 5).long()}, TypeError, r"input .* floating-point .*, got torch\.int64"),
        ({"reduction": "avg"}, ValueError, "reduction .* got 'avg'"),
        ({"alpha": -0.1}, ValueError, r"alpha .* got -0\.1"),
        ({"alpha": torch.ones(2)}, ValueError, r"alpha .* shape \(2,\)"),
        ({"alpha": torch.tensor(-0.1)}, ValueError, r"alpha .* got -0\.1"),
        ({"weight": torch.full((5,), math.nan)}, ValueError, "weight .* got nan for class 0"),
        ({"num_items": -1}, ValueError, "num_items .* got -1"),
    ],
)
def test_errors_name_the_argument_the_value_and_what_is_accepted(case, change, error, message):
    arguments = {"logits": torch.zeros(2, 5), "target": torch.tensor([0, 1]), "alpha": 0.3, **change}
    with pytest.raises(error, match=message):
        case(**arguments)


@ALL
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_ignored_row_is_a_row_deleted(case, reduction):
    logits, target = batch(8)
    target[[1, 4]] = -100
    kept = target != -100
    options = {"weight": torch.linspace(0.5, 2, 5, dtype=torch.float64), "reduction": reduction}
    with torch.no_grad():
        logits[1, 3] = math.inf
    loss, gradient = value_and_gradient(case, logits, target, 0.2, **options)
    few = logits.detach()[kept].requires_grad_()
    expected, expected_gradient = value_and_gradient(case, few, target[kept], 0.2, **options)
    assert_close(loss, expected)
    assert_close(gradient[kept], expected_gradient)
    assert gradient[4].eq(0).all()


@ALL
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_class_weight_of_two_is_the_sample_twice(case, reduction):
    logits, target = batch(8)
    weight = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    repeats = weight[target].long()
    twice = case(logits.repeat_interleave(repeats, 0), target.repeat_interleave(repeats), 0.2, reduction=reduction)
    assert_close(case(logits, target, 0.2, weight=weight, reduction=reduction), twice)


@SOFT
def test_class_weights_of_probabilities_act_in_the_cross_entropy_alone(case):
    logits, _ = batch()
    target = batch(seed=1)[0].detach().softmax(1)
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    penalty = case(logits, target, 0.3, reduction="none") - F.cross_entropy(logits, target, reduction="none")
    for reduction in ("mean", "sum"):
        plain = F.cross_entropy(logits, target, weight=weight, reduction=reduction)
        expected = plain + getattr(penalty, reduction)()
        assert_close(case(logits, target, 0.3, weight=weight, reduction=reduction), expected)


@ALL
def test_absent_classes_count_as_if_they_were_not_there(case):
    logits, _ = batch(4, 5)
    with torch.no_grad():
        logits[:, 3] = -math.inf
        logits[0, 4] = -math.inf
    target = torch.tensor([0, 1, 2, 4])
    loss, gradient = value_and_gradient(case, logits, target, 0.3, reduction="none")
    for row in range(4):
        present = logits[row].isfinite()
        few = logits[row, present].detach().requires_grad_()
        label = target[row] - (~present[: target[row]]).sum()
        classes = present.nonzero().squeeze(1)
        expected, expected_gradient = value_and_gradient(case, few, label, 0.3, classes=classes)
        assert_close(loss[row], expected)
        assert_close(gradient[row, present], expected_gradient)
        assert gradient[row, ~present].eq(0).all()


@ALL
def test_only_one_class_present(case):
    logits = torch.tensor([[-math.inf, 2.0, -math.inf]], requires_grad=True)
    loss, gradient = value_and_gradient(case, logits, torch.tensor([1]), 0.3)
    assert_close(float(loss), case.row([-math.inf, 2.0, -math.inf], [0.0, 1.0, 0.0], 0.3), rtol=1e-6, atol=1e-6)
    assert gradient.isfinite().all()


@ALL
def test_an_absent_target_is_infinite_as_in_cross_entropy(case):
    logits = torch.tensor([[1.0, -math.inf, 0.0]])
    assert case(logits, torch.tensor([1]), 0.3) == math.inf


@ALL
def test_nan_logits_give_nan_in_their_row_alone(case):
    logits, target = batch(3)
    with torch.no_grad():
        logits[1, 2] = math.nan
    assert case(logits, target, 0.3, reduction="none").isnan().tolist() == [False, True, False]
    assert case(logits, target, 0.3).isnan()


@ALL
def test_large_logits_stay_finite(case):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.tensor([[60000.0, -60000.0, 0.0], [-60000.0, 60000.0, 1.0]], dtype=dtype, requires_grad=True)
        loss, gradient = value_and_gradient(case, logits.float(), torch.tensor([0, 1]), 1e-6)
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(case(logits, torch.tensor([0, 1]), 1e-6), logits)
        assert gradient.isfinite().all()


@DENSE
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 3, 2)])
def test_dense_input_is_its_positions_as_rows(case, shape):
    logits, target = batch(*shape)
    target.flatten()[3] = -100
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    rows, labels = logits.movedim(1, -1).reshape(-1, 5), target.flatten()
    none = case(logits, target, 0.3, weight=weight, reduction="none")
    assert_close(none, case(rows, labels, 0.3, weight=weight, reduction="none").reshape(target.shape))
    for options in ({"reduction": "mean"}, {"reduction": "sum"}, {"num_items": 5}):
        assert_close(
            case(logits, target, 0.3, weight=weight, **options), case(rows, labels, 0.3, weight=weight, **options)
        )


@ALL
def test_one_sample_without_a_batch_dimension(case):
    logits, target = batch(1)
    expected = case(logits, target, 0.3)
    for label in (target[0], target):
        assert_close(case(logits[0], label, 0.3), expected)
    for label in (target[0], target):
        assert case(logits[0], label, 0.3, reduction="none").shape == ()


@ALL
def test_num_items_makes_parts_add_up_to_the_whole(case):
    logits, target = batch(8)
    target[3] = -100
    whole = case(logits, target, 0.3)
    for items in (7, torch.tensor(7)):
        parts = [case(logits[i : i + 4], target[i : i + 4], 0.3, num_items=items) for i in (0, 4)]
        assert_close(sum(parts), whole)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_logits_are_computed_in_float32(case, dtype):
    logits, target = batch(16, 16, dtype=dtype)
    wide = logits.detach().float().requires_grad_()
    loss, gradient = value_and_gradient(case, logits, target, 0.1)
    expected, expected_gradient = value_and_gradient(case, wide, target, 0.1)
    assert (loss.dtype, gradient.dtype) == (dtype, dtype)
    if case is not CASES["zipf-dense"]:  # whose votes are taken from 16-bit sums here
        assert_close((loss, gradient), (expected.to(dtype), expected_gradient.to(dtype)), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case(logits, target, 0.1).dtype == F.cross_entropy(logits, target).dtype == torch.float32


@ALL
def test_transforms_of_torch_func(case):
    logits, target = batch()
    _, expected = value_and_gradient(case, logits, target, 0.3, reduction="sum")
    gradient = torch.func.grad(lambda z: case(z, target, 0.3, reduction="sum"))(logits)
    assert_close(gradient, expected)
    by_row = torch.vmap(lambda z, y: case(z, y, 0.3))(logits, target)
    assert_close(by_row, case(logits, target, 0.3, reduction="none"))
    assert_close(torch.vmap(torch.func.grad(lambda z, y: case(z, y, 0.3)))(logits, target), expected)


@ALL
def test_odd_sizes(case):
    for n, k in ((1, 1), (3, 2), (2, 13)):
        logits, target = batch(n, k)
        assert_close(case(logits, target, 0.3, reduction="none"), expected_rows(case, logits, target, 0.3))
    empty = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert float(case(*empty, 0.3, reduction="sum")) == 0.0
    assert math.isnan(case(*empty, 0.3))
    assert math.isnan(F.cross_entropy(*empty))
