"""The losses for JAX, with optax's conventions: logits and labels in, the loss of each example out.

The classes are the last axis, as in `optax.softmax_cross_entropy`; any number of axes comes before. Reduce yourself:
``max_sup_cross_entropy(logits, labels).mean()``. Values and gradients are those of `maxsup.functional` with
``reduction="none"`` on the same data: a logit of −inf leaves its class out of means, sums and softmax and gets no
gradient; the maximum's sub-gradient goes to the lowest index that attains it; 16-bit logits are computed in float32,
and the loss has their type again. Everything works under `jit`, `vmap` and `grad`; `alpha` may be traced, so that a
schedule recompiles nothing. Values are therefore not checked: `alpha` should be at least 0, for the label smoothings
at most 1. Needs JAX alone.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from maxsup._batch import check_choice

__all__ = [
    "LabelSmoothingParts",
    "confidence_penalty_cross_entropy",
    "label_smoothing_cross_entropy",
    "label_smoothing_error_enhancement_cross_entropy",
    "label_smoothing_parts",
    "label_smoothing_regularization_cross_entropy",
    "logit_penalty_cross_entropy",
    "max_sup_cross_entropy",
    "online_label_smoothing_cross_entropy",
    "zipf_label_smoothing_cross_entropy",
]


def max_sup_cross_entropy(logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1) -> Array:
    """Cross-entropy + ``alpha * (max_k z_k - mean_k z_k)``; see `maxsup.functional.max_sup_cross_entropy`.

    Args:
        logits: (…, K), floating point.
        labels: class indices (…), integers from 0 to K − 1; or probabilities (…, K), floating point. As in optax there
            is no index to ignore: multiply the loss by a mask.
        alpha: strength, at least 0; a number or an array that broadcasts against the loss.

    Returns:
        (…), in the type of `logits`.

    Raises:
        TypeError: if logits are not floating point.
        ValueError: if the labels' type or the shapes do not fit.

    Example:
        >>> logits = jnp.array([[2.0, 1.0, 0.0]])
        >>> print(max_sup_cross_entropy(logits, jnp.array([0]), alpha=0.1).round(4))  # 0.4076 + 0.1 * (2 - 1)
        [0.5076]

    Reference:
        Zhou et al., MaxSup, arXiv 2502.15798, Eq. 6-9.
    """
    batch = _prepare(logits, labels)
    # The difference is the same for logits and log-probabilities, but rounding can tie the latter.
    top = _take(batch.log_q, jnp.argmax(batch.logits, -1))
    return batch.loss(alpha * (top - _mean_of_present(batch.log_q)))


def label_smoothing_cross_entropy(logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1) -> Array:
    """Cross-entropy + ``alpha * (z_gt - mean_k z_k)``; see `maxsup.functional.label_smoothing_cross_entropy`.

    Equal to `optax.softmax_cross_entropy` of `optax.smooth_labels`, except that classes whose logit is −inf are left
    out. Arguments, returns and errors are those of `max_sup_cross_entropy`.

    Example:
        >>> print(label_smoothing_cross_entropy(jnp.array([2.0, 1.0, 0.0]), 0).round(4))  # 0.4076 + 0.1 * (2 - 1)
        0.5076
    """
    batch = _prepare(logits, labels)
    return batch.loss(alpha * (batch.true(batch.log_q) - _mean_of_present(batch.log_q)))


class LabelSmoothingParts(NamedTuple):
    """Terms of each example that add up to the label smoothing loss."""

    cross_entropy: Array
    regularization: Array  # at least 0: pulls z_gt down to the logits below it
    error_enhancement: Array  # at most 0: rewards the logits above z_gt


def label_smoothing_parts(logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1) -> LabelSmoothingParts:
    """The exact decomposition of label smoothing (Corollary 3.4); see `maxsup.functional.label_smoothing_parts`.

    Args:
        logits: (…, K).
        labels: class indices (…); probabilities have no single z_gt and raise a ValueError.
        alpha: strength, from 0 to 1.

    Example:
        >>> parts = label_smoothing_parts(jnp.array([2.0, 1.0, -1.0]), 1, alpha=0.3)
        >>> print(f"{parts.regularization:.4f}, {parts.error_enhancement:.4f}")  # 0.3 / 3 * 2, -0.3 / 3 * 1
        0.2000, -0.1000
    """
    batch = _prepare(logits, labels, probabilities=False)
    terms = (
        batch.cross_entropy(),
        alpha * _regularization(batch, "classes"),
        alpha * _error_enhancement(batch, "classes"),
    )
    return LabelSmoothingParts(*(term.astype(batch.dtype) for term in terms))


def label_smoothing_regularization_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1, *, form: Literal["terms", "classes"] = "terms"
) -> Array:
    """Cross-entropy with the regularisation part of label smoothing alone.

    Arguments are those of `label_smoothing_parts`, and `form` as in
    `maxsup.functional.label_smoothing_regularization_cross_entropy`: what the sum is divided by.
    """
    check_choice("form", form, ("terms", "classes"))
    batch = _prepare(logits, labels, probabilities=False)
    return batch.loss(alpha * _regularization(batch, form))


def label_smoothing_error_enhancement_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1, *, form: Literal["terms", "classes", "max"] = "terms"
) -> Array:
    """Cross-entropy with the error-enhancement part of label smoothing alone: an ablation.

    Arguments are those of `label_smoothing_parts`, and `form` as in
    `maxsup.functional.label_smoothing_error_enhancement_cross_entropy`.
    """
    check_choice("form", form, ("terms", "classes", "max"))
    batch = _prepare(logits, labels, probabilities=False)
    return batch.loss(alpha * _error_enhancement(batch, form))


def online_label_smoothing_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, table: ArrayLike, alpha: ArrayLike = 0.5
) -> Array:
    """``(1 - alpha) * cross_entropy + alpha * sum_k -table[y, k] * log q_k``.

    See `maxsup.functional.online_label_smoothing_cross_entropy`. The table is the caller's to carry from epoch to
    epoch, like all state in JAX.

    Args:
        logits: (…, K).
        labels: class indices (…).
        table: (K, K), row c the soft label of class c.
        alpha: weight of the soft loss, from 0 to 1.

    Example:
        >>> loss = online_label_smoothing_cross_entropy(jnp.array([2.0, 1.0, 0.0]), 0, jnp.full((3, 3), 1 / 3))
        >>> print(loss.round(4))  # (0.4076 + 1.4076) / 2
        0.9076
    """
    batch = _prepare(logits, labels, probabilities=False)
    table = jnp.asarray(table)
    classes = batch.logits.shape[-1]
    if table.shape != (classes, classes):
        raise ValueError(f"table must have shape {(classes, classes)}, got {table.shape}")
    soft = (table.astype(batch.logits.dtype)[batch.labels] * _without_absent(batch.log_q)).sum(-1)
    return batch.loss(alpha * (batch.true(batch.log_q) - soft))


def zipf_label_smoothing_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, dense_logits: ArrayLike, alpha: ArrayLike = 0.1
) -> Array:
    """Cross-entropy + ``alpha * KL(P || Q)``; see `maxsup.functional.zipf_label_smoothing_cross_entropy`.

    Args:
        logits: (N, K) or (K,).
        labels: class indices, (N,) or ().
        dense_logits: the classifier's logits at each position, (N, …, K) or (…, K), never differentiated. Upsample them
            beforehand (`jax.image.resize`) where the publication does.
        alpha: strength, the publication's λ.

    Example:
        >>> dense = jnp.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])  # both positions vote for class 1
        >>> loss = zipf_label_smoothing_cross_entropy(jnp.zeros(3), 0, dense)
        >>> print(loss.round(4))  # P = (2/3, 1/3): 1.0986 + 0.1 * 0.0566
        1.1043
    """
    batch = _prepare(logits, labels, probabilities=False)
    dense, classes = jnp.asarray(dense_logits), batch.logits.shape[-1]
    leading = batch.logits.ndim - 1
    if dense.ndim <= leading + 1 or dense.shape[:leading] + dense.shape[-1:] != batch.logits.shape:
        raise ValueError(
            f"dense_logits must have shape {batch.logits.shape} with its positions before the last axis, "
            f"got {dense.shape}"
        )
    choice = jnp.argmax(jax.lax.stop_gradient(dense), -1).reshape(batch.labels.size, -1)
    rank = jax.vmap(lambda chosen: _ranks(jnp.bincount(chosen, length=classes)))(choice).reshape(batch.logits.shape)
    others = (batch.logits != -jnp.inf) & (jnp.arange(classes) != batch.labels[..., None])
    # A row without other classes has nothing to shape; zeros keep its softmax from being 0/0.
    alone = ~others.any(-1, keepdims=True)
    log_q = jax.nn.log_softmax(jnp.where(alone, 0.0, jnp.where(others, batch.logits, -jnp.inf)))
    shares = jnp.where(others, 1.0 / rank.astype(batch.logits.dtype), 0.0)
    p = shares / jnp.maximum(shares.sum(-1, keepdims=True), jnp.finfo(shares.dtype).tiny)
    divergence = jnp.where(others, p * jnp.log(jnp.where(p > 0, p, 1.0)) - p * jnp.where(others, log_q, 0.0), 0.0)
    return batch.loss(alpha * divergence.sum(-1))


def logit_penalty_cross_entropy(logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 2e-3) -> Array:
    """Cross-entropy + ``alpha * sum_k z_k^2 / 2``; see `maxsup.functional.logit_penalty_cross_entropy`.

    Arguments, returns and errors are those of `max_sup_cross_entropy`.

    Example:
        >>> print(logit_penalty_cross_entropy(jnp.array([2.0, 1.0, 0.0]), 0, alpha=0.1).round(4))  # 0.4076 + 0.25
        0.6576
    """
    batch = _prepare(logits, labels)
    return batch.loss(alpha * jnp.square(_without_absent(batch.logits)).sum(-1) / 2)


def confidence_penalty_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 0.1, *, threshold: ArrayLike | None = None
) -> Array:
    """Cross-entropy − ``alpha * H(q)``, or with a threshold + ``alpha * max(0, threshold - H(q))``.

    See `maxsup.functional.confidence_penalty_cross_entropy`; arguments, returns and errors are those of
    `max_sup_cross_entropy`, and `threshold` is in nats.

    Example:
        >>> print(confidence_penalty_cross_entropy(jnp.zeros(3), 0, alpha=0.1).round(4))  # log 3 * (1 - 0.1)
        0.9888
    """
    batch = _prepare(logits, labels)
    penalty = (jnp.exp(batch.log_q) * _without_absent(batch.log_q)).sum(-1)
    if threshold is not None:
        # Not maximum(), whose gradient at a tie is a half where PyTorch's clamp gives 1.
        hinge = threshold + penalty
        penalty = jnp.where(hinge >= 0.0, hinge, 0.0)
    return batch.loss(alpha * penalty)


class _Batch(NamedTuple):
    """Checked arguments."""

    logits: Array  # (…, K), at least float32
    labels: Array  # (…) indices or (…, K) probabilities
    log_q: Array  # (…, K)
    dtype: jnp.dtype  # of the loss

    def true(self, values: Array) -> Array:
        """The value of the true class, for probabilities the expectation; absent classes count 0."""
        if self.labels.ndim == values.ndim:
            return (self.labels * _without_absent(values)).sum(-1)
        return _without_absent(_take(values, self.labels))

    def cross_entropy(self) -> Array:
        if self.labels.ndim == self.log_q.ndim:
            return -(self.labels * self.log_q).sum(-1)
        return -_take(self.log_q, self.labels)

    def loss(self, added: Array) -> Array:
        """The cross-entropy and what the method adds to it."""
        return (self.cross_entropy() + added).astype(self.dtype)


def _prepare(logits: ArrayLike, labels: ArrayLike, *, probabilities: bool = True) -> _Batch:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (…, K) with K > 0, got {logits.shape}")
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    if not indices and not (probabilities and jnp.issubdtype(labels.dtype, jnp.floating)):
        accepted = "class indices (integers)" + (" or probabilities (floating point)" if probabilities else "")
        raise ValueError(f"labels must hold {accepted}, got {labels.dtype}")
    expected = logits.shape[:-1] if indices else logits.shape
    if labels.shape != expected:
        kind = "class indices" if indices else "probabilities"
        raise ValueError(
            f"labels must have shape {expected} ({kind}) for logits of shape {logits.shape}, got {labels.shape}"
        )
    dtype = logits.dtype if indices else jnp.promote_types(logits.dtype, labels.dtype)
    exact = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return _Batch(exact, labels, jax.nn.log_softmax(exact), dtype)


def _take(values: Array, index: Array) -> Array:
    """One value of each row; a gradient goes to that place alone."""
    return jnp.take_along_axis(values, index[..., None], -1).squeeze(-1)


def _without_absent(values: Array) -> Array:
    return jnp.where(values == -jnp.inf, 0.0, values)


def _mean_of_present(log_q: Array) -> Array:
    return _without_absent(log_q).sum(-1) / (log_q != -jnp.inf).sum(-1)


def _ranks(scores: Array) -> Array:
    """1 + the number of higher scores, of scores (K,)."""
    return 1 + scores.shape[0] - jnp.searchsorted(jnp.sort(scores), scores, side="right")


def _excess(batch: _Batch) -> Array:
    """z_k − z_gt, 0 for absent classes."""
    return _without_absent(batch.logits - batch.true(batch.logits)[..., None])


def _regularization(batch: _Batch, form: str) -> Array:
    excess = _excess(batch)
    return _divided(jnp.where(excess < 0, -excess, 0.0), excess < 0, batch, form)


def _error_enhancement(batch: _Batch, form: str) -> Array:
    if form == "max":
        return batch.true(batch.logits) - _take(batch.logits, jnp.argmax(batch.logits, -1))
    excess = _excess(batch)
    return -_divided(jnp.where(excess > 0, excess, 0.0), excess > 0, batch, form)


def _divided(terms: Array, counted: Array, batch: _Batch, form: str) -> Array:
    if form == "classes":
        return terms.sum(-1) / (batch.logits != -jnp.inf).sum(-1)
    return terms.sum(-1) / jnp.maximum(counted.sum(-1), 1)  # an empty sum is 0
