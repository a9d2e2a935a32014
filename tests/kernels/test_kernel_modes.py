"""What only the kernel has: its choice and its refusals, `inplace`, all terms at once, the compiler, the GPU itself."""

import functools

import pytest
import torch
import triton
from torch.nn import functional as F
from torch.testing import assert_close

import maxsup
from maxsup.functional import label_smoothing_cross_entropy, logit_penalty_cross_entropy, max_sup_cross_entropy
from maxsup.kernels import choice, fused_loss, launch, plans
from maxsup.kernels.terms import Terms
from tests.gpu import no_host_synchronisation
from tests.kernels.test_fused_loss import DEVICE, IN_PARTS, logits_and_target

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

FUNCTIONS = pytest.mark.parametrize(
    "function", [max_sup_cross_entropy, label_smoothing_cross_entropy, logit_penalty_cross_entropy]
)


@pytest.fixture
def launches(monkeypatch):
    """Whether each launch of the kernel had a gradient to write."""
    wrote = []

    def counted(logits, rows, *, loss, gradient, **options):
        wrote.append(gradient is not None)
        launch.losses_and_gradient(logits, rows, loss=loss, gradient=gradient, **options)

    monkeypatch.setattr(fused_loss, "losses_and_gradient", counted)
    return wrote


@FUNCTIONS
def test_choice(function, launches):
    logits, target = logits_and_target(3, 37)
    expected = function(logits, target, 0.2, impl="torch")
    assert launches == []
    assert_close(function(logits, target, 0.2, impl="triton"), expected)
    assert launches == [False]
    assert_close(function(logits, target, 0.2), expected)
    assert len(launches) == (2 if DEVICE == "cuda" else 1)
    with pytest.raises(ValueError, match="impl must be one of auto, torch, triton, got 'cuda'"):
        function(logits, target, 0.2, impl="cuda")


def test_pytorch_for_rocm(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    logits, target = logits_and_target(3, 37)
    max_sup_cross_entropy(logits, target, 0.2)
    with pytest.raises(ValueError, match="does not apply here: this PyTorch is built for ROCm"):
        max_sup_cross_entropy(logits, target, 0.2, impl="triton")


def test_a_gradient_is_computed_only_where_one_is_required(launches):
    logits, target = logits_and_target(3, 37)
    logits.requires_grad_()
    with torch.no_grad():
        max_sup_cross_entropy(logits, target, impl="triton")
    max_sup_cross_entropy(logits.detach(), target, impl="triton")
    assert launches == [False, False]
    max_sup_cross_entropy(logits, target, impl="triton").backward()
    assert launches == [False, False, True]


@pytest.mark.parametrize("module", [maxsup.MaxSupCrossEntropyLoss, maxsup.LabelSmoothingCrossEntropyLoss])
def test_modules_pass_impl_through(module, launches):
    logits, target = logits_and_target(3, 37)
    expected = module(0.2).to(DEVICE)(logits, target)
    launches.clear()
    assert_close(module(0.2, impl="triton").to(DEVICE)(logits, target), expected)
    assert launches == [False]
    assert "impl='triton'" in repr(module(0.2, impl="triton"))
    with pytest.raises(ValueError, match="impl must be one of"):
        module(0.2, impl="cuda")


@FUNCTIONS
def test_triton_refuses_what_it_cannot_do(function):
    logits, target = logits_and_target(3, 37)
    soft = logits.softmax(1)
    with pytest.raises(ValueError, match='target requires a gradient, which impl="torch" computes'):
        function(logits, soft.requires_grad_(), impl="triton")
    with pytest.raises(ValueError, match=r"target has dtype torch\.float64, and the kernel knows float32"):
        function(logits, soft.detach().double(), impl="triton")
    with pytest.raises(ValueError, match=r"input has dtype torch\.float64, and the kernel knows float32"):
        function(logits.double(), target, impl="triton")
    with pytest.raises(ValueError, match="a strength requires a gradient"):
        function(logits, target, torch.tensor(0.1, device=DEVICE, requires_grad=True), impl="triton")
    with pytest.raises(ValueError, match="weight requires a gradient"):
        function(logits, target, weight=torch.ones(37, device=DEVICE, requires_grad=True), impl="triton")
    with pytest.raises(ValueError, match=r"a torch\.func transform is tracing"):
        torch.func.grad(lambda z: function(z, target, impl="triton"))(logits)
    with pytest.raises(ValueError, match="target must have shape"):
        function(logits, target[:2], impl="triton")


def test_label_smoothing_with_weight_is_left_to_torch():
    logits, target = logits_and_target(3, 37)
    weight = torch.ones(37, device=DEVICE)
    with pytest.raises(ValueError, match="label_smoothing with weight"):
        max_sup_cross_entropy(logits, target, label_smoothing=0.1, weight=weight, impl="triton")
    assert_close(
        max_sup_cross_entropy(logits, target, label_smoothing=0.1, weight=weight),
        max_sup_cross_entropy(logits, target, label_smoothing=0.1, impl="torch"),
    )


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match=r"input is on cpu, and the kernel needs CUDA"):
        max_sup_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), impl="triton")


