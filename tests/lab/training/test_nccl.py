"""On GPUs, over NCCL: batch norm over processes, and two processes that train what one trains."""

import copy
import dataclasses
import os
import socket

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.testing import assert_close

from maxsup.lab.recipes import Data, Model, Optimizer
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import read_json_lines
from maxsup.lab.train import train
from maxsup.lab.training.batch_norm import synchronize_batch_norm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not distributed.is_nccl_available(), reason="this PyTorch was built without NCCL"),
    # Of the compiler, which recommends TF32 for matrices in float32.
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
]

SHARES = {1: [7], 2: [5, 2]}
BASE = dataclasses.replace(
    digits_convnet(), epochs=2, precision="float32", data=Data(name="digits", train_size=229, pad_crop=1)
)
TRANSFORMER = dataclasses.replace(
    BASE, model=Model("deit_tiny_patch16_224", image_size=8, patch_size=4, depth=1), optimizer=Optimizer(lr=0.01)
)
CASES = {
    "online-label-smoothing": BASE,
    "zipf-label-smoothing": dataclasses.replace(BASE, accumulate=2, clip_norm=0.5, ema=0.8),
    "max-sup": dataclasses.replace(TRANSFORMER, compile=True),
    "cross-entropy": dataclasses.replace(TRANSFORMER, shard=True, accumulate=2, clip_norm=0.5),
    "label-smoothing": dataclasses.replace(BASE, precision="bfloat16"),
}


def needs(gpus):
    if torch.cuda.device_count() < gpus:
        pytest.skip(f"needs {gpus} CUDA devices")


def launch(function, world, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(function, (world, port, *arguments), nprocs=world)


def join(rank, world, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.cuda.set_device(rank)


def compare_batch_norm(rank, world, port):
    """Each process has its share of a batch, and compares with batch norm of the whole in float64."""
    join(rank, world, port)
    distributed.init_process_group("nccl")
    try:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            for dtype, exact in (
                (torch.float32, {"rtol": 1e-4, "atol": 1e-5}),
                (torch.bfloat16, {"rtol": 2e-2, "atol": 4e-2}),
            ):
                torch.manual_seed(0)
                whole = nn.BatchNorm2d(3).cuda()
                nn.init.normal_(whole.weight)
                own = synchronize_batch_norm(copy.deepcopy(whole), torch.device("cuda", rank))
                whole.double()
                batch, upstream = (torch.randn(7, 3, 4, 4, device="cuda").to(dtype) * 2 + 1 for _ in range(2))
                start = sum(SHARES[world][:rank])
                share = slice(start, start + SHARES[world][rank])
                images = batch[share].contiguous(memory_format=memory_format).requires_grad_()
                out = own(images)
                out.backward(upstream[share].contiguous(memory_format=memory_format))
                expected_images = batch.double().requires_grad_()
                expected = whole(expected_images)
                expected.backward(upstream.double())
                assert out.dtype == dtype
                assert_close(out.double(), expected[share], **exact)
                assert_close(images.grad.double(), expected_images.grad[share], **exact)
                for name in ("weight", "bias"):
                    gradient = getattr(own, name).grad
                    distributed.all_reduce(gradient)  # as DDP does, but for its division
                    assert_close(gradient.double(), getattr(whole, name).grad, rtol=2e-2, atol=5e-2)
                for name in ("running_mean", "running_var"):
                    assert_close(getattr(own, name).double(), getattr(whole, name), **exact)
                assert own.num_batches_tracked == 1
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2])
def test_batch_norm_over_gpus_is_that_of_the_whole_batch(world):
    needs(world)
    launch(compare_batch_norm, world)


def train_cases(rank, world, port, folder):
    join(rank, world, port)
    for method, recipe in CASES.items():
        assert train(recipe, method, 0, folder / method)["status"] == "finished"


def test_two_gpus_train_what_one_trains(tmp_path):
    """As far as the first epoch: differences in the last digits grow."""
    needs(2)
    launch(train_cases, 2, tmp_path / "two")
    for method, recipe in CASES.items():
        train(recipe, method, 0, tmp_path / "one" / method)
        one, two = (read_json_lines(tmp_path / name / method / "metrics.jsonl") for name in ("one", "two"))
        close = 3e-2 if recipe.precision == "bfloat16" else 1e-2
        assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=close), method
        assert len(two) == recipe.epochs
