"""Schedules for a loss's numbers, with the interface of `torch.optim.lr_scheduler`.

A schedule sets an attribute of a loss (`alpha` unless told otherwise) when it is made and at each `step()`. What a step
is, an epoch or an optimiser update, is decided by who calls `step()` and by the `total_steps` given. As with learning
rates: train for one step with the current value, then call `step()`.
"""

from __future__ import annotations

import math
import operator
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from maxsup._batch import check_number

__all__ = ["ConstantAlpha", "CosineAlpha", "LinearAlpha"]


class _Watch:
    """A forward hook that counts training calls of a loss and warns, once, when nobody steps its schedule.

    Only the number of calls tells that a loop is running: an epoch may be of any length, so the limit is the user's
    to set. Compiled steps are not counted: a counter in the graph would recompile it.
    """

    def __init__(self, attribute: str, limit: int) -> None:
        self.attribute = attribute
        self.limit = limit
        self.calls = 0

    def __call__(self, loss: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or not loss.training or not torch.is_grad_enabled():
            return
        self.calls += 1
        if self.calls == self.limit + 1:
            warnings.warn(
                f"the loss was called {self.calls} times in training and step() of the schedule of its "
                f"{self.attribute} never: call step() after each epoch (or update), or raise warn_after={self.limit}",
                UserWarning,
                stacklevel=3,
            )


def awaits_step(loss: nn.Module) -> bool:
    """Whether a schedule that changes a number of `loss` has been made and not been stepped yet."""
    return any(isinstance(hook, _Watch) for hook in loss._forward_pre_hooks.values())


def _steps(name: str, value: int, low: int) -> int:
    """A number of steps as Python's int, which a checkpoint may hold."""
    try:
        steps = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer of at least {low}, got {value!r}") from None
    if steps < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return steps


class _Schedule(ABC):
    """Sets ``loss.<attribute>`` to `value_at(t)` for t = 0, 1, … steps."""

    values: tuple[str, ...] = ()  # what the attribute is set to or moves between
    lengths: tuple[str, ...] = ("warmup_steps",)

    def __init__(self, loss: nn.Module, *, attribute: str, warmup_steps: int, warn_after: int) -> None:
        if not isinstance(getattr(loss, attribute, None), int | float | Tensor):
            raise TypeError(f"attribute must name a number of {type(loss).__name__}, got {attribute!r}")
        if warn_after < 1:
            raise ValueError(f"warn_after must be at least 1, got {warn_after}")
        highest = getattr(loss, "bounds", {}).get(attribute)  # the losses of this package know what they accept
        for name in self.values:
            value = getattr(self, name)
            if highest is not None:
                value = check_number(name, value, high=highest)
            elif not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
            setattr(self, name, float(value))  # a number that a checkpoint may hold
        self.loss = loss
        self.attribute = attribute
        self.warmup_steps = _steps("warmup_steps", warmup_steps, 0)
        self.last_step = 0
        self._unwatch()
        if self._varies():
            loss.register_forward_pre_hook(_Watch(attribute, warn_after))
        self._set()

    @abstractmethod
    def _main(self, t: int) -> float:
        """The value `t` steps after the warm-up."""

    def _varies(self) -> bool:
        """Whether forgetting step() would change anything."""
        return self.warmup_steps > 0

    def value_at(self, t: int) -> float:
        """The value after `t` calls of `step()`."""
        if t < self.warmup_steps:
            return self._main(0) * t / self.warmup_steps
        return self._main(t - self.warmup_steps)

    def step(self) -> None:
        """Advances by one and sets the attribute."""
        self.move_to(self.last_step + 1)

    def move_to(self, step: int) -> None:
        """Sets the attribute to its value after `step` calls of `step()`.

        For loops that count themselves, as with an epoch's number from a checkpoint: called at the beginning of every
        epoch (or update), it takes the place of `step()` and of the schedule's own state.

        Raises:
            ValueError: if `step` is below 0.
        """
        self.last_step = _steps("step", step, 0)
        self._unwatch()
        self._set()

    def get_last_alpha(self) -> float:
        """The value that the last `step()` (or the construction) set."""
        return self.value_at(self.last_step)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the schedule's parameters."""
        return {name: getattr(self, name) for name in ("last_step", *self.values, *self.lengths)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved schedule, parameters included, and sets the attribute."""
        names = {"last_step", *self.values, *self.lengths}
        if state.keys() != names:
            raise ValueError(f"state must have the keys {sorted(names)}, got {sorted(state)}")
        for name, value in state.items():
            setattr(self, name, value)
        if self.last_step > 0:
            self._unwatch()
        self._set()

    def _unwatch(self) -> None:
        """Removes the watch on this attribute, be it of this schedule or of one that this one replaces."""
        hooks = self.loss._forward_pre_hooks
        for key in [
            key for key, hook in hooks.items() if isinstance(hook, _Watch) and hook.attribute == self.attribute
        ]:
            del hooks[key]

    def _set(self) -> None:
        value = self.get_last_alpha()
        current = getattr(self.loss, self.attribute)
        if isinstance(current, Tensor):
            # In place, so that a compiled or captured step sees the value and nothing recompiles.
            with torch.no_grad():
                current.fill_(value)
        else:
            setattr(self.loss, self.attribute, value)


class ConstantAlpha(_Schedule):
    """The same value throughout, after a linear warm-up from 0 if `warmup_steps` is given.

    Args:
        loss: the loss whose number is set.
        alpha: the value.
        attribute: the number's name.
        warmup_steps: steps from 0 until `alpha` is reached.
        warn_after: training calls of the loss without any `step()` after which a `UserWarning` says so.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> schedule = ConstantAlpha(MaxSupCrossEntropyLoss(), 0.2)
        >>> schedule.get_last_alpha()
        0.2
    """

    values = ("alpha",)

    def __init__(
        self,
        loss: nn.Module,
        alpha: float,
        *,
        attribute: str = "alpha",
        warmup_steps: int = 0,
        warn_after: int = 100_000,
    ) -> None:
        self.alpha = alpha
        super().__init__(loss, attribute=attribute, warmup_steps=warmup_steps, warn_after=warn_after)

    def _main(self, t: int) -> float:
        return self.alpha


class _Ramp(_Schedule):
    """From `start` to `end` over `total_steps` values, the warm-up among them, then `end` for good."""

    values = ("start", "end")
    lengths = ("total_steps", "warmup_steps")

    def __init__(
        self,
        loss: nn.Module,
        start: float,
        end: float,
        total_steps: int,
        *,
        attribute: str = "alpha",
        warmup_steps: int = 0,
        warn_after: int = 100_000,
    ) -> None:
        total_steps = _steps("total_steps", total_steps, 1)
        if warmup_steps >= total_steps:
            raise ValueError(f"warmup_steps must be below total_steps={total_steps}, got {warmup_steps}")
        self.start, self.end, self.total_steps = start, end, total_steps
        super().__init__(loss, attribute=attribute, warmup_steps=warmup_steps, warn_after=warn_after)

    def _varies(self) -> bool:
        return self.total_steps > 1 and (self.start != self.end or self.warmup_steps > 0)

    def _main(self, t: int) -> float:
        last = self.total_steps - self.warmup_steps - 1
        if last == 0:
            return self.start
        if t >= last:
            return self.end  # exactly, not start + (end - start)
        return self.start + (self.end - self.start) * self._share(t / last)

    @abstractmethod
    def _share(self, progress: float) -> float:
        """The share of the way at `progress` in [0, 1)."""


class LinearAlpha(_Ramp):
    """Linear from `start` to `end`: ``alpha_t = start + (end - start) * t / (T - 1)`` for t = 0 … T−1, then `end`.

    The paper's schedule is ``start=0.1, end=0.2`` over the epochs. With ``total_steps=1`` the value is `start`.

    Args:
        loss: the loss whose number is set.
        start: the first value.
        end: the value from step T−1 on.
        total_steps: T, the number of values; epochs if `step()` is called once an epoch, updates if once an update.
        attribute: the number's name.
        warmup_steps: the first steps rise linearly from 0 to `start`, which is reached at t = `warmup_steps`; the ramp
            takes the remaining steps; where a single one remains, it stays at `start`.
        warn_after: training calls of the loss without any `step()` after which a `UserWarning` says so. Two or three
            epochs' worth is a good limit when `step()` is called once an epoch.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> loss = MaxSupCrossEntropyLoss()
        >>> schedule = LinearAlpha(loss, start=0.1, end=0.2, total_steps=3)
        >>> for epoch in range(3):
        ...     print(round(schedule.get_last_alpha(), 3))
        ...     schedule.step()
        0.1
        0.15
        0.2

    Reference:
        arXiv 2502.15798, Appendix F.
    """

    def _share(self, progress: float) -> float:
        return progress


class CosineAlpha(_Ramp):
    """As `LinearAlpha`, along half a cosine: the share of the way at t is ``(1 - cos(pi * t / (T - 1))) / 2``.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> schedule = CosineAlpha(MaxSupCrossEntropyLoss(), start=0.0, end=0.2, total_steps=5)
        >>> [round(schedule.value_at(t), 4) for t in range(6)]
        [0.0, 0.0293, 0.1, 0.1707, 0.2, 0.2]
    """

    def _share(self, progress: float) -> float:
        return (1.0 - math.cos(math.pi * progress)) / 2.0
