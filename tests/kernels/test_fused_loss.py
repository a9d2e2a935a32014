"""One suite for both implementations: against the oracles in Python floats, finite differences and closed forms.

On a GPU the kernels run natively, elsewhere in Triton's interpreter, which is slow: a batch has few and short rows. 37
classes are odd, so that no row but the first begins at a multiple of 16 bytes; 64 are whole vectors; 5 are too few for
a vector. The streamed kernel is made to cut such rows into chunks.
"""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maxsup.functional import max_sup_cross_entropy
from maxsup.kernels import launch, plans
from tests.loss_cases import CASES, expected_rows, one_hot

# The interpreter computes with NumPy, which warns of what IEEE defines.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

INF = math.inf
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METHODS = {"max-sup": 0.3, "label-smoothing": 0.2, "logit-penalty": 0.05}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


IN_PARTS = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device: the interpreter's programs cannot wait"),
]


@pytest.fixture(params=["torch", "triton", "triton in chunks", pytest.param("triton in parts", marks=IN_PARTS)])
def impl(request, monkeypatch):
    """The implementations; the last are Triton's for long rows, with chunks of 16 logits, or with 4 programs a row."""
    parts = {"triton in chunks": 1, "triton in parts": 4}.get(request.param)
    if parts:

        def plan_of(k, size, layout, soft=0):
            return plans.stream_plan(k, layout, 16, warps=1, programs=2, parts=1 if soft else parts, prefetch=1)

        monkeypatch.setattr(launch, "plan_of", plan_of)
    return request.param.split()[0]


def logits_and_target(n, k, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, k, generator=generator) * 3).to(dtype)
    target = torch.randint(k, (n,), generator=generator)
    return logits.to(DEVICE), target.to(DEVICE)


def run(method, logits, target, impl, upstream=None, **options):
    """Loss and gradient."""
    logits = logits.detach().clone().requires_grad_() if logits.is_contiguous() else logits.detach().requires_grad_()
    loss = CASES[method].function(logits, target, METHODS[method], impl=impl, **options)
    upstream = torch.ones_like(loss) if upstream is None else upstream
    (gradient,) = torch.autograd.grad(loss, logits, upstream)
    return loss.detach(), gradient


def exact(method, logits, target):
    """Losses and gradients per row, (N,) and (N, K), by the oracle and its central differences."""
    case, alpha, h = CASES[method], METHODS[method], 1e-5
    losses = expected_rows(case, logits.cpu(), target.cpu(), alpha)
    gradient = torch.zeros(logits.shape, dtype=torch.float64)
    for i, (z, y) in enumerate(zip(logits.double().tolist(), target.double().tolist(), strict=True)):
        y = y if target.dim() == 2 else one_hot(int(y), len(z))
        for k, value in enumerate(z):
            if value != -INF:
                up, down = ([*z[:k], value + sign * h, *z[k + 1 :]] for sign in (1, -1))
                gradient[i, k] = (case.row(up, y, alpha) - case.row(down, y, alpha)) / (2 * h)
    return losses.to(DEVICE), gradient.to(DEVICE)


def tolerance(dtype):
    return {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]


def assert_near(actual, expected, dtype, scale=1.0):
    assert_close(actual.double(), expected, rtol=2 * tolerance(dtype), atol=scale * tolerance(dtype), equal_nan=True)


@DTYPES
@pytest.mark.parametrize(("method", "k"), [("max-sup", k) for k in (2, 5, 37, 64)] + [(m, 37) for m in METHODS])
def test_rows_are_the_oracles(impl, method, k, dtype):
    logits, target = logits_and_target(5, k, dtype)
    losses, gradient = exact(method, logits, target)
    # Upstream gradients that differ by row.
    upstream = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=dtype, device=DEVICE)
    loss, ours = run(method, logits, target, impl, upstream, reduction="none")
    assert loss.dtype == ours.dtype == dtype
    assert_near(loss, losses, dtype)
    assert_near(ours, gradient * upstream.double().unsqueeze(1), dtype)
    loss, ours = run(method, logits, target, impl)
    assert_near(loss, losses.mean(), dtype)
    assert_near(ours, gradient / 5, dtype, scale=0.2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [37, 64])
def test_absent_classes_are_classes_deleted(impl, method, k):
    logits, target = logits_and_target(4, k)
    target[:] = torch.tensor([1, 3, 5, k - 1])
    logits[0, [0, 7, k - 2]] = -INF
    logits[1, 4:] = -INF
    losses, gradient = exact(method, logits, target)
    loss, ours = run(method, logits, target, impl, reduction="none")
    assert_near(loss, losses, torch.float32)
    assert_near(ours, gradient, torch.float32)


