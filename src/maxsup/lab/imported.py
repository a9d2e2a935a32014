"""A network that was trained elsewhere, as a run's folder: its checkpoint read, its outputs recorded."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maxsup.lab import data as datasets
from maxsup.lab import environment, evaluate, models, records
from maxsup.lab.recipes import Data, Model
from maxsup.lab.records import Json, RecordError

NO_DATA = "none"
"""The data set's name in the record of a network of which nothing was measured."""

# Where trainers keep the weights in a checkpoint, and what wrappers put before each name.
_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
# The share of the resized image's side that torchvision's and DeiT's evaluation keep: 224 of 256 pixels.
_EVAL_CROP = 0.875


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint: safetensors, or what `torch.save` wrote of a state dict.

    One that is wrapped as ``{"model": …}`` or ``{"state_dict": …}`` is unwrapped, and the prefixes of
    `DistributedDataParallel` (``module.``) and of `torch.compile` (``_orig_mod.``) are taken off. Nothing in the file
    is executed: it may hold tensors, plain values and the `argparse.Namespace` of DeiT's training script.

    Raises:
        RecordError: if the file is missing, unreadable, or holds no state dict.
    """
    if not file.is_file():
        raise RecordError(f"{file}: no such checkpoint")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RecordError(
            f"{file}: unreadable as a checkpoint of tensors ({str(error).strip().splitlines()[0]}); "
            "torch.save(model.state_dict(), FILE) writes one that can be read"
        ) from error
    if isinstance(content, Mapping):
        content = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise RecordError(f"{file}: no state dict, alone or under {' or '.join(map(repr, _WRAPPERS))}")
    weights = {str(name): value for name, value in content.items()}
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def network_of(model: Model, weights: Mapping[str, Tensor], file: Path) -> nn.Module:
    """The network that `model` names, for RGB images, with the weights; its classes are counted in them.

    Counters of batches (``num_batches_tracked``), which old checkpoints lack, may be absent.

    Raises:
        UnknownNameError: for a model that is unknown.
        RecordError: if the weights are not those of such a network; it names what differs.
    """
    with torch.device("meta"):
        skeleton = models.build(model, 3, 2)
    last = cast(models.Backbone, skeleton).get_classifier()
    head = next(name for name, module in skeleton.named_modules() if module is last)
    if f"{head}.weight" not in weights:
        raise RecordError(f"{file}: not the weights of {model.name!r}: no {head}.weight")
    network = models.build(model, 3, len(weights[f"{head}.weight"]))
    try:
        found = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise RecordError(f"{file}: not the weights of {model.name!r}: {error}") from error
    absent = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    for kind, names in (("lacks", absent), ("has besides", found.unexpected_keys)):
        if names:
            raise RecordError(f"{file}: not the weights of {model.name!r}: it {kind} {_listed(names)}")
    return network


def import_checkpoint(
    file: Path,
    model: Model,
    directory: Path,
    *,
    method: str = "imported",
    data: Data,
    data_dir: Path | None = None,
) -> Json:
    """Makes a run's folder of a checkpoint and returns its result; its images are normalised by ImageNet's constants.

    Features and logits of the validation and test images are recorded and measured, as `maxsup analyze` needs. With
    data of the name `NO_DATA` there are the weights alone, which `maxsup probe` and `maxsup export` take. A folder that
    holds the same import is left as it is.

    Args:
        file: the checkpoint (see `read_state_dict`).
        model: the network.
        directory: the run's folder.
        method: what the record calls the method with which it was trained.
        data: images of the classes that the network tells apart, or none, from `data_of`.
        data_dir: folder with their files.

    Raises:
        RecordError: if the checkpoint cannot be read or does not fit, or `directory` holds another run.
        DataError: if the data is absent or damaged.
        ValueError: if the data has another number of classes than the network.
    """
    weights = read_state_dict(file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    # Of a recipe only what is known: how the network was trained is not.
    recipe = {"name": "imported", "model": _plain(model), "data": _plain(data)}
    asked = {"method": method, "recipe": recipe, "imported": {"file": file.name, "sha256": digest}}
    if (directory / "run.json").exists():
        old = records.read_json(directory / "run.json")
        changed = records.differences({name: old.get(name) for name in asked}, asked)
        if changed:
            raise RecordError(f"{directory} holds another run: {'; '.join(changed)}")
        if (directory / "result.json").exists():
            return records.read_json(directory / "result.json")
    network = network_of(model, weights, file)
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    classifier = models.Classifier(network, mean, std).eval()
    data_set = None if data.name == NO_DATA else datasets.load(data, data_dir)
    classes = cast(nn.Linear, cast(models.Backbone, network).get_classifier()).out_features
    if data_set is not None and data_set.num_classes != classes:
        raise ValueError(
            f"data must have the network's {classes} classes to be measured on, {data_set.name} has "
            f"{data_set.num_classes}; without --data the network can still be probed"
        )
    where = {"versions": environment.versions(), "hardware": environment.hardware(), "processes": 1}
    started = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    info = {**asked, "seed": 0, **environment.source_state(), **where, **started}
    records.write_json(directory / "run.json", info)
    measured = {} if data_set is None else _outputs(classifier, data_set, directory)
    tensors = {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}
    with records.replacing(directory / "model.safetensors") as path:
        save_file(tensors, path)
    records.write_json(directory / "result.json", {"status": "finished", "measures": measured})
    return records.read_json(directory / "result.json")


def data_of(
    model: Model,
    name: str,
    image_size: int | None = None,
    eval_crop: float | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> Data:
    """The images for an imported network; None takes what torchvision's and DeiT's evaluation do.

    That is: the size that the network is made for; of images in files 224 of 256 pixels, resized bicubically for vision
    transformers and bilinearly for others. Images in memory (`digits`, `cifar10`, …) are resized bilinearly, whole.
    """
    import timm

    models.check_name(model.name)
    usual = None if model.name == "convnet" else timm.get_pretrained_cfg(model.name)
    size = image_size or model.image_size or (224 if usual is None else usual.input_size[1])
    from_files = name in datasets.FROM_FILES or name == NO_DATA
    bicubic = from_files and models.is_vision_transformer(model.name)
    return Data(
        name=name,
        image_size=size,
        eval_crop=eval_crop if eval_crop is not None else _EVAL_CROP if from_files else 1.0,
        interpolation=interpolation or ("bicubic" if bicubic else "bilinear"),
        normalize="imagenet",
    )


def _outputs(classifier: models.Classifier, data_set: datasets.DataSet, directory: Path) -> Json:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = classifier.to(device).to(memory_format=torch.channels_last)
    tensors: dict[str, Tensor] = {}
    measured: Json = {}
    for split in ("validation", "test"):
        out = evaluate.outputs(classifier, getattr(data_set, split), device)
        measured[split] = evaluate.measures(out)
        tensors |= {f"{split}.{part}": getattr(out, part).cpu() for part in ("features", "logits", "labels")}
    with records.replacing(directory / "outputs.safetensors") as path:
        save_file(tensors, path)
    return measured


def _plain(settings: Data | Model) -> Json:
    return cast(Json, json.loads(json.dumps(dataclasses.asdict(settings))))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
