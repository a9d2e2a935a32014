# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernel for rows that do not fit in registers: two loops over a row, the second in the cache.

The first loop keeps per vector place the running maximum and the sum of exponentials relative to it (online softmax),
so that threads need not talk before the row's end. The second makes the gradient, backwards: what was read last is
nearest. The last chunk of a row stays in registers, and one row is in flight per program, so that the cache holds the
rest. The two classes whose gradient is special, y and argmax, are written again after the row: to look for them in
every chunk took longer.

Where the rows in flight are more than the cache holds, PARTS programs share a row. Between the loops each tells the
others what it has found (`told`), and they wait for each other, so that all programs have to run at once: that is a
cooperative launch.
"""

import triton
import triton.language as tl

from maxsup.kernels.chunks import both_sums, first_chunk, gradient_of, higher, online, prefetch, soft_sums
from maxsup.kernels.parts import (
    INFINITY,
    LOG2_E,
    divisor_of,
    exp,
    finish,
    inside,
    number,
    row_terms,
    shares_of,
    target_of,
)
from maxsup.kernels.sharing import NOTE, added_up, owned, told


@triton.jit(do_not_specialize=["rows", "logits_stride", "soft_stride", "upstream_stride", "ignore_index"])
def stream_kernel(
    logits, gradient, target, soft, weight, loss, sums, counter, divisor, upstream,
    alpha, smoothing, penalty, z_loss,
    rows, upstream_stride, ignore_index, logits_stride, soft_stride, notes, arrivals,
    CLASSES: tl.constexpr, CHUNKS: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
    MAX_SUP: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr, Z_LOSS: tl.constexpr,
    STRICT: tl.constexpr, LOSS: tl.constexpr, DIVISOR: tl.constexpr, PARTIALS: tl.constexpr, INPLACE: tl.constexpr,
    KEEP: tl.constexpr, AHEAD: tl.constexpr, STORE: tl.constexpr, PARTS: tl.constexpr,
    PREFETCH: tl.constexpr,
):  # fmt: skip
    """One row at a time, in PARTS × CHUNKS pieces of GROUPS vectors; the first ones may be short or empty.

    KEEP is the cache hint of the first loop, STORE that of the gradient. With AHEAD the next chunk is on its way to
    registers while one is computed, and at a row's end the next row's first one; PREFETCH more chunks are on their way
    to the cache, at a row's end the next row's.
    """
    alpha, smoothing, penalty, z_loss = number(alpha), number(smoothing), number(penalty), number(z_loss)
    tl.static_assert(PARTS == 1 or soft is None)
    program, programs = tl.program_id(0), tl.num_programs(0)
    reach: tl.constexpr = CHUNKS * GROUPS  # vectors of a program
    part, to_end, turn = 0, reach, 0
    if PARTS > 1:
        part, program, programs = program % PARTS, program // PARTS, programs // PARTS
        to_end = (PARTS - part) * reach
        notes += program * (2 * PARTS * NOTE)
        arrivals += program
    group, lane = tl.arange(0, GROUPS), tl.arange(0, VECTOR)
    edge = tl.arange(0, 2 * VECTOR)
    tile = group[:, None] * VECTOR + lane[None, :]
    row_losses = 0.0
    y = target_of(target, program, rows, ignore_index)
    x = first_chunk(logits, program, y, logits_stride, ignore_index, CLASSES, to_end, GROUPS, VECTOR, EDGES, KEEP)
    if soft is not None:
        t = first_chunk(soft, program, y, soft_stride, ignore_index, CLASSES, to_end, GROUPS, VECTOR, EDGES, KEEP)
    bottom = divisor_of(divisor, target, weight, rows, ignore_index, DIVISOR, CLASSES, PARTIALS, 4096)
    for row in range(program, rows, programs):
        y_next = target_of(target, row + programs, rows, ignore_index)
        place = tl.cast(row, tl.int64)
        keep = y != ignore_index
        known = keep & (y >= 0) & (y < CLASSES)
        offset, begin, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
        z_y = tl.load(logits + offset + y, mask=known, other=float("nan")).to(tl.float32)

        # Chunk c has the vectors `skip + c GROUPS + group` of the inside, from column `head` on; none are below 0.
        if EDGES:
            edge_column = tl.where(edge < VECTOR, edge, head + groups * VECTOR - VECTOR + edge)
            on_edge = tl.where(edge < VECTOR, edge < head, edge_column < CLASSES)
            x_edge = tl.load(logits + offset + edge_column, mask=on_edge & keep, other=-INFINITY).to(tl.float32)
        skip = groups - to_end
        pointers = logits + begin
        if soft is not None:
            soft_offset, soft_begin, _, _ = inside(row, soft_stride, CLASSES, VECTOR, EDGES)
            soft_pointers = soft + soft_begin
            if EDGES:
                t_edge = tl.load(soft + soft_offset + edge_column, mask=on_edge, other=0.0).to(tl.float32)

        highest = tl.full((GROUPS,), -INFINITY, tl.float32)
        base = tl.full((GROUPS,), -INFINITY, tl.float32)
        exponentials = tl.zeros((GROUPS,), tl.float32)
        total = tl.zeros((GROUPS,), tl.float32)
        squares = tl.zeros((GROUPS,), tl.float32)
        first = tl.zeros((GROUPS,), tl.int32)
        mass_here = tl.zeros((GROUPS,), tl.float32)
        expected = tl.zeros((GROUPS,), tl.float32)
        for chunk in range(CHUNKS - 1):
            mask = (skip + chunk * GROUPS + group >= 0) & keep
            there = (skip + (chunk + 1) * GROUPS + group >= 0) & keep
            start = (skip + (chunk + 1) * GROUPS) * VECTOR
            if PREFETCH:
                later = tl.maximum(start + PREFETCH * GROUPS * VECTOR, 0)
                prefetch(pointers + later, keep & (chunk + 1 + PREFETCH < CHUNKS), GROUPS * VECTOR)
            if AHEAD:
                ahead = tl.load(pointers + (start + tile), mask=there[:, None], other=0.0, eviction_policy=KEEP)
            if soft is not None:
                t_ahead = tl.load(soft_pointers + (start + tile), mask=there[:, None], other=0.0, eviction_policy=KEEP)
                mass_here, expected = soft_sums(
                    x.to(tl.float32), t.to(tl.float32), mask[:, None], weight, head + (start - GROUPS * VECTOR + tile),
                    smoothing, mass_here, expected, SMOOTHING, STRICT, CLASSES,
                )  # fmt: skip
                t = t_ahead
            highest, base, exponentials, total, squares, first = online(
                x.to(tl.float32), mask, chunk, highest, base, exponentials, total, squares, first, PENALTY
            )
            if not AHEAD:
                ahead = tl.load(pointers + (start + tile), mask=there[:, None], other=0.0, eviction_policy=KEEP)
            x = ahead
        mask = (skip + (CHUNKS - 1) * GROUPS + group >= 0) & keep
        highest, base, exponentials, total, squares, first = online(
            x.to(tl.float32), mask, CHUNKS - 1, highest, base, exponentials, total, squares, first, PENALTY
        )
        last = head + ((skip + reach - GROUPS) * VECTOR + tile)
        if soft is not None:
            mass_here, expected = soft_sums(
                x.to(tl.float32), t.to(tl.float32), mask[:, None], weight, last,
                smoothing, mass_here, expected, SMOOTHING, STRICT, CLASSES,
            )  # fmt: skip

        # The lowest vector of the maximum comes with it: what threads tell each other costs time that nothing fills.
        vector = skip + first * GROUPS + group
        if PARTS > 1:
            highest, vector, base, exponentials, total, squares = told(
                notes, arrivals, turn, part, highest, vector, base, exponentials, total, squares, PARTS
            )
            turn += 1
        vectors_maximum, nearest = tl.reduce((highest, vector), 0, higher)
        maximum = vectors_maximum
        if EDGES:
            maximum = tl.maximum(maximum, tl.max(x_edge, 0))
        maximum = tl.where(keep, maximum, 0.0)
        row_base = tl.where(keep, maximum * LOG2_E, 0.0)  # rounded: a select is no part of a fused multiply-add
        row_exponentials, row_total = tl.reduce((exponentials * tl.exp2(base - row_base), total), 0, both_sums)
        row_squares = 0.0
        if PENALTY:
            row_squares = tl.sum(squares, 0)
        if EDGES:
            row_exponentials += tl.sum(exp(x_edge, row_base), 0)
            row_total += tl.sum(tl.where(on_edge & keep, x_edge, 0.0), 0)
            if PENALTY:
                row_squares += tl.sum(tl.where(on_edge & keep, x_edge * x_edge, 0.0), 0)
        row_exponentials = tl.where(keep, row_exponentials, 1.0)
        mass = None
        if soft is not None:
            mass, z_y = tl.sum(mass_here, 0), tl.sum(expected, 0)
            if EDGES:
                z_edge = tl.where(on_edge, x_edge, 0.0)
                p_edge = shares_of(t_edge, on_edge, weight, edge_column, smoothing, SMOOTHING, STRICT, CLASSES)
                mass += tl.sum(p_edge, 0)
                z_y += tl.sum(p_edge * z_edge, 0)

        # A class is absent where its logit is −inf, which the sum of the logits shows; then the sums are made anew.
        present = tl.full((), CLASSES, tl.float32)
        some_absent = row_total == -INFINITY
        if some_absent:
            finite = tl.zeros((GROUPS,), tl.float32)
            finite_squares = tl.zeros((GROUPS,), tl.float32)
            counts = tl.zeros((GROUPS,), tl.float32)
            for chunk in range(CHUNKS):
                mask = skip + chunk * GROUPS + group >= 0
                again = tl.load(
                    pointers + ((skip + chunk * GROUPS) * VECTOR + tile), mask=mask[:, None], other=-INFINITY
                ).to(tl.float32)
                there = again != -INFINITY
                again = tl.where(there, again, 0.0)
                finite += tl.sum(again, 1)
                finite_squares += tl.sum(again * again, 1)
                counts += tl.sum(there.to(tl.float32), 1)
            row_total, present = tl.reduce((finite, counts), 0, both_sums)
            if PENALTY:
                row_squares = tl.sum(finite_squares, 0)
            if PARTS > 1:
                row_total, present, row_squares = added_up(
                    notes, arrivals, turn, part, row_total, present, row_squares, PARTS
                )
                turn += 1
            if EDGES:
                there_edge = x_edge != -INFINITY
                finite_edge = tl.where(there_edge, x_edge, 0.0)
                row_total += tl.sum(finite_edge, 0)
                if PENALTY:
                    row_squares += tl.sum(finite_edge * finite_edge, 0)
                present += tl.sum(there_edge.to(tl.float32), 0)

        row_loss, slope, at_target, share, absent_share = row_terms(
            maximum, row_base, row_exponentials, row_total, present, row_squares, z_y, mass,
            alpha, smoothing, penalty, z_loss,
            MAX_SUP, SMOOTHING, PENALTY, Z_LOSS, STRICT, CLASSES,
        )  # fmt: skip
        factor = tl.full((), 1.0, tl.float32)
        if weight is not None and soft is None:
            factor = tl.load(weight + y, mask=known, other=0.0).to(tl.float32)
        row_loss = tl.where(keep, factor * row_loss, 0.0)
        if LOSS == "rows":
            tl.store(loss + row, row_loss.to(loss.dtype.element_ty), mask=part == 0)
        elif LOSS == "sum":
            row_losses += tl.where(part == 0, row_loss, 0.0)

        if gradient is not None:
            factor = factor / bottom
            if upstream is not None:
                factor *= tl.load(upstream + place * upstream_stride).to(tl.float32)
            factor = tl.where(keep, factor, 0.0)
            slope *= factor / row_exponentials
            if soft is None:  # what is NaN in z_y (an index out of range) has to show in the whole row
                slope = tl.where(z_y == z_y, slope, z_y)
            slope = tl.where(keep, slope, 0.0)
            share = tl.where(keep, factor * share, 0.0)
            absent_share = factor * absent_share
            tension = factor * penalty
            g_y = slope * exp(z_y, row_base) - factor * at_target
            g_y -= tl.where(z_y == -INFINITY, absent_share, share)
            if PENALTY:
                g_y += tl.where(z_y == -INFINITY, 0.0, tension * z_y)
            if MAX_SUP:
                within = keep & (nearest >= tl.maximum(skip, 0)) & (nearest < skip + reach)
                near = tl.load(pointers + nearest * VECTOR + lane, mask=within, other=-INFINITY)

            out = place * CLASSES
            out_begin = out
            if EDGES:
                out_begin += head
            out_base = gradient + tl.multiple_of(out_begin, VECTOR)
            out = gradient + out
            if INPLACE:
                tl.debug_barrier()  # every thread has read what it needs of the logits
            if PREFETCH:
                _, next_begin, _, next_groups = inside(row + programs, logits_stride, CLASSES, VECTOR, EDGES)
                next_pointers, next_skip = logits + next_begin, next_groups - to_end
            for back in range(CHUNKS - 1):
                in_row = skip + (CHUNKS - 1 - back) * GROUPS + group >= 0
                there = (skip + (CHUNKS - 2 - back) * GROUPS + group >= 0) & keep
                start = (skip + (CHUNKS - 1 - back) * GROUPS) * VECTOR
                before = pointers + (start - GROUPS * VECTOR + tile)
                if PREFETCH:  # of the next row, in the last PREFETCH iterations
                    chunk = back + 1 + PREFETCH - (CHUNKS - 1)
                    later = tl.maximum(next_skip + chunk * GROUPS, 0) * VECTOR
                    prefetch(next_pointers + later, (chunk > 0) & (y_next != ignore_index), GROUPS * VECTOR)
                if AHEAD:
                    ahead = tl.load(before, mask=there[:, None], other=0.0, eviction_policy="evict_first")
                g = gradient_of(x.to(tl.float32), row_base, slope, share, absent_share, tension, some_absent, PENALTY)
                if soft is not None:
                    t_ahead = tl.load(
                        soft_pointers + (start - GROUPS * VECTOR + tile), mask=there[:, None], other=0.0,
                        eviction_policy="evict_first",
                    )  # fmt: skip
                    g -= factor * shares_of(
                        t.to(tl.float32), in_row[:, None], weight, head + (start + tile), smoothing,
                        SMOOTHING, STRICT, CLASSES,
                    )  # fmt: skip
                    t = t_ahead
                tl.store(
                    out_base + (start + tile), g.to(gradient.dtype.element_ty), mask=in_row[:, None],
                    eviction_policy=STORE,
                )  # fmt: skip
                if not AHEAD:
                    ahead = tl.load(before, mask=there[:, None], other=0.0, eviction_policy="evict_first")
                x = ahead
            if AHEAD:
                ahead = first_chunk(
                    logits, row + programs, y_next, logits_stride, ignore_index, CLASSES, to_end, GROUPS, VECTOR,
                    EDGES, KEEP,
                )  # fmt: skip
            g = gradient_of(x.to(tl.float32), row_base, slope, share, absent_share, tension, some_absent, PENALTY)
            in_row = (skip + group >= 0)[:, None]
            if soft is not None:
                g -= factor * shares_of(
                    t.to(tl.float32), in_row, weight, head + (skip * VECTOR + tile), smoothing,
                    SMOOTHING, STRICT, CLASSES,
                )  # fmt: skip
            tl.store(
                out_base + (skip * VECTOR + tile), g.to(gradient.dtype.element_ty), mask=in_row,
                eviction_policy=STORE,
            )  # fmt: skip
            if EDGES:
                g_edge = exp(x_edge, row_base) * slope - share
                if PENALTY:
                    g_edge += x_edge * tension
                g_edge = tl.where(x_edge == -INFINITY, -absent_share, g_edge)
                if soft is not None:
                    g_edge -= factor * p_edge
                g_edge = tl.where(keep, g_edge, 0.0)
                tl.store(out + edge_column, g_edge.to(gradient.dtype.element_ty), mask=on_edge & (part == 0))
            if MAX_SUP:
                # The lowest column of the maximum is in the vector or at the edge.
                columns = head + nearest * VECTOR + lane
                top = tl.min(tl.where(within & (near.to(tl.float32) == maximum), columns, CLASSES), 0)
                if EDGES:
                    # Behind the vectors' maximum, which another program may have, an equal one is not the lowest.
                    lower = tl.where(vectors_maximum < maximum, CLASSES, VECTOR)
                    at_maximum = (x_edge == maximum) & on_edge & (edge_column < lower)
                    top = tl.minimum(top, tl.min(tl.where(at_maximum, edge_column, CLASSES), 0))
                g_y += tl.where(y == top, factor * alpha, 0.0)
                # In a row of absent classes only, it is absent too.
                g_top = slope - tl.where(maximum == -INFINITY, absent_share, share) + factor * alpha
                if PENALTY:
                    g_top += tension * maximum
                at_top = known & (top < CLASSES)
                if soft is not None:
                    t_top = tl.load(soft + soft_offset + top, mask=at_top, other=0.0).to(tl.float32)
                    g_top -= factor * shares_of(t_top, at_top, weight, top, smoothing, SMOOTHING, STRICT, CLASSES)
                else:
                    at_top &= top != y
            tl.debug_barrier()  # the special classes come after the rest of the row
            if soft is None:
                if PARTS > 1:
                    known &= owned(y, head, groups, skip, reach, part, VECTOR)
                tl.store(out + y, g_y.to(gradient.dtype.element_ty), mask=known)
            if MAX_SUP:
                if PARTS > 1:
                    at_top &= owned(top, head, groups, skip, reach, part, VECTOR)
                tl.store(out + top, g_top.to(gradient.dtype.element_ty), mask=at_top)
        if gradient is None or not AHEAD:
            ahead = first_chunk(
                logits, row + programs, y_next, logits_stride, ignore_index, CLASSES, to_end, GROUPS, VECTOR, EDGES,
                KEEP,
            )  # fmt: skip
        if soft is not None:
            t = first_chunk(
                soft, row + programs, y_next, soft_stride, ignore_index, CLASSES, to_end, GROUPS, VECTOR, EDGES, KEEP
            )
        x, y = ahead, y_next
    if LOSS == "sum":
        finish(loss, sums, counter, row_losses, bottom)
