"""What a fine-tuning holds while it runs: its folder, the settings of reproducibility, processes, checkpoint."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from maxsup.lab import records
from maxsup.lab.records import Json, RecordError


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds a folder, so that two processes never write into one, and clears what a killed one left.

    Raises:
        RecordError: if another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(f"{directory}: another process is at work here") from error
        records.remove_temporary(directory)
        yield
    finally:
        os.close(handle)


@contextmanager
def reproducible(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Sets what makes a seed give one result, and restores it.

    On a CPU that is one thread. On a GPU, with `deterministic`, kernels whose sums have one order are taken where
    PyTorch has them; where it has none it warns.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cpu":
        torch.set_num_threads(1)
    elif deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True, warn_only=True)
    # Without it the fastest kernels are looked for: the crops all have one size.
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])


def new_accelerator(gpu: int | None = None) -> Accelerator:
    """Accelerate for one fine-tuning: bf16 on a GPU, `gpu` where this process is not one of several.

    Accelerate keeps its state for the whole process; a worker makes several fine-tunings in one.
    """
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    cuda = torch.cuda.is_available()
    if cuda and gpu is not None:
        torch.cuda.set_device(gpu)
    return Accelerator(mixed_precision="bf16" if cuda else "no", cpu=not cuda)


class Checkpoint:
    """A file with the state of what can go on later; where writing is slow, it takes a tenth of the time at most."""

    SLOW_SECONDS = 0.1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due = 0.0

    def write(self, state: Json) -> None:
        """Writes the state, unless that was slow and is not due yet."""
        begin = time.monotonic()
        if begin < self.due:
            return
        with records.replacing(self.path) as path:
            torch.save(state, path)
        took = time.monotonic() - begin
        self.due = time.monotonic() + 9 * took if took > self.SLOW_SECONDS else 0.0

    def read(self, device: torch.device) -> Json:
        """The state, on `device`.

        Raises:
            RecordError: if the file is damaged.
        """
        try:
            state: Json = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:
            raise RecordError(f"{self.path}: unreadable checkpoint; delete it to start anew ({error})") from error
        return state