def test_triton_needs_triton(monkeypatch):
    monkeypatch.setattr(choice, "TRITON_IS_THERE", False)
    logits, target = logits_and_target(3, 37)
    with pytest.raises(ValueError, match="Triton is not installed"):
        max_sup_cross_entropy(logits, target, impl="triton")
    assert max_sup_cross_entropy(logits, target).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_in_place_the_gradient_lies_where_the_logits_lay(dtype, reduction, soft):
    logits, target = logits_and_target(4, 37, dtype)
    if soft:
        target = logits.float().flip(0).softmax(1)
    else:
        logits[1, [0, 20, 36]] = -torch.inf  # such a row is read twice before its place is overwritten
        target[1] = 1
    leaf = logits.requires_grad_()
    (expected,) = torch.autograd.grad(
        max_sup_cross_entropy(leaf, target, 0.3, impl="triton", reduction=reduction).sum(), leaf
    )
    z = leaf * 1
    loss = max_sup_cross_entropy(z, target, 0.3, reduction=reduction, impl="triton", inplace=True)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert gradient.data_ptr() == z.data_ptr()
    assert_close(gradient, expected, rtol=0, atol=0)


def test_in_place_refuses_where_the_logits_are_needed():
    logits, target = logits_and_target(4, 37)
    options = {"impl": "triton", "inplace": True}
    leaf = logits.clone().requires_grad_()
    with pytest.raises(ValueError, match="inplace=True would overwrite a leaf"):
        max_sup_cross_entropy(leaf, target, **options)
    with pytest.raises(ValueError, match="inplace=True would overwrite a leaf"):
        max_sup_cross_entropy(leaf.view(2, 2, 37).flatten(0, 1), target, **options)
    with pytest.raises(ValueError, match=r"adjacent in memory, got shape \(4, 30\) with strides \(37, 1\)"):
        max_sup_cross_entropy((leaf * 1)[:, :30], target % 30, **options)
    with pytest.raises(ValueError, match=r"adjacent in memory"):
        max_sup_cross_entropy((leaf * 1).view(2, 37, 2), target.view(2, 2), **options)
    with pytest.raises(ValueError, match=r'inplace=True is a mode of the kernel.*got impl="torch"'):
        max_sup_cross_entropy(leaf * 1, target, impl="torch", inplace=True)
    with pytest.raises(ValueError, match="inplace=True does not apply here: target requires a gradient"):
        max_sup_cross_entropy(leaf * 1, leaf.softmax(1), inplace=True)
    # Without a gradient to write, nothing is overwritten.
    before = logits.clone()
    max_sup_cross_entropy(logits, target, **options)
    assert_close(logits, before, rtol=0, atol=0)


