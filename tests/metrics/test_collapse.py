import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maxsup.metrics import NeuralCollapse, neural_collapse, variability_collapse_index


def covariances(features, labels):
    """Σ_W and Σ_B sample by sample, in NumPy; and the means of the classes that occur, about the global mean."""
    x, y = features.double().numpy(), labels.numpy()
    within, between, means = 0.0, 0.0, []
    centre = x.mean(0)
    for c in np.unique(y):
        mean = x[y == c].mean(0)
        means.append(mean - centre)
        for row in x[y == c]:
            within = within + np.outer(row - mean, row - mean) / len(x)
            between = between + np.outer(mean - centre, mean - centre) / len(x)
    return within, between, np.array(means)


def simplex_distance(gram):
    k = len(gram)
    frame = (np.eye(k) - np.ones((k, k)) / k) / np.sqrt(k - 1)
    return np.linalg.norm(gram / np.linalg.norm(gram) - frame)


def reference(features, labels, weight, logits):
    """VCI and NC1 to NC4 by the definitions, with NumPy's pseudo-inverse."""
    within, between, means = covariances(features, labels)
    k, d = means.shape
    w, x = weight.double().numpy(), features.double().numpy()
    # NumPy's cut-off is relative, on singular values; well-conditioned data leave no doubt about the rank.
    vci = 1 - np.trace(np.linalg.pinv(within + between, rcond=1e-10) @ between) / min(d, k - 1)
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / k
    nearest = [np.argmin([np.linalg.norm(row - x.mean(0) - mean) for mean in means]) for row in x]
    nc4 = np.mean(np.unique(labels.numpy())[nearest] != logits.argmax(1).numpy())
    return vci, nc1, simplex_distance(w @ w.T), simplex_distance(w @ means.T), nc4


