"""All the pictures of a comparison, from whatever records its folder holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from maxsup.lab import records
from maxsup.lab.records import Comparison, Json, RecordError
from maxsup.lab.report.figures import calibration, corruptions, curves, gradcam, logits, projection, segmentation
from maxsup.lab.report.figures.style import pdf, standalone, svg


@dataclass(frozen=True)
class Picture:
    """A picture with its words: an SVG element for a page, and the figure, which `save` also writes as PDF."""

    name: str
    title: str
    caption: str
    svg: str
    figure: Figure | None = field(default=None, repr=False, compare=False)


class Pictures(NamedTuple):
    """The pictures that the records allow, and one line on every record that is damaged or missing."""

    pictures: list[Picture]
    notes: list[str]


def all_figures(comparison: Comparison) -> Pictures:
    """Draws every picture whose records are there; a record that is damaged costs its run's part alone, with a note.

    Reads what `maxsup train`, `analyze` and the Grad-CAM and projection analyses left in the comparison's folder.
    """
    notes: list[str] = []
    made: list[Picture] = []

    def add(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> None:
        figure = draw()
        made.append(Picture(name, title, caption, svg(figure), figure))

    methods = comparison.methods
    if any(run.epochs for run in comparison.runs):
        add(
            "training-curves",
            "Training",
            "Mean over the seeds; the band goes from the least to the largest.",
            lambda: curves.training_curves(comparison),
        )
    if curves.spread_points(comparison, "test"):
        add(
            "accuracy-spread",
            "Accuracy against the spread within a class",
            "d_within: mean cosine distance between penultimate features of one class. "
            "Small points: seeds; large points: each method's mean.",
            lambda: curves.accuracy_against_spread(comparison),
        )
    analysed = _by_method(comparison, "analysis.json", "curves", _CURVES, notes)
    if analysed:
        by_method = {method: [of["curves"] for of in found] for method, found in analysed.items()}
        add(
            "logit-densities",
            "Logits",
            "Test images of all seeds together, in histograms of Scott's bin width. Last panel: how many of an image's "
            "logits are near zero, against its largest probability, where there are at least 10 images.",
            lambda: logits.logit_densities(methods, by_method),
        )
        add(
            "reliability",
            "Reliability",
            "15 equal bins of the largest probability, test images of all seeds together; on the dotted line "
            "confidence is accuracy. Bins with fewer than 10 images are left out. The temperature is fitted on the "
            "validation images.",
            lambda: calibration.reliability(methods, by_method),
        )
        add(
            "risk-coverage",
            "Risk and coverage",
            "Errors among the images answered when the least confident are refused. Mean over the seeds; the band "
            "goes from the least to the largest. Logit normalisation: its p is chosen on the validation images.",
            lambda: calibration.risk_coverage(methods, by_method),
        )
    record = _of_comparison(comparison, "projection.json", ("classes", "methods", "chosen_by"), notes)
    if record:
        add(
            "projection",
            "Penultimate features on the plane of three class templates",
            f"Classes: {', '.join(record['classes'])} ({record['chosen_by']}). Templates are rows of the last layer; "
            "every method shows the same images.",
            lambda: projection.projection(record),
        )
    cams = _of_comparison(comparison, "gradcam.json", ("classes", "images", "methods"), notes)
    if cams:
        add(
            "gradcam",
            "Grad-CAM",
            "Where each network finds the class of the image, each map scaled by its own maximum; below, what the "
            "network takes the image for, and its confidence. Wrong predictions have a ✗ and a dashed frame.",
            lambda: gradcam.gradcam_gallery(methods, cams),
        )
    for file in sorted({file.name for run in comparison.runs for file in run.path.glob("localization-*.json")}):
        data = file.removeprefix("localization-").removesuffix(".json")
        overlaps = _by_method(comparison, file, None, _OVERLAPS, notes)
        if overlaps:
            add(
                f"overlap-{data}",
                f"Grad-CAM and masks on {data}",
                "The map, cut at a share of its largest value, against the mask of the labelled thing. Mean over the "
                "seeds; the band goes from the least to the largest.",
                lambda overlaps=overlaps: gradcam.overlap_curves(methods, overlaps),  # type: ignore[misc]
            )
    corrupted = _by_method(comparison, "corruptions.json", None, ("clean", "by_severity"), notes)
    if corrupted:
        add(
            "corruptions",
            "Corrupted test images",
            "Mean over the kinds of corruption; severity 0 is the images as they are. Mean over the seeds; the band "
            "goes from the least to the largest.",
            lambda: corruptions.severity_curves(methods, corrupted),
        )
    for folder in sorted({path.name for run in comparison.runs for path in run.path.glob("segment-*")}):
        label = folder.removeprefix("segment-")
        galleries = _galleries(comparison, f"{folder}/gallery.json", notes)
        if galleries:
            add(
                f"segmentation-{label}",
                f"Segmentation of {label}",
                "Test images, their labels and the predictions of one run of each method, at one scale. Below, the "
                "share of the labelled pixels that are right. Pixels without a label are white.",
                lambda galleries=galleries: segmentation.gallery(methods, galleries),  # type: ignore[misc]
            )
        found = _by_method(comparison, f"{folder}/result.json", "measures", ("single",), notes)
        if found:
            names = next(iter(found.values()))[0]["data"]["class_names"]
            ious = {
                method: [[math.nan if of is None else of for of in run["measures"]["single"]["iou"]] for run in runs]
                for method, runs in found.items()
            }
            add(
                f"class-iou-{label}",
                f"IoU of each class of {label}",
                "At one scale; mean over the seeds, and a line from the least to the largest. Of many classes, those "
                "where the methods differ most.",
                lambda names=names, ious=ious: segmentation.class_iou(methods, names, ious),  # type: ignore[misc]
            )
    return Pictures(made, notes)


def _galleries(comparison: Comparison, name: str, notes: list[str]) -> dict[str, Json]:
    """By method, the gallery of the lowest seed that all methods which have one have; or of the lowest of each."""
    seeds: dict[str, list[int]] = {}
    for run in comparison.runs:
        if run.status == "finished" and (run.path / name).exists():
            seeds.setdefault(run.method, []).append(run.seed)
    common = set.intersection(*map(set, seeds.values())) if seeds else set()
    found: dict[str, Json] = {}
    for method, of in seeds.items():
        seed = min(common or of)
        file = records.run_directory(comparison.path, method, seed) / name
        content = _read(file, None, ("class_names", "pictures"), f"{method} seed {seed}, {name}", notes)
        if content is not None:
            found[method] = content
    shown = {method: [picture["index"] for picture in of["pictures"]] for method, of in found.items()}
    first = next(iter(shown.values()), [])
    for method in [method for method, indices in shown.items() if indices != first]:
        notes.append(f"{method}, {name}: shows other images than the first such record, and left out")
        del found[method]
    return found


def save(pictures: Sequence[Picture], directory: Path) -> list[Path]:
    """Writes each picture as NAME.svg, on white, and as NAME.pdf into `directory`; returns the paths."""
    written = []
    for picture in pictures:
        file = directory / f"{picture.name}.svg"
        records.write_text(file, standalone(picture.svg))
        written.append(file)
        if picture.figure is not None:
            with records.replacing(directory / f"{picture.name}.pdf") as path:
                path.write_bytes(pdf(picture.figure))
            written.append(directory / f"{picture.name}.pdf")
    return written


_CURVES = ("reliability", "reliability_scaled", "risk_coverage", "logit_density", "near_zero")
_OVERLAPS = ("thresholds", *(key for key, _ in gradcam.OVERLAPS))


def _read(file: Path, part: str | None, keys: Sequence[str], where: str, notes: list[str]) -> Json | None:
    try:
        content = records.read_json(file)
        if "problem" in content:
            raise RecordError(str(content["problem"]))
        inner = content if part is None else content.get(part)
        absent = keys if not isinstance(inner, dict) else [key for key in keys if key not in inner]
        if absent:
            raise RecordError(f"lacks {', '.join(absent)}")
    except (RecordError, OSError) as error:
        notes.append(f"{where}: {str(error).removeprefix(f'{file}: ')}")
        return None
    return content


def _by_method(
    comparison: Comparison, name: str, part: str | None, keys: Sequence[str], notes: list[str]
) -> dict[str, list[Json]]:
    """The readable records `name` of the finished runs, by method; only those that can be drawn on the same axes.

    Where some runs have the record, those that lack it are noted, and those made with other settings than the first.
    """
    found: dict[str, list[Json]] = {}
    missing = []
    first: Any = None
    for run in comparison.runs:
        if run.status != "finished":
            continue
        where = f"{run.method} seed {run.seed}, {name}"
        if not (run.path / name).exists():
            missing.append(f"{where}: missing")
            continue
        content = _read(run.path / name, part, keys, where, notes)
        if content is None:
            continue
        made_with = content.get("thresholds", _shared(content.get("settings")))
        first = made_with if not found else first
        if made_with == first:
            found.setdefault(run.method, []).append(content)
        else:
            notes.append(f"{where}: made with other settings than the first such record, and left out")
    if found:
        notes.extend(missing)
    return found


def _shared(settings: Any) -> Any:
    """The settings without what differs between runs by its nature."""
    if not isinstance(settings, dict):
        return settings
    return {name: value for name, value in settings.items() if name not in ("seed", "model_sha256")}


def _of_comparison(comparison: Comparison, name: str, keys: Sequence[str], notes: list[str]) -> Json | None:
    file = comparison.path / "analysis" / name
    return _read(file, None, keys, f"analysis/{name}", notes) if file.exists() else None
