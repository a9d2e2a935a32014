# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernel for rows that fit in registers: several rows at a time, each read once. Its formulas are in `parts`.

Memory sets the speed, so a row is read in vectors of 16 bytes where its place allows. A tile has the shape (ROWS,
GROUPS, VECTOR): a vector is what one thread loads at once, and what can be said of a whole vector (whether it is within
the row, its sum, its maximum) costs a share of an instruction per logit. Triton 3.6 gives a warp's threads to the rows
first: with 8 rows a row has 4 threads, which take few steps to reduce it, and what is computed once a row is computed
for 8 rows at once (Triton 3.8 gives all 32 to one row, which takes more registers: some are spilled). With EDGES the
rows need not begin at a multiple of 16 bytes: the vectors cover the inside of a row, and up to VECTOR − 1 logits on
either side are an edge. The two classes whose gradient is special, y and argmax, are found by comparing every logit,
which memory leaves time for: a store of single logits is a read of what surrounds them, since memory is written by 32
bytes. Probabilities are read in the same vectors.

A gradient in the logits' place needs no barrier: a row is read once, all of it before its maximum is known.
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
    """Logits of the inside (ROWS, GROUPS, VECTOR) and of the edges (ROWS, 2 VECTOR)."""
    keep = (row < rows) & (y != ignore_index)
    offset, begin, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
    group = tl.arange(0, GROUPS)
    column = group[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    mask = (group[None, :] < groups[:, None]) & keep[:, None]
    pointers = logits + begin[:, None, None] + column
    x = tl.load(pointers, mask=mask[:, :, None], other=0.0, eviction_policy="evict_first")
    x_edge = row  # there is none
    if EDGES:
        edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
        x_edge = tl.load(logits + offset[:, None] + edge_column, mask=on_edge & keep[:, None], other=-INFINITY)
    return x, x_edge


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
    t_edge = row
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
    STRICT: tl.constexpr, LOSS: tl.constexpr, DIVISOR: tl.constexpr, PARTIALS: tl.constexpr,
    AHEAD: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    """Rows that fit in registers: ROWS of them at a time, each read once.

    With AHEAD the next rows are on their way while these are computed and written. STORE is the cache hint of the
    gradient.
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
        x_next, x_edge_next = _load_rows(
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
            x_read, x_edge_read = x_next, x_edge_next
            x_next, x_edge_next = _load_rows(
                logits, next_row, y_next, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = t_next, t_edge_next
                t_next, t_edge_next = _load_soft(soft, next_row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        else:
            x_read, x_edge_read = _load_rows(
                logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = _load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        x = x_read.to(tl.float32)
        in_batch = row < rows
        keep = in_batch & (y != ignore_index)
        known = keep & (y >= 0) & (y < CLASSES)
        _, _, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
        whole = group[None, :] < groups[:, None]
        mask = whole & keep[:, None]

        maximum = tl.max(tl.where(mask, tl.max(x, 2), -INFINITY), 1)
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
        else:
            # Places count from the inside's first column. What lies beyond the inside is 0 here, and not written later.
            y_known = tl.where(known, y, -1).to(tl.int32)
            is_y = column == (y_known - head)[:, None, None]
            z_y = tl.sum(tl.sum(tl.where(is_y, x, 0.0), 2), 1)
            if EDGES:
                is_y_edge = edge_mask & (edge_column == y_known[:, None])
                z_y += tl.sum(tl.where(is_y_edge, x_edge, 0.0), 1)
            z_y = tl.where(known, z_y, float("nan"))  # an index out of range makes loss and gradient NaN

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
            if MAX_SUP:
                to_top = factor * alpha
                # The lowest column of the maximum, of the inside or at the edge.
                at = tl.min(tl.where(x == maximum[:, None, None], column, CLASSES), 2)
                top = head + tl.min(tl.where(mask, at, CLASSES), 1)
                if EDGES:
                    highest_edge = edge_mask & (x_edge == maximum[:, None])
                    top = tl.minimum(top, tl.min(tl.where(highest_edge, edge_column, CLASSES), 1))

            g = e * slope[:, None, None] - share[:, None, None]
            if PENALTY:
                g += x * (factor * penalty)[:, None, None]
            if some_absent:
                g = tl.where(x == -INFINITY, -(factor * absent_share)[:, None, None], g)
            if soft is not None:
                g -= p * factor[:, None, None]
            else:
                g -= tl.where(is_y, (factor * at_target)[:, None, None], 0.0)
            if MAX_SUP:
                g += tl.where(column == (top - head)[:, None, None], to_top[:, None, None], 0.0)
            out = row.to(tl.int64) * CLASSES
            out_begin = out + head if EDGES else out  # no sum with 0: that would lose the hint
            out_begin = tl.multiple_of(out_begin, VECTOR)
            tl.store(
                gradient + out_begin[:, None, None] + column, g.to(gradient.dtype.element_ty),
                mask=(whole & in_batch[:, None])[:, :, None], eviction_policy=STORE,
            )  # fmt: skip
            if EDGES:
                g_edge = e_edge * slope[:, None] - share[:, None]
                if PENALTY:
                    g_edge += x_edge * (factor * penalty)[:, None]
                g_edge = tl.where(x_edge == -INFINITY, -(factor * absent_share)[:, None], g_edge)
                if soft is not None:
                    g_edge -= p_edge * factor[:, None]
                else:
                    g_edge -= tl.where(is_y_edge, (factor * at_target)[:, None], 0.0)
                if MAX_SUP:
                    g_edge += tl.where(edge_column == top[:, None], to_top[:, None], 0.0)
                g_edge = tl.where(keep[:, None], g_edge, 0.0)
                tl.store(
                    gradient + out[:, None] + edge_column, g_edge.to(gradient.dtype.element_ty),
                    mask=on_edge & in_batch[:, None], eviction_policy=STORE,
                )  # fmt: skip
        y, y_next = y_next, y_after
    if LOSS == "sum":
        finish(loss, sums, counter, tl.sum(row_losses, 0), bottom)
