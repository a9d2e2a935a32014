"""The card of an exported network: what it is, how it is loaded, what it measured, and how it was made."""

from __future__ import annotations

from typing import Any

from maxsup.lab.records import Json

_MEASURES = {
    "accuracy": "accuracy",
    "nll": "negative log-likelihood (nats)",
    "ece": "expected calibration error (15 bins)",
    "confidence_right": "mean confidence where right",
    "confidence_wrong": "mean confidence where wrong",
    "d_within": "within-class variation of the features",
    "r_squared": "class separation R² of the features",
}
_FRONT = """\
---
library_name: {library}
pipeline_tag: image-classification
tags:
- image-classification
---
"""
_WITH_TIMM = """\
```python
import json
from pathlib import Path

import timm

config = json.loads(Path("config.json").read_text())
model = timm.create_model(
    config["architecture"],
    pretrained=True,
    pretrained_cfg_overlay={**config["pretrained_cfg"], "file": "model.safetensors"},
    **config.get("model_args", {}),
).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

The transform normalises images as in training, from the mean and standard deviation in `config.json`."""
_WITH_MAXSUP = """\
timm builds no such network ({why}), so there is no `config.json`; `pip install 'maxsup[lab]'` does:

```python
from pathlib import Path

from maxsup.lab.export import load

model = load(Path("."))  # takes uint8 images {shape} and normalises them; model.backbone is the network alone
```"""


def card(record: Json, config: dict[str, Any] | None) -> str:
    """The card in Markdown, from what `maxsup.lab.export.export` records."""
    run, result = record["run"], record["result"]
    recipe = run["recipe"]
    data, model = recipe["data"], record["model"]
    known = "imported" not in run
    title = f"{model['name']} · {run['method']} · {recipe['name']}"
    shape = " × ".join(map(str, record["input"]["input_size"]))
    parts = [_FRONT.format(library="maxsup" if config is None else "timm") + f"\n# {title}"]
    if known:
        trained = f"{data['train_size']} training images of {data['name']}" if data.get("train_size") else data["name"]
        parts.append(
            f"An image classifier for {record['num_classes']} classes, images of {shape}, trained by "
            f"maxsup with the method `{run['method']}` on {trained}, "
            f"seed {run['seed']}."
        )
    else:
        parts.append(
            f"An image classifier for {record['num_classes']} classes, images of {shape}, imported by maxsup from "
            f"`{run['imported']['file']}` (SHA-256 `{run['imported']['sha256']}`)."
        )
    parts.append("## Load it")
    if config is None:
        why = "`convnet` is maxsup's own" if model["name"] == "convnet" else "its stem is that for small images"
        parts.append(_WITH_MAXSUP.format(why=why, shape=f"(N, {shape.replace(' × ', ', ')})"))
    else:
        parts.append(_WITH_TIMM)
    parts.append("## What it measured")
    measured = result["measures"].get("test")
    parts.append(
        "Nothing was measured."
        if measured is None
        else f"On {measured['n']} test images:\n\n"
        + _table(
            ["measure", "value"],
            [[title, f"{measured[name]:.4f}"] for name, title in _MEASURES.items() if measured.get(name) is not None],
        )
    )
    parts.append("## How it was made")
    settings = {"method": run["method"], "seed": run["seed"], **_flat(recipe)} if known else _flat(recipe)
    parts.append(_table(["setting", "value"], [[f"`{name}`", f"{value}"] for name, value in settings.items()]))
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version is not None)
    commit = run.get("git_commit") or f"none (source SHA-256 {run['source_sha256']})"
    hardware = ", ".join(run["hardware"]["gpus"]) or run["hardware"]["processor"]
    parts.append(f"Versions: {versions}. Commit: {commit}. Hardware: {hardware}. The whole record: `record.json`.")
    if model["name"] != "convnet" and config is not None and record["class_names"] is not None:
        parts.append("Class names, in the order of the logits: `label_names` in `config.json`.")
    elif record["class_names"] is not None:
        parts.append("Class names, in the order of the logits: `class_names` in `record.json`.")
    return "\n\n".join(parts) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flat(values: Json, prefix: str = "") -> dict[str, object]:
    """Nested settings under dotted names; those that are None are left out."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            flat[f"{prefix}{name}"] = value
    return flat
