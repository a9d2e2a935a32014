"""Every method over random shapes, dtypes and options, against its formula in Python floats.

`pytest tests/test_properties.py --hypothesis-show-statistics` says how many cases ran.
"""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from tests.loss_cases import CASES, MOST_CLASSES, expected_rows

NAMES = pytest.mark.parametrize("name", CASES)
# The database is off so that every run draws the same cases.
CASES_PER_METHOD = hypothesis.settings(max_examples=120, deadline=None, derandomize=True, database=None)
# 16-bit losses are rounded once, at the end; float32 ones carry the rounding of their sums.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@st.composite
def problems(draw, case):
    """Logits, target, alpha and options that the method accepts."""
    n, k = draw(st.integers(1, 7)), draw(st.integers(1, MOST_CLASSES))
    positions = draw(st.sampled_from([(), (1,), (3,), (2, 2)])) if case.dense else ()
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([0.1, 3.0, 30.0]))
    logits = torch.randn(n, k, *positions, generator=generator, dtype=torch.float64) * size
    if draw(st.booleans()):
        logits = logits.round()  # ties
    logits = logits.to(dtype)
    target = torch.randint(k, (n, *positions), generator=generator)
    soft = case.soft and draw(st.booleans())
    # Absent classes, never the target's, so that the loss is finite; PyTorch's is NaN for probabilities (0 · inf).
    if not soft and draw(st.booleans()):
        absent = torch.rand(n, k, *positions, generator=generator) < 0.3
        absent &= ~F.one_hot(target, k).movedim(-1, 1).bool()
        logits = logits.masked_fill(absent, -math.inf)
    options = {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    if draw(st.booleans()):
        options["weight"] = torch.rand(k, generator=generator, dtype=torch.float64).add(0.25).to(logits.dtype)
    if options["reduction"] == "mean" and draw(st.booleans()):
        options["num_items"] = draw(st.integers(1, 20))
    if soft:
        target = torch.randn(logits.shape, generator=generator, dtype=torch.float64).softmax(1).to(logits.dtype)
    else:
        ignored = torch.rand(target.shape, generator=generator) < draw(st.sampled_from([0.0, 0.4]))
        options["ignore_index"] = draw(st.sampled_from([-100, -1]))
        target = target.masked_fill(ignored, options["ignore_index"])
    return logits, target, draw(st.floats(0.0, 1.0)), options


def expected(case, logits, target, alpha, options):
    """The reduced loss, by the definitions of `docs/losses.md`."""
    k = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, k)
    soft = target.shape == logits.shape
    labels = target.movedim(1, -1).reshape(-1, k).double() if soft else target.flatten()
    kept = torch.ones(len(rows), dtype=torch.bool) if soft else labels != options["ignore_index"]
    weight = options.get("weight", torch.ones(k)).double()
    losses = torch.zeros(len(rows), dtype=torch.float64)
    losses[kept] = expected_rows(case, rows[kept], labels[kept], alpha)
    if soft:
        # Class weights act within the cross-entropy: replace its plain form.
        log_q = rows.double().log_softmax(1).masked_fill(rows == -math.inf, 0.0)
        losses += -(labels * (weight - 1) * log_q).sum(1)
        divisor = float(len(rows))
    else:
        row_weights = torch.where(kept, weight[labels.clamp_min(0)], 0.0)
        losses *= row_weights
        divisor = float(row_weights.sum())
    if options["reduction"] == "none":
        return losses.reshape(logits.shape[:1] + logits.shape[2:])
    if options["reduction"] == "sum":
        return losses.sum()
    return losses.sum() / options.get("num_items", divisor)


@NAMES
@CASES_PER_METHOD
@hypothesis.given(data=st.data())
def test_the_loss_is_its_formula(name, data):
    case = CASES[name]
    logits, target, alpha, options = data.draw(problems(case))
    ours = case(logits, target, alpha, **options)
    theirs = expected(case, logits, target, alpha, options)
    assert ours.shape == theirs.shape
    assert ours.dtype == logits.dtype
    if options["reduction"] == "mean" and "num_items" not in options and not theirs.isfinite():
        assert ours.isnan()  # every row ignored: 0/0, as in PyTorch
        return
    tolerance = TOLERANCE[logits.dtype]
    scale = 1.0 + float(logits.double().masked_fill(logits == -math.inf, 0.0).abs().max()) ** 2
    if logits.dtype == torch.float16 and theirs.numel():  # a loss beyond the type that it is asked for in
        hypothesis.assume(bool(theirs.abs().max() < torch.finfo(torch.float16).max / 2))
    assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * scale / 30)


@NAMES
@CASES_PER_METHOD
@hypothesis.given(data=st.data())
def test_the_gradient_is_finite_and_sums_to_what_the_formula_says(name, data):
    """A shift of all logits of a row changes neither cross-entropy nor penalty; the logit penalty pays for it."""
    case = CASES[name]
    logits, target, alpha, options = data.draw(problems(case))
    logits = logits.double().requires_grad_()
    soft = target.shape == logits.shape
    if soft:
        target = target.double() / target.double().sum(1, keepdim=True)
        options.pop("weight", None)
    if "weight" in options:
        options["weight"] = options["weight"].double()
    options["reduction"] = "sum"
    options.pop("num_items", None)
    (gradient,) = torch.autograd.grad(case(logits, target, alpha, **options), logits)
    assert gradient.isfinite().all()
    assert gradient[logits == -math.inf].eq(0).all()
    total = torch.zeros_like(gradient.sum(1))
    if name == "logit-penalty":
        total = alpha * logits.detach().masked_fill(logits == -math.inf, 0.0).sum(1)
        if not soft:
            kept = target != options["ignore_index"]
            weight = options.get("weight", torch.ones(logits.shape[1], dtype=torch.float64))
            total = total * torch.where(kept, weight[target.clamp_min(0)], 0.0)
    assert_close(gradient.sum(1), total, rtol=1e-9, atol=1e-9)
