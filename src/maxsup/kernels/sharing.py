# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""What programs of `stream_kernel` that share a row tell each other, and which of them writes what.

A program leaves what it has found in the row's `notes`, (2, PARTS, NOTE) float32, and then counts in `arrivals`, whose
count never falls: at turn t all have arrived when it is (t + 1) PARTS. Turns take the two halves of the notes by turns:
who writes a half again has met the others since, and they had read it before.
"""

import triton
import triton.language as tl

from maxsup.kernels.chunks import both_sums, higher
from maxsup.kernels.parts import INFINITY, LOG2_E

NOTE = tl.constexpr(8)  # places of a program's note, 32 bytes


@triton.jit
def meet(arrivals, expected):
    """Waits until `expected` have arrived. What each wrote and read before is done when the others go on."""
    tl.debug_barrier()
    arrived = tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu") + 1
    while arrived < expected:
        arrived = tl.atomic_add(arrivals, 0, sem="acquire", scope="gpu")


@triton.jit
def told(
    notes, arrivals, turn, part, highest, vector, base, exponentials, total, squares, PARTS: tl.constexpr
):  # fmt: skip
    """The running values (GROUPS,) of one program are made the sums (PARTS,) of all."""
    own_highest, own_vector = tl.reduce((highest, vector), 0, higher)
    own_base = tl.where(own_highest == -INFINITY, 0.0, own_highest * LOG2_E)
    own_exponentials, own_total = tl.reduce((exponentials * tl.exp2(base - own_base), total), 0, both_sums)
    half = notes + turn % 2 * (PARTS * NOTE)
    note = half + part * NOTE
    tl.store(note, own_highest)
    tl.store(note + 1, own_vector.to(tl.float32))  # exact below 2^24
    tl.store(note + 2, tl.where(own_highest == -INFINITY, -INFINITY, own_base))
    tl.store(note + 3, own_exponentials)
    tl.store(note + 4, own_total)
    tl.store(note + 5, tl.sum(squares, 0))
    meet(arrivals, (turn + 1) * PARTS)
    every = half + tl.arange(0, PARTS) * NOTE
    return (
        tl.load(every, cache_modifier=".cg"),
        tl.load(every + 1, cache_modifier=".cg").to(tl.int32),
        tl.load(every + 2, cache_modifier=".cg"),
        tl.load(every + 3, cache_modifier=".cg"),
        tl.load(every + 4, cache_modifier=".cg"),
        tl.load(every + 5, cache_modifier=".cg"),
    )


@triton.jit
def added_up(notes, arrivals, turn, part, total, count, squares, PARTS: tl.constexpr):
    """The sums over all programs of three numbers of each."""
    half = notes + turn % 2 * (PARTS * NOTE)
    note = half + part * NOTE
    tl.store(note, total)
    tl.store(note + 1, count)
    tl.store(note + 2, squares)
    meet(arrivals, (turn + 1) * PARTS)
    every = half + tl.arange(0, PARTS) * NOTE
    return (
        tl.sum(tl.load(every, cache_modifier=".cg"), 0),
        tl.sum(tl.load(every + 1, cache_modifier=".cg"), 0),
        tl.sum(tl.load(every + 2, cache_modifier=".cg"), 0),
    )


@triton.jit
def owned(column, head, groups, skip, reach, part, VECTOR: tl.constexpr):
    """Whether a column is among the `reach` vectors from `skip` on, or at an edge, which the first part writes."""
    place = column - head
    at_edge = (place < 0) | (place >= groups * VECTOR)
    return tl.where(at_edge, part == 0, (place >= skip * VECTOR) & (place < (skip + reach) * VECTOR))
