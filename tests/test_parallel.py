"""The loss of sharded logits, in real processes, against the loss of all logits in one.

The processes stay for the whole file and take cases from the test; each case runs in all of them.
"""

import math
import os

import pytest
import torch
from torch import distributed, multiprocessing
from torch.testing import assert_close

from maxsup.functional import max_sup_cross_entropy
from maxsup.parallel import sharded_max_sup_cross_entropy

RANKS = 2
N, K = 7, 11
INF = math.inf
OPTIONS = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "num_items": {"num_items": 3},
    "ignored": {"ignore_index": 5},
    "ignored, none": {"ignore_index": 5, "reduction": "none"},
    "smoothed": {"label_smoothing": 0.2},
    "alpha 0": {"alpha": 0},
    "alpha in a tensor": {"alpha": torch.tensor(0.3)},
}
SIZES = [(6, 5), (1, 10), (11, 0), (0, 11)]


def logits_and_target(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(N, K, generator=generator, dtype=torch.float64) * 3).to(dtype)
    target = torch.randint(K, (N,), generator=generator)
    target[2:4] = 5
    return logits, target


def value_and_gradient(function, logits, target, **options):
    """Loss and gradient for an upstream gradient that differs by row."""
    logits = logits.detach().requires_grad_()
    loss = function(logits, target, **{"alpha": 0.3} | options)
    upstream = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype, device=loss.device).reshape(loss.shape)
    loss.backward(upstream)
    return loss.detach(), logits.grad


def as_shards(rank, logits, target, sizes, exchange, options):
    """Loss and the gradient of this rank's columns."""
    first = sum(sizes[:rank])
    shard = logits.narrow(min(1, logits.dim() - 1), first, sizes[rank])
    given = {} if exchange else {"shard_sizes": sizes}
    return value_and_gradient(sharded_max_sup_cross_entropy, shard, target, **given, **options)


