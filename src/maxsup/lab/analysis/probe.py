"""Linear transfer: a logistic regression and k nearest neighbours on a finished run's frozen features.

The protocol (Kornblith et al. 2021): raw penultimate features, L2-regularised multinomial logistic regression by
L-BFGS, 45 strengths from 1e-6 to 1e5, chosen by accuracy on a fixed stratified 20% of the training images, then
fitted on all of them and tested once. Nothing of the network is trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from maxsup.lab import environment, evaluate, records
from maxsup.lab.analysis import logistic
from maxsup.lab.analysis.kept import archived, read_kept
from maxsup.lab.analysis.logistic import STRENGTHS, Array, Labels, Regression, Solver
from maxsup.lab.analysis.weights import WEIGHTS, fingerprint, load_model, trained_data
from maxsup.lab.data import AnySplit, DataSet, Split, choose, load
from maxsup.lab.data.splits import stratified, with_channels
from maxsup.lab.models import Classifier
from maxsup.lab.recipes import Data
from maxsup.lab.records import Json, RecordError

# One training image in five helps to choose the strength.
CHOOSING = 5


@dataclass(frozen=True)
class Protocol:
    """What can be set of the protocol; another value is another record."""

    neighbors: int = 20
    solver: Solver = dataclasses.field(default_factory=Solver)

    def __post_init__(self) -> None:
        for name, value in (("neighbors", self.neighbors), ("max_iter", self.solver.max_iter)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def probe(run_dir: Path, data: Data, data_dir: Path | None = None, protocol: Protocol | None = None) -> Json:
    """Probes the finished run in `run_dir` on `data`; returns the record, which it keeps in the run's folder.

    A record that was made of the same weights, images and settings is returned as it is, and so is one of the same
    images and settings where the weights are gone, as from published records. Images get the size and the
    channels of those that the run was trained on (`resize`, `with_channels`), and the model's own normalisation.
    Where the run was trained on some classes of the same data set and `data` names no classes, it is probed on the
    others.

    Raises:
        RecordError: if the run's record or weights are missing or damaged, or its features are not finite.
        DataError: if the data is absent or damaged.
        ValueError: if the data has too few images or classes, or `protocol.neighbors` exceeds the training images.
    """
    protocol = protocol or Protocol()
    data_set, data = prepare(run_dir, data, data_dir, protocol)
    file = run_dir / record_name(data)
    images: Json = {"data_sha256": _fingerprint(data_set)}
    steps: Json = {"strengths": list(STRENGTHS), "choosing_share": 1 / CHOOSING, **dataclasses.asdict(protocol)}
    earlier = archived(file, (run_dir / WEIGHTS,), {"settings": images | steps})
    if earlier is not None:
        return earlier
    settings = {"data": dataclasses.asdict(data), **images, "model_sha256": fingerprint(run_dir), **steps}
    kept = read_kept(file, {"settings": settings})
    if kept is not None:
        return kept
    made = {"versions": environment.versions(), "hardware": environment.hardware(), **environment.source_state()}
    records.write_json(file, {"settings": settings, **_probe(load_model(run_dir), run_dir, data_set, protocol), **made})
    return records.read_json(file)


def prepare(run_dir: Path, asked: Data, data_dir: Path | None, protocol: Protocol) -> tuple[DataSet, Data]:
    """The images as `probe` shows them to the run's model, and their description with size and classes filled in.

    Raises:
        RecordError, DataError, ValueError: as `probe` does, for what can be told before any feature is computed.
    """
    trained = trained_data(run_dir)
    size = asked.image_size or trained.image_size
    if size is None and asked.name != trained.name:
        size = load(Data(name=trained.name), data_dir).train.images.shape[2]
    whole = load(Data(name=asked.name, image_size=size), data_dir)
    classes = asked.classes
    if classes is None and trained.classes is not None and asked.name == trained.name:
        classes = tuple(c for c in range(whole.num_classes) if c not in trained.classes) or None
    data = dataclasses.replace(asked, classes=classes, image_size=size)
    data_set = choose(whole, data)
    n = len(data_set.train)
    if n < 2 * CHOOSING:
        raise ValueError(f"a probe needs at least {2 * CHOOSING} training images, {data_set.name} has {n} here")
    if protocol.neighbors > n:
        raise ValueError(f"neighbors must be at most {n}, the training images, got {protocol.neighbors}")
    return data_set, data


def linear_probe(train: Array, labels: Labels, test: Array, test_labels: Labels, solver: Solver) -> Json:
    """Accuracy on the test features of the protocol's regression, with its path; features (N, D), labels (N,)."""
    held = np.zeros(len(labels), dtype=bool)
    held[stratified(torch.from_numpy(labels), len(labels) // CHOOSING).numpy()] = True
    points = logistic.path(train[~held], labels[~held], train[held], labels[held], STRENGTHS, solver)
    strength = logistic.choose(points).strength
    final = Regression(train, labels, solver)
    refit = final.fit(strength)
    return {
        "accuracy": final.accuracy(test, test_labels),
        "train_accuracy": final.accuracy(train, labels),
        "strength": strength,
        "refit": dataclasses.asdict(refit),
        "path": [dataclasses.asdict(point) for point in points],
    }


def knn_accuracy(train: Array, labels: Labels, test: Array, test_labels: Labels, neighbors: int) -> float:
    """Share of test features (N, D) whose `neighbors` nearest training features, by cosine, vote for their label.

    Every neighbour has one vote; of classes with as many votes the first wins.
    """
    model = KNeighborsClassifier(neighbors, metric="cosine", algorithm="brute").fit(train, labels)
    return float(model.score(test, test_labels))


def record_name(data: Data) -> str:
    """The file of a probe in the run's folder.

    >>> record_name(Data(name="fashion-mnist", classes=(0, 5, 6, 7, 9), train_size=5000))
    'probe-fashion-mnist-classes-0,5-7,9-train-5000.json'
    """
    name = f"probe-{data.name}"
    if data.classes is not None:
        name += f"-classes-{_ranges(data.classes)}"
    if data.train_size is not None:
        name += f"-train-{data.train_size}"
    return name + ".json"


def _ranges(classes: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for c in classes:
        if runs and c == runs[-1][-1] + 1:
            runs[-1].append(c)
        else:
            runs.append([c])
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    # A file's name has at most 255 bytes.
    return text if len(text) <= 100 else hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprint(data_set: DataSet) -> str:
    digest = hashlib.sha256()
    for split in (data_set.train, data_set.test):
        for part in (split.images, split.labels):
            digest.update(f"{tuple(part.shape)}".encode())
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def _features(model: Classifier, split: AnySplit, device: torch.device) -> Array:
    channels = len(model.mean)
    adapted = Split(with_channels(split.images, channels), split.labels)
    return evaluate.outputs(model, adapted, device).features.cpu().double().numpy()


def _probe(model: Classifier, run_dir: Path, data_set: DataSet, protocol: Protocol) -> Json:
    begin = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    train, test = (_features(model, split, device) for split in (data_set.train, data_set.test))
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise RecordError(f"{run_dir / 'model.safetensors'}: the model's features are not finite on {data_set.name}")
    labels, test_labels = data_set.train.labels.numpy(), data_set.test.labels.numpy()
    extracted = time.perf_counter()
    linear = linear_probe(train, labels, test, test_labels, protocol.solver)
    fitted = time.perf_counter()
    accuracy = knn_accuracy(train, labels, test, test_labels, protocol.neighbors)
    return {
        "data": {
            "name": data_set.name,
            "class_names": list(data_set.class_names),
            "train": len(labels),
            "test": len(test_labels),
            "features": train.shape[1],
        },
        "linear": linear,
        "knn": {"neighbors": protocol.neighbors, "accuracy": accuracy},
        "seconds": {
            "features": extracted - begin,
            "linear": fitted - extracted,
            "knn": time.perf_counter() - fitted,
        },
    }
