"""Online label smoothing over two real processes equals one process that sees both halves."""

import pytest
import torch
from torch import distributed, multiprocessing
from torch.testing import assert_close

from maxsup import OnlineLabelSmoothingLoss

RANKS = 2


def data():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, 5, generator=generator) * 2
    target = torch.randint(4, (2, 40), generator=generator)  # class 4 never occurs: its row becomes uniform
    return logits, target


def train(loss, logits, target):
    for epoch in range(2):
        loss(logits[epoch], target[epoch])
        loss.next_epoch()
    return loss


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    logits, target = data()
    # Parts of different size, so that a mean of the processes' tables would not do.
    part = slice(0, 30) if rank == 0 else slice(30, 40)
    loss = train(OnlineLabelSmoothingLoss(5), logits[:, part], target[:, part])
    torch.save(loss.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch was built without gloo")
def test_the_table_of_two_processes_is_that_of_one(tmp_path):
    context = multiprocessing.spawn(worker, (str(tmp_path),), nprocs=RANKS, join=False)
    while not context.join(timeout=60):
        pass
    expected = train(OnlineLabelSmoothingLoss(5), *data())
    assert_close(expected.table[4], torch.full((5,), 0.2))
    assert expected.table[0, 0] > 0.5
    for rank in range(RANKS):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(state, expected.state_dict())