def as_dtensor(rank, logits, target, placement, options):
    """Loss and whole gradient; the target is a DTensor too."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = distributed.device_mesh.init_device_mesh("cpu", (RANKS,))
    loss, gradient = value_and_gradient(
        sharded_max_sup_cross_entropy,
        distribute_tensor(logits, mesh, [Shard(placement)]),
        distribute_tensor(target, mesh, [Replicate()]),
        **options,
    )
    assert gradient.placements == (Shard(placement % logits.dim()),)
    return loss, gradient.full_tensor()


def message_of(rank, function, *arguments):
    """Type and text of the error that a case raises."""
    try:
        function(rank, *arguments)
    except Exception as error:
        return type(error), str(error)
    return None


def second_derivative(rank, logits, target):
    shard = logits.detach()[:, :3].requires_grad_()
    loss = sharded_max_sup_cross_entropy(shard, target % 3)
    (gradient,) = torch.autograd.grad(loss, shard, create_graph=True)
    gradient.sum().backward()


def serve(rank, folder, connection):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    while (case := connection.recv()) is not None:
        function, arguments = case
        try:
            connection.send(function(rank, *arguments))
        except Exception as error:
            connection.send(error)
    distributed.destroy_process_group()
    # DTensor's caches keep the group, and gloo's threads could abort the process while its interpreter ends.
    os._exit(0)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """A function that runs function(rank, *arguments) in every process and returns the results."""
    if not distributed.is_gloo_available():
        pytest.skip("this PyTorch was built without gloo")
    context = multiprocessing.get_context("spawn")
    folder = str(tmp_path_factory.mktemp("ranks"))
    pipes = [context.Pipe() for _ in range(RANKS)]
    processes = [context.Process(target=serve, args=(r, folder, pipes[r][1]), daemon=True) for r in range(RANKS)]
    for process in processes:
        process.start()

    def run(function, *arguments):
        for pipe, _ in pipes:
            pipe.send((function, arguments))
        results = []
        for pipe, _ in pipes:
            assert pipe.poll(60), "a process does not answer"
            results.append(pipe.recv())
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    yield run
    for pipe, _ in pipes:
        pipe.send(None)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def assert_sharded_is_whole(ranks, logits, target, sizes=(6, 5), exchange=False, precision=None, **options):
    expected, gradient = value_and_gradient(max_sup_cross_entropy, logits, target, **options)
    results = ranks(as_shards, logits, target, sizes, exchange, options)
    tolerance = {} if precision is None else {"rtol": precision, "atol": precision}
    for loss, _ in results:
        assert_close(loss, expected, equal_nan=True, **tolerance)
    ours = torch.cat([part for _, part in results], min(1, logits.dim() - 1))
    assert_close(ours, gradient, equal_nan=True, **tolerance)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_sharded_loss_is_the_whole(ranks, name):
    assert_sharded_is_whole(ranks, *logits_and_target(), **OPTIONS[name])


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("exchange", [False, True])
def test_uneven_shards(ranks, sizes, exchange):
    assert_sharded_is_whole(ranks, *logits_and_target(), sizes, exchange, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float64, 1e-14), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)]
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_types(ranks, dtype, precision, reduction):
    assert_sharded_is_whole(ranks, *logits_and_target(dtype), precision=precision, reduction=reduction)


def test_ties_over_shards_go_to_the_lowest_class(ranks):
    logits = torch.zeros(3, 4)
    logits[1, 1:] = 1.0  # classes 1, 2 and 3, of both shards
    logits[2, 2:] = 1.0  # the second shard's alone
    results = ranks(as_shards, logits, torch.tensor([3, 3, 0]), (2, 2), False, {"reduction": "sum"})
    q = logits.softmax(1)
    expected = 0.5 * (q - torch.eye(4)[[3, 3, 0]] + 0.3 * (torch.eye(4)[[0, 1, 2]] - 1 / 4))
    assert_close(torch.cat([part for _, part in results], 1), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_absent_classes_and_nan(ranks, reduction):
    logits, target = logits_and_target()
    target = torch.tensor([0, 8, 3, 3, 10, 1, 2])
    logits[0, 1:7] = -INF
    logits[1, :6] = -INF  # a whole shard
    logits[2, 3] = -INF  # the target
    logits[3] = -INF
    logits[4, 2] = torch.nan
    assert_sharded_is_whole(ranks, logits, target, reduction=reduction)
    assert_sharded_is_whole(ranks, logits, target, reduction=reduction, label_smoothing=0.2)


def test_ignored_rows_may_hold_anything(ranks):
    logits, target = logits_and_target()
    logits[2] = torch.nan
    logits[3] = INF
    keep = target != 5
    expected, gradient = value_and_gradient(max_sup_cross_entropy, logits[keep], target[keep])
    for rank, (loss, part) in enumerate(ranks(as_shards, logits, target, (6, 5), False, {"ignore_index": 5})):
        assert_close(loss, expected)
        assert_close(part[keep], gradient[:, :6] if rank == 0 else gradient[:, 6:])
        assert (part[~keep] == 0).all()


def test_nothing_but_ignored_rows_and_no_rows(ranks):
    logits, target = logits_and_target()
    for rows, labels in ((logits, torch.full_like(target, -100)), (logits[:0], target[:0])):
        for loss, part in ranks(as_shards, rows, labels, (6, 5), False, {}):
            assert math.isnan(loss)
            assert_close(part, torch.zeros_like(part))


def test_other_shapes(ranks):
    logits, target = logits_and_target()
    dense = logits[:6].reshape(2, 3, K).movedim(2, 1)
    assert_sharded_is_whole(ranks, dense, target[:6].reshape(2, 3))
    assert_sharded_is_whole(ranks, dense, target[:6].reshape(2, 3), reduction="none")
    assert_sharded_is_whole(ranks, logits[0], target[0])


@pytest.mark.parametrize("placement", [1, -1])
@pytest.mark.parametrize("k", [K, 1])  # 6 and 5 classes, 1 and none
def test_dtensor(ranks, placement, k):
    logits, target = logits_and_target()
    logits, target = logits[:, :k].contiguous(), target % k
    for reduction in ("mean", "none"):
        expected = value_and_gradient(max_sup_cross_entropy, logits, target, reduction=reduction)
        for result in ranks(as_dtensor, logits, target, placement, {"reduction": reduction}):
            assert_close(result, expected)


def test_errors_name_the_argument_the_value_and_what_is_accepted(ranks):
    logits, target = logits_and_target()

    def assert_raised(case, error, text):
        for kind, message in ranks(message_of, *case):
            assert kind is error
            assert text in message

    shards = (as_shards, logits, target, (6, 5), False)
    assert_raised((*shards, {"alpha": -1.0}), ValueError, "alpha must be a number of at least 0, got -1")
    assert_raised((*shards, {"alpha": torch.tensor(0.1, requires_grad=True)}), ValueError, "alpha requires a gradient")
    assert_raised((*shards, {"reduction": "max"}), ValueError, "reduction must be one of mean, sum, none, got 'max'")
    assert_raised((*shards, {"label_smoothing": 2.0}), ValueError, "label_smoothing must be a number from 0 to 1")
    assert_raised((as_shards, logits, target + 7, (6, 5), False, {}), IndexError, "class indices from 0 to 10")
    assert_raised((as_shards, logits, target[:3], (6, 5), False, {}), ValueError, "target must have shape (7,)")
    assert_raised((wrong_sizes, logits, target), ValueError, "numbers of classes of 2 ranks")
    assert_raised(
        (as_dtensor, logits, target, 0, {}), ValueError, "input must be sharded on its dimension of classes, 1"
    )
    assert_raised((as_dtensor, logits, target, 1, {"shard_sizes": [6, 5]}), ValueError, "come with a DTensor")
    assert_raised(
        (second_derivative, logits, target),
        RuntimeError,
        "the sharded loss has no second derivative: pass all its logits",
    )


def wrong_sizes(rank, logits, target):
    sharded_max_sup_cross_entropy(logits[:, :6] if rank == 0 else logits[:, 6:], target, shard_sizes=[7, 4])


def gpu_worker(rank, folder):
    torch.cuda.set_device(rank)
    distributed.init_process_group("nccl", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        logits, target = (x.cuda() for x in large_logits_and_target(dtype))
        for exchange in (False, True):
            results[dtype, exchange] = as_shards(
                rank, logits, target, (30_000, 20_257), exchange, {"label_smoothing": 0.1}
            )
    torch.save({key: [x.cpu() for x in value] for key, value in results.items()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def large_logits_and_target(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(512, 50_257, generator=generator) * 3).to(dtype)
    logits[0] = 0.0  # ties over both shards
    target = torch.randint(50_257, (512,), generator=generator)
    target[::7] = -100
    return logits, target


@pytest.mark.gpu
@pytest.mark.skipif(
    torch.cuda.device_count() < RANKS or not distributed.is_nccl_available(), reason="needs two CUDA devices and NCCL"
)
def test_two_gpus(tmp_path):
    context = multiprocessing.spawn(gpu_worker, (str(tmp_path),), nprocs=RANKS, join=False)
    while not context.join(timeout=120):
        pass
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for dtype in (torch.float32, torch.bfloat16):
        logits, target = large_logits_and_target(dtype)
        exact_loss, exact = value_and_gradient(max_sup_cross_entropy, logits.double(), target, label_smoothing=0.1)
        # Near 0 a gradient is a difference of rounded shares: what it is exact to is its row's largest.
        largest = exact.abs().amax(1, keepdim=True)
        precision = 1e-6 if dtype == torch.float32 else 2**-8
        for exchange in (False, True):
            parts = [result[dtype, exchange] for result in results]
            for loss, _ in parts:
                assert_close(loss.double(), exact_loss, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=0)
            gradient = torch.cat([part for _, part in parts], 1).double()
            assert ((gradient - exact).abs() <= precision * largest).all()
            assert (gradient - exact).norm() < precision * exact.norm()
