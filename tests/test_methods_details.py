"""What is particular to one method."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import maxsup
from maxsup import functional
from maxsup.methods.online_label_smoothing import first_table
from maxsup.methods.zipf import ranks, votes
from tests.loss_cases import CASES, batch, value_and_gradient


def test_parts_add_up_to_label_smoothing():
    for shape in ((40, 7), (3, 7, 2)):
        logits, target = batch(*shape)
        logits = logits.detach().round()  # so that there are ties with z_gt
        logits[0, 6] = -math.inf
        target[0] = 1
        target[1] = -100
        parts = functional.label_smoothing_parts(logits, target, 0.3)
        total = functional.label_smoothing_cross_entropy(logits, target, 0.3, reduction="none")
        assert parts.cross_entropy.shape == target.shape
        assert_close(sum(parts), total)
        assert parts.regularization.ge(0).all()
        assert parts.error_enhancement.le(0).all()
        assert_close(parts.cross_entropy, F.cross_entropy(logits, target, reduction="none"))


def test_parts_refuse_probabilities():
    with pytest.raises(ValueError, match="target must hold class indices"):
        functional.label_smoothing_parts(torch.zeros(2, 3), torch.zeros(2, 3))


def test_ablation_rows_by_hand():
    logits, target = torch.tensor([[4.0, 1.0, 0.0, 3.0, 1.0]], dtype=torch.float64), torch.tensor([1])
    plain = float(F.cross_entropy(logits, target))
    # below 1: only 0; above: 4 and 3; equal: class 4
    for function, form, added in [
        (functional.label_smoothing_regularization_cross_entropy, "terms", 1.0),
        (functional.label_smoothing_regularization_cross_entropy, "classes", 1 / 5),
        (functional.label_smoothing_error_enhancement_cross_entropy, "terms", -5 / 2),
        (functional.label_smoothing_error_enhancement_cross_entropy, "classes", -5 / 5),
        (functional.label_smoothing_error_enhancement_cross_entropy, "max", -3.0),
    ]:
        assert_close(float(function(logits, target, 0.1, form=form)), plain + 0.1 * added)


def test_unknown_forms_are_refused():
    for function in (
        functional.label_smoothing_regularization_cross_entropy,
        functional.label_smoothing_error_enhancement_cross_entropy,
    ):
        with pytest.raises(ValueError, match=r"form must be one of terms, classes.*, got 'mean'"):
            function(torch.zeros(2, 3), torch.tensor([0, 1]), form="mean")


def test_online_first_epoch():
    logits, target = batch()
    uniform = maxsup.OnlineLabelSmoothingLoss(5, 0.5).double()
    assert_close(uniform(logits, target), F.cross_entropy(logits, target, label_smoothing=0.1))
    zeros = maxsup.OnlineLabelSmoothingLoss(5, 0.25, init="zeros").double()
    assert_close(zeros(logits, target), 0.75 * F.cross_entropy(logits, target))
    assert_close(first_table(4, 0.0), torch.eye(4))


def test_online_epochs_by_hand():
    loss = maxsup.OnlineLabelSmoothingLoss(3, ignore_index=2)
    right = torch.tensor([[2.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # the tie counts: argmax is the first
    wrong = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
    loss(right, torch.tensor([0, 0, 0]))
    loss(wrong, torch.tensor([0, 2]))  # predicted wrong; ignored
    assert loss.counts.tolist() == [3.0, 0.0, 0.0]
    loss.eval()(right, torch.tensor([0, 0, 0]))  # evaluation is not remembered
    assert loss.counts.tolist() == [3.0, 0.0, 0.0]
    loss.next_epoch()
    expected = torch.stack([right.softmax(1).mean(0), torch.full((3,), 1 / 3), torch.full((3,), 1 / 3)])
    assert_close(loss.table, expected)
    assert loss.sums.eq(0).all()
    assert loss.counts.eq(0).all()
    hard = F.cross_entropy(wrong[:1], torch.tensor([0]))
    soft = -(expected[0] * wrong[0].log_softmax(0)).sum()
    assert_close(loss(wrong[:1], torch.tensor([0])), 0.5 * hard + 0.5 * soft)


def test_online_alpha_zero_still_remembers():
    loss = maxsup.OnlineLabelSmoothingLoss(5, 0.0)
    logits, target = batch(40, dtype=torch.float32)
    assert_close(loss(logits, target), F.cross_entropy(logits, target))
    assert loss.counts.sum() == (logits.argmax(1) == target).sum() > 0


def test_online_state_survives_a_resume():
    logits, target = batch(40, dtype=torch.float32)
    unbroken = maxsup.OnlineLabelSmoothingLoss(5)
    unbroken(logits, target)
    unbroken.next_epoch()
    unbroken(logits[:20], target[:20])
    resumed = maxsup.OnlineLabelSmoothingLoss(5, init="zeros")
    resumed.load_state_dict(unbroken.state_dict())
    for loss in (unbroken, resumed):
        loss(logits[20:], target[20:])
        loss.next_epoch()
    assert_close(resumed.table, unbroken.table, rtol=0, atol=0)
    assert not torch.equal(resumed.table, first_table(5, 0.2))


def test_online_errors():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"table must have shape \(3, 3\), got \(2, 3\)"):
        functional.online_label_smoothing_cross_entropy(logits, target, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        maxsup.OnlineLabelSmoothingLoss(0)
    with pytest.raises(ValueError, match="init must be one of uniform, zeros, got 'ones'"):
        maxsup.OnlineLabelSmoothingLoss(3, init="ones")
    with pytest.raises(ValueError, match=r"smoothing must be a number from 0 to 0\.05, got 0\.1"):
        maxsup.OnlineLabelSmoothingLoss(3, 0.05)


def test_zipf_ranks_and_votes_by_hand():
    assert ranks(torch.tensor([[0.0, 3.0, 1.0, 0.0, 3.0, 0.0]])).tolist() == [[4, 1, 3, 4, 1, 4]]
    dense = torch.zeros(2, 3, 4)
    dense[0, 2, :3] = 1.0
    dense[1, 1] = 1.0
    assert votes(dense).tolist() == [[1.0, 0.0, 3.0], [0.0, 4.0, 0.0]]


def test_zipf_by_hand():
    # Votes 0: 1, 1: 0, 2: 3, 3: 0; ranks 2, 3, 1, 3. Target 2 dropped: 1/2, 1/3, 1/3 -> 3/7, 2/7, 2/7.
    dense = torch.zeros(1, 4, 2, 2)
    dense[0, 2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    logits = torch.tensor([[1.0, 0.0, 5.0, 2.0]], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([3 / 7, 2 / 7, 2 / 7], dtype=torch.float64)
    log_q = logits[0, [0, 1, 3]].log_softmax(0)
    expected = F.cross_entropy(logits, torch.tensor([2])) + 0.7 * (p * (p.log() - log_q)).sum()
    loss = functional.zipf_label_smoothing_cross_entropy(logits, torch.tensor([2]), dense, 0.7)
    assert_close(loss, expected)
    _, gradient = value_and_gradient(
        functional.zipf_label_smoothing_cross_entropy, logits, torch.tensor([2]), dense, 0.7
    )
    _, plain = value_and_gradient(F.cross_entropy, logits, torch.tensor([2]))
    assert gradient[0, 2] == plain[0, 2]  # the target's logit hears nothing of this term
    assert_close((gradient - plain)[0, [0, 1, 3]], 0.7 * (log_q.exp() - p).detach())


def test_zipf_upsamples_before_the_vote():
    dense = torch.tensor([[[[4.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2): one vote each
    logits, target = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    wide = F.interpolate(dense, scale_factor=2, mode="bilinear")
    assert votes(dense.flatten(2)).tolist() == [[1.0, 1.0]]
    assert votes(wide.flatten(2)).tolist() == [[6.0, 2.0]]
    dense = torch.cat([dense, torch.full((1, 1, 1, 2), -9.0)], 1)
    logits = torch.zeros(1, 3, dtype=torch.float64)
    target = torch.tensor([2])
    once = functional.zipf_label_smoothing_cross_entropy(logits, target, dense, 1.0)  # P = 1/2, 1/2
    twice = functional.zipf_label_smoothing_cross_entropy(logits, target, dense, 1.0, upsample=2)  # P = 2/3, 1/3
    assert_close(float(once), math.log(3))
    assert_close(float(twice), math.log(3) + 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))


def test_zipf_sends_no_gradient_to_the_dense_logits():
    logits, target = batch()
    dense = torch.randn(6, 5, 4, requires_grad=True)
    functional.zipf_label_smoothing_cross_entropy(logits, target, dense).backward()
    assert dense.grad is None


@pytest.mark.parametrize(
    ("logits", "dense", "options", "error", "message"),
    [
        (torch.zeros(2, 3), None, {}, TypeError, "dense_logits must be a tensor .*ranking='logits'.*, got NoneType"),
        (torch.zeros(2, 3), torch.zeros(2, 3), {}, ValueError, r"dense_logits .* positions, got \(2, 3\)"),
        (torch.zeros(2, 3), torch.zeros(2, 4, 3), {}, ValueError, r"dense_logits .* \(2, 3\) .*, got \(2, 4, 3\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), {"upsample": 2}, ValueError, r"upsample .*, got shape \(2, 3, 4\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), {"upsample": 0}, ValueError, "upsample .* at least 1, got 0"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), {"ranking": "logits"}, ValueError, "dense_logits must be None"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), {"ranking": "best"}, ValueError, "ranking must .*, got 'best'"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), {}, ValueError, r"input must have .*, got \(2, 3, 2\)"),
    ],
)
def test_zipf_errors(logits, dense, options, error, message):
    target = torch.zeros((2, *logits.shape[2:]), dtype=torch.int64)
    with pytest.raises(error, match=message):
        functional.zipf_label_smoothing_cross_entropy(logits, target, dense, **options)


def test_confidence_penalty_gradient_is_the_formula():
    logits, target = batch(1)
    q = logits.detach().softmax(1)
    entropy = -(q * q.log()).sum()
    _, gradient = value_and_gradient(functional.confidence_penalty_cross_entropy, logits, target, 0.3)
    assert_close(gradient, q - F.one_hot(target, 5) + 0.3 * q * (q.log() + entropy))


def test_confidence_hinge_leaves_uncertain_predictions_alone():
    logits = torch.tensor([[0.1, 0.0, -0.1], [9.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 1])
    ours = functional.confidence_penalty_cross_entropy(logits, target, 0.3, threshold=0.5, reduction="none")
    plain = F.cross_entropy(logits, target, reduction="none")
    assert ours[0] == plain[0]
    q = logits[1].softmax(0)
    assert_close(ours[1], plain[1] + 0.3 * (0.5 + (q * q.log()).sum()))
    with pytest.raises(ValueError, match=r"threshold must be .* at least 0, got -1"):
        functional.confidence_penalty_cross_entropy(logits, target, threshold=-1.0)


def test_logit_penalty_gradient_is_the_formula():
    logits, target = batch(1)
    _, gradient = value_and_gradient(functional.logit_penalty_cross_entropy, logits, target, 0.3)
    assert_close(gradient, logits.softmax(1) - F.one_hot(target, 5) + 0.3 * logits.detach())


def test_every_module_is_its_function():
    logits, target = batch(dtype=torch.float32)
    target[2] = -1
    options = {"weight": torch.linspace(0.5, 2, 5), "ignore_index": -1, "reduction": "sum"}
    for name, case in CASES.items():
        extra = case.extra(logits, torch.arange(5))
        if name == "online":
            loss = case.module(5, 0.3, **options)
            loss.table.copy_(extra["table"])
            extra = {}
        else:
            loss = case.module(0.3, **case.options, **options)
        assert_close(loss(logits, target, **extra), case(logits, target, 0.3, **options))
        loss.alpha = 0.0
        assert_close(loss(logits, target, **extra), F.cross_entropy(logits, target, **options))
        assert "alpha=0" in repr(loss)
        with pytest.raises(ValueError, match=r"alpha must be .*, got -1"):
            loss.alpha = -1


def test_online_an_overflowing_row_leaves_the_table_finite():
    loss = maxsup.OnlineLabelSmoothingLoss(3)
    logits = torch.tensor([[7e4, 0.0, 0.0], [3.0, 0.0, 0.0]]).half()  # the first is inf in float16
    loss(logits, torch.tensor([0, 0]))
    assert loss.counts.tolist() == [1, 0, 0]
    loss.next_epoch()
    assert_close(loss.table[0], logits[1].float().softmax(0))


def test_online_counts_go_beyond_what_float32_counts():
    loss = maxsup.OnlineLabelSmoothingLoss(2)
    logits, target = torch.zeros(1, 2, 1000), torch.zeros(1, 1000, dtype=torch.int64)
    logits[:, 0] = 2.0
    loss.counts[0], loss.sums[0] = 2**24, 2**24 * logits[0, :, 0].softmax(0)
    loss(logits, target)
    assert loss.counts[0] == 2**24 + 1000
    loss.next_epoch()
    assert_close(loss.table[0], logits[0, :, 0].softmax(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_casting_a_module_to_16_bits_spares_its_numbers(dtype):
    loss = maxsup.OnlineLabelSmoothingLoss(3, weight=torch.ones(3)).to(dtype)
    assert loss.weight.dtype == dtype
    assert {loss.alpha.dtype, loss.table.dtype, loss.sums.dtype} == {torch.float32}
    assert maxsup.MaxSupCrossEntropyLoss().double().alpha.dtype == torch.float64


def test_alpha_may_change_between_forward_and_backward():
    logits, target = batch(dtype=torch.float32)
    for case in CASES.values():
        if case is CASES["online"]:
            continue
        loss, extra = case.module(0.3, **case.options), case.extra(logits, torch.arange(5))
        _, expected = value_and_gradient(loss, logits, target, **extra)
        value = loss(logits, target, **extra)
        loss.alpha = 0.7
        (gradient,) = torch.autograd.grad(value, logits)
        assert_close(gradient, expected, rtol=0, atol=0)


def test_an_empty_sum_of_the_parts_has_no_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    _, plain = value_and_gradient(F.cross_entropy, logits, torch.tensor([0]))
    for name in ("regularization-terms", "error-enhancement-terms"):
        _, gradient = value_and_gradient(CASES[name], logits, torch.tensor([0]), 0.9)
        assert_close(gradient, plain)
