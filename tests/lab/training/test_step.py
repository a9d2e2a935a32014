import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from maxsup import MaxSupCrossEntropyLoss
from maxsup.lab.training.graph import EAGER_STEPS
from maxsup.lab.training.step import Step, autocast


def small_network(device="cpu"):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
    return nn.Sequential(*layers).to(device)


def batch(n, device="cpu"):
    generator = torch.Generator().manual_seed(n)
    images, labels = torch.rand(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator)
    return images.to(device), labels.to(device)


def step_of(network, **options):
    return Step(network, MaxSupCrossEntropyLoss(0.2), precision="float32", full_size=6, **options)


@pytest.mark.parametrize("n", [6, 4])
def test_a_step_adds_the_weighted_gradient_and_counts_what_is_right(n):
    network, (images, labels) = small_network(), batch(n)
    reference = copy.deepcopy(network)
    logits = reference(images)
    loss = F.cross_entropy(logits, labels) + 0.2 * (logits.max(1).values - logits.mean(1)).mean()
    (0.25 * loss).backward()
    step = step_of(network)
    total = step(images, labels, torch.tensor(0.25))
    assert total.dtype == torch.float64
    right = int((logits.argmax(1) == labels).sum())
    assert total.tolist() == pytest.approx([n * loss.item(), right, n], rel=1e-6)
    for own, expected in zip(network.parameters(), reference.parameters(), strict=True):
        assert_close(own.grad, expected.grad)


def test_labels_may_be_probabilities():
    images, labels = batch(6)
    total = step_of(small_network())(images, labels, torch.tensor(1.0))
    soft = step_of(small_network())(images, F.one_hot(labels, 3).float(), torch.tensor(1.0))
    assert_close(soft, total)


def test_a_compiled_step_is_the_eager_one_and_other_sizes_are_not_compiled(monkeypatch):
    seen = []

    def compile(function, **options):
        assert options == {"dynamic": False}

        def compiled(images, labels):
            seen.append(len(images))
            return torch._dynamo.optimize("aot_eager", nopython=True)(function)(images, labels)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    eager, compiled = small_network(), small_network()
    steps = step_of(eager), step_of(compiled, compile=True)
    for n in (6, 4, 6):
        totals = [step(*batch(n), torch.tensor(0.5)) for step in steps]
        assert_close(totals[0], totals[1])
    assert seen == [6, 6]
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert_close(one.grad, other.grad)
    assert_close(eager.state_dict(), compiled.state_dict())


def test_auto_precision_is_full_on_a_cpu():
    images, cpu = torch.rand(2, 1, 8, 8), torch.device("cpu")
    with autocast("auto", cpu):
        assert small_network()(images).dtype == torch.float32
    with autocast("bfloat16", cpu):
        assert small_network()(images).dtype == torch.bfloat16
    assert small_network()(images).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_graph_gives_the_eager_numbers_bit_by_bit(set_to_none):
    """Replays, and eager steps between them, with gradients that are dropped or zeroed in place; dropout draws anew."""
    runs = []
    for graph in (False, True):
        network = small_network("cuda")
        network.insert(3, nn.Dropout(0.5))
        loss = MaxSupCrossEntropyLoss(0.2).cuda()
        step = Step(network, loss, precision="bfloat16", full_size=6, graph=graph)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        torch.manual_seed(1)
        totals = []
        for n in [6] * (EAGER_STEPS + 2) + [4] + [6] * 3:
            totals.append(step(*batch(n, "cuda"), torch.tensor(0.5, device="cuda")).clone())
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            loss.alpha = loss.alpha.item() + 0.1  # a schedule's value is seen by the graph
        runs.append((totals, network.state_dict()))
    (eager, weights), (graphed, same) = runs
    assert all(torch.equal(one, other) for one, other in zip(eager, graphed, strict=True))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
