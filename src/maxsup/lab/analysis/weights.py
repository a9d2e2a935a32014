"""The model of a finished run, from its folder alone."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maxsup.lab import models, recipes, records
from maxsup.lab.records import Json, RecordError

WEIGHTS = "model.safetensors"


def _file(run_dir: Path) -> Path:
    file = run_dir / WEIGHTS
    if not file.is_file():
        raise RecordError(f"{file}: missing; a run writes it when it finishes")
    return file


def fingerprint(run_dir: Path) -> str:
    """SHA-256 of the run's weights file: what was computed from other weights has another.

    Raises:
        RecordError: if the file is missing.
    """
    with _file(run_dir).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_fields(kind: type[Any], values: Json) -> Any:
    """`kind` from a record: a field that is newer than the record keeps its default, in which the run was made.

    JSON's lists become the tuples that recipes have.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    known = {name: value for name, value in values.items() if name in names}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})


def trained_model(run_dir: Path) -> recipes.Model:
    """The network that the run's recipe names.

    Raises:
        RecordError: if ``run.json`` is missing or unreadable.
    """
    return cast(recipes.Model, _known_fields(recipes.Model, _recipe(run_dir)["model"]))


def trained_data(run_dir: Path) -> recipes.Data:
    """The data on which the run trained.

    Raises:
        RecordError: if ``run.json`` is missing or unreadable.
    """
    return cast(recipes.Data, _known_fields(recipes.Data, _recipe(run_dir)["data"]))


def trained_recipe(run_dir: Path) -> recipes.Recipe:
    """The recipe of the run.

    Raises:
        RecordError: if ``run.json`` is missing or unreadable, or does not tell how the network was trained.
    """
    recipe = _recipe(run_dir)
    parts = {"data": recipes.Data, "model": recipes.Model, "optimizer": recipes.Optimizer, "alpha": recipes.Alpha}
    if not parts.keys() <= recipe.keys():
        raise RecordError(f"{run_dir / 'run.json'}: does not tell how the network was trained")
    own = {field.name for field in dataclasses.fields(recipes.Recipe)} - parts.keys()
    built = {name: _known_fields(kind, recipe[name]) for name, kind in parts.items()}
    return recipes.Recipe(**{name: value for name, value in recipe.items() if name in own}, **built)


def _recipe(run_dir: Path) -> Json:
    file = run_dir / "run.json"
    if not file.is_file():
        raise RecordError(f"{run_dir}: no run here (run.json is missing)")
    recipe = records.read_json(file).get("recipe")
    if not isinstance(recipe, dict) or not {"model", "data"} <= recipe.keys():
        raise RecordError(f"{file}: no recipe with a model and data")
    return recipe


def _num_classes(model: recipes.Model, channels: int, weights: dict[str, Tensor]) -> int:
    """Rows of the final linear layer's weights, wherever the network keeps it."""
    with torch.device("meta"):
        skeleton = models.build(model, channels, 2)
    last = cast(models.Backbone, skeleton).get_classifier()
    name = next(name for name, module in skeleton.named_modules() if module is last)
    return len(weights[f"backbone.{name}.weight"])


def load_model(run_dir: Path, *, any_size: bool = False) -> models.Classifier:
    """The classifier of a finished run with the weights that were tested, on the CPU, in evaluation mode.

    With `any_size` a vision transformer takes images of every size.

    Raises:
        RecordError: if ``run.json`` or ``model.safetensors`` is missing or damaged, or they do not fit together; it
            names the file.
    """
    model, file = trained_model(run_dir), _file(run_dir)
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise RecordError(f"{file}: truncated or corrupt weights ({error})") from error
    try:
        channels = len(weights["mean"])
        network = models.build(model, channels, _num_classes(model, channels, weights), any_size=any_size)
        classifier = models.Classifier(network, weights["mean"], weights["std"])
        classifier.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise RecordError(f"{file}: not the weights of {model.name!r}, which run.json names ({error})") from error
    return classifier.to(memory_format=torch.channels_last).eval()
