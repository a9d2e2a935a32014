"""The JAX losses against the PyTorch ones on the same data, and under JAX's transforms."""

import functools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from maxsup import functional

jax = pytest.importorskip("jax", reason="JAX is in the extra maxsup[integrations]")
optax = pytest.importorskip("optax", reason="optax is in the extra maxsup[integrations]")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from maxsup.integrations import optax as losses  # noqa: E402

K = 6
TABLE = np.random.default_rng(1).dirichlet(np.ones(K), K)
DENSE = np.random.default_rng(2).normal(size=(9, 3, 5, K))
SOFT = ("max_sup", "label_smoothing", "logit_penalty", "confidence_penalty", "confidence_hinge")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def torch_dense(logits):
    return torch.tensor(DENSE[: len(logits)]).movedim(-1, 1)


# Name: the JAX function and the PyTorch one, of logits (N, K), labels and alpha.
PAIRS = {
    "max_sup": (losses.max_sup_cross_entropy, functional.max_sup_cross_entropy),
    "label_smoothing": (losses.label_smoothing_cross_entropy, functional.label_smoothing_cross_entropy),
    "logit_penalty": (losses.logit_penalty_cross_entropy, functional.logit_penalty_cross_entropy),
    "confidence_penalty": (losses.confidence_penalty_cross_entropy, functional.confidence_penalty_cross_entropy),
    "confidence_hinge": (
        functools.partial(losses.confidence_penalty_cross_entropy, threshold=1.0),
        functools.partial(functional.confidence_penalty_cross_entropy, threshold=1.0),
    ),
    **{
        f"regularization_{form}": (
            functools.partial(losses.label_smoothing_regularization_cross_entropy, form=form),
            functools.partial(functional.label_smoothing_regularization_cross_entropy, form=form),
        )
        for form in ("terms", "classes")
    },
    **{
        f"error_enhancement_{form}": (
            functools.partial(losses.label_smoothing_error_enhancement_cross_entropy, form=form),
            functools.partial(functional.label_smoothing_error_enhancement_cross_entropy, form=form),
        )
        for form in ("terms", "classes", "max")
    },
    "online": (
        lambda z, y, alpha: losses.online_label_smoothing_cross_entropy(z, y, TABLE, alpha),
        lambda z, y, alpha, **how: functional.online_label_smoothing_cross_entropy(
            z, y, torch.tensor(TABLE), alpha, **how
        ),
    ),
    "zipf": (
        lambda z, y, alpha: losses.zipf_label_smoothing_cross_entropy(z, y, DENSE[: len(z)], alpha),
        lambda z, y, alpha, **how: functional.zipf_label_smoothing_cross_entropy(z, y, torch_dense(z), alpha, **how),
    ),
}


