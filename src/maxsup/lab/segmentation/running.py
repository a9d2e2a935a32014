"""What a fine-tuning sets while it runs: reproducibility and processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState


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
