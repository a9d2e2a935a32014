"""What makes a seed give one result, set while a training runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from maxsup.lab.training.in_order import in_order

Kernels = Literal["fastest", "convolutions", "all"]


@contextmanager
def reproducible(device: torch.device, kernels: Kernels, *, threads: int = 1) -> Iterator[None]:
    """Sets what makes a seed give one result on `device`, and restores it.

    On a CPU that is the number of `threads`. On a GPU it is which kernels have to add in one order: ``"convolutions"``,
    cuDNN's; ``"all"``, those of every operation, and PyTorch warns of one that it cannot compute so; ``"fastest"``,
    none, and cuDNN tries which kernel is the fastest for each size.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    deterministic = cast(Any, torch.utils.deterministic)
    filled = deterministic.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        if device.type == "cpu":
            torch.set_num_threads(threads)
        elif kernels == "all":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Where PyTorch only warns, the gradients of fused attention add up in any order.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(in_order())
            # PyTorch would write NaN into many tensors before they are computed.
            deterministic.fill_uninitialized_memory = False
        cudnn.deterministic, cudnn.benchmark = kernels != "fastest", kernels == "fastest"
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            cudnn.deterministic, cudnn.benchmark = before[1:]
            deterministic.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
