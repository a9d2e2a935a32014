"""The processes that train one run together, as `torchrun` or `accelerate launch` started them."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

# PyTorch 2.14 warns of the old name.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: its number `rank`, how many there are, and its device."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the records."""
        return self.rank == 0

    def share(self, count: int) -> int:
        """How many of a batch of `count` images this process gets: every `world`-th from its `rank` on."""
        return len(range(self.rank, count, self.world))

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with its gradients averaged over the processes in each backward pass."""
        if self.world == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        # Buffers are made equal once an epoch, by `same_buffers`; synchronised batch norm's are equal anyway.
        options: dict[str, Any] = {_SYNC_BUFFERS: False}
        return DistributedDataParallel(model, ids, gradient_as_bucket_view=True, **options)

    @contextmanager
    def without_averaging(self, model: nn.Module, without: bool) -> Iterator[None]:
        """Leaves the gradients of a backward pass to be averaged by a later one, if `without`."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(not without)
        with model.no_sync() if without and isinstance(model, DistributedDataParallel) else nullcontext():
            yield

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over the processes, in place."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def same_buffers(self, model: nn.Module) -> None:
        """Gives every process the buffers of the first."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def gather(self, rows: Tensor, shares: Sequence[int]) -> Tensor:
        """The rows (n, …) of all processes, in order of rank, on each; `shares` says how many each process has."""
        if self.world == 1:
            return rows
        # Collectives want equal shapes: the filling is cut off again, so that nothing counts twice.
        padded = rows.new_zeros(max(shares), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:share] for part, share in zip(parts, shares, strict=True)])

    def of_first(self, function: Callable[[], T]) -> T:
        """Calls `function` in the first process alone; all return its value, or raise what it raised."""
        if self.world == 1:
            return function()
        outcome: list[object] = [None, None]
        if self.first:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, 0)
        if outcome[1] is not None:
            raise cast(Exception, outcome[1])
        return cast(T, outcome[0])


def launched() -> tuple[int, int]:
    """Rank and number of the processes of this launch, as the launcher tells them; (0, 1) without a launcher."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def start() -> Processes:
    """Joins the processes of this launch; a process that was started alone stays alone.

    They train on GPUs where there are any, unless the environment's ``ACCELERATE_USE_CPU`` is true.
    """
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import parse_flag_from_env

    # Accelerate keeps its state for the whole process; a worker makes several runs in one.
    for kept in (AcceleratorState, GradientState, PartialState):
        kept._reset_state()
    alone = not distributed.is_initialized()
    state = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
    if alone and distributed.is_initialized():
        atexit.register(leave)
    return Processes(torch.device(state.device), state.process_index, state.num_processes)


def leave() -> None:
    """Leaves the processes of this launch, if it joined them, and ends gloo's threads.

    They end with the last reference to their group. A thread that lived on could let go of a collective's tensor while
    the interpreter ends, which aborts the process.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()
