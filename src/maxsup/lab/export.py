"""A finished run's network as files that others load: weights, timm's config where timm can build it, a model card.

The folder holds ``model.safetensors`` (the backbone's weights under the network's own names), ``config.json`` (in the
form that timm reads from a folder or from the Hugging Face Hub), ``record.json`` (the run's recipe, measures, versions
and hardware) and ``README.md``, the card. timm has no name for `convnet` and no argument for `model.small_stem`; those
networks come without ``config.json``, and `load` builds them from ``record.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from maxsup.lab import data as datasets
from maxsup.lab import records
from maxsup.lab.analysis.weights import load_model, trained_data, trained_model
from maxsup.lab.imported import NO_DATA
from maxsup.lab.model_card import card
from maxsup.lab.models import Classifier, build
from maxsup.lab.recipes import Data, Model
from maxsup.lab.records import Json, RecordError

WEIGHTS, CONFIG, RECORD, CARD = "model.safetensors", "config.json", "record.json", "README.md"


def export(run_dir: Path, out: Path, data_dir: Path | None = None) -> list[Path]:
    """Writes the network of the finished run in `run_dir` to the folder `out`; returns the files.

    The data set is loaded for the size of its images and the names of its classes.

    Raises:
        RecordError: if there is no finished run, or its record or weights are damaged.
        DataError: if the data is absent or damaged.
        ValueError: if `out` is a run's folder, whose files would be replaced.
    """
    run = records.read_finished(run_dir, "exported")
    if (out / "run.json").exists():
        raise ValueError(f"out must not be the folder of a run, got {out}")
    model, data = trained_model(run_dir), trained_data(run_dir)
    classifier = load_model(run_dir)
    shape, class_names = _images(classifier, data, data_dir)
    config = _config(classifier, model, data, shape, class_names) if _known_to_timm(model) else None
    record: Json = {
        "run": {name: value for name, value in run.info.items() if name != "schema_version"},
        "result": {name: value for name, value in run.result.items() if name != "schema_version"},
        "model": dict(run.info["recipe"]["model"]),
        "num_classes": _num_classes(classifier),
        "class_names": class_names,
        "input": _input(classifier, data, shape),
    }
    weights = {name: value.contiguous() for name, value in classifier.backbone.state_dict().items()}
    with records.replacing(out / WEIGHTS) as path:
        save_file(weights, path, metadata={"format": "pt"})
    records.write_json(out / RECORD, record)
    if config is None:
        (out / CONFIG).unlink(missing_ok=True)
    else:
        records.write_text(out / CONFIG, json.dumps(config, indent=2, allow_nan=False) + "\n")
    records.write_text(out / CARD, card(record, config))
    return [out / name for name in (WEIGHTS, *(() if config is None else (CONFIG,)), RECORD, CARD)]


def load(directory: Path) -> Classifier:
    """The network in a folder that `export` wrote, on the CPU, in evaluation mode; it normalises uint8 images itself.

    Raises:
        RecordError: if a file is missing or damaged, or they do not fit together.
    """
    for name in (RECORD, WEIGHTS):
        if not (directory / name).is_file():
            raise RecordError(f"{directory / name}: missing; `maxsup export` writes it")
    record = records.read_json(directory / RECORD)
    try:
        mean, std = (torch.tensor(record["input"][name]).view(-1, 1, 1) for name in ("mean", "std"))
        network = build(Model(**record["model"]), len(mean), record["num_classes"])
        network.load_state_dict(load_file(directory / WEIGHTS))
    except (KeyError, TypeError, RuntimeError) as error:
        raise RecordError(f"{directory}: {RECORD} and {WEIGHTS} do not fit together ({error})") from error
    return Classifier(network, mean, std).eval()


def _known_to_timm(model: Model) -> bool:
    return model.name != "convnet" and not model.small_stem


def _num_classes(classifier: Classifier) -> int:
    return int(cast(nn.Linear, cast(Any, classifier.backbone).get_classifier()).out_features)


def _images(classifier: Classifier, data: Data, data_dir: Path | None) -> tuple[list[int], list[str] | None]:
    """Shape (C, H, W) of the images that the network knows, and the names of its classes where they are known."""
    if data.name == NO_DATA:
        side = cast(int, data.image_size)
        return [len(classifier.mean), side, side], None
    data_set = datasets.load(data, data_dir)
    one = data_set.test.take(torch.tensor([0]))
    images, _ = next(iter(datasets.evaluation_batches(one, 1, device=torch.device("cpu"))))
    return list(images.shape[1:]), list(data_set.class_names)


def _input(classifier: Classifier, data: Data, shape: list[int]) -> Json:
    return {
        "input_size": shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        "crop_pct": data.eval_crop,
        "interpolation": data.interpolation,
    }


def _config(
    classifier: Classifier, model: Model, data: Data, shape: list[int], class_names: list[str] | None
) -> dict[str, Any]:
    """What timm reads: how the network is built, and how its images are made."""
    network = cast(Any, classifier.backbone)
    known = network.pretrained_cfg
    arguments = {"img_size": model.image_size, "patch_size": model.patch_size, "depth": model.depth}
    if shape[0] != 3:
        arguments["in_chans"] = shape[0]
    config: dict[str, Any] = {
        "architecture": model.name,
        "num_classes": _num_classes(classifier),
        "num_features": int(network.num_features),
        "pretrained_cfg": {
            **_input(classifier, data, shape),
            "num_classes": _num_classes(classifier),
            "custom_load": False,
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
    if class_names is not None:
        config["label_names"] = class_names
    given = {name: value for name, value in arguments.items() if value is not None}
    return {**config, "model_args": given} if given else config