@pytest.mark.parametrize("method", METHODS)
def test_an_absent_target_costs_infinitely_much(impl, method):
    logits, target = logits_and_target(2, 37)
    logits[0, target[0]] = -INF
    expected, _ = run(method, logits, target, "torch", reduction="none")
    loss, gradient = run(method, logits, target, impl, reduction="none")
    assert loss[0] == INF
    assert_close(loss, expected, atol=2e-6, rtol=2e-6)
    assert gradient.isfinite().all()  # of an infinite loss; it has no other meaning


@pytest.mark.parametrize("k", [5, 37, 64])
@pytest.mark.parametrize("at", [(0, 1), (1, 2, 4), (3, -1), (-2, -1)])
def test_the_lowest_of_equal_maxima_has_the_gradient(impl, k, at):
    logits, _ = logits_and_target(3, k)
    logits[:, at] = 12.0
    target = torch.tensor([at[0], at[-1], 2], device=DEVICE) % k
    top = min(place % k for place in at)
    z = logits.double()
    expected = z.softmax(1) - F.one_hot(target, k) + 0.3 * (F.one_hot(torch.tensor(top), k).to(DEVICE) - 1 / k)
    _, gradient = run("max-sup", logits, target, impl, reduction="sum")
    assert_near(gradient, expected, torch.float32)


@pytest.mark.parametrize("value", [math.nan, INF, "all absent"])
@pytest.mark.parametrize("method", METHODS)
def test_nan_stays_in_its_row(impl, method, value):
    logits, target = logits_and_target(3, 37)
    if value == "all absent":
        logits[1] = -INF
    else:
        logits[1, 20] = value
    loss, gradient = run(method, logits, target, impl, reduction="none")
    assert loss.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]
    assert run(method, logits, target, impl)[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("weighted", "ignore_index"), [(False, -100), (True, -100), (True, 2)])
def test_weights_and_ignored_rows(impl, dtype, reduction, weighted, ignore_index):
    logits, target = logits_and_target(6, 37, dtype)
    logits[4, 3] = math.nan  # whatever an ignored row holds
    target[[1, 4]] = ignore_index
    keep = torch.tensor([0, 2, 3, 5])
    weight = torch.linspace(0.5, 2, 37, device=DEVICE) if weighted else None
    losses, gradient = exact("max-sup", logits[keep], target[keep])
    weights = weight[target[keep]].double() if weighted else torch.ones(4, device=DEVICE, dtype=torch.float64)
    divisor = weights.sum() if reduction == "mean" else 1.0
    loss, ours = run("max-sup", logits, target, impl, weight=weight, ignore_index=ignore_index, reduction=reduction)
    if reduction == "none":
        assert_near(loss[keep], losses * weights, dtype)
        assert loss[[1, 4]].eq(0).all()
    else:
        assert_near(loss, (losses * weights).sum() / divisor, dtype)
    assert_near(ours[keep], gradient * (weights / divisor).unsqueeze(1), dtype)
    if impl == "triton":
        assert ours[[1, 4]].eq(0).all()


def test_all_rows_ignored(impl):
    logits, target = logits_and_target(3, 37)
    target.fill_(-100)
    loss, gradient = run("max-sup", logits, target, impl)
    assert loss.isnan()
    if impl == "triton":
        assert gradient.eq(0).all()
    loss, gradient = run("max-sup", logits, target, impl, reduction="sum")
    assert loss == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize("impl_options", [{"reduction": "sum"}, {"reduction": "none"}, {"num_items": 7}])
def test_empty_batch(impl, impl_options):
    logits = torch.empty(0, 37, device=DEVICE)
    loss, gradient = run("max-sup", logits, torch.empty(0, dtype=torch.int64, device=DEVICE), impl, **impl_options)
    assert loss.sum() == 0
    assert gradient.shape == (0, 37)


@pytest.mark.parametrize("number", [8, 8.0, torch.tensor(8.0), torch.tensor(8)])
def test_num_items_is_the_divisor(impl, number):
    logits, target = logits_and_target(6, 37)
    total, gradient = run("max-sup", logits, target, impl, reduction="sum")
    if isinstance(number, torch.Tensor):
        number = number.to(DEVICE)
    ours = run("max-sup", logits, target, impl, num_items=number)
    assert_close(ours, (total / 8, gradient / 8))


