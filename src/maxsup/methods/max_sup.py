"""Max Suppression: penalise the top-1 logit (Eq. 6-9)."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.common import mean_of_present


def max_sup_penalty(logits: Tensor, log_q: Tensor) -> Tensor:
    """z_max − z̄ per row: (N, K) -> (N,).

    The difference is the same for logits and log-probabilities, so it costs one backward pass with the cross-entropy.
    argmax gives the lowest index among equal maxima, and gather sends the whole sub-gradient there (amax would
    spread it). It has to look at the logits: rounding can make two log-probabilities equal whose logits are not.
    """
    top = logits.argmax(1, keepdim=True)
    return log_q.gather(1, top).squeeze(1) - mean_of_present(log_q)