def sample(n, d, k, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    labels = torch.cat((torch.arange(k), torch.randint(k, (n - k,)) ** 2 % k))  # uneven, none absent
    features = (torch.randn(n, d, dtype=torch.float64) + 2 * torch.randn(k, d, dtype=torch.float64)[labels]).to(dtype)
    weight = torch.randn(k, d, dtype=torch.float64)
    return features, labels, weight, features.double() @ weight.T


def both(features, labels, weight, logits):
    return [
        x.item()
        for x in (variability_collapse_index(features, labels), *neural_collapse(features, labels, weight, logits))
    ]


# More samples than columns, more classes than columns, more columns than classes, more columns than samples.
@pytest.mark.parametrize(("n", "d", "k"), [(200, 8, 5), (200, 4, 9), (60, 30, 3), (40, 70, 6)])
def test_the_definitions_in_numpy_agree(n, d, k):
    data = sample(n, d, k)
    assert both(*data) == pytest.approx(reference(*data), rel=1e-9, abs=1e-12)


def test_hand_made_values():
    # Classes at −2 and 2 on the first axis, each ±1 on the second: Σ_W = diag(0, 1), Σ_B = diag(4, 0).
    features = torch.tensor([[-2.0, 1.0], [-2.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    result = neural_collapse(features, labels, weight, torch.tensor([[1.0, 0.0]]).repeat(4, 1))
    assert variability_collapse_index(features, labels).item() == pytest.approx(0, abs=1e-12)  # tr = 4/4 of min(2, 1)
    assert result.nc1.item() == pytest.approx(0)  # no spread along the axis between the classes
    # WWᵀ = [[1, 2], [2, 4]], of norm 5; E = [[½, −½], [−½, ½]].
    assert result.nc2.item() == pytest.approx(math.sqrt(0.3**2 + 2 * 0.9**2 + 0.3**2))
    assert math.isnan(result.nc3.item())  # the weight is orthogonal to the means: WHᵀ = 0
    assert result.nc4.item() == 0.5


@pytest.mark.parametrize("k", [2, 4, 10])
def test_a_simplex_has_collapsed(k):
    frame = torch.eye(k, dtype=torch.float64) - 1 / k
    labels = torch.arange(k).repeat(3)
    assert both(3 * frame[labels] + 5, labels, 0.1 * frame, frame[labels]) == pytest.approx([0] * 5, abs=1e-12)


def test_single_samples_have_no_spread_within():
    features, labels, weight, logits = sample(6, 4, 6)
    vci, nc1, _, _, nc4 = both(features, labels, weight, logits)
    assert (vci, nc1) == pytest.approx((0, 0), abs=1e-12)
    assert nc4 == (logits.argmax(1) != labels).double().mean()  # each sample is its class's mean


def test_classes_that_tell_nothing_have_index_one():
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert variability_collapse_index(features, labels).item() == 1
    assert math.isnan(neural_collapse(features, labels, torch.eye(2), torch.eye(2).repeat(2, 1)).nc1.item())
    # The same numbers in another order round to means that differ by rounding alone.
    torch.manual_seed(0)
    part = torch.rand(7, 3, dtype=torch.float64)
    twice, labels = torch.cat((part, part.flip(0))), torch.arange(14) // 7
    assert math.isnan(neural_collapse(twice, labels, torch.ones(2, 3), torch.ones(14, 2)).nc1.item())


def test_identical_features_have_no_index():
    # Sums of so many tenths round, and differently for classes of different sizes.
    features = torch.full((301, 3), 0.1, dtype=torch.float64)
    assert math.isnan(variability_collapse_index(features, torch.arange(301) ** 2 % 7).item())


def test_the_index_is_invariant_under_linear_maps():
    features, labels, *_ = sample(300, 6, 4)
    expected = variability_collapse_index(features, labels).item()
    mapped = features @ torch.randn(6, 6, dtype=torch.float64) + 7
    assert variability_collapse_index(mapped, labels).item() == pytest.approx(expected, rel=1e-9)
    # Columns that repeat others or are constant change the rank and not the index.
    wider = torch.cat((features, features[:, :2] * 3, torch.ones(300, 2, dtype=torch.float64)), 1)
    assert variability_collapse_index(wider, labels).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("d", "k"), [(6, 3), (3, 6)])
def test_a_large_common_offset_does_not_matter(d, k):
    features, labels, weight, logits = sample(200, d, k)
    # Multiples of 2⁻²⁰ stay exact beside the offset. Raw second moments, of 10¹³, would lose all but three digits.
    features = (features * 2**20).round() / 2**20
    expected = both(features, labels, weight, logits)
    assert both(features + 2**22, labels, weight, logits) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("offset", [0, 2**22])
def test_merged_parts_equal_one_pass_in_any_order(offset):
    features, labels, weight, logits = sample(120, 5, 6)
    features = features + offset
    order = labels.argsort()  # classes are missing from most parts
    features, labels, logits = features[order], labels[order], logits[order]
    expected = both(features, labels, weight, logits)
    slices = [slice(0, 17), slice(17, 18), slice(18, 90), slice(90, 120)]
    for shuffled in itertools.permutations(slices):
        left, right = NeuralCollapse(6), NeuralCollapse(6)
        left.update(features[shuffled[0]], labels[shuffled[0]])
        left.update(features[shuffled[1]], labels[shuffled[1]])
        left.merge(NeuralCollapse(6))
        right.merge(left)
        for part in shuffled[2:]:
            right.update(features[part], labels[part])
        result = right.compute(weight, ((features[part], logits[part]) for part in shuffled))
        got = [right.variability_collapse_index().item(), *(x.item() for x in result)]
        assert got == pytest.approx(expected, rel=1e-7)
        assert right.counts.sum().item() == 120
        assert left.counts.sum().item() == len(labels[shuffled[0]]) + len(labels[shuffled[1]])


def test_the_order_of_samples_and_the_names_of_classes_do_not_matter():
    features, labels, weight, logits = sample(100, 7, 5)
    expected = both(features, labels, weight, logits)
    order, names = torch.randperm(100), torch.randperm(5)
    renamed = both(features[order], names[labels][order], weight[names.argsort()], logits[order][:, names.argsort()])
    assert renamed == pytest.approx(expected, rel=1e-9)


def test_absent_classes_do_not_count():
    features, labels, weight, logits = sample(100, 7, 4)
    more = torch.cat((weight, torch.ones(2, 7, dtype=torch.float64)))
    beside = F.pad(logits, (0, 2), value=-1e3)
    assert variability_collapse_index(features, labels * 3) == variability_collapse_index(features, labels)
    expected = neural_collapse(features, labels, weight, logits)
    result = neural_collapse(features, labels, more, beside)
    assert result.nc1 == expected.nc1
    assert result.nc2.item() == pytest.approx(simplex_distance((more @ more.T).numpy()))
    assert math.isnan(result.nc3.item())
    assert result.nc4 == expected.nc4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_features_are_measured_in_float64(dtype):
    features, labels, weight, logits = sample(300, 8, 5, dtype)
    assert both(features, labels, weight, logits) == both(features.double(), labels, weight, logits)


def test_a_trained_layer_leaves_no_graph():
    features, labels, weight, logits = sample(50, 4, 3)
    result = neural_collapse(features.requires_grad_(), labels, weight.requires_grad_(), logits.requires_grad_())
    assert not any(value.requires_grad for value in result)


FEATURES, LABELS = torch.ones(3, 2), torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (FEATURES, LABELS[:2], r"labels must be integers of shape \(3,\), got torch.int64, \(2,\)"),
        (FEATURES, LABELS.double(), "labels must be integers"),
        (FEATURES, LABELS.bool(), "labels must be integers"),
        (FEATURES.long(), LABELS, "features must be floating point"),
        (FEATURES[0], LABELS, r"features must be floating point of shape \(N, D\)"),
        (FEATURES[:, :0], LABELS, r"features must have at least one column, got shape \(3, 0\)"),
        (FEATURES, LABELS - 1, "labels must be from 0 to 1, got -1"),
        (FEATURES * math.nan, LABELS, "features must be finite"),
        (FEATURES * math.inf, LABELS, "features must be finite"),
        (torch.tensor([[1e200], [-1e200], [0.0]]).double() * 1e100, LABELS * 0, "and their squares too"),
        (FEATURES[:0], LABELS[:0], "at least one sample, got none"),
        (FEATURES, LABELS * 0, "labels must name at least two classes, got 1"),
    ],
)
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        variability_collapse_index(features, labels)


@pytest.mark.parametrize(
    ("features", "weight", "logits", "message"),
    [
        (FEATURES, torch.ones(2), FEATURES, r"weight must have shape \(K, D\), got \(2,\)"),
        (FEATURES, torch.ones(1, 2), FEATURES, "num_classes must be at least 2, got 1"),
        (FEATURES, torch.ones(2, 3), FEATURES, r"weight must be finite, floating point, of shape \(2, 2\)"),
        (FEATURES, torch.full((2, 2), math.nan), FEATURES, "weight must be finite"),
        (FEATURES, torch.ones(2, 2), torch.ones(2, 2), r"logits must have shape \(3, 2\), got \(2, 2\)"),
        (FEATURES, torch.ones(2, 2), torch.full((3, 2), math.nan), "logits must be finite or −inf"),
    ],
)
def test_bad_layers_are_named(features, weight, logits, message):
    with pytest.raises(ValueError, match=message):
        neural_collapse(features, LABELS, weight, logits)


def test_bad_state_is_named():
    state = NeuralCollapse(2)
    with pytest.raises(ValueError, match="update was never called"):
        state.variability_collapse_index()
    state.update(FEATURES[:0], LABELS[:0])
    assert state.counts is None
    state.update(FEATURES, LABELS)
    with pytest.raises(ValueError, match="features must have 2 columns as before, got 4"):
        state.update(torch.ones(1, 4), torch.tensor([1]))
    with pytest.raises(ValueError, match="other must have num_classes=2, got 3"):
        state.merge(NeuralCollapse(3))
    with pytest.raises(ValueError, match="parts must hold at least one sample"):
        state.compute(torch.ones(2, 2), [])
    with pytest.raises(ValueError, match=r"features must be floating point of shape \(N, 2\)"):
        state.compute(torch.ones(2, 2), [(torch.ones(3, 1), FEATURES)])
    # A refused update leaves the state as it was.
    with pytest.raises(ValueError, match="finite"):
        state.update(torch.full((1, 2), math.inf), torch.tensor([0]))
    assert state.counts.tolist() == [1, 2]
