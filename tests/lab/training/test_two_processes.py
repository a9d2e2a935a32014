"""Two processes over gloo train what one trains, to rounding, at the same batch; either resumes the other's run."""

import dataclasses
import os
import socket
import weakref

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing, nn
from torch.testing import assert_close

from maxsup.lab import models, train
from maxsup.lab.checkpoint import CheckpointFile
from maxsup.lab.processes import leave
from maxsup.lab.recipes import Data, Model, Optimizer
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, read_json, read_json_lines
from maxsup.lab.training.batch_norm import synchronize_batch_norm

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch was built without gloo")

RANKS = 2
# 229 images in batches of 64: the last batch has 37, of which the processes get 19 and 18.
BASE = dataclasses.replace(digits_convnet(), epochs=2, data=Data(name="digits", train_size=229, pad_crop=1))
# No batch norm. Not by Adam, which makes full steps of the rounding in the keys' biases, whose gradient is 0.
TRANSFORMER = dataclasses.replace(
    BASE, model=Model("deit_tiny_patch16_224", image_size=8, patch_size=4, depth=1), optimizer=Optimizer(lr=0.01)
)
CASES = {
    # Batch norm over both processes, and a table that both fill.
    "online-label-smoothing": BASE,
    # Parts of a batch, of which the last two have 32 and 5 images and weigh accordingly.
    "zipf-label-smoothing": dataclasses.replace(
        BASE,
        accumulate=2,
        clip_norm=0.5,
        ema=0.8,
        optimizer=Optimizer(lr=0.05, warmup_epochs=0, schedule="multistep", milestones=(1,)),
    ),
    "max-sup": TRANSFORMER,
    # Weights, gradients and momenta in pieces.
    "cross-entropy": dataclasses.replace(TRANSFORMER, shard=True, accumulate=2, clip_norm=0.5),
    "label-smoothing": dataclasses.replace(BASE, shard=True),
}
LOCAL = dataclasses.replace(BASE, epochs=1, sync_batch_norm=False)


def smooth(build=models.build):
    """Makes the small network smooth: rounding moves a few of its ReLUs over their kink, and the gradient by 0.5%.

    In float64 a step of the network with ReLU agrees to 1e-15.
    """

    def built(*arguments):
        network = build(*arguments)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Tanh())
        return network

    models.build = built
    models.ResidualBlock.forward = lambda self, x: torch.tanh(self.body(x) + self.shortcut(x))


@pytest.fixture(autouse=True, scope="module")
def smooth_network():
    before = models.build, models.ResidualBlock.forward
    smooth()
    yield
    models.build, models.ResidualBlock.forward = before


def normalized(shares, rank):
    """What batch norm makes of a process's images, in float64, and its gradients and statistics."""
    torch.manual_seed(0)
    batch = torch.randn(sum(shares), 3, 4, 4, dtype=torch.float64) * 2 + 1
    upstream = torch.randn_like(batch)
    own = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    module = nn.BatchNorm2d(3).double()
    nn.init.normal_(module.weight)
    if len(shares) > 1:
        synchronize_batch_norm(module, torch.device("cpu"))
    images = batch[own].clone().requires_grad_()
    out = module(images)
    (out * upstream[own]).sum().backward()
    return {
        "out": out.detach(),
        "images": images.grad,
        "weights": torch.stack([module.weight.grad, module.bias.grad]),
        "statistics": torch.stack([module.running_mean, module.running_var]),
        "evaluated": module.eval()(batch).detach(),
    }


def stop_after_one_epoch(recipe, method, directory):
    """Trains one epoch and is interrupted in the second, as every process of a launch is."""
    slow = CheckpointFile.SLOW_SECONDS
    CheckpointFile.SLOW_SECONDS = float("inf")  # however busy the machine is, a checkpoint every epoch
    real = train.train_epoch

    def interrupted(run, *arguments):
        if run.epoch == 1:
            raise KeyboardInterrupt
        return real(run, *arguments)

    train.train_epoch = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            train.train(recipe, method, 0, directory)
    finally:
        train.train_epoch = real
        CheckpointFile.SLOW_SECONDS = slow


def worker(rank, port, folder):
    smooth()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    results = {method: train.train(recipe, method, 0, folder / method) for method, recipe in CASES.items()}
    results["local"] = train.train(LOCAL, "max-sup", 0, folder / "local")
    stop_after_one_epoch(BASE, "online-label-smoothing", folder / "two-then-one")
    stop_after_one_epoch(CASES["cross-entropy"], "cross-entropy", folder / "sharded-then-one")
    results["one-then-two"] = train.train(BASE, "online-label-smoothing", 0, folder / "one-then-two")
    results["one-then-sharded"] = train.train(CASES["cross-entropy"], "cross-entropy", 0, folder / "one-then-sharded")
    with pytest.raises(RecordError, match=r"recipe\.epochs: 2 -> 3"):
        train.train(dataclasses.replace(BASE, epochs=3), "online-label-smoothing", 0, folder / "one-then-two")
    torch.save(results, folder / f"results-{rank}.pt")
    torch.save(normalized([5, 2], rank), folder / f"normalized-{rank}.pt")
    group = weakref.ref(distributed.group.WORLD)
    leave()
    assert group() is None  # a group that is kept keeps its threads, which can abort the process at its end


