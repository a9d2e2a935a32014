# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernel for rows that do not fit in registers: two loops over a row, the second in the cache.

The first loop keeps per vector place the running maximum and the sum of exponentials relative to it (online softmax),
so that threads need not talk before the row's end. The second makes the gradient, backwards: what was read last is
nearest. The last chunk of a row stays in registers, and one row is in flight per program, so that the cache holds the
rest.
"""

import triton
import triton.language as tl

from maxsup.kernels.parts import INFINITY, LOG2_E, divisor_of, exp, finish, inside, number, row_terms


@triton.jit
def _higher(value, position, other_value, other_position):
    """The greater value with its position, the lower one of equal values."""
    take = (other_value > value) | ((other_value == value) & (other_position < position))
    return tl.where(take, other_value, value), tl.where(take, other_position, position)


@triton.jit
def _sums(a, b, other_a, other_b):
    return a + other_a, b + other_b


@triton.jit
def _online(x, mask, chunk, highest, base, exponentials, total, squares, first, PENALTY: tl.constexpr):
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
def _gradient(x, base, slope, share, absent_share, tension, some_absent, PENALTY: tl.constexpr):
    g = exp(x, base) * slope - share
    if PENALTY:
        g += x * tension
    if some_absent:
        g = tl.where(x == -INFINITY, -absent_share, g)
    return g


@triton.jit
def _target(target, row, rows, ignore_index):
    """The target of a row, and the ignored one beyond the batch."""
    return tl.where(row < rows, tl.load(target + row, mask=row < rows, other=0).to(tl.int64), ignore_index)


@triton.jit
def _first_chunk(
    logits, row, y, logits_stride, ignore_index,
    CLASSES: tl.constexpr, CHUNKS: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """A row's first chunk, (GROUPS, VECTOR), zeros where there is none."""
    _, begin, _, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
    vector = groups - CHUNKS * GROUPS + tl.arange(0, GROUPS)
    tile = vector[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    mask = (vector >= 0) & (y != ignore_index)
    return tl.load(logits + begin + tile, mask=mask[:, None], other=0.0, eviction_policy=KEEP)


@triton.jit(do_not_specialize=["rows", "logits_stride", "upstream_stride", "ignore_index"])
def stream_kernel(
    logits, gradient, target, weight, loss, sums, counter, divisor, upstream,
    alpha, smoothing, penalty, z_loss,
    rows, logits_stride, upstream_stride, ignore_index,
    CLASSES: tl.constexpr, CHUNKS: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
    MAX_SUP: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr, Z_LOSS: tl.constexpr,
    STRICT: tl.constexpr, LOSS: tl.constexpr, DIVISOR: tl.constexpr, PARTIALS: tl.constexpr, INPLACE: tl.constexpr,
    KEEP: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One row at a time, in CHUNKS pieces of GROUPS vectors; the first piece is the one that may be short.

    KEEP is the cache hint of the first loop. With AHEAD the next chunk is on its way while one is computed, and at a
    row's end the next row's first one.
    """
    alpha, smoothing, penalty, z_loss = number(alpha), number(smoothing), number(penalty), number(z_loss)
    program, programs = tl.program_id(0), tl.num_programs(0)
    group, lane = tl.arange(0, GROUPS), tl.arange(0, VECTOR)
    edge = tl.arange(0, 2 * VECTOR)
    tile = group[:, None] * VECTOR + lane[None, :]
    row_losses = 0.0
    y = _target(target, program, rows, ignore_index)
    x = _first_chunk(logits, program, y, logits_stride, ignore_index, CLASSES, CHUNKS, GROUPS, VECTOR, EDGES, KEEP)
    bottom = divisor_of(divisor, target, weight, rows, ignore_index, DIVISOR, CLASSES, PARTIALS, 4096)
    for row in range(program, rows, programs):
        y_next = _target(target, row + programs, rows, ignore_index)
        place = tl.cast(row, tl.int64)
        keep = y != ignore_index
        known = keep & (y >= 0) & (y < CLASSES)
        offset, begin, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
        z_y = tl.load(logits + offset + y, mask=known, other=float("nan")).to(tl.float32)

        # Chunk c has the vectors `skip + c GROUPS + group` of the inside, counted from column `head`; skip <= 0.
        if EDGES:
            edge_column = tl.where(edge < VECTOR, edge, head + groups * VECTOR - VECTOR + edge)
            on_edge = tl.where(edge < VECTOR, edge < head, edge_column < CLASSES)
            x_edge = tl.load(logits + offset + edge_column, mask=on_edge & keep, other=-INFINITY).to(tl.float32)
        skip = groups - CHUNKS * GROUPS
        pointers = logits + begin

        highest = tl.full((GROUPS,), -INFINITY, tl.float32)
        base = tl.full((GROUPS,), -INFINITY, tl.float32)
        exponentials = tl.zeros((GROUPS,), tl.float32)
        total = tl.zeros((GROUPS,), tl.float32)
        squares = tl.zeros((GROUPS,), tl.float32)
        first = tl.zeros((GROUPS,), tl.int32)
        for chunk in range(CHUNKS - 1):
            mask = (skip + chunk * GROUPS + group >= 0) & keep
            there = (skip + (chunk + 1) * GROUPS + group >= 0) & keep
            start = (skip + (chunk + 1) * GROUPS) * VECTOR
            if AHEAD:
                ahead = tl.load(pointers + (start + tile), mask=there[:, None], other=0.0, eviction_policy=KEEP)
            highest, base, exponentials, total, squares, first = _online(
                x.to(tl.float32), mask, chunk, highest, base, exponentials, total, squares, first, PENALTY
            )
            if not AHEAD:
                ahead = tl.load(pointers + (start + tile), mask=there[:, None], other=0.0, eviction_policy=KEEP)
            x = ahead
        mask = (skip + (CHUNKS - 1) * GROUPS + group >= 0) & keep
        highest, base, exponentials, total, squares, first = _online(
            x.to(tl.float32), mask, CHUNKS - 1, highest, base, exponentials, total, squares, first, PENALTY
        )

        # The lowest vector of the maximum comes with it: what threads tell each other costs time that nothing fills.
        maximum, nearest = tl.reduce((highest, skip + first * GROUPS + group), 0, _higher)
        if EDGES:
            maximum = tl.maximum(maximum, tl.max(x_edge, 0))
        maximum = tl.where(keep, maximum, 0.0)
        row_base = tl.where(keep, maximum * LOG2_E, 0.0)  # rounded: a select is no part of a fused multiply-add
        row_exponentials, row_total = tl.reduce((exponentials * tl.exp2(base - row_base), total), 0, _sums)
        row_squares = 0.0
        if PENALTY:
            row_squares = tl.sum(squares, 0)
        if EDGES:
            row_exponentials += tl.sum(exp(x_edge, row_base), 0)
            row_total += tl.sum(tl.where(on_edge & keep, x_edge, 0.0), 0)
            if PENALTY:
                row_squares += tl.sum(tl.where(on_edge & keep, x_edge * x_edge, 0.0), 0)
        row_exponentials = tl.where(keep, row_exponentials, 1.0)

        # A class is absent where its logit is −inf, which the sum of the logits shows; then the sums are made anew.
        present = tl.full((), CLASSES, tl.float32)
        some_absent = row_total == -INFINITY
        if some_absent:
            total = tl.zeros((GROUPS,), tl.float32)
            squares = tl.zeros((GROUPS,), tl.float32)
            counts = tl.zeros((GROUPS,), tl.float32)
            for chunk in range(CHUNKS):
                mask = skip + chunk * GROUPS + group >= 0
                again = tl.load(
                    pointers + ((skip + chunk * GROUPS) * VECTOR + tile), mask=mask[:, None], other=-INFINITY
                ).to(tl.float32)
                there = again != -INFINITY
                again = tl.where(there, again, 0.0)
                total += tl.sum(again, 1)
                squares += tl.sum(again * again, 1)
                counts += tl.sum(there.to(tl.float32), 1)
            row_total = tl.sum(total, 0)
            if PENALTY:
                row_squares = tl.sum(squares, 0)
            present = tl.sum(counts, 0)
            if EDGES:
                there_edge = x_edge != -INFINITY
                finite_edge = tl.where(there_edge, x_edge, 0.0)
                row_total += tl.sum(finite_edge, 0)
                if PENALTY:
                    row_squares += tl.sum(finite_edge * finite_edge, 0)
                present += tl.sum(there_edge.to(tl.float32), 0)

        row_loss, slope, at_target, share, absent_share = row_terms(
            maximum, row_base, row_exponentials, row_total, present, row_squares, z_y,
            alpha, smoothing, penalty, z_loss,
            MAX_SUP, SMOOTHING, PENALTY, Z_LOSS, STRICT, CLASSES,
        )  # fmt: skip
        factor = tl.full((), 1.0, tl.float32)
        if weight is not None:
            factor = tl.load(weight + y, mask=known, other=0.0).to(tl.float32)
        row_loss = tl.where(keep, factor * row_loss, 0.0)
        if LOSS == "rows":
            tl.store(loss + row, row_loss.to(loss.dtype.element_ty))
        elif LOSS == "sum":
            row_losses += row_loss

        if gradient is not None:
            factor = factor / bottom
            if upstream is not None:
                factor *= tl.load(upstream + place * upstream_stride).to(tl.float32)
            factor = tl.where(keep, factor, 0.0)
            # What is NaN in z_y (an index out of range) has to show in the whole row.
            slope = tl.where(keep, tl.where(z_y == z_y, factor * slope / row_exponentials, z_y), 0.0)
            share = tl.where(keep, factor * share, 0.0)
            absent_share = factor * absent_share
            tension = factor * penalty
            g_y = slope * exp(z_y, row_base) - factor * at_target
            g_y -= tl.where(z_y == -INFINITY, absent_share, share)
            if PENALTY:
                g_y += tl.where(z_y == -INFINITY, 0.0, tension * z_y)
            if MAX_SUP:
                within = keep & (nearest >= 0) & (nearest < groups)
                near = tl.load(pointers + nearest * VECTOR + lane, mask=within, other=-INFINITY)

            out = place * CLASSES
            out_begin = out
            if EDGES:
                out_begin += head
            out_base = gradient + tl.multiple_of(out_begin, VECTOR)
            out = gradient + out
            if INPLACE:
                tl.debug_barrier()  # every thread has read what it needs of the logits
            for back in range(CHUNKS - 1):
                in_row = skip + (CHUNKS - 1 - back) * GROUPS + group >= 0
                there = (skip + (CHUNKS - 2 - back) * GROUPS + group >= 0) & keep
                start = (skip + (CHUNKS - 1 - back) * GROUPS) * VECTOR
                before = pointers + (start - GROUPS * VECTOR + tile)
                if AHEAD:
                    ahead = tl.load(before, mask=there[:, None], other=0.0, eviction_policy="evict_first")
                g = _gradient(x.to(tl.float32), row_base, slope, share, absent_share, tension, some_absent, PENALTY)
                tl.store(
                    out_base + (start + tile), g.to(gradient.dtype.element_ty), mask=in_row[:, None],
                    eviction_policy="evict_first",
                )  # fmt: skip
                if not AHEAD:
                    ahead = tl.load(before, mask=there[:, None], other=0.0, eviction_policy="evict_first")
                x = ahead
            if AHEAD:
                ahead = _first_chunk(
                    logits, row + programs, y_next, logits_stride, ignore_index, CLASSES, CHUNKS, GROUPS, VECTOR,
                    EDGES, KEEP,
                )  # fmt: skip
            g = _gradient(x.to(tl.float32), row_base, slope, share, absent_share, tension, some_absent, PENALTY)
            tl.store(
                out_base + (skip * VECTOR + tile), g.to(gradient.dtype.element_ty),
                mask=(skip + group >= 0)[:, None], eviction_policy="evict_first",
            )  # fmt: skip
            if EDGES:
                g_edge = exp(x_edge, row_base) * slope - share
                if PENALTY:
                    g_edge += x_edge * tension
                g_edge = tl.where(x_edge == -INFINITY, -absent_share, g_edge)
                g_edge = tl.where(keep, g_edge, 0.0)
                tl.store(out + edge_column, g_edge.to(gradient.dtype.element_ty), mask=on_edge)
            top = 0
            g_top = 0.0
            if MAX_SUP:
                # The lowest column of the maximum is in the vector or at the edge.
                columns = head + nearest * VECTOR + lane
                top = tl.min(tl.where(within & (near.to(tl.float32) == maximum), columns, CLASSES), 0)
                if EDGES:
                    top = tl.minimum(top, tl.min(tl.where((x_edge == maximum) & on_edge, edge_column, CLASSES), 0))
                g_y += tl.where(y == top, factor * alpha, 0.0)
                g_top = slope - share + factor * alpha
                if PENALTY:
                    g_top += tension * maximum
            tl.debug_barrier()  # the two special classes come after the rest of the row
            tl.store(out + y, g_y.to(gradient.dtype.element_ty), mask=known)
            if MAX_SUP:
                tl.store(out + top, g_top.to(gradient.dtype.element_ty), mask=known & (top != y) & (top < CLASSES))
        if gradient is None or not AHEAD:
            ahead = _first_chunk(
                logits, row + programs, y_next, logits_stride, ignore_index, CLASSES, CHUNKS, GROUPS, VECTOR, EDGES,
                KEEP,
            )  # fmt: skip
        x, y = ahead, y_next
    if LOSS == "sum":
        finish(loss, sums, counter, row_losses, bottom)