def test_in_place_autograd_tells_who_saved_the_logits():
    logits, target = logits_and_target(4, 37)
    z = logits.requires_grad_().exp()  # saves its result
    loss = max_sup_cross_entropy(z, target, impl="triton", inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# None for the kernel that plan_of takes, or the parts of a row of the streamed one.
@pytest.mark.parametrize("parts", [None, 1, pytest.param(2, marks=IN_PARTS)])
@pytest.mark.parametrize("k", [37, 64])
def test_all_terms_at_once(k, parts, monkeypatch):
    if parts:
        monkeypatch.setattr(
            launch,
            "plan_of",
            lambda k, size, layout, soft=0: plans.stream_plan(k, layout, 16, warps=1, programs=2, parts=parts),
        )
    logits, target = logits_and_target(4, k)
    target[2] = -100
    weight = torch.linspace(0.5, 2, k, device=DEVICE)
    z, w = logits.double().requires_grad_(), weight.double()[target.clamp_min(0)] * (target != -100)
    top = z.gather(1, z.argmax(1, keepdim=True)).squeeze(1)
    gt = z.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1)
    log_sum = z.logsumexp(1)
    rows = log_sum - gt + 0.3 * (top - z.mean(1)) + 0.2 * (gt - z.mean(1))
    rows = w * (rows + 0.05 * z.square().sum(1) / 2 + 0.01 * log_sum.square())
    (gradient,) = torch.autograd.grad(rows.sum() / w.sum(), z)
    leaf = logits.requires_grad_()
    strengths = torch.tensor([0.2, 0.05], device=DEVICE)
    terms = Terms(max_sup=0.3, smoothing=strengths[0], penalty=strengths[1].double(), z_loss=0.01)
    loss = choice.fused_loss(leaf, target, terms, weight, -100, "mean", None, inplace=False)
    (ours,) = torch.autograd.grad(loss, leaf)
    assert_close(loss.double(), rows.sum() / w.sum(), rtol=1e-5, atol=1e-6)
    assert_close(ours.double(), gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("tensor", "soft"), [(False, False), (True, False), (False, True)])
