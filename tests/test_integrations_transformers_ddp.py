"""Hugging Face's Trainer over two real processes equals one process with the same global batch."""

import contextlib
import os
import socket

import pytest
import torch
from torch import distributed, multiprocessing
from torch.testing import assert_close

import maxsup

pytest.importorskip("transformers", reason="Transformers is in the extra maxsup[integrations]")

from maxsup.integrations.transformers import TrainerLoss, fused_head
from tests.test_integrations_transformers import language_model, texts, trainer

RANKS = 2


def train(folder, fused, batch_size, **options):
    torch.set_num_threads(1)
    model, criterion = language_model(), maxsup.MaxSupCrossEntropyLoss(0.2)
    runner = trainer(
        folder, model, TrainerLoss(criterion, model), texts(), per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=2, max_steps=2, optim="sgd", max_grad_norm=1e9, **options,
    )  # fmt: skip
    with fused_head(model) if fused else contextlib.nullcontext():
        runner.train()
    return model.state_dict()


def worker(rank, folder, port):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for fused in (False, True):
        state = train(f"{folder}/{rank}", fused, batch_size=4, ddp_backend="gloo")
        torch.save(state, f"{folder}/{fused}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch was built without gloo")
def test_two_processes_are_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.spawn(worker, (str(tmp_path), port), nprocs=RANKS, join=False)
    while not context.join(timeout=120):
        pass
    expected = train(tmp_path / "one", False, batch_size=8)
    for fused in (False, True):
        for rank in range(RANKS):
            state = torch.load(tmp_path / f"{fused}-{rank}.pt", weights_only=True)
            assert_close(state, expected, rtol=1e-5, atol=1e-6)
