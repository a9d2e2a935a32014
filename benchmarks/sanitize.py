"""Runs the kernels once over every kind of batch, to be watched by NVIDIA's compute-sanitizer.

    python benchmarks/sanitize.py                                   # compiles, and compares with PyTorch
    compute-sanitizer --tool memcheck --error-exitcode 1 python benchmarks/sanitize.py
    compute-sanitizer --tool racecheck --error-exitcode 1 python benchmarks/sanitize.py
    compute-sanitizer --tool initcheck --error-exitcode 1 python benchmarks/sanitize.py

Run it by itself first: what it compiles is kept by Triton, and need not be compiled under the sanitizer. PyTorch's
memory cache is off, so that every tensor is an allocation of its own, beyond whose end a tool can see. Batches are
made, and compared with PyTorch's implementation in float64, on the CPU, so that nearly all that runs on the GPU are the
kernels. The exit status is 1 if a comparison fails. `--few` takes few and short rows, for the interpreter on a CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"

import torch
from torch import Tensor

from maxsup.functional import (
    label_smoothing_cross_entropy,
    linear_max_sup_cross_entropy,
    logit_penalty_cross_entropy,
    max_sup_cross_entropy,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISION = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
Loss = Callable[..., Tensor]


def batch(n: int, k: int, dtype: torch.dtype, ignored: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * k)
    logits = (torch.randn(n, k, generator=generator) * 2).to(dtype)
    target = torch.randint(k, (n,), generator=generator)
    target[:ignored] = -100
    return logits, target


def errors(
    loss: Loss,
    inputs: list[Tensor],
    target: Tensor,
    options: dict[str, Any],
    kernel: dict[str, Any],
    cut: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The largest relative error of the loss and of the gradients of `inputs` against PyTorch in float64."""

    def run(device: str, exact: bool) -> list[Tensor]:
        def placed(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return x.to(device, torch.float64 if exact and x.is_floating_point() else x.dtype)

        leaves = [placed(x).requires_grad_() for x in inputs]
        places = leaves
        if cut is not None:
            places = [cut(leaf) for leaf in leaves]
        elif kernel.get("inplace"):
            places = [leaf * 1 for leaf in leaves]  # a leaf may not be overwritten
        given = {name: placed(value) for name, value in options.items()}
        value = loss(*places, placed(target), **given, **({"impl": "torch"} if exact else kernel))
        upstream = torch.linspace(-1, 2, value.numel()).reshape(value.shape).to(device, value.dtype)
        gradients = torch.autograd.grad(value, leaves, upstream)
        return [x.detach().cpu().double() for x in (value, *gradients)]

    pairs = zip(run(DEVICE, False), run("cpu", True), strict=True)
    return max(float((ours - exact).norm() / exact.norm()) for ours, exact in pairs)


def cases(few: bool) -> dict[str, tuple[torch.dtype, Callable[[], float]]]:
    """Name -> type of the logits, and what computes the error."""
    f32, bf16, f16 = torch.float32, torch.bfloat16, torch.float16
    every: dict[str, tuple[torch.dtype, Callable[[], float]]] = {}

    def add(name: str, n: int, k: int, dtype: torch.dtype, loss: Loss = max_sup_cross_entropy, **options: Any) -> None:
        kernel = {"impl": "triton", "inplace": options.pop("inplace", False)}
        ignored, weighted, cut = options.pop("ignored", 0), options.pop("weighted", False), options.pop("cut", None)
        soft, image = options.pop("soft", False), options.pop("image", 0)
        if few:
            n = min(n, 6) if image == 0 else image
            if k > 5000:
                return

        def run() -> float:
            logits, target = batch(n, k, dtype, ignored)
            if image:
                logits, target = logits.unflatten(0, (-1, image)).mT.contiguous(), target.unflatten(0, (-1, image))
            if cut is not None:
                target = target.clamp(max=cut(logits).shape[1] - 1)
            if soft:
                target = logits.float().flip(0).softmax(1)
            more = {"weight": torch.linspace(0.5, 2.0, k)} if weighted else {}
            return errors(loss, [logits], target, {"alpha": 0.2} | options | more, kernel, cut)

        every[f"{name}: {n} × {k}, {str(dtype)[6:]}"] = dtype, run

    add("two classes", 33, 2, f32)
    add("odd rows, per row", 7, 37, bf16, reduction="none")
    add("short rows", 130, 100, bf16)
    add("rows of whole vectors, ignored rows", 40, 1000, f32, ignored=5)
    add("in place, weights", 40, 1000, bf16, inplace=True, weighted=True)
    add("per row in place, float16", 20, 1003, f16, reduction="none", inplace=True)
    add("label smoothing, a stride between rows", 20, 100, f32, label_smoothing_cross_entropy, cut=lambda z: z[:, 3:])
    add("logit penalty", 9, 999, bf16, logit_penalty_cross_entropy, reduction="sum")
    add("smoothed MaxSup, num_items", 9, 129, f32, label_smoothing=0.1, num_items=7)
    add("long rows", 5, 32000, bf16)
    add("long odd rows, in place", 5, 50257, bf16, inplace=True, ignored=1)
    add("rows that programs share, in place", 40, 262144, bf16, inplace=True, ignored=1)
    add("odd rows that programs share", 36, 100003, f32, label_smoothing=0.1)
    add("long rows, per row", 3, 16384, f32, reduction="none", weighted=True)

    add("probabilities", 40, 1000, bf16, soft=True)
    add("probabilities, odd rows, weights", 9, 999, f32, soft=True, weighted=True, label_smoothing=0.1)
    add("probabilities, long odd rows", 3, 50257, bf16, soft=True, inplace=True)

    add("images of 12 × 12, ignored pixels", 2 * 144, 19, bf16, image=144, ignored=5)
    add("images of 9 × 9, in place", 3 * 81, 5, f32, image=81, inplace=True)
    add("images of 10 × 10, probabilities", 3 * 100, 21, bf16, image=100, soft=True, reduction="none")

    def head() -> float:
        n, d, k = (6 if few else 48), 32, 515
        generator = torch.Generator().manual_seed(0)
        hidden, weight = (torch.randn(size, d, generator=generator) / 4 for size in (n, k))
        bias = torch.randn(k, generator=generator)
        target = torch.randint(k, (n,), generator=generator)

        def loss(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor, **options: Any) -> Tensor:
            return linear_max_sup_cross_entropy(hidden, weight, target, bias=bias, **options)

        return errors(loss, [hidden, weight, bias], target, {"alpha": 0.2}, {"impl": "triton"})

    every["linear head, float32"] = f32, head
    return every


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", action="store_true")
    arguments = parser.parse_args(argv)
    # Products in float32 as PyTorch makes them on the CPU.
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = 0
    for name, (dtype, run) in cases(arguments.few).items():
        error = run()
        wrong = not error < PRECISION[dtype]
        failed += wrong
        print(f"{name}: error {error:.1e}{', which is too much' if wrong else ''}", flush=True)
    print(f"{failed} comparisons failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
