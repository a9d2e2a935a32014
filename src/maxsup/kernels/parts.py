# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""What the loss kernels are made of: a row's place in memory, its loss and gradient from its sums, and their sum.

For a row z (K,) with target y, q = softmax(z), L = logsumexp(z), n the number of classes whose logit is not −inf, means
and squares over those, and w the row's weight:

    loss = w (L − z_y + alpha (max z − mean z) + smoothing (z_y − mean z) + penalty ‖z‖²/2 + z_loss L²)
    dloss/dz_k = w (q_k (1 + 2 z_loss L) − (1 − smoothing) [k = y] + alpha [k = argmax] − (alpha + smoothing)/n
                    + penalty z_k)

With probabilities t (K,) in place of y there is no w. The class weights w_k act in the cross-entropy, so that each
class has a share p_k = w_k t_k − smoothing t_k of what is subtracted, and

    loss = (Σ p + smoothing) L − Σ p z − smoothing mean z + …
    dloss/dz_k = q_k (Σ p + smoothing + 2 z_loss L) − p_k − smoothing/n + …

With STRICT the smoothing is PyTorch's: −smoothing log q_k / K takes part even where z_k is −inf. There p_k is w_k ((1 −
smoothing) t_k + smoothing/K), and has all of the smoothing.

The exponentials are 2^(z log2 e − m log2 e) by one fused multiply-add, the second product rounded. That shifts all of a
row's exponents by `rounding`, which cancels in q and is subtracted from L.

Shapes of what the kernels' pointers point to: logits (rows, CLASSES) with adjacent columns, gradient (rows, CLASSES)
without gaps, target (rows,), or None and soft (rows, CLASSES) with adjacent columns, weight (CLASSES,), upstream
(rows,) or () with a stride of 0, loss (rows,) or with LOSS = "sum" (), and then sums (programs,) and counter (), which
is 0. A strength is a number or the pointer to one.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def number(value):
    """A float32 from a number or from the pointer to one: neither is part of what is compiled."""
    value = tl.where(True, value, value)  # to the interpreter a number is a Python float: this makes it a tensor
    if value.dtype.is_ptr():
        value = tl.load(value)
    return value.to(tl.float32)


@triton.jit
def exp(x, base):
    """exp(x − m) for base = m log2 e, rounded."""
    return tl.exp2(tl.fma(x, tl.full(x.shape, LOG2_E, tl.float32), -base))


@triton.jit
def rounding(maximum, base):
    """What rounding took from `base`."""
    return tl.fma(maximum, tl.full(maximum.shape, LOG2_E, tl.float32), -base)


