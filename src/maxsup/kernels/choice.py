"""Which implementation computes a loss: `impl` is "auto", "torch" or "triton"; and the way to the last.

Imports Triton only when a kernel is chosen.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number, in_function_transform

TRITON_IS_THERE = importlib.util.find_spec("triton") is not None
IMPLEMENTATIONS = ("auto", "torch", "triton")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def use_triton(impl: str, input: Tensor, target: Tensor, terms: Terms, weight: Tensor | None, *, inplace: bool) -> bool:
    """Whether the Triton kernel computes this loss.

    "torch" never takes it; "triton" and `inplace` have to have it. "auto" takes it on CUDA where it applies, and never
    in Triton's interpreter, which is there to test.

    Raises:
        ValueError: if the kernel has to be taken and does not apply.
    """
    if impl == "torch":
        if inplace:
            raise ValueError('inplace=True is a mode of the kernel: it needs impl="triton" or "auto", got impl="torch"')
        return False
    chosen = impl == "triton" or inplace
    if not chosen and (interpreted() or not _on_cuda(input)):
        return False
    obstacle = _obstacle(input, target, terms, weight)
    if obstacle is None or not chosen:
        return obstacle is None
    wanted = 'impl="triton"' if impl == "triton" else "inplace=True"
    raise ValueError(f"{wanted} does not apply here: {obstacle}")


def fused_loss(
    input: Tensor,
    target: Tensor,
    terms: Terms,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    num_items: Number | None,
    *,
    inplace: bool,
) -> Tensor:
    """Cross-entropy with `terms` by the kernel; the other arguments as in `maxsup.functional.max_sup_cross_entropy`."""
    from maxsup.kernels import fused_loss as module

    return module.fused_loss(input, target, terms, weight, ignore_index, reduction, num_items, inplace=inplace)


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, and so on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _on_cuda(input: Tensor) -> bool:
    return isinstance(input, Tensor) and input.is_cuda


def _obstacle(input: Tensor, target: Tensor, terms: Terms, weight: Tensor | None) -> str | None:
    """Why the kernel does not apply, or None; arguments that are wrong in any case are left to their own checks."""
    if not TRITON_IS_THERE:
        return "Triton is not installed"
    if torch.version.hip is not None:
        return "this PyTorch is built for ROCm, and the kernel needs CUDA"
    if not all(isinstance(given, Tensor) for given in (input, target)):
        return None
    if not (_on_cuda(input) or interpreted()):
        return f"input is on {input.device}, and the kernel needs CUDA (or Triton's interpreter, TRITON_INTERPRET=1)"
    if target.device != input.device:
        return f"target is on {target.device} and input on {input.device}"
    if input.is_floating_point() and input.dtype not in DTYPES:
        return f"input has dtype {input.dtype}, and the kernel knows float32, bfloat16 and float16"
    if target.is_floating_point() and target.requires_grad:
        return 'target requires a gradient, which impl="torch" computes'
    if target.is_floating_point() and target.dtype not in DTYPES:
        return f"target has dtype {target.dtype}, and the kernel knows float32, bfloat16 and float16"
    if in_function_transform():
        return "a torch.func transform is tracing"
    if any(isinstance(strength, Tensor) and strength.requires_grad for strength in terms):
        return "a strength requires a gradient"
    if isinstance(weight, Tensor) and weight.requires_grad:
        return "weight requires a gradient"
    if terms.strict and terms.smoothing is not None and weight is not None and not target.is_floating_point():
        return (
            "label_smoothing with weight smooths each class by its own weight, which the kernel does for "
            "probabilities only"
        )
    return None
