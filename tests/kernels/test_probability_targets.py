"""Probability targets, over both implementations: oracles in Python floats, PyTorch's own losses in float64."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.kernels.test_fused_loss import (
    DEVICE,
    METHODS,
    assert_near,
    exact,
    impl,  # noqa: F401, a fixture
    logits_and_target,
    run,
    tolerance,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def logits_and_probabilities(n, k, dtype=torch.float32, target_dtype=torch.float32):
    logits, _ = logits_and_target(n, k, dtype)
    return logits, logits_and_target(n, k, seed=1)[0].softmax(1).to(target_dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "k"), [("max-sup", k) for k in (5, 37, 64)] + [(m, 37) for m in METHODS])
def test_rows_are_the_oracles(impl, method, k, dtype):  # noqa: F811
    logits, target = logits_and_probabilities(3, k, dtype)
    losses, gradient = exact(method, logits, target)
    upstream = torch.tensor([1.0, -2.0, 0.5], device=DEVICE)
    loss, ours = run(method, logits, target, impl, upstream, reduction="none")
    assert loss.dtype == torch.float32  # what the target promotes it to
    assert_near(loss, losses, torch.float32)
    assert_near(ours, gradient * upstream.double().unsqueeze(1), dtype)
    loss, ours = run(method, logits, target, impl)
    assert_near(loss, losses.mean(), torch.float32)
    assert_near(ours, gradient / 3, dtype, scale=0.3)


@pytest.mark.parametrize(("method", "label_smoothing"), [*((method, 0.0) for method in METHODS), ("max-sup", 0.1)])
def test_class_weights_act_within_the_cross_entropy(impl, method, label_smoothing):  # noqa: F811
    logits, target = logits_and_probabilities(2, 37)
    weight = torch.linspace(0.5, 2, 37, device=DEVICE)
    options = {"label_smoothing": label_smoothing} if label_smoothing else {}
    z, t = logits.double().requires_grad_(), target.double()
    rows = F.cross_entropy(z, t, weight=weight.double(), reduction="none", **options)
    penalty = {
        "max-sup": z.max(1).values - z.mean(1),
        "label-smoothing": (t * z).sum(1) / t.sum(1) - z.mean(1),
        "logit-penalty": z.square().sum(1) / 2,
    }[method]
    rows = rows + METHODS[method] * penalty
    for reduction, expected in (("none", rows), ("mean", rows.mean())):
        (gradient,) = torch.autograd.grad(expected.sum(), z, retain_graph=True)
        loss, ours = run(method, logits, target, impl, weight=weight, reduction=reduction, **options)
        assert_close(loss.double(), expected.detach(), rtol=4e-6, atol=4e-6)
        assert_near(ours, gradient, torch.float32, scale=2.0)


def test_probabilities_need_not_add_up_to_one(impl):  # noqa: F811
    logits, target = logits_and_probabilities(3, 37)
    target = target * torch.tensor([0.5, 2.0, 0.0], device=DEVICE).unsqueeze(1)
    z = logits.double().requires_grad_()
    # Label smoothing is cross-entropy against the smoothed target, whatever its sum.
    rows = -((0.8 * target.double() + 0.2 / 37) * z.log_softmax(1)).sum(1)
    (gradient,) = torch.autograd.grad(rows.sum(), z)
    loss, ours = run("label-smoothing", logits, target, impl, reduction="none")
    assert_near(loss, rows.detach(), torch.float32, scale=4.0)
    assert_near(ours, gradient, torch.float32)


@pytest.mark.parametrize("k", [37, 64])
def test_the_lowest_of_equal_maxima_has_the_gradient(impl, k):  # noqa: F811
    logits, target = logits_and_probabilities(3, k)
    logits[:, [3, k - 1]] = 12.0
    logits[1, [0, 3]] = 12.0
    top = torch.tensor([3, 0, 3], device=DEVICE)
    expected = logits.double().softmax(1) - target.double() + 0.3 * (F.one_hot(top, k) - 1 / k)
    _, gradient = run("max-sup", logits, target, impl, reduction="sum")
    assert_near(gradient, expected, torch.float32)


@pytest.mark.parametrize("method", METHODS)
def test_absent_classes_are_as_in_pytorch(impl, method):  # noqa: F811
    logits, target = logits_and_probabilities(3, 37)
    logits[0, [2, 20]] = -math.inf
    logits[1, 0] = -math.inf
    losses, _ = run(method, logits, target, "torch", reduction="none")
    assert F.cross_entropy(logits, target, reduction="none").tolist()[:2] == [math.inf, math.inf]
    loss, gradient = run(method, logits, target, impl, reduction="none")
    assert_close(loss, losses, rtol=4e-6, atol=4e-6, equal_nan=True)
    assert gradient.isfinite().all()
    target[0, 2] = 0.0  # 0 · −inf
    assert run(method, logits, target, impl, reduction="none")[0].isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("where", ["logits", "target"])
def test_nan_stays_in_its_row(impl, where):  # noqa: F811
    logits, target = logits_and_probabilities(3, 37)
    (logits if where == "logits" else target)[1, 20] = math.nan
    loss, gradient = run("max-sup", logits, target, impl, reduction="none")
    assert loss.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("target_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cut", [lambda t: t[:, 3:40], lambda t: t.t()[:, :32].t()[:, :37], lambda t: t[::2, 8:40]])
def test_targets_in_memory_as_they_come(impl, cut, target_dtype):  # noqa: F811
    target = cut(logits_and_target(64, 64, seed=1)[0].softmax(1).to(target_dtype))[:3]
    logits, _ = logits_and_target(*target.shape, torch.bfloat16)
    expected = run("max-sup", logits, target.float().contiguous(), "torch")
    loss, gradient = run("max-sup", logits, target, impl)
    assert loss.dtype == torch.promote_types(torch.bfloat16, target_dtype)
    assert_close(loss.float(), expected[0].float(), rtol=2 * tolerance(loss.dtype), atol=0)
    assert_close(gradient, expected[1], rtol=2 * tolerance(torch.bfloat16), atol=tolerance(torch.bfloat16))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(37,), (2, 37, 3)])
def test_shapes(impl, shape, reduction):  # noqa: F811
    logits, target = torch.randn(shape, device=DEVICE), torch.randn(shape, device=DEVICE).softmax(-len(shape) // 2)
    dim = 1 if len(shape) > 1 else 0
    z = logits.double().requires_grad_()
    rows = F.cross_entropy(z, target.double(), reduction="none") + 0.3 * (z.amax(dim) - z.mean(dim))
    expected = rows if reduction == "none" else rows.mean()
    (gradient,) = torch.autograd.grad(expected.sum(), z)
    loss, ours = run("max-sup", logits, target, impl, reduction=reduction)
    assert loss.shape == expected.shape
    assert_near(loss, expected.detach(), torch.float32, scale=2.0)
    assert_near(ours, gradient, torch.float32)
