# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""What `tile_kernel` does to a tile of rows: (ROWS, GROUPS, VECTOR) logits, and with EDGES (ROWS, 2 VECTOR) more."""

import triton
import triton.language as tl

from maxsup.kernels.parts import INFINITY, edges, exp, inside, shares_of


@triton.jit
def load_rows(
    logits, row, y, rows, logits_stride, ignore_index,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Logits of the inside (ROWS, GROUPS, VECTOR), of the edges (ROWS, 2 VECTOR), and of the target (ROWS,)."""
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
    z_y = tl.load(logits + offset + y, mask=keep & (y >= 0) & (y < CLASSES), other=float("nan"))
    return x, x_edge, z_y


@triton.jit
def load_soft(
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


@triton.jit
def shares(
    t, t_edge, whole, head, groups, weight, smoothing,
    SMOOTHING: tl.constexpr, STRICT: tl.constexpr,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """What probabilities subtract, in the shapes of `load_soft`."""
    column = tl.arange(0, GROUPS)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    at = head[:, None, None] + column
    p = shares_of(t.to(tl.float32), whole[:, :, None], weight, at, smoothing, SMOOTHING, STRICT, CLASSES)
    p_edge = head
    if EDGES:
        edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
        p_edge = shares_of(
            t_edge.to(tl.float32), on_edge, weight, edge_column, smoothing, SMOOTHING, STRICT, CLASSES
        )  # fmt: skip
    return p, p_edge


@triton.jit
def finite_sums(
    logits, row, y, rows, logits_stride, ignore_index,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Of the logits that are not −inf: sum, sum of squares and number, (ROWS,)."""
    x, x_edge, _ = load_rows(logits, row, y, rows, logits_stride, ignore_index, CLASSES, GROUPS, VECTOR, EDGES)
    _, _, _, groups = inside(row, logits_stride, CLASSES, VECTOR, EDGES)
    whole = tl.arange(0, GROUPS)[None, :] < groups[:, None]
    x = x.to(tl.float32)
    there = x != -INFINITY
    finite = tl.where(there, x, 0.0)
    total = tl.sum(tl.sum(finite, 2), 1)
    squares = tl.sum(tl.sum(finite * finite, 2), 1)
    present = tl.sum(tl.where(whole, tl.sum(there.to(tl.float32), 2), 0.0), 1)
    if EDGES:
        there_edge = x_edge != -INFINITY
        finite_edge = tl.where(there_edge, x_edge.to(tl.float32), 0.0)
        total += tl.sum(finite_edge, 1)
        squares += tl.sum(finite_edge * finite_edge, 1)
        present += tl.sum(there_edge.to(tl.float32), 1)
    return total, squares, present


@triton.jit
def store_gradient(
    gradient, row, in_batch, head, groups, x, e, p, x_edge, base, p_edge,
    y_place, top, factor, slope, share, absent_share, at_target, to_top, tension,
    SOFT: tl.constexpr, ABSENT: tl.constexpr, MAX_SUP: tl.constexpr, PENALTY: tl.constexpr,
    CLASSES: tl.constexpr, GROUPS: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    """Writes the gradient at logits x (ROWS, GROUPS, VECTOR) with exponentials e, and at the edges.

    The places `y_place` and `top` count from the inside's first column. ABSENT says that some logits may be −inf.
    """
    group, lane = tl.arange(0, GROUPS), tl.arange(0, VECTOR)
    vector = group[None, :] * VECTOR
    # One select and one fused multiply-add a class: what a special class has besides is part of what is added.
    added = -share[:, None, None]
    if not SOFT:
        is_y = (y_place[:, None] - vector)[:, :, None] == lane[None, None, :]
        at_y = -share - at_target
        added = tl.where(is_y, at_y[:, None, None], added)
    if MAX_SUP:
        is_top = (top[:, None] - vector)[:, :, None] == lane[None, None, :]
        at_top = to_top - share
        if not SOFT:
            at_top = tl.where(top == y_place, to_top + at_y, at_top)
        added = tl.where(is_top, at_top[:, None, None], added)
    g = e * slope[:, None, None] + added
    if PENALTY:
        g += x * tension[:, None, None]
    if ABSENT:
        without = -absent_share[:, None, None]
        if not SOFT:
            without = tl.where(is_y, (-absent_share - at_target)[:, None, None], without)
        g = tl.where(x == -INFINITY, without, g)
    if SOFT:
        g -= p * factor[:, None, None]
    out = row.to(tl.int64) * CLASSES
    out_begin = out + head if EDGES else out  # no sum with 0: that would lose the hint
    out_begin = tl.multiple_of(out_begin, VECTOR)
    whole = group[None, :] < groups[:, None]
    tl.store(
        gradient + out_begin[:, None, None] + (vector[:, :, None] + lane[None, None, :]),
        g.to(gradient.dtype.element_ty), mask=(whole & in_batch[:, None])[:, :, None], eviction_policy=STORE,
    )  # fmt: skip
    if EDGES:
        edge_column, on_edge = edges(head, groups, CLASSES, VECTOR)
        edge_place = edge_column - head[:, None]
        x_edge = x_edge.to(tl.float32)
        g_edge = exp(x_edge, base[:, None]) * slope[:, None] - share[:, None]
        if PENALTY:
            g_edge += x_edge * tension[:, None]
        g_edge = tl.where(x_edge == -INFINITY, -absent_share[:, None], g_edge)
        if SOFT:
            g_edge -= p_edge * factor[:, None]
        else:
            g_edge -= tl.where(edge_place == y_place[:, None], at_target[:, None], 0.0)
        if MAX_SUP:
            g_edge += tl.where(edge_place == top[:, None], to_top[:, None], 0.0)
        tl.store(
            gradient + out[:, None] + edge_column, g_edge.to(gradient.dtype.element_ty),
            mask=on_edge & in_batch[:, None], eviction_policy=STORE,
        )  # fmt: skip
