"""Compiled, captured, scaled and distributed steps: what a training loop wraps around a loss."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.testing import assert_close

from tests.gpu import no_host_synchronisation
from tests.loss_cases import CASES, batch, value_and_gradient

GPU = pytest.mark.gpu
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ALL = pytest.mark.parametrize("name", CASES)
OPTIONS = {"weight": torch.linspace(0.5, 2, 5, dtype=torch.float64), "ignore_index": -1}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def module(name, **options):
    """The method's module, with the extra arguments of its call."""
    case = CASES[name]
    if name == "online":
        return case.module(5, 0.3, **options).eval(), {}
    extra = case.extra(batch()[0], torch.arange(5))
    return case.module(0.3, **case.options, **options), extra


@ALL
def test_a_compiled_step_is_one_graph_and_a_new_alpha_recompiles_nothing(name):
    logits, target = batch()
    target[2] = -1
    loss, extra = module(name, **OPTIONS)
    loss = loss.double()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    compilations = []
    for alpha in (0.1, 0.25, 0.3):
        loss.alpha = alpha
        expected = value_and_gradient(loss, logits, target, **extra)
        assert_close(value_and_gradient(compiled, logits, target, **extra), expected)
        compilations.append(counter.frame_count)
    assert compilations[0] == compilations[-1] > 0


@pytest.mark.parametrize("name", ["max-sup", "label-smoothing"])
@pytest.mark.parametrize("soft", [False, True])
def test_code_that_inductor_made_gives_the_same(name, soft):
    logits, target = batch(8, 13, dtype=torch.float32)
    with torch.no_grad():
        logits[0, 3] = -torch.inf if not soft else 0.0
        logits[1] = 0.0  # ties
    target[0] = 4
    if soft:
        target = F.one_hot(target, 13).float().mul(0.8).add(0.2 / 13)
    compiled = torch.compile(CASES[name], fullgraph=True)
    alpha = torch.tensor(0.3)
    expected = value_and_gradient(CASES[name], logits, target, alpha)
    assert_close(value_and_gradient(compiled, logits, target, alpha), expected)


def test_compiled_gradients_of_large_logits_are_as_exact_as_eager_ones():
    logits = torch.tensor([[3e4, 3e4 - 0.5, 3e4 - 1.0]] * 2, requires_grad=True)
    target = torch.tensor([1, 1])
    exact = value_and_gradient(CASES["max-sup"], logits.detach().double().requires_grad_(), target, 0.1)
    ours = value_and_gradient(torch.compile(CASES["max-sup"], fullgraph=True), logits, target, 0.1)
    assert_close(ours[1].double(), exact[1], rtol=1e-6, atol=1e-7)


@ALL
def test_grad_scaler_scales_the_gradient_and_takes_it_back(name):
    torch.manual_seed(0)
    layer, images, target = nn.Linear(4, 5), torch.randn(6, 4), torch.randint(5, (6,))
    loss, extra = module(name)
    (loss(layer(images), target, **extra)).backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler.scale(loss(layer(images), target, **extra)).backward()
    assert_close(layer.weight.grad, expected * 1024)
    scaler.unscale_(optimizer)
    assert_close(layer.weight.grad, expected)


@GPU
@CUDA
@ALL
def test_a_step_on_a_gpu_is_that_of_the_cpu_and_never_waits_for_the_device(name):
    logits, target = batch(dtype=torch.float32)
    loss, extra = module(name, weight=OPTIONS["weight"].float())
    expected = value_and_gradient(loss, logits, target, **extra)
    device_logits = logits.detach().cuda().requires_grad_()
    loss, target = loss.cuda(), target.cuda()
    extra = {key: value if value is None else value.cuda() for key, value in extra.items()}
    value_and_gradient(loss, device_logits, target, **extra)
    torch.cuda.synchronize()
    with no_host_synchronisation():
        ours = value_and_gradient(loss, device_logits, target, **extra)
    assert_close(ours, tuple(part.cuda() for part in expected), rtol=1e-5, atol=1e-6)


@GPU
@CUDA
@ALL
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")  # the warm-up's, by design
def test_a_captured_step_replays_with_new_logits_and_a_new_alpha(name):
    loss, extra = module(name)
    loss = loss.cuda()
    extra = {key: value if value is None else value.float().cuda() for key, value in extra.items()}
    logits, target = (part.cuda() for part in batch(dtype=torch.float32))
    logits = logits.detach().requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            logits.grad = None
            loss(logits, target, **extra).backward()
    torch.cuda.current_stream().wait_stream(side)
    logits.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(logits, target, **extra)
        value.backward()
    loss.alpha = 0.7
    with torch.no_grad():
        logits.copy_(batch(seed=3)[0].detach().float())
    graph.replay()
    replayed = value.detach().clone(), logits.grad.clone()
    assert_close(replayed, value_and_gradient(loss, logits.detach().clone().requires_grad_(), target, **extra))


@GPU
@CUDA
@ALL
def test_ties_on_a_gpu_go_to_the_lowest_index(name):
    logits = torch.zeros(3, 5)
    logits[1, 2:] = 1.0
    target = torch.tensor([4, 4, 0])
    loss, extra = module(name)
    extra = {key: value if value is None else value[:3].float() for key, value in extra.items()}
    expected = value_and_gradient(loss, logits.requires_grad_(), target, **extra)
    extra = {key: value if value is None else value.cuda() for key, value in extra.items()}
    on_device = logits.detach().cuda().requires_grad_()
    ours = value_and_gradient(loss.cuda(), on_device, target.cuda(), **extra)
    assert_close(ours, tuple(part.cuda() for part in expected), rtol=1e-5, atol=1e-6)
