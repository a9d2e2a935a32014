"""Penultimate features on the plane of three class templates (Müller et al. 2019; Fig. 1, 4 and 5 of the paper).

The templates w1, w2, w3 are rows of the last layer. With e1 = (w2 − w1)/‖w2 − w1‖ and e2 the unit vector of what e1
leaves of w3 − w1 (Gram-Schmidt), a feature x has the coordinates ((x − w1)·e1, (x − w1)·e2). The bias takes no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from maxsup.lab import environment, evaluate, records
from maxsup.lab.analysis.confusion import confusion_matrix, most_confused
from maxsup.lab.analysis.curves import significant
from maxsup.lab.analysis.kept import archived, read_kept, write_compact
from maxsup.lab.analysis.outputs import read_outputs
from maxsup.lab.analysis.weights import WEIGHTS, fingerprint, load_model, trained_data
from maxsup.lab.data import AnySplit, DataSet, Split, load
from maxsup.lab.models import Backbone, Classifier
from maxsup.lab.names import lookup
from maxsup.lab.records import Comparison, Json, RecordError, RunRecord

# Images a class and split; the same ones for every method.
IMAGES = 80
IMAGE_SEED = 0
DIGITS = 4


def plane_coordinates(features: Tensor, templates: Tensor) -> Tensor:
    """Coordinates (N, 2), float64, of features (N, D) on the plane of templates (3, D).

    Raises:
        ValueError: if the templates are not three, or lie on one line.
    """
    if templates.ndim != 2 or len(templates) != 3 or features.shape[1:] != templates.shape[1:]:
        raise ValueError(
            f"features must be (N, D) and templates (3, D), got {tuple(features.shape)} and {tuple(templates.shape)}"
        )
    w1, w2, w3 = templates.double()
    e1 = nn.functional.normalize(w2 - w1, dim=0)
    rest = (w3 - w1) - ((w3 - w1) @ e1) * e1
    # What rounding leaves of parallel differences is no direction.
    if not float(rest.norm()) > 1e-6 * float((w3 - w1).norm()):
        raise ValueError("templates must span a plane, got three on one line")
    coordinates: Tensor = (features.double() - w1) @ torch.stack([e1, rest / rest.norm()], dim=1)
    return coordinates


def project(
    directory: Path, data_dir: Path | None = None, *, classes: Sequence[str] | None = None, method: str | None = None
) -> Json:
    """Projects one finished run a method onto the plane of three classes; keeps and returns the record.

    The record, ``analysis/projection.json`` in the comparison's folder, is returned as it is if it was made of the
    same weights and settings, or, unless `classes` or `method` are given, of weights that are gone. Each method
    shows its run of the lowest seed that all methods finished, or of its own lowest if there is none; a method
    without a usable run stands under ``left_out`` with the reason.

    Args:
        directory: The comparison's folder.
        data_dir: The folder of the data set's files.
        classes: Three class names; by default the three that `method` confuses most on the validation images, all its
            finished runs together.
        method: The method whose confusions choose; the comparison's first by default.

    Raises:
        RecordError: if there is no comparison, no method has a usable run, or weights are gone and the record lacks a
            method that has finished runs.
        DataError: if the data is absent or damaged.
        ValueError: if `classes` are not three different ones of the data set, `method` is not in the comparison, or the
            data set has fewer than three classes.
    """
    comparison = records.read_comparison(directory)
    file = directory / "analysis" / "projection.json"
    if classes is None and method is None:
        earlier = archived(file, _shown(file, comparison))
        if earlier is not None:
            finished = [name for name in comparison.methods if _has_finished(comparison, name)]
            absent = [name for name in finished if name not in earlier["methods"]]
            if absent:
                raise RecordError(f"{file}: lacks {', '.join(absent)}, and cannot be made again: weights are missing")
            return earlier
    method = comparison.methods[0] if method is None else method
    lookup("method", method, dict.fromkeys(comparison.methods))
    runs, left_out = _usable(comparison)
    if not runs:
        raise RecordError(
            f"{directory}: no method has a finished run with its weights ({'; '.join(left_out.values())})"
        )
    data = trained_data(next(iter(runs.values())).path)
    data_set = load(data, data_dir)
    chosen, chosen_by = _choose(comparison, data_set, classes, method)
    settings: Json = {
        "data": dataclasses.asdict(data),
        "classes": [data_set.class_names[c] for c in chosen],
        "images": IMAGES,
        "image_seed": IMAGE_SEED,
        "model_sha256": {name: fingerprint(run.path) for name, run in runs.items()},
        "left_out": left_out,
    }
    key: Json = {"settings": settings, "chosen_by": chosen_by}
    kept = read_kept(file, key)
    if kept is not None:
        return kept
    images = {"train": draw(data_set.clean_train, chosen), "validation": draw(data_set.validation, chosen)}
    methods = {}
    for name, run in runs.items():
        methods[name] = {"seed": run.seed, **_project(load_model(run.path), images, chosen)}
    content = {**key, "classes": settings["classes"], "images": IMAGES, "methods": methods}
    write_compact(file, {**content, **environment.source_state()})
    return records.read_json(file)


def draw(split: AnySplit, classes: Sequence[int]) -> Split:
    """Up to `IMAGES` random images of each of `classes`, the same at every call; labels are positions in `classes`."""
    generator = np.random.default_rng(IMAGE_SEED)
    indices = []
    for c in classes:
        members = (split.labels == c).nonzero().squeeze(1).numpy()
        indices.append(np.sort(generator.permutation(members)[:IMAGES]))
    taken = split.take(torch.from_numpy(np.concatenate(indices)))
    return Split(taken.images, torch.arange(len(classes)).repeat_interleave(torch.tensor([len(i) for i in indices])))


def _choose(
    comparison: Comparison, data_set: DataSet, classes: Sequence[str] | None, method: str
) -> tuple[tuple[int, ...], str]:
    if data_set.num_classes < 3:
        raise ValueError(f"a projection needs at least 3 classes, {data_set.name} has {data_set.num_classes} here")
    if classes is not None:
        places = {name: place for place, name in enumerate(data_set.class_names)}
        chosen = tuple(lookup("class", name, places) for name in classes)
        if len(set(chosen)) != 3 or len(chosen) != 3:
            raise ValueError(f"classes must be three different ones, got {', '.join(classes)}")
        return chosen, "named"
    total = np.zeros((data_set.num_classes, data_set.num_classes), dtype=np.int64)
    for run in comparison.of_method(method):
        if run.status == "finished":
            try:
                of = read_outputs(run.path)["validation"]
            except RecordError:  # `analyze` reports it; the other runs choose
                continue
            total += confusion_matrix(of.logits, of.labels)
    triple = most_confused(total)
    among = total[np.ix_(triple, triple)]
    count = int(among.sum() - among.trace())
    return triple, f"{method} confuses them most, {count} times on the validation images"


def _shown(file: Path, comparison: Comparison) -> list[Path]:
    """The weights of the runs that the record in `file` shows; none if there is no record."""
    of = read_kept(file, {}) or {}
    directory = comparison.path
    return [
        records.run_directory(directory, name, one["seed"]) / WEIGHTS for name, one in of.get("methods", {}).items()
    ]


def _has_finished(comparison: Comparison, method: str) -> bool:
    return any(run.status == "finished" for run in comparison.of_method(method))


def _usable(comparison: Comparison) -> tuple[dict[str, RunRecord], dict[str, str]]:
    """A run with weights for each method, of one seed where there is one; and why a method has none."""
    seeds: dict[str, dict[int, RunRecord]] = {}
    left_out: dict[str, str] = {}
    for method in comparison.methods:
        for run in comparison.of_method(method):
            if run.status != "finished":
                left_out[method] = f"seed {run.seed} is {run.status}"
                continue
            file = run.path / "model.safetensors"
            if not file.is_file():
                left_out[method] = f"seed {run.seed}: {file.name} is missing"
                continue
            try:
                # Reads the header, which tells how long a whole file is.
                with safe_open(file, "pt"):
                    seeds.setdefault(method, {})[run.seed] = run
            except SafetensorError as error:
                left_out[method] = f"seed {run.seed}: {file.name} is damaged ({error})"
    for method in seeds:
        left_out.pop(method, None)
    common = set.intersection(*(set(of) for of in seeds.values())) if seeds else set()
    return {method: of[min(common or of)] for method, of in seeds.items()}, left_out


def _project(model: Classifier, images: dict[str, Split], classes: Sequence[int]) -> Json:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    layer = cast(Backbone, model.backbone).get_classifier()
    templates = cast(nn.Linear, layer).weight.detach()[list(classes)].cpu()

    def rounded(features: Tensor) -> list[list[float | None]]:
        return [significant(row, DIGITS) for row in plane_coordinates(features, templates)]

    of: Json = {"templates": rounded(templates)}
    for name, split in images.items():
        features = evaluate.outputs(model, split, device).features.cpu()
        of[name] = {"points": rounded(features), "labels": split.labels.tolist()}
    return of
