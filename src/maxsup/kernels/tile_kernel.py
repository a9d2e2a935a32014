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
bytes. The target's logit is loaded, from the row that is on its way already. Probabilities are read in the same
vectors.

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
    target_of,
)
from maxsup.kernels.tiles import finite_sums, load_rows, load_soft, shares, store_gradient


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
    row_losses = tl.zeros((ROWS,), tl.float32)
    row = program * ROWS + tl.arange(0, ROWS)
    y = target_of(target, row, rows, ignore_index)
    y_next = target_of(target, row + step, rows, ignore_index)
    if AHEAD:
        x_next, x_edge_next, z_y_next = load_rows(
            logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
        )
        if soft is not None:
            t_next, t_edge_next = load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
    bottom = divisor_of(divisor, target, weight, rows, ignore_index, DIVISOR, CLASSES, PARTIALS, 1024)
    scale = 1.0 / bottom
    for first_row in range(program * ROWS, rows, step):
        row = first_row + tl.arange(0, ROWS)
        next_row = row + step
        y_after = target_of(target, next_row + step, rows, ignore_index)
        if AHEAD:
            x_read, x_edge_read, z_y = x_next, x_edge_next, z_y_next
            x_next, x_edge_next, z_y_next = load_rows(
                logits, next_row, y_next, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = t_next, t_edge_next
                t_next, t_edge_next = load_soft(soft, next_row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        else:
            x_read, x_edge_read, z_y = load_rows(
                logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )
            if soft is not None:
                t_read, t_edge_read = load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
        # What no row counts for is loaded as 0: its sums are finite, and a factor of 0 takes it out of the gradient.
        x = x_read.to(tl.float32)
        in_batch = row < rows
        keep = in_batch & (y != ignore_index)
        known = keep & (y >= 0) & (y < CLASSES)
        _, _, head, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
        whole = group[None, :] < groups[:, None]

        maximum = tl.max(tl.where(whole, tl.max(x, 2), -INFINITY), 1)
        total = tl.sum(tl.sum(x, 2), 1)
        if EDGES:
            edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
            edge_mask = on_edge & keep[:, None]
            x_edge = x_edge_read.to(tl.float32)
            maximum = tl.maximum(maximum, tl.max(x_edge, 1))
            total += tl.sum(tl.where(edge_mask, x_edge, 0.0), 1)
        maximum = tl.where(keep, maximum, 0.0)
        base = maximum * LOG2_E
        e = exp(x, base[:, None, None])
        exponentials = tl.sum(tl.where(whole, tl.sum(e, 2), 0.0), 1)
        e_edge = row
        if EDGES:
            e_edge = exp(x_edge, base[:, None])
            exponentials += tl.sum(e_edge, 1)
            exponentials = tl.where(keep, exponentials, 1.0)

        mass = None
        y_place = tl.where(known, y, -1).to(tl.int32) - head
        if soft is not None:
            p, p_edge = shares(
                t_read, t_edge_read, whole, head, groups, weight, smoothing,
                SMOOTHING, STRICT, CLASSES, GROUPS, VECTOR, EDGES,
            )  # fmt: skip
            mass, z_y = tl.sum(tl.sum(p, 2), 1), tl.sum(tl.sum(p * x, 2), 1)
            if EDGES:
                mass += tl.sum(p_edge, 1)
                z_y += tl.sum(p_edge * tl.where(edge_mask, x_edge, 0.0), 1)
        else:
            p, p_edge = row, row  # there is none
            z_y = z_y.to(tl.float32)  # NaN if the index is out of range, which makes loss and gradient NaN

        top = tl.full((ROWS,), -1, tl.int32)
        if MAX_SUP and gradient is not None:
            # The lowest place of the maximum, of the inside or at the edge.
            at = tl.min(tl.where(x == maximum[:, None, None], lane[None, None, :], VECTOR), 2)
            at = tl.where(at < VECTOR, at + group[None, :] * VECTOR, CLASSES)
            if EDGES:
                at = tl.where(whole, at, CLASSES)
            top = tl.min(at, 1)
            if EDGES:
                highest_edge = edge_mask & (x_edge == maximum[:, None])
                top = tl.minimum(top, tl.min(tl.where(highest_edge, edge_column - head[:, None], CLASSES), 1))

        squares = tl.zeros((ROWS,), tl.float32)
        if PENALTY:
            squares = tl.sum(tl.sum(x * x, 2), 1)
            if EDGES:
                squares += tl.sum(tl.where(edge_mask, x_edge * x_edge, 0.0), 1)
        # A class is absent where its logit is −inf, which the sum of the logits shows. That is rare: the row is read
        # again, so that here and in the gradient nothing is kept for it.
        present = tl.full((ROWS,), CLASSES, tl.float32)
        some_absent = tl.min(total, 0) == -INFINITY
        if some_absent:
            total, squares, present = finite_sums(
                logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
            )

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
                slope = tl.where(known == keep, slope, z_y)
            share = tl.where(keep, factor * share, 0.0)
            absent_share = tl.where(keep, factor * absent_share, 0.0)
            at_target, to_top, tension = factor * at_target, factor * alpha, factor * penalty
            if some_absent:
                x_again, x_edge_again, _z_again = load_rows(
                    logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES
                )
                p_again, p_edge_again = row, row
                if soft is not None:
                    t_again, t_edge_again = load_soft(soft, row, rows, soft_stride, CLASSES, GROUPS, VECTOR, EDGES)
                    p_again, p_edge_again = shares(
                        t_again, t_edge_again, whole, head, groups, weight, smoothing,
                        SMOOTHING, STRICT, CLASSES, GROUPS, VECTOR, EDGES,
                    )  # fmt: skip
                tl.debug_barrier()  # it may be written in its own place
                store_gradient(
                    gradient, row, in_batch, head, groups, x_again.to(tl.float32),
                    exp(x_again.to(tl.float32), base[:, None, None]), p_again, x_edge_again, base, p_edge_again,
                    y_place, top, factor, slope, share, absent_share, at_target, to_top, tension,
                    soft is not None, True, MAX_SUP, PENALTY, CLASSES, GROUPS, VECTOR, EDGES, STORE,
                )  # fmt: skip
            else:
                store_gradient(
                    gradient, row, in_batch, head, groups, x, e, p, x_edge_read, base, p_edge,
                    y_place, top, factor, slope, share, absent_share, at_target, to_top, tension,
                    soft is not None, False, MAX_SUP, PENALTY, CLASSES, GROUPS, VECTOR, EDGES, STORE,
                )  # fmt: skip
        y, y_next = y_next, y_after
    if LOSS == "sum":
        finish(loss, sums, counter, tl.sum(row_losses, 0), bottom)
