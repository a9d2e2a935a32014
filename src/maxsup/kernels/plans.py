"""How a kernel is cut to a batch: vectors, rows, chunks, programs and registers, as measured."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import triton
from torch import Tensor

VECTOR_BYTES = 16
REGISTERS = 65536  # of a multiprocessor
LONG_ROW_BYTES = 32768  # longer rows are streamed
LONG_SOFT_ROW = 8192  # classes; rows of probabilities and of logits share the registers


@dataclass(frozen=True)
class Layout:
    """How the rows lie in memory: the vector's width, and whether rows begin anywhere (see `tile_kernel`)."""

    vector: int
    edges: bool


@dataclass(frozen=True)
class Plan:
    """How a kernel is cut: `chunks` of `groups` vectors make a row, `rows` rows a tile (one chunk only)."""

    rows: int
    groups: int
    chunks: int  # of each part
    warps: int
    programs: int  # per multiprocessor
    registers: int | None = None  # at most, per thread
    ahead: bool = True  # loads the next rows before it computes these
    stream: bool = False
    keep: str = "evict_last"  # the cache hint of a stream's first loop
    store: str = "evict_last"  # and of the gradient
    parts: int = 1  # programs that share a row of a stream
    prefetch: int = 0  # chunks of a stream on their way to the cache, beyond the one to registers


def layout_of(logits: Tensor, soft: Tensor | None = None) -> Layout:
    """The widest vectors that the addresses of the rows (N, K), and those of the probabilities, allow."""
    size, (n, classes) = logits.element_size(), logits.shape
    widest = VECTOR_BYTES // size
    tensors = [logits] if soft is None else [logits, soft]
    strides = [x.stride(0) if n > 1 else classes for x in tensors]
    places = (x.data_ptr() % VECTOR_BYTES // x.element_size() for x in tensors)
    together = math.gcd(classes, *strides, *places, widest)
    anywhere = all(x.data_ptr() % VECTOR_BYTES == 0 for x in tensors) and set(strides) == {classes}
    # Fewer than 8 bytes at a time waste instructions; with edges the row needs room for an inside.
    if together * size < VECTOR_BYTES // 2 and anywhere and classes >= 4 * widest:
        return Layout(widest, True)
    return Layout(together, False)


@functools.lru_cache(maxsize=256)
def plan_of(classes: int, size: int, layout: Layout, soft_size: int = 0) -> Plan:
    """The cut for K classes of `size` bytes, and probabilities of `soft_size` bytes if there are any.

    Rows of 100, 1000, 32000, 50257, 131072 and 262144 classes have the fastest cut that `benchmarks/bench_loss_gpu.py
    --tune` found on an H100 (Triton 3.6), or one within a point of it. In 16 bits a warp has 1024 logits and loads the
    next ones ahead; in float32, whose next ones would take twice the registers, two warps share them and hide each
    other's waits. Of rows of 384 KiB and more the cache cannot hold one for each multiprocessor: 8 programs share one.
    Probabilities have to lie in registers beside the logits, and beside them in the cache. With one term, class indices
    and a large batch the loop over rows spills no registers, but for odd K from 17 to 31 in 16 bits; with all terms a
    few.
    """
    columns = triton.next_power_of_2(-(-classes // layout.vector)) * layout.vector
    groups, warps = columns // layout.vector, max(1, columns // 1024)
    # Edges, and vectors that take an address for a few bytes, need registers; and so does each row of a thread.
    narrow = layout.edges or layout.vector * size < VECTOR_BYTES // 2
    if soft_size:
        if classes > LONG_SOFT_ROW:
            return stream_plan(classes, layout, 16384 // size, warps=16, programs=1)
        rows = min(64, max(1, (256 if narrow else 512) // columns))
        registers = min(255, REGISTERS // (32 * warps), 168 + 8 * size)
        programs = max(1, REGISTERS // (registers * 32 * warps))
        return Plan(rows, groups, 1, warps, programs, registers)
    if classes * size > LONG_ROW_BYTES:
        # Two rows of a multiprocessor fill each other's waits as long as the cache holds all that are in flight.
        if classes * size < 4 * LONG_ROW_BYTES:
            prefetch = 2 if layout.edges else 1
            return stream_plan(classes, layout, 16384 // size, warps=8, programs=2, prefetch=prefetch)
        if classes * size < 12 * LONG_ROW_BYTES:
            return stream_plan(classes, layout, 32768 // size, warps=16, programs=1, prefetch=1)
        return stream_plan(classes, layout, 16384 // size, warps=8, programs=2, parts=8, prefetch=1)
    if columns <= 256:
        logits = 256 if narrow else 1024 if size == 2 and columns >= 128 else 512
        registers = 168 if narrow or logits == 1024 else 128
        return Plan(min(64, logits // columns), groups, 1, 1, _at_once(registers, 1), registers)
    if columns <= 2048 and size == 4:
        warps, registers = columns // 512, 96
        return Plan(1, groups, 1, warps, _at_once(registers, warps), registers, ahead=False)
    registers = 168 if size == 4 or narrow or warps == 1 else 128
    return Plan(max(1, 1024 // columns), groups, 1, warps, _at_once(registers, warps), registers)


def _at_once(registers: int, warps: int) -> int:
    """The programs that a multiprocessor runs at once: each of its 4 parts has a quarter of the registers."""
    return max(1, REGISTERS // 4 // (registers * 32) * 4 // warps)


def stream_plan(
    classes: int, layout: Layout, columns: int, *, warps: int, programs: int, parts: int = 1, prefetch: int = 0
) -> Plan:
    """Rows in chunks of `columns`, with as many registers as let all the programs run at once."""
    groups = columns // layout.vector
    chunks = -(-(classes // layout.vector) // (groups * parts))
    prefetch = min(prefetch, chunks - 1)
    registers = min(255, REGISTERS // (programs * warps * 32) // 8 * 8)  # they are given out by eights
    return Plan(
        1, groups, chunks, warps, programs, registers, stream=True, store="evict_first", parts=parts, prefetch=prefetch
    )


@dataclass(frozen=True)
class PlanePlan:
    """How `plane_kernel` is cut: `block` classes of `pixels` pixels at a time, `vector` of which are loaded at once."""

    vector: int
    block: int
    pixels: int
    warps: int
    programs: int  # per multiprocessor
    registers: int  # at most, per thread


def plane_plan_of(logits: Tensor, soft: Tensor | None = None) -> PlanePlan:
    """The cut for planes (images, K, pixels): 4 pixels a thread, whose sums and 32 logits fit in its registers."""
    _, classes, pixels = logits.shape
    tensors = [logits] if soft is None else [logits, soft]
    places = [number for x in tensors for number in (*x.stride()[:2], x.data_ptr() // x.element_size())]
    vector = math.gcd(pixels, *places, 4)
    # What is computed beyond the last class is lost.
    block = 8 if -(-classes // 8) * 2 == -(-classes // 4) else min(4, triton.next_power_of_2(classes))
    warps = 4 if pixels >= 4 * 4 * 128 else 1
    registers = 128 if soft is None else 168
    return PlanePlan(vector, block, warps * 128, warps, REGISTERS // (registers * 32 * warps), registers)
