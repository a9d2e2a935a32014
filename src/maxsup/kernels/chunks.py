# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""What `stream_kernel` does to a chunk of a row: (GROUPS, VECTOR) logits."""

import triton
import triton.language as tl

from maxsup.kernels.parts import INFINITY, LOG2_E, exp, inside, shares_of


@triton.jit
def higher(value, position, other_value, other_position):
    """The greater value with its position, the lower one of equal values."""
    take = (other_value > value) | ((other_value == value) & (other_position < position))
    return tl.where(take, other_value, value), tl.where(take, other_position, position)


@triton.jit
def both_sums(a, b, other_a, other_b):
    """Two sums at once."""
    return a + other_a, b + other_b


@triton.jit
def online(x, mask, chunk, highest, base, exponentials, total, squares, first, PENALTY: tl.constexpr):
    """The running values (GROUPS,) with a chunk x (GROUPS, VECTOR) taken in."""
    top = tl.where(mask, tl.max(x, 1), -INFINITY)
    higher = tl.maximum(highest, top)
    new_base = higher * LOG2_E
    finite = tl.where(higher == -INFINITY, 0.0, new_base)  # −inf − −inf would be NaN
    exponentials *= tl.exp2(base - finite)
    exponentials += tl.where(mask, tl.sum(exp(x, finite[:, None]), 1), 0.0)
    first = tl.where(top > highest, chunk, first)
    total += tl.sum(x, 1)
    if PENALTY:
        squares += tl.sum(x * x, 1)
    return higher, new_base, exponentials, total, squares, first


@triton.jit
def gradient_of(x, base, slope, share, absent_share, tension, some_absent, PENALTY: tl.constexpr):
    """The gradient at logits x but for the special classes, and for what probabilities subtract."""
    g = exp(x, base) * slope - share
    if PENALTY:
        g += x * tension
    if some_absent:
        g = tl.where(x == -INFINITY, -absent_share, g)
    return g


@triton.jit
def soft_sums(
    x, t, there, weight, column, smoothing, mass, expected,
    SMOOTHING: tl.constexpr, STRICT: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """The sums (GROUPS,) of p and p z with a chunk of logits x and probabilities t taken in."""
    p = shares_of(t, there, weight, column, smoothing, SMOOTHING, STRICT, CLASSES)
    mass += tl.sum(p, 1)
    expected += tl.sum(p * x, 1)
    return mass, expected


@triton.jit
def first_chunk(
    tensor, row, y, stride, ignore_index,
    CLASSES: tl.constexpr, to_end, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """The chunk of logits or probabilities `to_end` vectors before the row's end, (GROUPS, VECTOR), zeros before it."""
    _, begin, _, groups = inside(row, stride, CLASSES, VECTOR, EDGES)
    vector = groups - to_end + tl.arange(0, GROUPS)
    tile = vector[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    mask = (vector >= 0) & (y != ignore_index)
    return tl.load(tensor + begin + tile, mask=mask[:, None], other=0.0, eviction_policy=KEEP)


@triton.jit
def prefetch(pointer, there, COUNT: tl.constexpr):
    """Fetches COUNT elements into the cache, if they are `there`, by one instruction of one thread.

    It takes 16 bytes at 16 bytes' boundaries, and begins at the one before. Compute capability 9.0 and above.
    """
    size: tl.constexpr = pointer.dtype.element_ty.primitive_bitwidth // 8
    address = pointer.to(tl.int64) // 16 * 16
    tl.inline_asm_elementwise(
        """
        {
            .reg .pred first;
            .reg .b32 thread;
            mov.u32 thread, %tid.x;
            setp.lt.u32 first, thread, $2;
            @first cp.async.bulk.prefetch.L2.global [$1], $3;
            mov.u32 $0, 0;
        }
        """,
        "=r,l,r,r",
        [address, tl.where(there, 1, 0), tl.full((), COUNT * size, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
