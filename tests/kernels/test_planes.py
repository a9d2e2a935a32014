"""Logits whose classes are a plane apart (N, C, d1, …), over both implementations, against PyTorch in float64."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maxsup.functional import max_sup_cross_entropy
from maxsup.kernels import fused_loss, launch, plans
from maxsup.kernels.arrangement import arranged, arranged_like
from tests.kernels.test_fused_loss import DEVICE, METHODS, assert_near, run

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

IMPLEMENTATIONS = pytest.mark.parametrize("impl", ["torch", "triton"])


@pytest.fixture
def arrangements(monkeypatch):
    """The number of dimensions in which the kernels got each batch of logits: 2 for rows, 3 for planes."""
    seen = []

    def watched(logits, rows, **options):
        seen.append(logits.dim())
        launch.losses_and_gradient(logits, rows, **options)

    monkeypatch.setattr(fused_loss, "losses_and_gradient", watched)
    return seen


def dense(shape, dtype=torch.float32, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator) * 3).to(dtype).to(DEVICE)
    if soft:
        return logits, torch.randn(shape, generator=generator).softmax(1).to(DEVICE)
    return logits, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator).to(DEVICE)


def exact_rows(method, z, target, weight=None):
    """Losses per position in float64, by PyTorch."""
    rows = F.cross_entropy(z, target, weight=None if weight is None else weight.double(), reduction="none")
    if method == "logit-penalty":
        added = z.square().sum(1) / 2
    elif method == "max-sup":
        added = z.max(1).values - z.mean(1)
    else:
        gt = (z * target).sum(1) if target.is_floating_point() else z.gather(1, target.unsqueeze(1)).squeeze(1)
        added = gt - z.mean(1)
    if weight is not None and not target.is_floating_point():
        added = added * weight.double()[target]
    return rows + METHODS[method] * added


@IMPLEMENTATIONS
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("method", "shape", "dtype"),
    [
        ("max-sup", (2, 5, 8, 8), torch.float32),
        ("max-sup", (1, 9, 150), torch.bfloat16),  # more than one program's pixels; a block of classes that is not full
        ("label-smoothing", (2, 5, 7, 11), torch.float32),  # no two pixels at once
        ("logit-penalty", (1, 5, 4, 4, 5), torch.float16),
    ],
)
def test_positions_are_rows(impl, method, shape, dtype, weighted, soft, arrangements):
    logits, target = dense(shape, dtype, soft)
    weight = torch.linspace(0.5, 2, shape[1], device=DEVICE) if weighted else None
    z = logits.double().requires_grad_()
    rows = exact_rows(method, z, target.double() if soft else target, weight)
    upstream = torch.linspace(-1, 2, rows.numel(), device=DEVICE).reshape(rows.shape)
    (gradient,) = torch.autograd.grad(rows, z, upstream.double(), retain_graph=True)
    loss, ours = run(method, logits, target, impl, upstream.to(dtype if not soft else torch.float32), weight=weight,
                     reduction="none")  # fmt: skip
    assert_near(loss, rows.detach(), loss.dtype, scale=2.0)
    assert_near(ours, gradient, dtype, scale=3.0)
    divisor = weight.double()[target].sum() if weighted and not soft else rows.numel()
    (gradient,) = torch.autograd.grad(rows.sum() / divisor, z)
    loss, ours = run(method, logits, target, impl, weight=weight)
    assert_near(loss, rows.detach().sum() / divisor, loss.dtype, scale=2.0)
    assert_near(ours, gradient, dtype, scale=0.1)
    assert set(arrangements) == ({3} if impl == "triton" else set())


@IMPLEMENTATIONS
def test_ties_absent_classes_nan_and_ignored_positions(impl):
    logits, target = dense((2, 5, 64))
    logits[0, [1, 3], 0] = 12.0  # the gradient is the lower one's
    logits[0, 2, 1] = -math.inf
    target[0, 1] = 0
    logits[0, 4, 2] = -math.inf
    target[0, 2] = 4
    logits[1, 0, 3] = math.nan
    target[1, 4:9] = -100
    logits[1, 0, 5] = math.nan
    logits[1, :, 9] = -math.inf
    rows = logits.movedim(1, 2).reshape(-1, 5)
    expected, expected_gradient = run("max-sup", rows, target.reshape(-1), "torch", reduction="none")
    loss, gradient = run("max-sup", logits, target, impl, reduction="none")
    assert_close(loss.reshape(-1), expected, rtol=4e-6, atol=4e-6, equal_nan=True)
    gradient = gradient.movedim(1, 2).reshape(-1, 5)
    kept = (target != -100).reshape(-1) & expected.isfinite()
    assert kept.sum() == 128 - 5 - 3
    assert_close(gradient[kept], expected_gradient[kept], rtol=4e-6, atol=4e-6)
    assert gradient.isnan().any(1)[64 + 3]
    if impl == "triton":
        assert gradient[64 + 4 : 64 + 9].eq(0).all()


@pytest.mark.parametrize(
    ("cut", "dim", "copied"),
    [
        (lambda z: z, 3, False),
        (lambda z: z[::2, 1:4], 3, False),
        (lambda z: z[0].flatten(1).t(), 3, False),  # a matrix in column order
        (lambda z: z[0].flatten(1).t()[:40], 2, True),  # too few in a column
        (lambda z: z[..., :4], 2, True),  # gaps within an image
        (lambda z: z.to(memory_format=torch.channels_last), 2, False),
    ],
)
def test_what_is_read_as_it_lies(cut, dim, copied, arrangements):
    logits = cut(dense((4, 5, 8, 8))[0])
    shape = logits.shape[:1] + logits.shape[2:]
    target = (torch.arange(math.prod(shape), device=DEVICE) % logits.shape[1]).reshape(shape)
    expected = run("max-sup", logits.contiguous(), target, "torch")
    assert_close(run("max-sup", logits, target, "triton"), expected, rtol=4e-6, atol=4e-6)
    assert arrangements == [dim]
    assert (arranged(logits).data_ptr() != logits.data_ptr()) == copied


def test_probabilities_are_brought_to_the_logits_arrangement():
    logits, target = dense((2, 5, 8, 8), soft=True)
    expected = run("max-sup", logits, target, "torch")
    other = target.to(memory_format=torch.channels_last)
    for z, t in ((logits, other), (logits.to(memory_format=torch.channels_last), target)):
        assert_close(run("max-sup", z, t, "triton"), expected, rtol=4e-6, atol=4e-6)
        assert arranged_like(arranged(z), t).stride() == arranged(z).stride()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_in_place(reduction):
    logits, target = dense((2, 5, 8, 8))
    leaf = logits.requires_grad_()
    _, expected = run("max-sup", logits, target, "triton", reduction=reduction)
    z = leaf * 1
    loss = max_sup_cross_entropy(z, target, METHODS["max-sup"], reduction=reduction, impl="triton", inplace=True)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert gradient.data_ptr() == z.data_ptr()
    assert_close(gradient, expected, rtol=0, atol=0)


def test_compiled():
    logits, target = dense((2, 5, 8, 8))
    logits.requires_grad_()

    def step(z):
        return max_sup_cross_entropy(z * 2, target, 0.3, impl="triton")

    expected = step(logits), *torch.autograd.grad(step(logits), logits)
    loss = torch.compile(step, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")(logits)
    assert_close((loss, *torch.autograd.grad(loss, logits)), expected)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    ("shape", "vector", "block", "pixels"),
    [
        ((8, 19, 128 * 128), 4, 4, 512),  # 20 classes, where blocks of 8 would compute 24
        ((8, 21, 128 * 128), 4, 8, 512),
        ((2, 150, 129 * 129), 1, 8, 512),
        ((16, 2, 1000), 4, 2, 128),
        ((16, 1000, 98), 2, 8, 128),
    ],
)
def test_cuts_fit_a_multiprocessor(shape, vector, block, pixels, size):
    logits = torch.empty(1, shape[1], shape[2], dtype={2: torch.bfloat16, 4: torch.float32}[size])
    plan = plans.plane_plan_of(logits)
    assert (plan.vector, plan.block, plan.pixels) == (vector, block, pixels)
    assert plan.programs * plan.warps * 32 * plan.registers <= 65536


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 19, 256, 256), (3, 21, 129, 129), (2, 150, 64, 64), (5, 1000, 100)])
def test_gpu_images_of_every_kind(shape, dtype):
    logits, target = dense(shape, dtype)
    target[:, ::7] = -100
    logits.requires_grad_()
    loss = max_sup_cross_entropy(logits, target, 0.3, impl="triton")
    (gradient,) = torch.autograd.grad(loss, logits)
    z = logits.detach().double().requires_grad_()
    exact = max_sup_cross_entropy(z, target, 0.3, impl="torch")
    (exact_gradient,) = torch.autograd.grad(exact, z)
    precision = 2e-6 if dtype == torch.float32 else 4e-3
    assert_close(loss.double(), exact, rtol=precision, atol=0)
    assert (gradient.double() - exact_gradient).norm() / exact_gradient.norm() < precision
