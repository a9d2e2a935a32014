"""How the kernels are cut to a batch and launched: vectors, tiles, programs, and the loss that they add up to."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from maxsup.kernels.arrangement import rows_in
from maxsup.kernels.plane_kernel import plane_kernel
from maxsup.kernels.sharing import NOTE
from maxsup.kernels.side_kernels import scale_kernel, weights_kernel
from maxsup.kernels.stream_kernel import stream_kernel
from maxsup.kernels.terms import Terms
from maxsup.kernels.tile_kernel import tile_kernel
from maxsup.methods.common import Number

VECTOR_BYTES = 16
PARTIALS = 512  # programs that add up the targets' weights
FEW_TARGETS = 2048  # so many every program adds up for itself, which saves a launch
FEW_TARGETS_OF_A_STREAM = 16384  # whose programs are few and large
REGISTERS = 65536  # of a multiprocessor
LONG_ROW_BYTES = 32768  # longer rows are streamed
LONG_SOFT_ROW = 8192  # classes; rows of probabilities and of logits share the registers


@dataclass(frozen=True)
class Rows:
    """Everything but the logits of a batch of rows."""

    target: Tensor  # (N,) contiguous integers; or probabilities, arranged like the logits
    weight: Tensor | None  # (K,) contiguous
    ignore_index: int
    terms: Terms
    divisor: Number | None  # of the sum; None for the sum of the weights of the rows that count, or the soft rows

    @property
    def soft(self) -> Tensor | None:
        """The target if it holds probabilities."""
        return self.target if self.target.is_floating_point() else None


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
    together = math.gcd(classes, *strides, *(x.data_ptr() // x.element_size() for x in tensors), widest)
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


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Their number; 1 for the interpreter's CPU, so that programs have several rows."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def can_prefetch(device: torch.device) -> bool:
    """Whether it knows the instruction of `chunks.prefetch`."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def losses_and_gradient(
    logits: Tensor,
    rows: Rows,
    *,
    loss: Tensor | None,
    gradient: Tensor | None,
    upstream: Tensor | None = None,
    plan: Plan | PlanePlan | None = None,
    keep_counter: bool = True,
) -> None:
    """Runs the kernels over logits in an arrangement of `arrangement`.

    Args:
        logits: rows (N, K) or planes (images, K, pixels).
        rows: the rest of the batch.
        loss: is given the loss per row, (N,), or divided and summed, (); None to leave it.
        gradient: is given the gradient, contiguous in the logits' shape; it may be `logits` itself. None to leave it.
        upstream: gradient of the loss, (N,) or (); None for 1.
        plan: None for the one of `plan_of` or `plane_plan_of`.
        keep_counter: whether the counter of a sum's programs may be kept for the next launch (see `_counter`).
    """
    n, classes = rows_in(logits), logits.shape[1]
    device, terms, soft = logits.device, rows.terms, rows.soft
    inplace = gradient is not None and gradient.data_ptr() == logits.data_ptr()
    options: dict[str, Any]
    if logits.dim() == 3:
        if not isinstance(plan, PlanePlan):
            plan = plane_plan_of(logits, soft)
        kernel, few = plane_kernel, FEW_TARGETS
        pieces = logits.shape[0] * -(-logits.shape[2] // plan.pixels)
        strides = [x // plan.vector for x in (logits.shape[2], *logits.stride()[:2])]
        strides += [0, 0] if soft is None else [x // plan.vector for x in soft.stride()[:2]]
        options = {"BLOCK": plan.block, "PIXELS": plan.pixels, "VECTOR": plan.vector}
        options["INPLACE"] = inplace
    else:
        layout = layout_of(logits, soft)
        if not isinstance(plan, Plan):
            plan = plan_of(classes, logits.element_size(), layout, 0 if soft is None else soft.element_size())
        kernel, few = (stream_kernel, FEW_TARGETS_OF_A_STREAM) if plan.stream else (tile_kernel, FEW_TARGETS)
        pieces = -(-n // plan.rows)
        strides = [logits.stride(0), 0 if soft is None else soft.stride(0)]
        options = {"GROUPS": plan.groups, "VECTOR": layout.vector, "EDGES": layout.edges, "AHEAD": plan.ahead}
        options["STORE"] = plan.store
        if plan.stream:
            if plan.parts > 1 and device.type != "cuda":  # the interpreter runs one program after another
                plan = replace(plan, parts=1, chunks=plan.parts * plan.chunks)
            options |= {"CHUNKS": plan.chunks, "KEEP": plan.keep, "INPLACE": inplace, "PARTS": plan.parts}
            options["PREFETCH"] = plan.prefetch if can_prefetch(device) else 0
        else:
            options["ROWS"] = plan.rows
    programs = max(1, min(pieces, plan.programs * multiprocessors(device)))
    if isinstance(plan, Plan) and plan.stream:
        options |= {"notes": None, "arrivals": None}
        if plan.parts > 1:  # the programs wait for each other, so that all have to run at once
            teams = max(1, min(n, plan.programs * multiprocessors(device) // plan.parts))
            programs = teams * plan.parts
            options["notes"] = torch.empty(teams, 2, plan.parts, NOTE.value, dtype=torch.float32, device=device)
            options["arrivals"] = torch.zeros(teams, dtype=torch.int32, device=device)
            options["launch_cooperative_grid"] = True
    summed = loss is not None and loss.dim() == 0
    sums = torch.empty(programs, dtype=torch.float32, device=device) if summed else None
    counter = _counter(device, keep_counter) if summed else None
    kind, divisor = _divisor(rows, n, classes, device, few)
    kernel[(programs,)](
        logits,
        gradient,
        rows.target if soft is None else None,
        soft,
        rows.weight,
        loss,
        sums,
        counter,
        divisor,
        upstream,
        _argument(terms.max_sup),
        _argument(terms.smoothing),
        _argument(terms.penalty),
        _argument(terms.z_loss),
        n,
        upstream.stride(0) if upstream is not None and upstream.dim() else 0,
        rows.ignore_index,
        *strides,
        CLASSES=classes,
        MAX_SUP=terms.max_sup is not None,
        SMOOTHING=terms.smoothing is not None,
        PENALTY=terms.penalty is not None,
        Z_LOSS=terms.z_loss is not None,
        STRICT=terms.strict,
        LOSS="none" if loss is None else "sum" if summed else "rows",
        DIVISOR=kind,
        PARTIALS=PARTIALS,
        num_warps=plan.warps,
        num_stages=1,
        maxnreg=plan.registers,
        **options,
    )


_counters: dict[tuple[torch.device, int], Tensor] = {}


def _counter(device: torch.device, keep: bool) -> Tensor:
    """Counts the programs that are done, so that the last one finishes the sum; an int32 0, and 0 again afterwards.

    One is kept per stream, whose launches come one after another. A CUDA graph may run beside others, so its launches
    have each their own, and so have compiled ones, whose memory the compiler manages.
    """
    if not keep or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return torch.zeros((), dtype=torch.int32, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    if (device, stream) not in _counters:
        _counters[device, stream] = torch.zeros((), dtype=torch.int32, device=device)
    return _counters[device, stream]


def scale_(gradient: Tensor, upstream: Tensor) -> None:
    """gradient *= upstream for a contiguous gradient and an upstream of one element; free where that is 1."""
    count, block = gradient.numel(), 4096
    programs = max(1, min(-(-count // block), 4 * multiprocessors(gradient.device)))
    scale_kernel[(programs,)](gradient, upstream, count, BLOCK=block, num_warps=8)


def _divisor(rows: Rows, n: int, classes: int, device: torch.device, few: int) -> tuple[str, Number | None]:
    """The kernel's DIVISOR and the argument to it."""
    if rows.divisor is not None:
        if not isinstance(rows.divisor, Tensor) and rows.divisor == 1:
            return "one", None
        return "number", _argument(rows.divisor)
    if rows.soft is not None:
        return "rows", None
    if n <= few:
        return "targets", None
    partials = torch.empty(PARTIALS, dtype=torch.float32, device=device)
    weights_kernel[(PARTIALS,)](
        rows.target, rows.weight, partials, n, rows.ignore_index, CLASSES=classes, PROGRAMS=PARTIALS, BLOCK=1024
    )
    return "partials", partials


def _argument(number: Number | None) -> Number:
    """A float or a tensor: an int would be compiled in."""
    if isinstance(number, Tensor):
        return number
    return 0.0 if number is None else float(number)
