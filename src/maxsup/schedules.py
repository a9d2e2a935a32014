"""Schedules of a loss's weight, with the interface of `torch.optim.lr_scheduler`.

A schedule sets the value for step 0 when it is made and the next one at each `step()`; a step is whatever the caller
steps by: an epoch (as in the paper) or an optimizer step. The end value is reached at step `total_steps − 1`, the last
one that is trained with, and kept from there on. Under `torch.compile` nothing is compiled anew, because the losses
keep their weight in a buffer and a schedule writes into it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConstantAlpha", "CosineAlpha", "LinearAlpha"]


class _Schedule:
    """Steps `attribute` of `loss`; subclasses say how far, from 0 to 1, the way from start to end is done."""

    def __init__(
        self,
        loss: nn.Module,
        *,
        start: float,
        end: float,
        total_steps: int,
        warmup_steps: int = 0,
        attribute: str = "alpha",
    ) -> None:
        for name, value in (("start", start), ("end", end)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        if not 0 <= warmup_steps <= total_steps:
            raise ValueError(f"warmup_steps must be from 0 to total_steps={total_steps}, got {warmup_steps}")
        current = getattr(loss, attribute, None)
        if isinstance(current, bool) or not isinstance(current, (int, float, Tensor)):
            raise ValueError(f"attribute must name a number or tensor of {type(loss).__name__}, got {attribute!r}")
        self.loss = loss
        self.start, self.end = float(start), float(end)
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self.attribute = attribute
        self._steps = 0
        self._set()

    def _fraction(self, done: float) -> float:
        raise NotImplementedError

    def value_at(self, step: int) -> float:
        """The value that training uses at `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.start * (step + 1) / (self.warmup_steps + 1)
        last = self.total_steps - 1 - self.warmup_steps
        done = min(step - self.warmup_steps, last) / last if last > 0 else 0.0
        return self.start + (self.end - self.start) * self._fraction(done)

    def _set(self) -> None:
        value = self.get_last_alpha()
        current = getattr(self.loss, self.attribute)
        if isinstance(current, Tensor):
            with torch.no_grad():
                current.fill_(value)
        else:
            setattr(self.loss, self.attribute, value)

    def step(self) -> None:
        """Goes on to the next value."""
        self._steps += 1
        self._set()

    def get_last_alpha(self) -> float:
        """The value now in force."""
        return self.value_at(self._steps)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs: the number of steps taken."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the steps of `state` and sets the loss's value accordingly."""
        self._steps = int(state["steps"])
        self._set()


class LinearAlpha(_Schedule):
    r"""From `start` to `end` in a straight line: start + (end − start)·t/(T − 1), t = 0 … T − 1; T = 1 gives `start`.

    Args:
        loss: the module whose `attribute` is stepped.
        start: value at step 0 (after the warm-up).
        end: value at step `total_steps − 1` and after.
        total_steps: T, how many steps (epochs, or optimizer steps) the training has.
        warmup_steps: so many steps rise linearly from near 0 to `start` first.
        attribute: name of a number or buffer of `loss`.

    Raises:
        ValueError: naming the argument that is not accepted.

    Example:
        >>> import maxsup
        >>> criterion = maxsup.MaxSupCrossEntropyLoss()
        >>> schedule = LinearAlpha(criterion, start=0.1, end=0.2, total_steps=3)
        >>> for epoch in range(3):
        ...     print(f"{float(criterion.alpha):.2f}")  # train an epoch here
        ...     schedule.step()
        0.10
        0.15
        0.20

    Reference: Appendix F of arXiv 2502.15798.
    """

    def _fraction(self, done: float) -> float:
        return done


class CosineAlpha(_Schedule):
    """From `start` to `end` along half a cosine, flat at both ends; arguments as for `LinearAlpha`."""

    def _fraction(self, done: float) -> float:
        return (1 - math.cos(math.pi * done)) / 2


class ConstantAlpha(_Schedule):
    """Always `value`, after a warm-up of `warmup_steps` from near 0 to it."""

    def __init__(self, loss: nn.Module, value: float, *, warmup_steps: int = 0, attribute: str = "alpha") -> None:
        super().__init__(
            loss,
            start=value,
            end=value,
            total_steps=max(1, warmup_steps),
            warmup_steps=warmup_steps,
            attribute=attribute,
        )

    def _fraction(self, done: float) -> float:
        return 0.0
