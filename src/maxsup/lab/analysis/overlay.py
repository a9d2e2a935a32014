"""Grad-CAM of finished runs: its agreement with masks (paper, section 5.4), and pictures of it (Figure 3)."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maxsup.lab import environment, records
from maxsup.lab.analysis.gradcam import GradCam, grad_cam
from maxsup.lab.analysis.kept import archived, read_kept
from maxsup.lab.analysis.weights import WEIGHTS, fingerprint, load_model, trained_data
from maxsup.lab.data import AnySplit, DataSet, choose, load
from maxsup.lab.data.splits import with_channels
from maxsup.lab.models import Backbone
from maxsup.lab.recipes import Data
from maxsup.lab.records import Json, RecordError
from maxsup.metrics.localization import THRESHOLDS, localization

Target = Literal["label", "prediction"]

# Columns of the gallery that a page has room for.
MOST_IMAGES = 10


def localize(
    run_dir: Path,
    data: Data,
    data_dir: Path | None = None,
    *,
    target: Target = "label",
    thresholds: Sequence[float] = THRESHOLDS,
) -> Json:
    """Measures how well the Grad-CAM of a finished run lies on the labelled items of the test images of `data`.

    Returns the record, which it keeps in the run's folder; one that was made of the same weights, images and settings
    is returned as it is. The maps explain the label's logit, or with `target` "prediction" that of the predicted
    class; the masks are the labelled item's in either case. Images get the size and the channels of those that the
    run was trained on. Where it was trained on some classes of the same data set and `data` names none, those are
    taken. Images whose item was cropped away do not count, and the record says how many.

    Raises:
        RecordError: if the run's record or weights are missing or damaged, or its maps are not finite.
        DataError: if the data is absent or damaged.
        ValueError: if the data has no masks, has other than the model's number of classes, or `target` or a threshold
            is none of those accepted.
    """
    if target not in ("label", "prediction"):
        raise ValueError(f"target must be 'label' or 'prediction', got {target!r}")
    data_set, data = _data_for(run_dir, data, data_dir)
    test = data_set.test
    if test.masks is None:
        raise ValueError(f"data: {data_set.name} has no masks")
    file = run_dir / record_name(data_set.name, target)
    images: Json = {"data_sha256": _fingerprint(test.images, test.labels, test.masks)}
    asked: Json = {"target": target, "thresholds": list(thresholds)}
    earlier = archived(file, (run_dir / WEIGHTS,), {"settings": images | asked})
    if earlier is not None:
        return earlier
    settings = {"data": dataclasses.asdict(data), **images, "model_sha256": fingerprint(run_dir), **asked}
    kept = read_kept(file, {"settings": settings})
    if kept is not None:
        return kept
    shown = test.target_masks().flatten(1).any(1)
    if not bool(shown.any()):
        raise ValueError(f"data: no test image of {data_set.name} shows any of its labelled item at this size")
    seen = test.take(shown.nonzero().squeeze(1))
    cams, logits = _explain(run_dir, seen, target, data_set.num_classes)
    found = localization(cams, seen.target_masks().to(cams.device), thresholds)
    content: Json = {
        "settings": settings,
        "model_sha256": settings["model_sha256"],
        "data": {"name": data_set.name, "split": "test", "class_names": list(data_set.class_names)},
        "n": len(seen),
        "cropped_away": len(test) - len(seen),
        "target": target,
        "accuracy": float((logits.argmax(1).cpu() == seen.labels).double().mean()),
        "zero_maps": int((cams.amax(dim=(1, 2)) == 0).sum()),
        "thresholds": list(thresholds),
        "precision": found.precision.tolist(),
        "recall": found.recall.tolist(),
        "iou": found.iou.tolist(),
        "energy_inside": float(found.energy_inside),
        "pointing_game": float(found.pointing_game),
    }
    records.write_json(file, {**content, **_made()})
    return records.read_json(file)


def record_name(data: str, target: Target = "label") -> str:
    """The file of a localization in the run's folder.

    >>> record_name("fashion-scenes"), record_name("fashion-scenes", "prediction")
    ('localization-fashion-scenes.json', 'localization-fashion-scenes-prediction.json')
    """
    return f"localization-{data}.json" if target == "label" else f"localization-{data}-{target}.json"


def gallery(directory: Path, data_dir: Path | None = None, *, indices: Sequence[int] | None = None) -> Json:
    """Pictures of the Grad-CAM of a comparison's methods on the same test images, for the label of each.

    Returns the record, ``analysis/gradcam.json`` in the comparison's folder, with PNG files in base64: the images, and
    for each method the maps over them, each map scaled by its own maximum. One that was made of the same weights and
    images is returned as it is. The images are those at `indices` of the test split, or the first of each class, of
    `MOST_IMAGES` classes evenly spaced. The seed is the lowest that all methods with a finished run have finished, or
    where they have none in common, the lowest of each.

    Raises:
        RecordError: if `directory` holds no comparison, none of its runs is finished, or one is damaged.
        DataError: if the data is absent or damaged.
        ValueError: for an index that the test split lacks.
    """
    comparison = records.read_comparison(directory)
    finished = {
        method: [run.seed for run in comparison.of_method(method) if run.status == "finished"]
        for method in comparison.methods
    }
    finished = {method: seeds for method, seeds in finished.items() if seeds}
    if not finished:
        raise RecordError(f"{directory}: no finished run to explain")
    common = set.intersection(*(set(seeds) for seeds in finished.values()))
    seeds = {method: min(common or of) for method, of in finished.items()}
    runs = {method: records.run_directory(directory, method, seed) for method, seed in seeds.items()}
    data_set = load(trained_data(next(iter(runs.values()))), data_dir)
    chosen = _one_of_each_class(data_set) if indices is None else list(indices)
    for index in chosen:
        if not 0 <= index < len(data_set.test):
            raise ValueError(f"indices must be from 0 to {len(data_set.test) - 1}, the test images, got {index}")
    shown = data_set.test.take(torch.tensor(chosen))
    images_shown: Json = {"indices": chosen, "data_sha256": _fingerprint(shown.images, shown.labels)}
    file = directory / "analysis" / "gradcam.json"
    earlier = archived(file, [run / WEIGHTS for run in runs.values()], {"settings": images_shown})
    if earlier is not None:
        return earlier
    fingerprints = {method: fingerprint(run) for method, run in runs.items()}
    settings: Json = {**images_shown, "model_sha256": fingerprints, "seeds": seeds}
    kept = read_kept(file, {"settings": settings})
    if kept is not None:
        return kept
    names = data_set.class_names
    images = [
        {"index": index, "label": names[label], "png": _png(_pixels(image))}
        for index, label, image in zip(chosen, shown.labels.tolist(), shown.images, strict=True)
    ]
    methods = {method: {"seed": seeds[method], "cams": _pictures(run, shown, names)} for method, run in runs.items()}
    content = {"settings": settings, "classes": list(names), "target": "label", "images": images, "methods": methods}
    records.write_json(file, {**content, **_made()})
    return records.read_json(file)


def overlay(image: NDArray[np.uint8], cam: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map (H, W), at least 0, laid over an image (H, W) or (H, W, 3): an RGB picture (H, W, 3).

    The image is shown in grey at half its brightness. The map, as a share of its maximum, sets colour and opacity over
    it: matplotlib's "viridis", which grows lighter evenly from dark blue over green to yellow, and is told apart with
    any colour vision. So what is brightest is the map's maximum, in a print without colours too.
    """
    from matplotlib import colormaps

    share = cam / cam.max() if cam.max() > 0 else np.zeros_like(cam)
    grey = 0.5 * (image if image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114]))  # ITU-R BT.601
    colour = colormaps["viridis"](share)[..., :3] * 255
    opacity = 0.85 * share[..., None]
    blended: NDArray[np.uint8] = np.rint((1 - opacity) * grey[..., None] + opacity * colour).astype(np.uint8)
    return blended