def test_compiled(reduction, tensor, soft):
    logits, target = logits_and_target(3, 37)
    if soft:
        target = logits.flip(0).softmax(1)
    logits.requires_grad_()
    alpha = torch.tensor(0.3, device=DEVICE) if tensor else 0.3

    def step(z, y):
        return max_sup_cross_entropy(z * 2, y, alpha, impl="triton", reduction=reduction)

    upstream = 3.0 * torch.ones_like(step(logits, target))
    expected = step(logits, target), *torch.autograd.grad(step(logits, target), logits, upstream)
    compiled = torch.compile(step, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    loss = compiled(logits, target)
    assert_close((loss, *torch.autograd.grad(loss, logits, upstream)), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
def test_the_operators_are_well_formed():
    logits, target = logits_and_target(3, 37)
    arguments = (target, None, None, [0.3, 0.0, 0.0, 0.0, 1.0], [True, False, False, False, True], False, -100)
    logits.requires_grad_()
    torch.library.opcheck(torch.ops.maxsup.fused_loss, (logits, *arguments, "sum", torch.float32))
    soft = logits.detach().softmax(1), *arguments[1:]
    torch.library.opcheck(torch.ops.maxsup.fused_loss, (logits, *soft, "sum", torch.float32))
    torch.library.opcheck(
        torch.ops.maxsup.fused_loss_gradient, (torch.tensor(1.0, device=DEVICE), logits.detach(), *arguments)
    )


def test_autocast_gives_a_float32_loss():
    logits, target = logits_and_target(3, 37, torch.bfloat16)
    with torch.autocast(DEVICE, torch.bfloat16):
        loss = max_sup_cross_entropy(logits, target, 0.3, impl="triton")
        expected = max_sup_cross_entropy(logits, target, 0.3, impl="torch")
    assert loss.dtype == torch.float32
    assert_close(loss, expected)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("k", [2, 5, 37, 100, 1000, 4097, 8192, 16384, 32000, 50257, 131072, 262144])
def test_cuts_hold_a_row_and_fit_a_multiprocessor(k, size):
    logits = torch.empty(2, k, dtype={2: torch.bfloat16, 4: torch.float32}[size])
    layout = plans.layout_of(logits)
    assert layout == {
        37: plans.Layout(16 // size, True),
        4097: plans.Layout(16 // size, True),
        50257: plans.Layout(16 // size, True),
        100: plans.Layout(4, False),
        5: plans.Layout(1, False),
        2: plans.Layout(2, False),
    }.get(k, plans.Layout(16 // size, False))
    plan = plans.plan_of(k, size, layout)
    assert plan.stream == (k * size > 32768)
    part = plan.groups * plan.chunks * layout.vector
    assert part * plan.parts >= k - (2 * layout.vector - 2 if layout.edges else 0)
    assert part * (plan.parts - 1) + plan.groups * (plan.chunks - 1) * layout.vector < k
    assert plan.programs * plan.warps * 32 * plan.registers <= 65536


# From here on a GPU is what is tested.
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [3, 8, 31, 37, 100, 999, 1000, 4097, 32000, 50257, 131072, 262144])
def test_gpu_rows_of_every_length(k, dtype):
    n = 300 if k > 10_000 else 3000
    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn(n, k, device="cuda", generator=generator).to(dtype)
    target = torch.randint(k, (n,), device="cuda", generator=generator)
    target[::7] = -100
    logits[1::50, 0], target[1::50] = -torch.inf, 1
    logits.requires_grad_()
    loss = max_sup_cross_entropy(logits, target, 0.3, impl="triton")
    (gradient,) = torch.autograd.grad(loss, logits)
    z = logits.detach().double().requires_grad_()
    exact = max_sup_cross_entropy(z, target, 0.3, impl="torch")
    (exact_gradient,) = torch.autograd.grad(exact, z)
    precision = 2e-6 if dtype == torch.float32 else 4e-3
    assert_close(loss.double(), exact, rtol=precision, atol=0)
    assert (gradient.double() - exact_gradient).norm() / exact_gradient.norm() < precision


@gpu
@needs_gpu
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 8])
@pytest.mark.parametrize("k", [50257, 131072])
def test_gpu_programs_that_share_a_row(k, parts, inplace, monkeypatch):
    cut = functools.partial(plans.stream_plan, warps=4, programs=2, parts=parts, prefetch=2)
    monkeypatch.setattr(launch, "plan_of", lambda k, size, layout, soft=0: cut(k, layout, 4096))
    generator = torch.Generator("cuda").manual_seed(0)
    leaf = torch.randn(500, k, device="cuda", generator=generator)
    target = torch.randint(k, (500,), device="cuda", generator=generator)
    target[::7] = -100
    leaf[1::5, 3] = -torch.inf
    target[target == 3] = 4
    # Equal maxima in the first, a middle and the last part, or at the edges; the target is one of them or none.
    leaf[::3, torch.tensor([k // 2, k - 1])] = 9.0
    leaf[::6, 0] = 9.0
    target[::4] = k // 2
    target[2::8], target[6::8] = 0, k - 1
    leaf.requires_grad_()
    for _ in range(3):  # what one launch left must not matter to the next
        loss = max_sup_cross_entropy(leaf * 1, target, 0.3, impl="triton", inplace=inplace)
        (gradient,) = torch.autograd.grad(loss, leaf)
    z = leaf.detach().double().requires_grad_()
    exact = max_sup_cross_entropy(z, target, 0.3, impl="torch")
    (exact_gradient,) = torch.autograd.grad(exact, z)
    assert_close(loss.double(), exact, rtol=2e-6, atol=0)
    assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-9)


@gpu
@needs_gpu
def test_gpu_offsets_beyond_32_bits():
    n, k = 33_000, 65_537  # 2.16e9 logits
    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn(1, k, device="cuda", dtype=torch.bfloat16, generator=generator).repeat(n, 1).requires_grad_()
    target = torch.full((n,), 3, device="cuda")
    loss = max_sup_cross_entropy(logits, target, 0.3, impl="triton", reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    # A row begins at one of 8 places between multiples of 16 bytes, on which the order of its sums depends.
    assert torch.equal(loss[-8:], loss[:8])
    assert torch.equal(gradient[-8:], gradient[:8])
    assert_close(loss, loss[:1].expand(n), rtol=1e-6, atol=0)
    z = logits[-1:].detach().double().requires_grad_()
    exact = max_sup_cross_entropy(z, target[:1], 0.3, impl="torch")
    (exact_gradient,) = torch.autograd.grad(exact, z)
    assert_close(loss[-1].double(), exact, rtol=1e-2, atol=0)  # of bfloat16
    assert_close(gradient[-1:].double(), exact_gradient, rtol=1e-2, atol=1e-9)


@gpu
@needs_gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gpu_triton_searches_once(reduction, monkeypatch):
    logits, target = logits_and_target(64, 1000)
    leaf = logits.requires_grad_()

    def step(rows):
        loss = max_sup_cross_entropy(leaf[:rows], target[:rows], 0.1, reduction=reduction)
        return torch.autograd.grad(loss.sum(), leaf)[0]

    expected = step(64)[:50]

    def search(*arguments, **options):
        raise AssertionError("Triton was asked again")

    monkeypatch.setattr(triton.JITFunction, "run", search)
    found = step(50)[:50]
    assert_close(found * (50 / 64 if reduction == "mean" else 1), expected)


@gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_gpu_logits_on_another_device_than_the_current_one():
    logits, target = logits_and_target(5, 100)
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        leaf = logits.to(device).requires_grad_()
        loss = max_sup_cross_entropy(leaf, target.to(device), 0.3, impl="triton")
        (gradient,) = torch.autograd.grad(loss * 2, leaf)
        exact = max_sup_cross_entropy(leaf, target.to(device), 0.3, impl="torch")
        assert_close(loss, exact)
        assert_close(gradient, torch.autograd.grad(exact * 2, leaf)[0])
        assert torch.cuda.current_device() == 0


@gpu
@needs_gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gpu_no_host_synchronisation(reduction):
    logits, target = logits_and_target(3000, 100)
    logits.requires_grad_()
    alpha = torch.tensor(0.3, device="cuda")
    weight = torch.rand(100, device="cuda")

    def step():
        loss = max_sup_cross_entropy(logits, target, alpha, weight=weight, reduction=reduction)
        return torch.autograd.grad(loss.sum() * 3, logits)

    step()
    with no_host_synchronisation():
        step()


@gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")  # the warm-up's, by design
def test_gpu_graph():
    logits, target = logits_and_target(3000, 100)
    logits.requires_grad_()
    alpha = torch.tensor(0.3, device="cuda")

    def step():
        loss = max_sup_cross_entropy(logits, target, alpha)
        return loss, *torch.autograd.grad(loss, logits)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        logits.copy_(torch.randn_like(logits))
        alpha.fill_(0.7)
    graph.replay()
    assert_close(captured, step())


@gpu
@needs_gpu
def test_gpu_a_new_strength_compiles_nothing():
    from maxsup.kernels.tile_kernel import tile_kernel

    logits, target = logits_and_target(64, 100)

    def compiled():
        return sum(len(cache[0]) for cache in tile_kernel.device_caches.values())

    for strengths in ((0.1, 0.2, 1, 3.5), [torch.tensor(x, device="cuda") for x in (0.1, 0.7)]):
        counts = []
        for strength in strengths:
            max_sup_cross_entropy(logits, target, strength)
            counts.append(compiled())
        assert len(set(counts)) == 1


@gpu
@needs_gpu
def test_gpu_an_index_out_of_range_makes_nan():
    logits, target = logits_and_target(3, 37)
    logits.requires_grad_()
    target[1] = 37
    loss = max_sup_cross_entropy(logits, target, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isnan().tolist() == [False, True, False]
    assert gradient.isnan().all(1).tolist() == [False, True, False]


@gpu
@needs_gpu
def test_gpu_gradient_scaler_keeps_small_float16_gradients():
    logits, target = logits_and_target(4096, 1000, torch.float16)
    logits.requires_grad_()
    with torch.autocast("cuda", torch.float16):
        loss = max_sup_cross_entropy(logits, target, 0.1)
    (gradient,) = torch.autograd.grad(loss * 65536.0, logits)
    z = logits.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(F.cross_entropy(z, target) + 0.1 * (z.max(1).values - z.mean(1)).mean(), z)
    assert (gradient.double() / 65536 - exact).norm() / exact.norm() < 1e-3
    assert ((gradient == 0) & (exact != 0)).double().mean() < 1e-3


@gpu
@needs_gpu
def test_gpu_sums_on_two_streams_at_once_are_their_own():
    logits, target = logits_and_target(20_000, 100)
    expected = max_sup_cross_entropy(logits, target, impl="torch")
    halved = max_sup_cross_entropy(logits / 2, target, impl="torch")
    half = logits / 2
    streams = torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    losses = []
    for _ in range(50):
        for stream, z in zip(streams, (logits, half), strict=True):
            with torch.cuda.stream(stream):
                losses.append(max_sup_cross_entropy(z, target, impl="triton"))
    torch.cuda.synchronize()
    losses = torch.stack(losses).unflatten(0, (-1, 2))
    assert_close(losses[0], torch.stack([expected, halved]), rtol=1e-5, atol=0)
    assert (losses == losses[0]).all()  # the same to the last bit, whichever program came last