@pytest.fixture(scope="module")
def folders(tmp_path_factory, smooth_network):
    """The runs of one process and those of two."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    for method, recipe in CASES.items():
        train.train(recipe, method, 0, alone / method)
    stop_after_one_epoch(BASE, "online-label-smoothing", together / "one-then-two")
    stop_after_one_epoch(CASES["cross-entropy"], "cross-entropy", together / "one-then-sharded")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, together), nprocs=RANKS)
    return alone, together


def numbers(record):
    """What of a record is a number, apart from its times."""
    return {name: value for name, value in record.items() if value is not None and name != "seconds"}


def assert_same_run(one, other):
    """Outputs, weights, measures and metrics agree to rounding, which an epoch of training amplifies a little."""
    for file in ("outputs.safetensors", "model.safetensors"):
        assert_close(load_file(one / file), load_file(other / file), rtol=1e-3, atol=1e-4)
    measures, same = (read_json(run / "result.json")["measures"] for run in (one, other))
    for split in ("train", "validation", "test"):
        assert numbers(same[split]) == pytest.approx(numbers(measures[split]), rel=1e-3, abs=1e-5)
    for row, again in zip(*(read_json_lines(run / "metrics.jsonl") for run in (one, other)), strict=True):
        assert numbers(again) == pytest.approx(numbers(row), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", CASES)
def test_two_processes_train_what_one_trains(folders, method):
    assert_same_run(*(folder / method for folder in folders))
    assert [read_json(folder / method / "run.json")["processes"] for folder in folders] == [1, 2]


def test_every_process_returns_the_result(folders):
    results = [torch.load(folders[1] / f"results-{rank}.pt") for rank in range(RANKS)]
    assert results[0] == results[1]
    for name, result in results[0].items():
        assert result == read_json(folders[1] / name / "result.json")


@pytest.mark.parametrize(
    ("folder", "method"), [("two-then-one", "online-label-smoothing"), ("sharded-then-one", "cross-entropy")]
)
def test_a_checkpoint_of_two_processes_is_resumed_by_one(folders, folder, method):
    alone, together = folders
    assert len(read_json_lines(together / folder / "metrics.jsonl")) == 1
    seen = []
    train.train(CASES[method], method, 0, together / folder, on_epoch=seen.append)
    assert [row["epoch"] for row in seen] == [1]
    assert_same_run(alone / method, together / folder)


@pytest.mark.parametrize(
    ("folder", "method"), [("one-then-two", "online-label-smoothing"), ("one-then-sharded", "cross-entropy")]
)
def test_a_checkpoint_of_one_process_is_resumed_by_two(folders, folder, method):
    alone, together = folders
    assert_same_run(alone / method, together / folder)


def test_what_cannot_be_sharded_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shard: a moving average cannot be spread over processes, got ema 0\.9"):
        dataclasses.replace(BASE, shard=True, ema=0.9)
    with pytest.raises(ValueError, match="shard: zipf-label-smoothing applies the head by itself"):
        train.train(dataclasses.replace(BASE, shard=True), "zipf-label-smoothing", 0, tmp_path)


def test_batch_norm_over_each_processs_own_images_is_another_run(folders):
    alone, together = folders
    ones, twos = (
        read_json_lines(run / "metrics.jsonl")[0] for run in (alone / "online-label-smoothing", together / "local")
    )
    assert abs(ones["train_loss"] - twos["train_loss"]) > 1e-3
    assert read_json(together / "local" / "result.json")["measures"]["validation"]["n"] > 0


def test_batch_norm_over_unequal_shares_is_that_of_the_whole_batch(folders):
    ones, twos = (torch.load(folders[1] / f"normalized-{rank}.pt") for rank in range(RANKS))
    whole = normalized([7], 0)
    exact = {"rtol": 1e-12, "atol": 1e-12}
    for name in ("out", "images"):
        assert_close(torch.cat([ones[name], twos[name]]), whole[name], **exact)
    assert_close(ones["weights"] + twos["weights"], whole["weights"], **exact)  # DDP averages them over the processes
    for one in (ones, twos):
        assert_close(one["statistics"], whole["statistics"], **exact)
        assert_close(one["evaluated"], whole["evaluated"], **exact)