def _explain(run_dir: Path, split: AnySplit, target: Target, num_classes: int) -> GradCam:
    """Maps and logits of the run's model for a split, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(run_dir).to(device)
    known = cast(nn.Linear, cast(Backbone, model.backbone).get_classifier()).out_features
    if known != num_classes:
        raise ValueError(f"data: {num_classes} classes where the model in {run_dir} has {known}")
    images = with_channels(split.images, len(model.mean))
    of = grad_cam(model, images, split.labels if target == "label" else None)
    if not bool(of.cams.isfinite().all()):
        raise RecordError(f"{run_dir / 'model.safetensors'}: the model's class activation maps are not finite")
    return of


def _data_for(run_dir: Path, asked: Data, data_dir: Path | None) -> tuple[DataSet, Data]:
    """The data set as the run's model takes it, and its description with the size and classes filled in."""
    trained = trained_data(run_dir)
    size = asked.image_size or trained.image_size
    if size is None and asked.name != trained.name:
        size = load(Data(name=trained.name), data_dir).train.images.shape[2]
    classes = asked.classes or (trained.classes if asked.name == trained.name else None)
    data = dataclasses.replace(asked, classes=classes, image_size=size)
    return choose(load(Data(name=asked.name, image_size=size), data_dir), data), data


def _one_of_each_class(data_set: DataSet) -> list[int]:
    labels = data_set.test.labels
    present = labels.unique()
    places = np.linspace(0, len(present) - 1, min(MOST_IMAGES, len(present))).round().astype(int)
    return [int((labels == present[place]).nonzero()[0]) for place in places]


def _pictures(run_dir: Path, shown: AnySplit, names: Sequence[str]) -> list[Json]:
    cams, logits = _explain(run_dir, shown, "label", len(names))
    confidence, predicted = logits.softmax(1).max(1)
    return [
        {"prediction": names[p], "confidence": c, "png": _png(overlay(_pixels(image), cam))}
        for image, cam, p, c in zip(
            shown.images, cams.cpu().numpy(), predicted.tolist(), confidence.tolist(), strict=True
        )
    ]


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """An image (C, H, W) as Pillow takes it: (H, W) or (H, W, 3)."""
    pixels: NDArray[np.uint8] = (image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()
    return pixels


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


def _made() -> dict[str, Any]:
    return {"versions": environment.versions(), "hardware": environment.hardware(), **environment.source_state()}