@triton.jit
def inside(row, logits_stride, CLASSES: tl.constexpr, VECTOR: tl.constexpr, EDGES: tl.constexpr):
    """Offset of a row; of its whole vectors where they begin, at which column, and how many they are."""
    offset = tl.cast(row, tl.int64) * logits_stride
    if EDGES:
        begin = (offset + (VECTOR - 1)) // VECTOR * VECTOR
        end = (offset + CLASSES) // VECTOR * VECTOR
        head = (begin - offset).to(tl.int32)
        groups = ((end - begin) // VECTOR).to(tl.int32)
    else:
        begin = offset
        head = (offset * 0).to(tl.int32)
        groups = head + CLASSES // VECTOR
    # The hint is of the operation that makes `begin`: an argument could not bear it.
    return offset, tl.multiple_of(begin, VECTOR), head, groups


@triton.jit
def edges(head, groups, CLASSES: tl.constexpr, VECTOR: tl.constexpr):
    """Columns (ROWS, 2 VECTOR) before and after the inside, and which of them there are."""
    edge = tl.arange(0, 2 * VECTOR)[None, :]
    column = tl.where(edge < VECTOR, edge, (head + groups * VECTOR - VECTOR)[:, None] + edge)
    return column, tl.where(edge < VECTOR, edge < head[:, None], column < CLASSES)


@triton.jit
def target_of(target, row, rows, ignore_index):
    """The target of a row, the ignored one beyond the batch, and 0 where there are probabilities."""
    y = (row * 0).to(tl.int64) if target is None else tl.load(target + row, mask=row < rows, other=0).to(tl.int64)
    return tl.where(row < rows, y, ignore_index)


@triton.jit
def sum_of_weights(target, weight, start, stop, step, ignore_index, CLASSES: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of the weights of the targets start, …, stop − 1 that are not ignored, BLOCK at a time, `step` apart."""
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(start, stop, step):
        index = first + tl.arange(0, BLOCK)
        y = tl.load(target + index, mask=index < stop, other=0).to(tl.int64)
        keep = (index < stop) & (y != ignore_index)
        if weight is None:
            total += keep.to(tl.float32)
        else:
            total += tl.load(weight + y, mask=keep & (y >= 0) & (y < CLASSES), other=0.0).to(tl.float32)
    return tl.sum(total, 0)


@triton.jit
def divisor_of(
    divisor, target, weight, rows, ignore_index,
    DIVISOR: tl.constexpr, CLASSES: tl.constexpr, PARTIALS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum's divisor, a float32: "one", a "number", the "rows", the weights of "targets" or of their "partials"."""
    if DIVISOR == "one":
        result = 1.0
    elif DIVISOR == "number":
        result = number(divisor)
    elif DIVISOR == "rows":
        result = number(rows)
    elif DIVISOR == "targets":
        result = sum_of_weights(target, weight, 0, rows, BLOCK, ignore_index, CLASSES, BLOCK)
    else:
        result = tl.sum(tl.load(divisor + tl.arange(0, PARTIALS)), 0)
    return result


@triton.jit
def row_terms(
    maximum, base, exponentials, total, present, squares, z_y, mass,
    alpha, smoothing, penalty, z_loss,
    MAX_SUP: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr, Z_LOSS: tl.constexpr,
    STRICT: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """From the sums over a row: loss, factor of q, factor of −[k = y], share of a present and of an absent class.

    With probabilities z_y is Σ p z and mass is Σ p, else None.
    """
    log_sum = maximum + (tl.log2(exponentials) - rounding(maximum, base)) * LN_2
    mean = total / present
    if mass is None:
        loss = log_sum - z_y
        slope = tl.full(loss.shape, 1.0, tl.float32)
    else:
        loss = mass * log_sum - z_y
        slope = mass
    at_target = tl.full(loss.shape, 1.0, tl.float32)
    share = tl.zeros(loss.shape, tl.float32)
    absent_share = tl.where(maximum == -INFINITY, float("nan"), 0.0)  # a row without a class has no gradient
    if MAX_SUP:
        loss += alpha * (maximum - mean)
        share += alpha / present
    if SMOOTHING and mass is not None:
        if not STRICT:
            loss += smoothing * (log_sum - mean)
            slope += smoothing
            share += smoothing / present
    elif SMOOTHING:
        if STRICT:
            # An absent class makes the smoothed sum inf, as PyTorch has it; its gradient is finite.
            loss = tl.where(present < CLASSES, log_sum - maximum + INFINITY, loss + smoothing * (z_y - mean))
            share += smoothing / CLASSES
            absent_share += smoothing / CLASSES
            at_target -= smoothing
        else:
            # The cross-entropy of an absent target is inf by itself: −inf here would turn the sum into NaN.
            absent = z_y == -INFINITY
            loss += smoothing * (tl.where(absent, log_sum, z_y) - mean)
            share += smoothing / present
            at_target -= tl.where(absent, 0.0, smoothing)
    if PENALTY:
        loss += penalty * squares * 0.5
    if Z_LOSS:
        loss += z_loss * log_sum * log_sum
        slope += 2.0 * z_loss * log_sum
    return loss, slope, at_target, share, absent_share


@triton.jit
def shares_of(
    t, there, weight, column, smoothing, SMOOTHING: tl.constexpr, STRICT: tl.constexpr, CLASSES: tl.constexpr
):
    """The shares p of probabilities t, 0 where no class is `there`."""
    p = t
    if SMOOTHING and STRICT:
        p = tl.where(there, t * (1.0 - smoothing) + smoothing / CLASSES, 0.0)
    if weight is not None:
        p *= tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    if SMOOTHING and not STRICT:
        p -= smoothing * t
    return p


@triton.jit
def finish(loss, sums, counter, total, bottom):
    """The last program to arrive adds up what all have left, in the programs' order, and divides it into the loss."""
    programs = tl.num_programs(0)
    tl.store(sums + tl.program_id(0), total)
    tl.debug_barrier()  # whichever thread stored the sum, it did so before the counter tells
    if tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1:
        totals = tl.zeros((1024,), tl.float32)
        for first in range(0, programs, 1024):
            index = first + tl.arange(0, 1024)
            totals += tl.load(sums + index, mask=index < programs, other=0.0, cache_modifier=".cg")
        tl.store(loss, (tl.sum(totals, 0) / bottom).to(loss.dtype.element_ty))
        tl.store(counter, 0)  # for the next launch
