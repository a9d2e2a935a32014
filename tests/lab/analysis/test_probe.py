import dataclasses
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from maxsup.lab import train
from maxsup.lab.analysis import probe as module
from maxsup.lab.analysis.logistic import STRENGTHS, Regression, Solver
from maxsup.lab.analysis.probe import Protocol, knn_accuracy, linear_probe, prepare, probe, record_name
from maxsup.lab.analysis.weights import load_model
from maxsup.lab.data import DataError, DataSet, Split, load
from maxsup.lab.data.splits import stratified
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, read_json

FEW = Data("digits", train_size=60)


@pytest.fixture(scope="module")
def record(trained, tmp_path_factory):
    return probe(shutil.copytree(trained, tmp_path_factory.mktemp("probed") / "run"), FEW)


@pytest.fixture(scope="module")
def features(trained):
    """Features and labels of the training and test images of the probe above, from the model itself."""
    model, of = load_model(trained), load(Data("digits", train_size=60, classes=(5, 6, 7, 8, 9)))
    with torch.inference_mode():
        return [
            (model.features_and_logits(split.images)[0].double().numpy(), split.labels.numpy())
            for split in (of.train, of.test)
        ]


def blobs(n, seed, spread=1.0):
    """Three classes around corners, of ten features."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return spread * random.normal(size=(n, 10)) + 2 * np.eye(10)[labels], labels.astype(np.int64)


def test_a_run_on_some_classes_is_probed_on_the_others(record):
    assert record["data"] == {
        "name": "digits", "class_names": ["5", "6", "7", "8", "9"], "train": 60, "test": 179, "features": 64
    }  # fmt: skip
    assert record["settings"]["data"]["classes"] == [5, 6, 7, 8, 9]


def test_the_record_is_the_protocol_on_the_models_features(record, features):
    (x, y), (test, labels) = features
    linear = record["linear"]
    plain = LogisticRegression(C=1 / linear["strength"], tol=1e-8, max_iter=10_000, solver="newton-cg").fit(x, y)
    assert linear["accuracy"] == pytest.approx(plain.score(test, labels), abs=1 / 179)
    assert linear["train_accuracy"] == pytest.approx(plain.score(x, y), abs=1 / 60)
    assert [point["strength"] for point in linear["path"]] == sorted(STRENGTHS, reverse=True)
    assert linear["refit"]["strength"] == linear["strength"]
    assert all(fit["converged"] is True for fit in [*linear["path"], linear["refit"]])
    assert record["knn"] == {"neighbors": 20, "accuracy": knn_accuracy(x, y, test, labels, 20)}


def test_the_strength_is_chosen_on_a_fifth_and_the_fit_is_of_all():
    (x, y), (test, labels) = blobs(100, seed=0, spread=2.0), blobs(50, seed=1, spread=2.0)
    solver = Solver()
    found = linear_probe(x, y, test, labels, solver)
    held = stratified(torch.from_numpy(y), 20).numpy()
    rest = np.setdiff1d(np.arange(100), held)
    accuracies = {}
    for strength in STRENGTHS:
        fit = Regression(x[rest], y[rest], Solver(tolerance=1e-8))
        fit.fit(strength)
        accuracies[strength] = fit.accuracy(x[held], y[held])
    best = max(accuracies.values())
    assert {point["strength"]: point["accuracy"] for point in found["path"]} == accuracies
    assert found["strength"] == max(strength for strength in STRENGTHS if accuracies[strength] == best)
    final = Regression(x, y, Solver(tolerance=1e-8))
    final.fit(found["strength"])
    assert found["accuracy"] == final.accuracy(test, labels)
    assert found["train_accuracy"] == final.accuracy(x, y)


def test_fits_that_do_not_converge_are_recorded(run_dir):
    found = probe(run_dir, FEW, protocol=Protocol(solver=Solver(max_iter=1)))
    linear = found["linear"]
    assert linear["refit"] == {"strength": linear["strength"], "iterations": 1, "converged": False}
    assert not any(point["converged"] for point in linear["path"])


def test_nearest_neighbours_by_cosine_worked_out_by_hand():
    # On the unit circle at 0°, 10°, 20° (class 0, 0, 1), 90°, 100° (class 1, 1); lengths must not matter.
    angle = np.deg2rad([0, 10, 20, 90, 100])
    train = np.array([1, 50, 3, 0.1, 7])[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    labels = np.array([0, 0, 1, 1, 1])
    at = np.deg2rad([12, 88, 18])
    test = np.stack([np.cos(at), np.sin(at)], axis=1)
    # Nearest one: 10° (0), 90° (1), 20° (1).
    assert knn_accuracy(train, labels, test, np.array([0, 1, 1]), 1) == 1.0
    # Nearest three: {10, 20, 0} -> 0; {90, 100, 20} -> 1; {20, 10, 0} -> 0.
    assert knn_accuracy(train, labels, test, np.array([0, 1, 0]), 3) == 1.0
    assert knn_accuracy(train, labels, test, np.array([1, 1, 1]), 3) == pytest.approx(1 / 3)
    # Two neighbours of 18° at 20° and 10°: one vote each, and the first class wins.
    assert knn_accuracy(train, labels, test[2:], np.array([0]), 2) == 1.0


def test_a_record_is_kept_until_weights_images_or_settings_change(run_dir, monkeypatch):
    made = probe(run_dir, FEW)
    file = run_dir / record_name(dataclasses.replace(FEW, classes=(5, 6, 7, 8, 9)))
    assert read_json(file) == made
    calls = []
    original = module.linear_probe
    monkeypatch.setattr(module, "linear_probe", lambda *args: calls.append(1) or original(*args))
    assert probe(run_dir, FEW) == made
    assert calls == []
    assert probe(run_dir, FEW, protocol=Protocol(neighbors=3))["knn"]["neighbors"] == 3
    assert len(calls) == 1
    probe(run_dir, FEW)
    assert len(calls) == 2

    def altered(data, data_dir=None):
        of = load(data, data_dir)
        return dataclasses.replace(of, test=Split(255 - of.test.images, of.test.labels))

    monkeypatch.setattr(module, "load", altered)
    assert probe(run_dir, FEW)["settings"]["data_sha256"] != made["settings"]["data_sha256"]
    assert len(calls) == 3
    file.write_text("{ damaged")
    probe(run_dir, FEW)
    assert len(calls) == 4


def test_images_get_the_size_and_the_channels_of_the_trained_ones(run_dir, monkeypatch):
    random = np.random.default_rng(0)

    def split(n):
        images = torch.from_numpy(random.integers(0, 256, (n, 3, 20, 24), dtype=np.uint8))
        return Split(images, torch.arange(n) % 2)

    def coloured(data, data_dir=None):
        if data.name != "coloured":
            return load(data, data_dir)
        return DataSet("coloured", ("a", "b"), split(40), split(10), split(20)).resized(data.image_size)

    monkeypatch.setattr(module, "load", coloured)
    data_set, data = prepare(run_dir, Data("coloured"), None, Protocol())
    assert data_set.train.images.shape == (40, 3, 8, 8)  # the digits' size; channels change with the features
    assert data.image_size == 8
    assert data.classes is None
    found = probe(run_dir, Data("coloured"))
    assert found["data"]["class_names"] == ["a", "b"]
    assert 0 <= found["linear"]["accuracy"] <= 1
    assert (run_dir / "probe-coloured.json").is_file()


def test_what_cannot_be_probed_says_why(run_dir):
    with pytest.raises(ValueError, match="at least 10 training images, digits has 9 here"):
        probe(run_dir, Data("digits", train_size=9))
    with pytest.raises(ValueError, match="neighbors must be at most 60, the training images, got 61"):
        probe(run_dir, FEW, protocol=Protocol(neighbors=61))
    with pytest.raises(ValueError, match="classes: 10 is not in"):
        probe(run_dir, Data("digits", classes=(0, 10)))
    with pytest.raises(DataError, match="train_size 5000 exceeds"):
        probe(run_dir, Data("digits", train_size=5000))
    with pytest.raises(ValueError, match="max_iter must be at least 1, got 0"):
        Protocol(solver=Solver(max_iter=0))
    (run_dir / "model.safetensors").unlink()
    with pytest.raises(RecordError, match=r"model\.safetensors: missing"):
        probe(run_dir, FEW)


def test_a_probe_whose_weights_are_gone_is_returned_for_the_same_images_and_settings(run_dir):
    first = probe(run_dir, FEW)
    (run_dir / "model.safetensors").unlink()
    assert probe(run_dir, FEW) == first
    with pytest.raises(RecordError, match=r"model\.safetensors: missing"):
        probe(run_dir, FEW, protocol=Protocol(neighbors=3))
    assert read_json(next(run_dir.glob("probe-*.json"))) == first


def test_features_that_are_not_finite_are_an_error_that_names_the_weights(run_dir, monkeypatch):
    monkeypatch.setattr(module, "_features", lambda model, split, device: np.full((len(split), 3), np.nan))
    with pytest.raises(RecordError, match=r"model\.safetensors: the model's features are not finite on digits"):
        probe(run_dir, FEW)


def test_a_run_on_all_classes_is_probed_on_all(tmp_path):
    data = Data("digits", train_size=100)
    train.train(dataclasses.replace(digits_convnet(), epochs=1, data=data), "cross-entropy", 0, tmp_path)
    found = probe(tmp_path, FEW)
    assert found["data"]["class_names"] == [str(c) for c in range(10)]
    assert (tmp_path / "probe-digits-train-60.json").is_file()


def test_long_lists_of_classes_give_short_file_names():
    assert record_name(Data("cifar100", classes=(3,))) == "probe-cifar100-classes-3.json"
    every_other = record_name(Data("imagenet", classes=tuple(range(0, 1000, 2))))
    assert len(every_other) == len("probe-imagenet-classes-.json") + 16
    assert every_other != record_name(Data("imagenet", classes=tuple(range(0, 1000, 4))))
