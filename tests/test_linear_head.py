"""The linear head against the loss of its logits: values, gradients, options, memory.

Chunks are made to have 3 rows, of which 10 rows are no multiple. On a GPU the kernel runs natively, elsewhere in
Triton's interpreter.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from maxsup import _linear_chunks
from maxsup.functional import linear_max_sup_cross_entropy, max_sup_cross_entropy
from tests.gpu import no_host_synchronisation

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's NumPy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, D, K = 10, 4, 37
IMPLEMENTATIONS = pytest.mark.parametrize("impl", ["torch", "triton"])
OPTIONS = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "num_items": {"num_items": 3},
    "num_items on the device": {"num_items": torch.tensor(3)},
    "ignored": {"ignore_index": 5},
    "ignored, none": {"ignore_index": 5, "reduction": "none"},
    "smoothed": {"label_smoothing": 0.2},
    "weights": {"class_weight": torch.linspace(0.5, 2, K)},
    "weights, ignored": {"class_weight": torch.linspace(0.5, 2, K), "ignore_index": 5},
    "weights, ignored, none": {"class_weight": torch.linspace(0.5, 2, K), "ignore_index": 5, "reduction": "none"},
}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(_linear_chunks, "LEAST_ROWS", 3)
    monkeypatch.setattr(_linear_chunks, "CHUNK_BYTES", 1)


def inputs(dtype=torch.float64, n=N, d=D, k=K, device=DEVICE):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        for shape in ((n, d), (k, d), (k,))
    )
    target = torch.randint(k, (n,), generator=generator)
    target[2:5] = 5
    return hidden, weight, target.to(device), bias


def plain(hidden, weight, target, alpha, bias=None, class_weight=None, **options):
    return max_sup_cross_entropy(F.linear(hidden, weight, bias), target, alpha, weight=class_weight, **options)


def value_and_gradients(function, hidden, weight, target, bias, alpha=0.3, **options):
    """Loss and gradients of all three, for an upstream gradient that differs by row."""
    loss = function(hidden, weight, target, alpha, bias, **options)
    upstream = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype, device=loss.device).reshape(loss.shape)
    leaves = [x for x in (hidden, weight, bias) if x is not None and x.requires_grad]
    return loss.detach(), *torch.autograd.grad(loss, leaves, upstream)


def on_device(options):
    return {key: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for key, value in options.items()}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_the_loss_of_its_logits(name, with_bias):
    hidden, weight, target, bias = inputs()
    bias = bias if with_bias else None
    options = on_device(OPTIONS[name])
    expected = value_and_gradients(plain, hidden, weight, target, bias, impl="torch", **options)
    ours = value_and_gradients(linear_max_sup_cross_entropy, hidden, weight, target, bias, **options)
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_kernel_computes_the_same(name):
    hidden, weight, target, bias = inputs(torch.float32)
    options = on_device(OPTIONS[name])
    expected = value_and_gradients(plain, hidden, weight, target, bias, impl="torch", **options)
    ours = value_and_gradients(linear_max_sup_cross_entropy, hidden, weight, target, bias, impl="triton", **options)
    assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_gradients_by_finite_differences(reduction, label_smoothing):
    hidden, weight, target, bias = inputs(n=7, k=5, device="cpu")
    target = target % 5

    def loss(h, w, b):
        return linear_max_sup_cross_entropy(
            h, w, target, 0.3, b, reduction=reduction, label_smoothing=label_smoothing, ignore_index=5
        )

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_chunks_of_any_number(n, reduction):
    hidden, weight, target, bias = inputs(n=7)
    hidden = hidden.detach()[:n].requires_grad_()
    expected = value_and_gradients(plain, hidden, weight, target[:n], bias, reduction=reduction, impl="torch")
    ours = value_and_gradients(linear_max_sup_cross_entropy, hidden, weight, target[:n], bias, reduction=reduction)
    assert_close(ours, expected)


def test_rows_per_chunk(monkeypatch):
    monkeypatch.undo()
    rows = _linear_chunks.rows_per_chunk
    assert rows(8192, 131072, 2) == 2048  # 512 MB
    assert rows(8192, 262144, 2) == 1024
    assert rows(8192, 1 << 20, 4) == 1024  # never less
    assert rows(8192, 50257, 2) == 4096  # two of 411 MB, not 5341 and 2851 rows
    assert rows(100, 50257, 2) == 100
    assert rows(0, 7, 2) == 1


@IMPLEMENTATIONS
@pytest.mark.parametrize("case", ["empty", "all ignored"])
def test_the_mean_of_nothing_is_nan_and_has_no_gradient(impl, case):
    hidden, weight, target, bias = inputs(torch.float32)
    if case == "empty":
        hidden, target = hidden.detach()[:0].requires_grad_(), target[:0]
    else:
        target = torch.full_like(target, -100)
    for reduction, value in (("mean", torch.nan), ("sum", 0.0)):
        loss, *gradients = value_and_gradients(
            linear_max_sup_cross_entropy, hidden, weight, target, bias, impl=impl, reduction=reduction
        )
        assert_close(loss, torch.tensor(value, device=DEVICE), equal_nan=True)
        for gradient, leaf in zip(gradients, (hidden, weight, bias), strict=True):
            assert_close(gradient, torch.zeros_like(leaf))
    assert linear_max_sup_cross_entropy(hidden, weight, target, reduction="none").shape == target.shape


@IMPLEMENTATIONS
@pytest.mark.parametrize("compiled", [False, True])
def test_an_ignored_row_may_hold_anything(impl, compiled):
    hidden, weight, target, bias = inputs(torch.float32)
    expected = value_and_gradients(plain, hidden, weight, target, bias, ignore_index=5, impl="torch")
    with torch.no_grad():
        hidden[3] = torch.nan
    function = linear_max_sup_cross_entropy
    if compiled:  # where Python may not look which rows these are, as on a GPU
        torch.compiler.reset()
        function = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours = value_and_gradients(function, hidden, weight, target, bias, ignore_index=5, impl=impl)
    assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@IMPLEMENTATIONS
def test_a_bias_of_minus_infinity_takes_a_class_out(impl):
    hidden, weight, target, bias = inputs(torch.float32)
    target[target == 7] = 8
    with torch.no_grad():
        bias[7] = -torch.inf
    keep = torch.arange(K, device=DEVICE) != 7
    moved = target - (target > 7).long()
    loss, *gradients = value_and_gradients(linear_max_sup_cross_entropy, hidden, weight, target, bias, impl=impl)
    without = [weight.detach()[keep].requires_grad_(), bias.detach()[keep].requires_grad_()]
    expected, of_hidden, *others = value_and_gradients(plain, hidden, without[0], moved, without[1], impl="torch")
    assert_close((loss, gradients[0]), (expected, of_hidden), rtol=1e-5, atol=1e-6)
    assert_close([x[keep] for x in gradients[1:]], others, rtol=1e-5, atol=1e-6)
    assert (gradients[1][7] == 0).all()
    assert gradients[2][7] == 0


@IMPLEMENTATIONS
def test_ties_go_to_the_lowest_class(impl):
    hidden = torch.ones(4, 1, device=DEVICE, requires_grad=True)
    weight = torch.zeros(K, 1, device=DEVICE, requires_grad=True)
    target = torch.full((4,), 3, device=DEVICE)
    _, _, gradient = value_and_gradients(linear_max_sup_cross_entropy, hidden, weight, target, None, impl=impl)
    # q − [k = y] + α [k = argmax] − α / K, times the upstream gradient of 0.5
    expected = torch.full((K, 1), (1 - 0.3) / K, device=DEVICE)
    expected[0] += 0.3
    expected[3] -= 1
    assert_close(gradient, expected * 0.5)


def test_shapes_follow_linear():
    hidden, weight, target, bias = inputs()
    expected = plain(hidden, weight, target, 0.3, bias, reduction="none", impl="torch")
    ours = linear_max_sup_cross_entropy(
        hidden.reshape(2, 5, D), weight, target.reshape(2, 5), 0.3, bias, reduction="none"
    )
    assert_close(ours, expected.reshape(2, 5))
    assert_close(linear_max_sup_cross_entropy(hidden[0], weight, target[0], 0.3, bias, reduction="none"), expected[0])
    assert_close(
        linear_max_sup_cross_entropy(hidden, weight, target, 0, bias), F.cross_entropy(hidden @ weight.T + bias, target)
    )


@IMPLEMENTATIONS
@pytest.mark.parametrize("frozen", ["hidden", "weight", "hidden, bias"])
def test_only_what_requires_a_gradient_gets_one(impl, frozen):
    given = dict(zip(("hidden", "weight", "target", "bias"), inputs(torch.float32), strict=True))
    for name in frozen.split(", "):
        given[name].requires_grad_(False)
    expected = value_and_gradients(plain, **given, impl="torch")
    assert_close(value_and_gradients(linear_max_sup_cross_entropy, **given, impl=impl), expected, rtol=1e-5, atol=1e-6)


@IMPLEMENTATIONS
def test_without_gradients_none_is_computed(impl, monkeypatch):
    factors = []
    inner = _linear_chunks._loss_and_gradient_

    def spy(logits, target, keep, losses, factor, head):
        factors.append(factor)
        inner(logits, target, keep, losses, factor, head)

    monkeypatch.setattr(_linear_chunks, "_loss_and_gradient_", spy)
    hidden, weight, target, bias = inputs(torch.float32)
    with torch.no_grad():
        loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, impl=impl)
    assert factors == [None] * 4
    assert_close(loss, plain(hidden, weight, target, 0.3, bias, impl="torch").detach())


@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("accumulate", ["float32", "own"])
def test_sixteen_bits(impl, dtype, accumulate):
    hidden, weight, target, bias = inputs(dtype, n=40, d=64)
    accumulate = torch.float32 if accumulate == "float32" else dtype
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    expected = value_and_gradients(plain, exact[0], exact[1], target, exact[2], impl="torch")
    theirs = value_and_gradients(plain, hidden, weight, target, bias, impl="torch")
    ours = value_and_gradients(
        linear_max_sup_cross_entropy, hidden, weight, target, bias, impl=impl, accumulate=accumulate
    )
    # 14 chunks added up in 16 bits round 14 times.
    slack = 1.1 if accumulate == torch.float32 else 3
    for mine, plains, truth in zip(ours, theirs, expected, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - truth).norm() <= slack * (plains.double() - truth).norm() + 1e-3 * truth.norm()


@IMPLEMENTATIONS
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_autocast_casts_as_linear_does(impl, reduction):
    hidden, weight, target, bias = inputs(torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        expected = value_and_gradients(plain, hidden, weight, target, bias, reduction=reduction, impl="torch")
        ours = value_and_gradients(
            linear_max_sup_cross_entropy, hidden, weight, target, bias, reduction=reduction, impl=impl
        )
    assert ours[0].dtype == expected[0].dtype == torch.float32
    assert_close(ours[0], expected[0], rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(ours[1:], expected[1:], strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, theirs, rtol=0, atol=2 * float(theirs.abs().max()) * 2**-8)


@IMPLEMENTATIONS
def test_a_scaled_float16_gradient_does_not_round_to_zero(impl):
    hidden, weight, target, bias = inputs(torch.float32)
    # A mean over 10 million items: the unscaled gradient of a logit is about 1e-8 and would be 0.
    with torch.autocast(DEVICE, torch.float16):
        loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, num_items=1e7, impl=impl)
    scale = 2.0**20
    (gradient,) = torch.autograd.grad(loss * scale, weight)
    (expected,) = torch.autograd.grad(plain(hidden, weight, target, 0.3, bias, num_items=1e7, impl="torch"), weight)
    assert (gradient / scale - expected).norm() < 0.01 * expected.norm()


@IMPLEMENTATIONS
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_two_backward_passes_give_the_same_twice(impl, reduction):
    hidden, weight, target, bias = inputs(torch.float32)
    loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, reduction=reduction, impl=impl).sum() * 3
    first = torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True)
    first = [x.clone() for x in first]
    assert_close(torch.autograd.grad(loss, (hidden, weight, bias)), tuple(first), rtol=0, atol=0)
    expected = plain(hidden, weight, target, 0.3, bias, reduction=reduction, impl="torch").sum() * 3
    assert_close(tuple(first), torch.autograd.grad(expected, (hidden, weight, bias)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_an_error(reduction):
    hidden, weight, target, bias = inputs()
    loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="the linear head has no second derivative: pass all its logits"):
        gradient.sum().backward()


@IMPLEMENTATIONS
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("tensor", [False, True])
def test_compiled(impl, reduction, tensor):
    torch.compiler.reset()
    hidden, weight, target, bias = inputs(torch.float32)
    alpha = torch.tensor(0.3, device=DEVICE) if tensor else 0.3

    def step(h, w, y, alpha, b, **options):
        return linear_max_sup_cross_entropy(h * 2, w, y, alpha, b, reduction=reduction, impl=impl)

    compiled = torch.compile(step, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    expected = value_and_gradients(step, hidden, weight, target, bias, alpha)
    assert_close(value_and_gradients(compiled, hidden, weight, target, bias, alpha), expected)
    with torch.no_grad():
        assert_close(compiled(hidden, weight, target, alpha, bias), expected[0])


@IMPLEMENTATIONS
def test_where_python_may_not_look_an_index_out_of_range_makes_nan(impl):
    torch.compiler.reset()
    hidden, weight, target, bias = inputs(torch.float32)
    expected = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, reduction="none", impl="torch")
    expected = expected.detach()
    expected[1] = torch.nan
    target[1] = K
    compiled = torch.compile(linear_max_sup_cross_entropy, fullgraph=True, backend="aot_eager")
    loss = compiled(hidden, weight, target, 0.3, bias, reduction="none", impl=impl)
    assert_close(loss, expected, equal_nan=True)
    (gradient,) = torch.autograd.grad(loss.sum(), hidden)
    assert gradient.isnan().all(1).nonzero().tolist() == [[1]]


def test_the_operator_is_well_formed():
    hidden, weight, target, bias = (x.detach() for x in inputs(torch.float32))
    factor = torch.tensor(0.5, device=DEVICE)
    options = (target, None, None, 0.3, 0.0, -100, False, torch.float32, torch.float32)
    torch.library.opcheck(torch.ops.maxsup.linear_head, (hidden, weight, bias, factor, [True, True, True], *options))
    torch.library.opcheck(torch.ops.maxsup.linear_head, (hidden, weight, None, None, [False] * 3, *options))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            # A view or an expanded scalar needs no memory of its own.
            if isinstance(tensor, torch.Tensor) and 0 not in tensor.stride():
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_has_all_logits(reduction, dtype, monkeypatch):
    monkeypatch.setattr(_linear_chunks, "LEAST_ROWS", 64)
    largest = []
    for n in (512, 1024):
        hidden, weight, target, bias = inputs(dtype, n=n, k=500)
        with LargestTensor() as counter:
            loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, bias, reduction=reduction, impl="torch")
            loss.backward(torch.ones_like(loss))
        largest.append(counter.elements)
    assert largest == [64 * 500] * 2  # a chunk, for any number of rows
    with LargestTensor() as counter:
        plain(hidden, weight, target, 0.3, bias).backward()
    assert counter.elements == 1024 * 500  # what the counter sees of the loss of all logits


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": [1.0]}, TypeError, "hidden must be a tensor, got list"),
        ({"hidden": torch.ones(10, 4).long()}, TypeError, r"hidden must be a floating-point tensor, got torch\.int64"),
        ({"hidden": torch.ones(())}, ValueError, "hidden must have shape"),
        ({"weight": torch.ones(37, 5)}, ValueError, r"weight must have shape \(K, 4\), K > 0, got \(37, 5\)"),
        ({"weight": torch.ones(0, 4)}, ValueError, r"weight must have shape \(K, 4\), K > 0, got \(0, 4\)"),
        ({"weight": torch.ones(37, 4)}, TypeError, r"same dtype, got torch\.float64, torch\.float32, torch\.float64"),
        (
            {"target": torch.zeros(9).long()},
            ValueError,
            r"target must hold class indices of shape \(10,\).* got \(9,\)",
        ),
        ({"target": torch.zeros(10)}, TypeError, r"target must hold class indices as torch\.int64"),
        ({"target": torch.full((10,), 37)}, IndexError, "target must hold class indices from 0 to 36"),
        ({"bias": torch.zeros(36)}, ValueError, r"bias must have shape \(37,\), got \(36,\)"),
        ({"class_weight": torch.ones(3)}, ValueError, r"class_weight must have shape \(37,\), got \(3,\)"),
        ({"class_weight": torch.ones(37), "label_smoothing": 0.1}, ValueError, "label_smoothing smooths each class"),
        ({"class_weight": torch.ones(37, requires_grad=True)}, ValueError, "class_weight requires a gradient"),
        ({"alpha": torch.tensor(0.1, requires_grad=True)}, ValueError, "alpha requires a gradient"),
        ({"alpha": -1.0}, ValueError, "alpha must be a number of at least 0, got -1"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing must be a number from 0 to 1"),
        ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
        ({"num_items": 0}, ValueError, "num_items must be above 0"),
        ({"impl": "cuda"}, ValueError, "impl must be one of auto, torch, triton, got 'cuda'"),
        ({"impl": "triton"}, ValueError, r'impl="triton" does not apply here: input (is on|has)'),
        ({"accumulate": torch.float16}, ValueError, r"accumulate must be torch\.float32 or the type of weight"),
    ],
)
def test_errors_name_the_argument_the_value_and_what_is_accepted(change, error, message):
    hidden, weight, target, bias = (x.detach() for x in inputs(device="cpu"))
    with pytest.raises(error, match=message):
        linear_max_sup_cross_entropy(**{"hidden": hidden, "weight": weight, "target": target, "bias": bias} | change)


@pytest.mark.parametrize(
    ("cuda", "overloads", "registered"),
    [
        ("12.8", ["dtype_out"], True),
        ("12.8", ["dtype_out"], False),
        ("12.8", ["out"], None),
        (None, ["dtype_out"], True),
    ],
)
def test_products_in_float32_are_used_where_pytorch_has_them(cuda, overloads, registered, monkeypatch):
    def asked(name, key):
        assert registered is not None, "PyTorch raises where it has no such overload"
        assert (name, key) == ("aten::addmm.dtype_out", "CUDA")
        return registered

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.ops.aten.addmm, "overloads", lambda: overloads)
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", asked)
    detect = _linear_chunks.has_products_in_float32.__wrapped__
    assert detect() == (cuda is not None and registered is True)


def test_function_transforms_are_refused():
    hidden, weight, target, _ = (x.detach() for x in inputs())
    with pytest.raises(ValueError, match=r"the linear head does not work within torch\.func transforms"):
        torch.func.grad(lambda h: linear_max_sup_cross_entropy(h, weight, target))(hidden)


# From here on a GPU is what is tested.
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")


@gpu
@needs_gpu
@pytest.mark.parametrize("native", [False, True])
def test_gpu_products_are_added_up_in_float32(native, monkeypatch):
    if native and not _linear_chunks.has_products_in_float32():
        pytest.skip("this PyTorch has no product in float32")
    monkeypatch.setattr(_linear_chunks, "has_products_in_float32", lambda: native)
    monkeypatch.setattr(_linear_chunks, "LEAST_ROWS", 64)
    hidden, weight, target, bias = inputs(torch.bfloat16, n=1024, d=64, k=515)
    hidden = (hidden.detach() / 8).requires_grad_()  # logits of about 1: bfloat16 keeps large ones to 1/8 only

    def loss(h, w, b):  # without the argmax, which is another class once the logits are bfloat16
        return linear_max_sup_cross_entropy(h, w, target, 0.0, b, label_smoothing=0.1)

    (gradient,) = torch.autograd.grad(loss(hidden, weight, bias), weight)
    h, w, b = (x.detach().double().requires_grad_() for x in (hidden, weight, bias))
    (exact,) = torch.autograd.grad(loss(h, w, b), w)
    assert (gradient.double() - exact).norm() / exact.norm() < 4e-3


@gpu
@needs_gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("accumulate", [torch.float32, torch.bfloat16])
def test_gpu_memory_and_error_at_a_large_vocabulary(reduction, accumulate, monkeypatch):
    monkeypatch.undo()
    n, d, k = 4096, 256, 100_003  # 819 MB of logits, two chunks
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(n, d, device="cuda", generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(k, d, device="cuda", generator=generator) / d**0.5).bfloat16().requires_grad_()
    target = torch.randint(k, (n,), device="cuda", generator=generator)
    target[::5] = -100
    linear_max_sup_cross_entropy(hidden[:64], weight, target[:64]).backward()  # what stays allocated after a product
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = linear_max_sup_cross_entropy(hidden, weight, target, 0.3, reduction=reduction, accumulate=accumulate)
    ours = torch.autograd.grad(loss.sum(), (hidden, weight))
    logits, gradient = n * k * 2, k * d * 2
    assert torch.cuda.max_memory_allocated() - before < logits / 2 + 3.5 * gradient
    # Of the same bfloat16 logits, whose ties are not those of float32.
    expected = plain(hidden, weight, target, 0.3, reduction=reduction, impl="torch")
    truth = torch.autograd.grad(expected.sum(), (hidden, weight))
    assert_close(loss.float().sum(), expected.float().sum(), rtol=1e-2, atol=0)
    for mine, true in zip(ours, truth, strict=True):
        assert (mine.float() - true.float()).norm() < 0.01 * true.float().norm()
    kept = target != -100
    assert (ours[0][~kept] == 0).all()


@gpu
@needs_gpu
@IMPLEMENTATIONS
@pytest.mark.parametrize("options", [{}, {"num_items": 3}, {"reduction": "none"}])
def test_gpu_no_host_synchronisation(options, impl):
    hidden, weight, target, bias = inputs(torch.bfloat16)
    class_weight = torch.rand(K, device="cuda")

    def step():
        loss = linear_max_sup_cross_entropy(
            hidden, weight, target, 0.3, bias, class_weight=class_weight, impl=impl, **options
        )
        return torch.autograd.grad(loss.sum() * 3, (hidden, weight, bias))

    step()
    with no_host_synchronisation():
        step()
