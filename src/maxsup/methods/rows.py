"""What the penalties share: a row's logits and log-probabilities, absent classes left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Logits and log-probabilities (N, K) in float32 or float64, and a target.

    `target` holds class indices (N,), ignored rows replaced by a valid index, or probabilities (N, K). A logit of −inf
    means that the class is absent: it has no share in means and sums.
    """

    logits: Tensor
    log_probs: Tensor
    target: Tensor

    @property
    def soft(self) -> bool:
        """Whether the target holds probabilities."""
        return self.target.ndim == 2

    def absent(self) -> Tensor:
        """Where a class is absent, (N, K), bool. NaN is not absent: it has to show."""
        return self.log_probs == -torch.inf

    def mean(self) -> Tensor:
        """Mean log-probability over the present classes, (N,)."""
        absent = self.absent()
        present = self.log_probs.shape[1] - absent.sum(1)
        return self.log_probs.masked_fill(absent, 0.0).sum(1) / present

    def top1(self) -> Tensor:
        """Log-probability at the largest logit, the lowest index among equals, (N,).

        The index comes from the logits: two of them that differ can round to one log-probability. `gather` sends the
        gradient to that index alone, where `amax` would spread it over ties.
        """
        return self.log_probs.gather(1, self.logits.detach().argmax(1, keepdim=True)).squeeze(1)

    def of_target(self) -> Tensor:
        """Log-probability of the target class, or the target's mean of it for probabilities, (N,)."""
        if self.soft:
            # 0 · −inf is NaN; an absent class that the target does not ask for takes no part.
            unasked = self.absent() & (self.target == 0)
            return (self.target * self.log_probs.masked_fill(unasked, 0.0)).sum(1)
        return self.log_probs.gather(1, self.target.unsqueeze(1)).squeeze(1)