@DTYPES
@pytest.mark.parametrize("factor", [1.0, 4096.0, 0.125, 0.0, math.nan])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_upstream_gradient_scales(impl, dtype, factor, reduction):
    logits, target = logits_and_target(3, 37, dtype)
    _, gradient = exact("max-sup", logits, target)
    factor = torch.tensor(factor, device=DEVICE)
    logits = logits.requires_grad_()
    loss = max_sup_cross_entropy(logits, target, 0.3, impl=impl, reduction=reduction).float()
    (ours,) = torch.autograd.grad(loss, logits, factor)
    expected = gradient * factor.double() / (3 if reduction == "mean" else 1)
    assert_near(ours, expected, dtype, scale=float(factor.nan_to_num(1.0)))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_two_backward_passes_through_one_graph(impl, reduction):
    logits, target = logits_and_target(4, 37)
    logits.requires_grad_()
    loss = max_sup_cross_entropy(logits, target, 0.3, impl=impl, reduction=reduction)
    upstream = torch.full_like(loss, 3.0)
    (first,) = torch.autograd.grad(loss, logits, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits, upstream, retain_graph=True)
    (last,) = torch.autograd.grad(loss, logits, upstream)
    assert_close(first, second, rtol=0, atol=0)
    assert_close(first, last, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_names_the_way_out(reduction):
    logits, target = logits_and_target(4, 37)
    logits.requires_grad_()
    loss = max_sup_cross_entropy(logits, target, 0.3, impl="triton", reduction=reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match='second derivative: pass impl="torch"'):
        gradient.square().sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "cut",
    [
        lambda z: z[:, 3:40],  # rows that are not adjacent, and begin anywhere
        lambda z: z[:, 8:40],
        lambda z: z[::2, :37],
        lambda z: z[1:].flatten()[1:].unflatten(0, (1, -1))[:, :37],
        lambda z: z.t(),
        lambda z: z[:1].expand(3, -1),
    ],
)
def test_rows_in_memory_as_they_come(impl, dtype, cut):
    logits = cut(logits_and_target(8, 64, dtype)[0])
    target = torch.arange(len(logits), device=DEVICE) % logits.shape[1]
    expected = run("max-sup", logits.contiguous(), target, "torch")
    assert_close(run("max-sup", logits, target, impl), expected, rtol=2 * tolerance(dtype), atol=tolerance(dtype))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(37,), (2, 37, 3), (2, 37, 2, 2), "channels_last"])
def test_shapes(impl, shape, reduction):
    logits = torch.randn(2, 37, 2, 2) if shape == "channels_last" else torch.randn(shape)
    target = torch.randint(37, logits.shape[:1] + logits.shape[2:] if logits.dim() > 1 else ())
    if shape == "channels_last":
        logits = logits.to(memory_format=torch.channels_last)
    logits, target = logits.to(DEVICE), target.to(DEVICE)
    double = logits.double().requires_grad_()
    dim = 1 if logits.dim() > 1 else 0
    rows = F.cross_entropy(double, target, reduction="none") + 0.3 * (double.amax(dim) - double.mean(dim))
    expected = rows if reduction == "none" else rows.mean()
    (gradient,) = torch.autograd.grad(expected.sum(), double)
    loss, ours = run("max-sup", logits, target, impl, reduction=reduction)
    assert loss.shape == expected.shape
    assert_near(loss, expected.detach(), torch.float32)
    assert_near(ours, gradient, torch.float32)


@pytest.mark.parametrize("absent", [False, True])
def test_label_smoothing_of_the_cross_entropy_part_is_pytorchs(impl, absent):
    logits, target = logits_and_target(4, 37)
    if absent:
        logits[1, (target[1] + 3) % 37] = -INF
        logits[2, target[2]] = -INF
    z = logits.double().requires_grad_()
    rows = F.cross_entropy(z, target, label_smoothing=0.1, reduction="none")
    (gradient,) = torch.autograd.grad(rows.sum(), z)
    z = logits.double().requires_grad_()
    present = z.detach() != -INF
    mean = z.where(present, 0.0).sum(1) / present.sum(1)
    penalty = 0.3 * (z.gather(1, z.argmax(1, keepdim=True)).squeeze(1) - mean)
    (more,) = torch.autograd.grad(penalty.sum(), z)
    loss, ours = run("max-sup", logits, target, impl, reduction="none", label_smoothing=0.1)
    assert_near(loss, (rows + penalty).detach(), torch.float32)
    assert_near(ours, gradient + more, torch.float32)
