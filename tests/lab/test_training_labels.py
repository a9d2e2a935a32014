"""Wrong labels and long tails in the training split."""

import dataclasses
from collections import Counter

import pytest
import torch

from maxsup.lab import evaluate, train
from maxsup.lab.data import DataError, DataSet, Split, choose, load
from maxsup.lab.data.imbalance import long_tailed
from maxsup.lab.data.label_noise import flipped
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import read_json


def images_of(per_class):
    """One-pixel images, each with its own number as its grey value's place in `labels`."""
    labels = torch.arange(len(per_class)).repeat_interleave(torch.tensor(per_class))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return Split((torch.arange(len(labels)) % 256).byte().view(-1, 1, 1, 1), labels)


def data_set_of(per_class):
    split = images_of(per_class)
    names = tuple("abcdefghijklmnopqrstuvwxyz"[: len(per_class)])
    return DataSet("made", names, split, split, split)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_the_rate_is_exact_in_every_class(rate, pair):
    labels = images_of([100] * 10).labels
    noisy = flipped(labels, rate, 10, pair=pair)
    wrong = noisy != labels
    assert labels[wrong].bincount(minlength=10).tolist() == [round(100 * rate)] * 10


def test_a_class_of_few_images_has_its_share_to_within_one():
    per_class = [500, 161, 52, 16, 5]
    labels = images_of(per_class).labels
    wrong = flipped(labels, 0.3, 5) != labels
    assert int(wrong.sum()) == round(0.3 * sum(per_class)) == 220
    for c, n in enumerate(per_class):
        assert abs(int(wrong[labels == c].sum()) - 0.3 * n) <= 1


def test_pair_noise_takes_the_next_class_and_the_first_after_the_last():
    labels = images_of([40, 40, 40]).labels
    noisy = flipped(labels, 0.25, 3, pair=True)
    moves = Counter(zip(labels.tolist(), noisy.tolist(), strict=True))
    assert moves == {(0, 0): 30, (0, 1): 10, (1, 1): 30, (1, 2): 10, (2, 2): 30, (2, 0): 10}


def test_symmetric_noise_is_uniform_over_the_other_classes():
    labels = torch.zeros(40_000, dtype=torch.int64)
    noisy = flipped(labels, 0.5, 5)
    counts = noisy.bincount(minlength=5)
    assert counts[0] == 20_000
    # 5,000 expected of each; the standard deviation of a count is √(20000·¼·¾) = 61.
    assert (counts[1:] - 5000).abs().max() < 4 * 61


def test_a_higher_rate_keeps_the_wrong_labels_of_a_lower_one():
    labels = images_of([60, 30, 10]).labels
    low, high = flipped(labels, 0.2, 3), flipped(labels, 0.4, 3)
    assert torch.equal(flipped(labels, 0.2, 3), low)
    wrong = low != labels
    assert torch.equal(high[wrong], low[wrong])


def test_flips_reach_the_training_labels_alone():
    plain = load(Data("digits", train_size=200))
    noisy = load(Data("digits", train_size=200, label_noise=0.4))
    assert torch.equal(noisy.train.images, plain.train.images)
    assert torch.equal(noisy.clean_labels, plain.train.labels)
    assert int((noisy.train.labels != plain.train.labels).sum()) == 80
    assert torch.equal(noisy.validation.labels, plain.validation.labels)
    assert torch.equal(noisy.test.labels, plain.test.labels)
    assert plain.clean_labels is None
    assert noisy.training_images()["flipped"] == 80
    assert noisy.training_images()["per_class"] == plain.training_images()["per_class"]


def test_classes_are_chosen_before_labels_are_flipped():
    few = load(Data("digits", classes=(3, 7), label_noise=0.5))
    assert set(few.train.labels.tolist()) == {0, 1}
    with pytest.raises(ValueError, match="classes must be chosen before the labels of digits are flipped"):
        few.of_classes((0, 1))


# The sizes that the long-tailed CIFARs of the literature have: 12,406 and 10,847 images at factor 100.
@pytest.mark.parametrize(
    ("classes", "each", "factor", "total", "ends"),
    [(10, 5000, 100, 12_406, (5000, 50)), (100, 500, 100, 10_847, (500, 5)), (10, 500, 50, None, (500, 10))],
)
def test_the_profile_is_that_of_long_tailed_cifar(classes, each, factor, total, ends):
    counts = long_tailed([each] * classes, factor)
    assert (counts[0], counts[-1]) == ends
    assert total is None or sum(counts) == total
    assert counts == sorted(counts, reverse=True)


