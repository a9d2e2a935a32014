# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernels around the loss: the targets' weights added up before it, the gradient scaled after it."""

import triton
import triton.language as tl

from maxsup.kernels.parts import sum_of_weights


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def weights_kernel(
    target, weight, partials, rows, ignore_index, CLASSES: tl.constexpr, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr
):
    """partials[p] = sum of the weights that program p of PROGRAMS looks at."""
    program = tl.program_id(0)
    total = sum_of_weights(target, weight, program * BLOCK, rows, PROGRAMS * BLOCK, ignore_index, CLASSES, BLOCK)
    tl.store(partials + program, total)


@triton.jit(do_not_specialize=["count"])
def scale_kernel(gradient, upstream, count, BLOCK: tl.constexpr):
    """gradient *= upstream, in place; ends at once where the factor is 1, which costs the host no look at it."""
    factor = tl.load(upstream).to(tl.float32)
    if factor != 1.0:
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        for first in range(tl.program_id(0).to(tl.int64) * BLOCK, count, step):
            index = first + tl.arange(0, BLOCK)
            mask = index < count
            g = tl.load(gradient + index, mask=mask).to(tl.float32)
            tl.store(gradient + index, (g * factor).to(gradient.dtype.element_ty), mask=mask)
