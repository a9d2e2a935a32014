# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernel for rows that fit in registers: several rows at a time, each read once. Its formulas are in `parts`.

Memory sets the speed, so a row is read in vectors of 16 bytes where its place allows. A tile has the shape (ROWS,
GROUPS, VECTOR): a vector is what one thread loads at once, and what can be said of a whole vector (whether it is within
the row, its sum, its maximum) costs a share of an instruction per logit. Triton gives a warp's threads to the rows
first: with 8 rows a row has 4 threads, which take few steps to reduce it, and what is computed once a row is computed
for 8 rows at once. With EDGES the rows need not begin at a multiple of 16 bytes: the vectors cover the inside of a row,
and up to VECTOR − 1 logits on either side are an edge. The two classes whose gradient is special, y and argmax, are
written after the tile, so that no logit is compared with them. Probabilities are read in the same vectors.
"""

import triton
import triton.language as tl

from maxsup.kernels.parts import (
    INFINITY,
    LOG2_E,
    divisor_of,
    edges,
    exp,
    finish,
    inside,
    number,
    row_terms,
    shares_of,
    target_of,
)


@triton.jit
def _load_rows(
    logits, row, y, rows, logits_stride, ignore_index,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Logits of the inside (ROWS, GROUPS, VECTOR), of the edges (ROWS, 2 VECTOR) and of the targets (ROWS,)."""
    keep = (row < rows) & (y != ignore_index)
    known = keep & (y >= 0) & (y < CLASSES)
    offset, begin, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
    group = tl.arange(0, GROUPS)
    column = group[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    mask = (group[None, :] < groups[:, None]) & keep[:, None]
    pointers = logits + begin[:, None, None] + column
    x = tl.load(pointers, mask=mask[:, :, None], other=0.0, eviction_policy="evict_first")
    # An index out of range makes loss and gradient NaN.
    z_y = tl.load(logits + offset + y, mask=known, other=float("nan"))
    if EDGES:
        edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
        x_edge = tl.load(logits + offset[:, None] + edge_column, mask=on_edge & keep[:, None], other=-INFINITY)
    else:
        x_edge = z_y
    return x, x_edge, z_y


@triton.jit
def _load_soft(
    soft, row, rows, soft_stride,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Probabilities of the inside (ROWS, GROUPS, VECTOR) and of the edges (ROWS, 2 VECTOR)."""
    offset, begin, head, groups = inside(row, soft_stride, CLASSES, VECTOR, EDGES)
    group = tl.arange(0, GROUPS)
    column = group[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    mask = (group[None, :] < groups[:, None]) & (row < rows)[:, None]
    pointers = soft + begin[:, None, None] + column
    t = tl.load(pointers, mask=mask[:, :, None], other=0.0, eviction_policy="evict_first")
    t_edge = t
    if EDGES:
        edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
        t_edge = tl.load(
            soft + offset[:, None] + edge_column, mask=on_edge & (row < rows)[:, None], other=0.0
        )  # fmt: skip
    return t, t_edge


@triton.jit(do_not_specialize=["rows", "logits_stride", "soft_stride", "upstream_stride", "ignore_index"])
def tile_kernel(
    logits, gradient, target, soft, weight, loss, sums, counter, divisor, upstream,
    alpha, smoothing, penalty, z_loss,
    rows, upstream_stride, ignore_index, logits_stride, soft_stride,
    CLASSES: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
    MAX_SUP: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr, Z_LOSS: tl.constexpr,
    STRICT: tl.constexpr, LOSS: tl.constexpr, DIVISOR: tl.constexpr, PARTIALS: tl.constexpr, INPLACE: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Rows that fit in registers: ROWS of them at a time, each read once.

    With AHEAD the next rows are on their way while these are computed and written.
    """
    alpha, smoothing, penalty, z_loss = number(alpha), number(smoothing), number(penalty), number(z_loss)
    program, programs = tl.program_id(0), tl.num_programs(0)
    step = programs * ROWS
    group, lane = tl.arange(0, GROUPS), tl.arange(0, VECTOR)
    column = group[None, :, None] * VECTOR + lane[None, None, :]
    row_losses = tl.zeros((ROWS,), tl.float32)
    row = program * ROWS + tl.arange(0, ROWS)
    y = target_of(target, row, rows, ignore_index)
    y_next = target_of(target, row + step, rows, ignore_index)
    if AHEAD:
        x_next, x_edge_next, z_y_next = _load_rows(
            logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
        )
        if soft is not None:
            t_next, t_edge_next = _load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
    bottom = divisor_of(divisor, target, weight, rows, ignore_index, DIVISOR, CLASSES, PARTIALS, 1024)
    scale = 1.0 / bottom
    for first_row in range(program * ROWS, rows, step):
        row = first_row + tl.arange(0, ROWS)
        next_row = row + step
        y_after = target_of(target, next_row + step, rows, ignore_index)
        if AHEAD:
            x_read, x_edge_read, z_y_read = x_next, x_edge_next, z_y_next
            x_next, x_edge_next, z_y_next = _load_rows(
                logits, next_row, y_next, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = t_next, t_edge_next
                t_next, t_edge_next = _load_soft(soft, next_row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        else:
            x_read, x_edge_read, z_y_read = _load_rows(
                logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = _load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        x, z_y = x_read.to(tl.float32), z_y_read.to(tl.float32)
        in_batch = row < rows
        keep = in_batch & (y != ignore_index)
        known = keep & (y >= 0) & (y < CLASSES)
        _, begin, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
        whole = group[None, :] < groups[:, None]
        mask = whole & keep[:, None]

        highest = tl.where(mask, tl.max(x, 2), -INFINITY)
        maximum = tl.max(highest, 1)
        total = tl.sum(tl.sum(x, 2), 1)
        if EDGES:
            edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
            edge_mask = on_edge & keep[:, None]
            x_edge = x_edge_read.to(tl.float32)
            maximum = tl.maximum(maximum, tl.max(x_edge, 1))
            total += tl.sum(tl.where(edge_mask, x_edge, 0.0), 1)
        # Rows that do not count get finite numbers, which a factor of 0 takes out of the gradient.
        maximum = tl.where(keep, maximum, 0.0)
        base = maximum * LOG2_E
        e = exp(x, base[:, None, None])
        exponentials = tl.sum(tl.where(mask, tl.sum(e, 2), 0.0), 1)
        if EDGES:
            e_edge = exp(x_edge, base[:, None])
            exponentials += tl.sum(e_edge, 1)
        exponentials = tl.where(keep, exponentials, 1.0)

        mass = None
        if soft is not None:
            t = t_read.to(tl.float32)
            at = head[:, None, None] + column
            p = shares_of(t, mask[:, :, None], weight, at, smoothing, SMOOTHING, STRICT, CLASSES)
            mass, z_y = tl.sum(tl.sum(p, 2), 1), tl.sum(tl.sum(p * x, 2), 1)
            if EDGES:
                t_edge = t_edge_read.to(tl.float32)
                p_edge = shares_of(t_edge, edge_mask, weight, edge_column, smoothing, SMOOTHING, STRICT, CLASSES)
                z_edge = tl.where(edge_mask, x_edge, 0.0)
                mass += tl.sum(p_edge, 1)
                z_y += tl.sum(p_edge * z_edge, 1)

        squares = tl.zeros((ROWS,), tl.float32)
        if PENALTY:
            squares = tl.sum(tl.sum(x * x, 2), 1)
            if EDGES:
                squares += tl.sum(tl.where(edge_mask, x_edge * x_edge, 0.0), 1)
        # A class is absent where its logit is −inf, which the sum of the logits shows; then the sums are made anew.
        present = tl.full((ROWS,), CLASSES, tl.float32)
        some_absent = tl.min(total, 0) == -INFINITY
        if some_absent:
            there = x != -INFINITY
            finite = tl.where(there, x, 0.0)
            total = tl.sum(tl.sum(finite, 2), 1)
            present = tl.sum(tl.where(mask, tl.sum(there.to(tl.float32), 2), 0.0), 1)
            if PENALTY:
                squares = tl.sum(tl.sum(finite * finite, 2), 1)
            if EDGES:
                finite_edge = tl.where(x_edge != -INFINITY, x_edge, 0.0)
                total += tl.sum(finite_edge, 1)
                present += tl.sum((x_edge != -INFINITY).to(tl.float32), 1)
                if PENALTY:
                    squares += tl.sum(finite_edge * finite_edge, 1)

        row_loss, slope, at_target, share, absent_share = row_terms(
            maximum, base, exponentials, total, present, squares, z_y, mass, alpha, smoothing, penalty, z_loss,
            MAX_SUP, SMOOTHING, PENALTY, Z_LOSS, STRICT, CLASSES,
        )  # fmt: skip
        if weight is None or soft is not None:
            factor = tl.full((ROWS,), 1.0, tl.float32)
        else:
            factor = tl.load(weight + y, mask=known, other=0.0).to(tl.float32)
        row_loss = tl.where(keep, factor * row_loss, 0.0)
        if LOSS == "rows":
            tl.store(loss + row, row_loss.to(loss.dtype.element_ty), mask=in_batch)
        elif LOSS == "sum":
            row_losses += row_loss

        if gradient is not None:
            factor = factor * scale
            if upstream is not None:
                factor *= tl.load(upstream + row.to(tl.int64) * upstream_stride, mask=in_batch, other=0.0).to(
                    tl.float32
                )
            factor = tl.where(keep, factor, 0.0)
            slope *= factor / exponentials
            if soft is None:  # what is NaN in z_y (an index out of range) has to show in the whole row
                slope = tl.where(z_y == z_y, slope, z_y)
            slope = tl.where(keep, slope, 0.0)
            share = tl.where(keep, factor * share, 0.0)
            g_y = slope * exp(z_y, base) - factor * at_target - tl.where(z_y == -INFINITY, factor * absent_share, share)
            if PENALTY:
                g_y += tl.where(z_y == -INFINITY, 0.0, factor * penalty * z_y)
            if MAX_SUP:
                # The lowest column of the maximum: first its vector, then the place in it.
                nearest = tl.min(tl.where((highest == maximum[:, None]) & mask, group[None, :], GROUPS), 1)
                near = tl.load(
                    logits + (begin + nearest * VECTOR)[:, None] + lane[None, :],
                    mask=(keep & (nearest < GROUPS))[:, None], other=-INFINITY,
                )  # fmt: skip

            g = e * slope[:, None, None] - share[:, None, None]
            if PENALTY:
                g += x * (factor * penalty)[:, None, None]
            if some_absent:
                g = tl.where(x == -INFINITY, -(factor * absent_share)[:, None, None], g)
            if soft is not None:
                g -= p * factor[:, None, None]
            out = row.to(tl.int64) * CLASSES
            out_begin = out + head if EDGES else out  # no sum with 0: that would lose the hint
            out_begin = tl.multiple_of(out_begin, VECTOR)
            if INPLACE:
                tl.debug_barrier()  # every thread has read what it needs of the logits
            tl.store(
                gradient + out_begin[:, None, None] + column, g.to(gradient.dtype.element_ty),
                mask=(whole & in_batch[:, None])[:, :, None], eviction_policy="evict_first",
            )  # fmt: skip
            if EDGES:
                g_edge = e_edge * slope[:, None] - share[:, None]
                if PENALTY:
                    g_edge += x_edge * (factor * penalty)[:, None]
                g_edge = tl.where(x_edge == -INFINITY, -(factor * absent_share)[:, None], g_edge)
                if soft is not None:
                    g_edge -= p_edge * factor[:, None]
                g_edge = tl.where(keep[:, None], g_edge, 0.0)
                tl.store(
                    gradient + out[:, None] + edge_column, g_edge.to(gradient.dtype.element_ty),
                    mask=on_edge & in_batch[:, None],
                )  # fmt: skip
            if MAX_SUP:
                highest_there = near.to(tl.float32) == maximum[:, None]
                top = tl.min(tl.where(highest_there, (head + nearest * VECTOR)[:, None] + lane[None, :], CLASSES), 1)
                if EDGES:
                    at_edge = (x_edge == maximum[:, None]) & edge_mask
                    top = tl.minimum(top, tl.min(tl.where(at_edge, edge_column, CLASSES), 1))
                g_y += tl.where(y == top, factor * alpha, 0.0)
                g_top = slope - share + factor * alpha
                if PENALTY:
                    g_top += factor * penalty * maximum
                at_top = known & (top < CLASSES)
                if soft is not None:
                    t_top = tl.load(soft + row.to(tl.int64) * soft_stride + top, mask=at_top, other=0.0).to(tl.float32)
                    g_top -= factor * shares_of(t_top, at_top, weight, top, smoothing, SMOOTHING, STRICT, CLASSES)
                else:
                    at_top &= top != y
            tl.debug_barrier()  # the special classes come after the tile
            if soft is None:
                tl.store(gradient + out + y, g_y.to(gradient.dtype.element_ty), mask=known)
            if MAX_SUP:
                tl.store(gradient + out + top, g_top.to(gradient.dtype.element_ty), mask=at_top)
        y, y_next = y_next, y_after
    if LOSS == "sum":
        finish(loss, sums, counter, tl.sum(row_losses, 0), bottom)