def batch():
    """Logits (9, K) among which are ties, absent classes, equal logits and large ones; the true class is present."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(9, K)) * 3
    labels = generator.integers(K, size=9)
    logits[1] = 0.0  # all equal
    logits[2, [3, 5]] = logits[2].max() + 1.0  # a tie for the maximum
    logits[3] = [-math.inf, 2.0, -math.inf, 5.0, 1.0, -math.inf]
    labels[3] = 1
    logits[4] = [-math.inf] * (K - 1) + [0.5]  # a single class
    labels[4] = K - 1
    logits[5] *= 300
    labels[2] = 3
    return logits, labels


def expected(name, logits, labels, alpha=0.3):
    z = torch.tensor(logits, requires_grad=True)
    rows = PAIRS[name][1](z, torch.tensor(labels), alpha, reduction="none")
    (gradient,) = torch.autograd.grad(rows.sum(), z)
    return rows.detach().numpy(), gradient.numpy()


def value_and_gradient(function, logits, labels, alpha=0.3):
    rows = function(jnp.asarray(logits), jnp.asarray(labels), alpha)
    return rows, jax.grad(lambda z: function(z, jnp.asarray(labels), alpha).sum())(jnp.asarray(logits))


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_gradients_are_those_of_pytorch(name):
    logits, labels = batch()
    rows, gradient = expected(name, logits, labels)
    mine, my_gradient = value_and_gradient(PAIRS[name][0], logits, labels)
    assert mine.shape == (9,)
    assert_allclose(mine, rows, rtol=1e-12, atol=1e-12)
    assert_allclose(my_gradient, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SOFT)
def test_probabilities_as_labels(name):
    logits, _ = batch()
    logits = np.delete(logits, [3, 4], 0)  # absent classes with a share are NaN, in both
    labels = np.random.default_rng(3).dirichlet(np.ones(K), len(logits))
    rows, gradient = expected(name, logits, labels)
    mine, my_gradient = value_and_gradient(PAIRS[name][0], logits, labels)
    assert_allclose(mine, rows, rtol=1e-12)
    assert_allclose(my_gradient, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_an_absent_true_class_is_inf(name):
    logits, labels = batch()
    labels[3] = 0
    rows, _ = expected(name, logits, labels)
    mine, _ = value_and_gradient(PAIRS[name][0], logits, labels)
    assert_allclose(mine, rows, rtol=1e-12)
    assert mine[3] == math.inf


@pytest.mark.parametrize("name", PAIRS)
def test_alpha_0_is_the_cross_entropy_of_optax(name):
    logits, labels = batch()
    mine = PAIRS[name][0](jnp.asarray(logits), jnp.asarray(labels), 0.0)
    plain = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(labels))
    assert_allclose(mine, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_jit_and_vmap_change_nothing_and_alpha_may_be_traced(name):
    logits, labels = batch()
    function = PAIRS[name][0]
    rows = function(jnp.asarray(logits), jnp.asarray(labels), 0.3)
    traces = []

    @jax.jit
    def compiled(z, y, alpha):
        traces.append(alpha)
        return function(z, y, alpha)

    assert_allclose(compiled(logits, labels, 0.3), rows, rtol=1e-12, atol=1e-12)
    compiled(logits, labels, 0.2)
    assert len(traces) == 1
    if name != "zipf":  # whose votes belong to their rows here; below it is mapped with them
        one_by_one = jax.vmap(function, (0, 0, None))(jnp.asarray(logits), jnp.asarray(labels), 0.3)
        assert_allclose(one_by_one, rows, rtol=1e-12, atol=1e-12)
    else:
        mapped = jax.vmap(losses.zipf_label_smoothing_cross_entropy, (0, 0, 0, None))
        assert_allclose(mapped(jnp.asarray(logits), jnp.asarray(labels), DENSE, 0.3), rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_of_both_orders_are_those_of_finite_differences(name):
    logits = jnp.asarray(np.random.default_rng(4).normal(size=(4, K)))
    labels = jnp.array([0, 3, 5, 2])
    check_grads(lambda z, alpha: PAIRS[name][0](z, labels, alpha), (logits, 0.3), order=2, modes=("rev",), rtol=1e-4)


def test_a_ties_gradient_goes_to_the_lowest_index():
    gradient = jax.grad(lambda z: losses.max_sup_cross_entropy(z, 0, 0.6))(jnp.array([1.0, 4.0, 4.0]))
    q = np.exp([1.0, 4.0, 4.0]) / np.exp([1.0, 4.0, 4.0]).sum()
    assert_allclose(gradient, q - [1, 0, 0] - 0.6 / 3 + 0.6 * np.array([0, 1, 0]), rtol=1e-12)


def test_parts_add_up_and_are_those_of_pytorch():
    logits, labels = batch()
    parts = losses.label_smoothing_parts(jnp.asarray(logits), jnp.asarray(labels), 0.3)
    theirs = functional.label_smoothing_parts(torch.tensor(logits), torch.tensor(labels), 0.3)
    for mine, other in zip(parts, theirs, strict=True):
        assert_allclose(mine, other, rtol=1e-12, atol=1e-12)
    whole = losses.label_smoothing_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), 0.3)
    assert_allclose(sum(parts), whole, rtol=1e-12)
    smooth = optax.smooth_labels(jax.nn.one_hot(labels[:3], K), 0.3)
    assert_allclose(whole[:3], optax.softmax_cross_entropy(jnp.asarray(logits[:3]), smooth), rtol=1e-12)


def test_sequences_and_single_examples():
    logits, labels = batch()
    rows = losses.max_sup_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    square = losses.max_sup_cross_entropy(jnp.asarray(logits).reshape(3, 3, K), jnp.asarray(labels).reshape(3, 3))
    assert_allclose(square, rows.reshape(3, 3), rtol=1e-12)
    assert losses.max_sup_cross_entropy(jnp.asarray(logits[0]), labels[0]).shape == ()


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32"])
def test_short_types_are_computed_in_float32(kind):
    logits = jnp.asarray(batch()[0][6:], dtype=kind)
    labels = jnp.asarray(batch()[1][6:])
    loss = losses.max_sup_cross_entropy(logits, labels)
    exact = losses.max_sup_cross_entropy(logits.astype("float64"), labels)
    assert loss.dtype == kind
    assert_allclose(loss.astype("float64"), exact, rtol=float(jnp.finfo(kind).eps))


def test_arguments_that_do_not_fit_are_named():
    logits = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\) \(class indices\) .*, got \(3,\)"):
        losses.max_sup_cross_entropy(logits, jnp.zeros(3, int))
    with pytest.raises(TypeError, match="logits must be floating point, got int"):
        losses.max_sup_cross_entropy(jnp.zeros((2, 3), int), jnp.zeros(2, int))
    with pytest.raises(ValueError, match=r"labels must hold class indices \(integers\), got float"):
        losses.label_smoothing_parts(logits, logits)
    with pytest.raises(ValueError, match="form must be one of terms, classes, got 'max'"):
        losses.label_smoothing_regularization_cross_entropy(logits, jnp.zeros(2, int), form="max")
    with pytest.raises(ValueError, match=r"table must have shape \(3, 3\), got \(2, 2\)"):
        losses.online_label_smoothing_cross_entropy(logits, jnp.zeros(2, int), jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"dense_logits must have shape \(2, 3\) with its positions"):
        losses.zipf_label_smoothing_cross_entropy(logits, jnp.zeros(2, int), logits)