def test_the_profile_holds_where_a_class_is_short_of_images():
    # Class 1 has 30, which is the third of 90: the first class keeps 90 of its 200 then.
    assert long_tailed([200, 30, 50], 9) == [90, 30, 10]
    assert long_tailed([7, 5, 9], 1) == [5, 5, 5]


def test_imbalance_takes_training_images_alone_and_the_same_ones():
    whole = data_set_of([100, 100, 100])
    tail = choose(whole, Data(imbalance=25))
    assert tail.train.labels.bincount().tolist() == [100, 20, 4]
    assert len(tail.validation) == len(tail.test) == 300
    assert torch.equal(choose(whole, Data(imbalance=25)).train.images, tail.train.images)
    more = choose(whole, Data(imbalance=4)).train  # 100, 50, 25
    for c in (1, 2):
        kept = set(tail.train.images[tail.train.labels == c].flatten().tolist())
        assert kept < set(more.images[more.labels == c].flatten().tolist())


def test_noise_is_a_share_of_what_the_imbalance_leaves():
    both = choose(data_set_of([100, 100, 100]), Data(imbalance=25, label_noise=0.25))
    assert both.training_images() == {"per_class": [100, 20, 4], "flipped": 31}
    wrong = both.train.labels != both.clean_labels
    assert both.clean_labels[wrong].bincount(minlength=3).tolist() == [25, 5, 1]


def test_a_class_without_images_is_an_error():
    with pytest.raises(DataError, match=r"data.imbalance 50 leaves no training image of 'c'; .* 10 to 10 a class"):
        choose(data_set_of([10, 10, 10]), Data(imbalance=50))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("label_noise", 1.0, "data.label_noise must be at least 0 and below 1, got 1.0"),
        ("label_noise", float("nan"), "data.label_noise must be at least 0 and below 1, got nan"),
        ("noise_kind", "pairs", "data.noise_kind must be symmetric or pair, got 'pairs'"),
        ("imbalance", 0.5, "data.imbalance must be a finite factor of at least 1 or None, got 0.5"),
        ("imbalance", float("inf"), "data.imbalance must be a finite factor of at least 1 or None, got inf"),
    ],
)
def test_bad_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Data(**{field: value})


def test_clean_measures_by_hand():
    # Five images of three classes: two have wrong labels; of those one is predicted as given and one as it is.
    given, clean = torch.tensor([0, 1, 2, 1, 2]), torch.tensor([0, 1, 2, 0, 1])
    predicted = torch.tensor([0, 1, 0, 1, 1])
    out = evaluate.Outputs(torch.randn(5, 4), 5 * torch.nn.functional.one_hot(predicted, 3).float(), given)
    found = evaluate.clean_measures(out, clean)
    assert found["accuracy"] == pytest.approx(3 / 5)  # images 0, 1 and 4
    assert (found["memorized"], found["recovered"]) == (0.5, 0.5)
    assert evaluate.measures(out)["accuracy"] == pytest.approx(3 / 5)  # images 0, 1 and 3
    assert evaluate.clean_measures(dataclasses.replace(out, labels=clean), clean)["memorized"] is None


def test_a_run_records_its_labels(tmp_path):
    data = Data("digits", train_size=200, label_noise=0.4, imbalance=4)
    recipe = dataclasses.replace(digits_convnet(), epochs=1, data=data)
    result = train.train(recipe, "max-sup", 0, tmp_path / "run")
    images = read_json(tmp_path / "run" / "run.json")["training_images"]
    assert images["per_class"][0] == 20
    assert images["per_class"][-1] == 5
    assert images["flipped"] == round(0.4 * sum(images["per_class"]))
    measured = result["measures"]
    assert measured["train_clean"]["n"] == measured["train"]["n"] == sum(images["per_class"])
    flips = images["flipped"] / measured["train"]["n"]
    # Right labels agree with the given ones but on the flipped images, where both shares are known.
    difference = flips * (measured["train_clean"]["recovered"] - measured["train_clean"]["memorized"])
    assert measured["train_clean"]["accuracy"] - measured["train"]["accuracy"] == pytest.approx(difference)
