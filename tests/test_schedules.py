"""Schedules: the values, resume, and the warning when nobody steps."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from maxsup import MaxSupCrossEntropyLoss
from maxsup.schedules import ConstantAlpha, CosineAlpha, LinearAlpha


def values(schedule, loss, steps, attribute="alpha"):
    seen = []
    for _ in range(steps):
        assert float(getattr(loss, attribute)) == pytest.approx(schedule.get_last_alpha(), rel=1e-6)
        seen.append(schedule.get_last_alpha())
        schedule.step()
    return seen


def test_linear_reaches_its_end_and_stays():
    loss = MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(loss, start=0.1, end=0.2, total_steps=5)
    seen = values(schedule, loss, 7)
    assert seen == pytest.approx([0.1, 0.125, 0.15, 0.175, 0.2, 0.2, 0.2])
    assert seen[4] == 0.2


def test_linear_over_one_step_is_the_start():
    loss = MaxSupCrossEntropyLoss()
    assert LinearAlpha(loss, start=0.1, end=0.2, total_steps=1).get_last_alpha() == 0.1


def test_cosine():
    loss = MaxSupCrossEntropyLoss()
    seen = values(CosineAlpha(loss, start=0.2, end=0.0, total_steps=5), loss, 6)
    assert seen == pytest.approx([0.1 + 0.1 * math.cos(math.pi * t / 4) for t in range(5)] + [0.0])


def test_constant():
    loss = MaxSupCrossEntropyLoss(0.1)
    assert values(ConstantAlpha(loss, 0.3), loss, 3) == [0.3, 0.3, 0.3]


def test_warm_up_rises_from_zero_to_the_start():
    loss = MaxSupCrossEntropyLoss()
    linear = LinearAlpha(loss, start=0.1, end=0.2, total_steps=5, warmup_steps=2)
    assert values(linear, loss, 6) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.2])
    constant = ConstantAlpha(loss, 0.3, warmup_steps=3)
    assert values(constant, loss, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])


def test_any_number_of_a_loss():
    loss = nn.CrossEntropyLoss(label_smoothing=0.0)
    schedule = LinearAlpha(loss, 0.0, 0.1, 3, attribute="label_smoothing")
    assert values(schedule, loss, 3, "label_smoothing") == pytest.approx([0.0, 0.05, 0.1])


@pytest.mark.parametrize("kind", [LinearAlpha, CosineAlpha])
def test_resume_continues_the_same_values(kind):
    loss = MaxSupCrossEntropyLoss()
    schedule = kind(loss, start=0.1, end=0.2, total_steps=6, warmup_steps=1)
    unbroken = values(schedule, loss, 8)
    schedule = kind(loss, start=0.1, end=0.2, total_steps=6, warmup_steps=1)
    first = values(schedule, loss, 3)
    saved = copy.deepcopy((schedule.state_dict(), loss.state_dict()))

    loss = MaxSupCrossEntropyLoss()
    resumed = kind(loss, start=0.5, end=0.6, total_steps=9)  # the saved parameters win, as with learning rates
    resumed.load_state_dict(saved[0])
    loss.load_state_dict(saved[1])
    assert first + values(resumed, loss, 5) == unbroken


def test_the_state_loads_with_weights_only(tmp_path):
    loss = MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(loss, start=0.1, end=0.2, total_steps=5)
    schedule.step()
    torch.save(schedule.state_dict(), tmp_path / "schedule.pt")
    state = torch.load(tmp_path / "schedule.pt", weights_only=True)
    assert state == {"last_step": 1, "warmup_steps": 0, "start": 0.1, "end": 0.2, "total_steps": 5}


def test_numbers_of_numpy_are_numbers_and_load_too(tmp_path):
    schedule = LinearAlpha(MaxSupCrossEntropyLoss(), np.float32(0.25), np.float16(0.5), np.int64(5))
    schedule.move_to(np.int64(2))
    torch.save(schedule.state_dict(), tmp_path / "schedule.pt")
    state = torch.load(tmp_path / "schedule.pt", weights_only=True)
    assert state == {"last_step": 2, "warmup_steps": 0, "start": 0.25, "end": 0.5, "total_steps": 5}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda loss: LinearAlpha(loss, 0.1, 0.2, 0), ValueError, "total_steps must be at least 1, got 0"),
        (lambda loss: LinearAlpha(loss, 0.1, 0.2, 2.5), TypeError, "total_steps must be an integer .* got 2.5"),
        (lambda loss: LinearAlpha(loss, 0.1, 0.2, 3, warmup_steps=3), ValueError, "warmup_steps .* got 3"),
        (lambda loss: ConstantAlpha(loss, 0.1, warmup_steps=-1), ValueError, "warmup_steps .* got -1"),
        (lambda loss: ConstantAlpha(loss, 0.1, warn_after=0), ValueError, "warn_after .* got 0"),
        (lambda loss: ConstantAlpha(loss, 0.1, attribute="beta"), TypeError, "attribute .* got 'beta'"),
        (lambda loss: LinearAlpha(loss, -0.1, 0.2, 3), ValueError, "start must be .* at least 0.*, got -0.1"),
        (lambda loss: LinearAlpha(loss, 0.1, math.nan, 3), ValueError, "end must be .*, got nan"),
        (lambda loss: LinearAlpha(loss, 0.1, 0.2, 3).load_state_dict({}), ValueError, "state must have the keys"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make(MaxSupCrossEntropyLoss())


def train(loss, calls):
    logits = torch.zeros(2, 3, requires_grad=True)
    for _ in range(calls):
        loss(logits, torch.tensor([0, 1])).backward()


def test_a_loop_that_never_steps_is_warned_once():
    loss = MaxSupCrossEntropyLoss()
    LinearAlpha(loss, 0.1, 0.2, 5, warn_after=3)
    train(loss, 3)
    with pytest.warns(UserWarning, match="called 4 times in training and step"):
        train(loss, 1)
    train(loss, 10)


def test_no_warning_for_a_loop_that_steps_evaluates_resumes_or_has_nothing_to_step():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = MaxSupCrossEntropyLoss()
        schedule = LinearAlpha(loss, 0.1, 0.2, 5, warn_after=3)
        train(loss, 3)
        schedule.step()
        train(loss, 10)

        loss = MaxSupCrossEntropyLoss()
        resumed = LinearAlpha(loss, 0.1, 0.2, 5, warn_after=3)
        resumed.load_state_dict(schedule.state_dict())
        train(loss, 10)

        loss = MaxSupCrossEntropyLoss()
        LinearAlpha(loss, 0.1, 0.2, 5, warn_after=3)
        train(loss.eval(), 10)
        with torch.no_grad():
            for _ in range(10):
                loss.train()(torch.zeros(2, 3), torch.tensor([0, 1]))

        for still in (
            lambda loss: ConstantAlpha(loss, 0.1, warn_after=3),
            lambda loss: LinearAlpha(loss, 0.1, 0.2, 1, warn_after=3),
            lambda loss: LinearAlpha(loss, 0.1, 0.1, 5, warn_after=3),
        ):
            still(loss)
            train(loss, 10)


def test_a_scheduled_loss_can_be_copied_and_pickled():
    loss = MaxSupCrossEntropyLoss()
    LinearAlpha(loss, 0.3, 0.4, 5)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert float(other.alpha) == pytest.approx(0.3)


def test_moving_to_a_step_is_stepping_there():
    stepped, moved = MaxSupCrossEntropyLoss(), MaxSupCrossEntropyLoss()
    one = LinearAlpha(stepped, 0.1, 0.2, total_steps=5, warmup_steps=2)
    other = LinearAlpha(moved, 0.1, 0.2, total_steps=5, warmup_steps=2, warn_after=1)
    for t in range(7):
        other.move_to(t)
        assert float(moved.alpha) == float(stepped.alpha)
        assert other.state_dict() == one.state_dict()
        moved(torch.zeros(2, 3), torch.tensor([0, 1]))  # nobody forgot step(): no warning
        one.step()
    other.move_to(1)
    assert float(moved.alpha) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        other.move_to(-1)
