"""What later commands left in a run's folder.

``analysis.json``, ``probe-*.json``, ``localization-*.json`` and ``segment-*/result.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors

from maxsup.lab import records
from maxsup.lab.recipes import with_defaults
from maxsup.lab.records import Json, RecordError, RunRecord
from maxsup.lab.report import robustness

OUTPUTS = "outputs.safetensors"
ANALYSIS = "analysis.json"
# Settings that differ between runs by their nature.
_OF_THE_RUN = ("model_sha256", "outputs_sha256", "seed")


@dataclass(frozen=True)
class Problem:
    """A file of a run's folder that could not be used, and why."""

    run: str
    file: str
    reason: str


@dataclass
class Analyses:
    """What the records of one run give; `values` by the keys of `Measure`.

    `settings` by file name: two runs can be compared on a record only where theirs are equal.
    """

    run: str
    values: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Json] = field(default_factory=dict)
    at_bound: bool = False
    fits: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By probed data set: how many of the probe's fits did not converge, and how many there are."""
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    corruptions: dict[str, str] = field(default_factory=dict)
    """By kind of corruption: its family."""
    remarks: dict[str, str] = field(default_factory=dict)
    """By name of a group: what the reader of its tables must know of the run."""
    segmented: dict[str, list[str]] = field(default_factory=dict)
    """By fine-tuning: the classes of its pixels."""
    problems: list[Problem] = field(default_factory=list)


def read_analyses(run: RunRecord) -> Analyses:
    """Reads the records beside a finished run's result; one that is damaged becomes a problem, never an exception."""
    of = Analyses(f"{run.method} seed {run.seed}")
    if run.status != "finished":
        return of
    of.remarks |= robustness.remarks(run.info)
    _use(of, run.path / "result.json", _result)
    outputs = run.path / OUTPUTS
    if outputs.exists():
        try:
            with safetensors.safe_open(outputs, framework="numpy"):  # checks the header against the file's length
                pass
        except (safetensors.SafetensorError, OSError) as error:
            of.problems.append(Problem(of.run, outputs.name, f"damaged ({error})"))
    _use(of, run.path / ANALYSIS, _analysis)
    for path in sorted(run.path.glob("probe-*.json")):
        _use(of, path, _probe)
    for path in sorted(run.path.glob("localization-*.json")):
        _use(of, path, _localization)
    _use(of, run.path / robustness.CORRUPTIONS, _corruptions)
    for path in sorted(run.path.glob("segment-*/settings.json")):
        result = path.with_name("result.json")
        name = f"{path.parent.name}/{result.name}"
        if result.exists():
            _use(of, result, _segmentation, name)
        else:
            reason = "missing: the fine-tuning is unfinished; the command that began it goes on from there"
            of.problems.append(Problem(of.run, name, reason))
    return of


def _use(of: Analyses, path: Path, read: Callable[[Analyses, str, Json], None], name: str | None = None) -> None:
    """Adds a record's content to `of`, all of it or none; `name` is what the report calls the file."""
    if not path.exists():
        return
    name = name or path.name
    found = Analyses(of.run)
    try:
        content = records.read_json(path)
        if "problem" in content:  # the command that makes the record could not, and left why
            raise RecordError(str(content["problem"]))
        read(found, name.partition("/")[0].removesuffix(".json").partition("-")[2], content)
        settings = {key: value for key, value in content.get("settings", {}).items() if key not in _OF_THE_RUN}
        if "data" in settings:  # of an earlier version there are fewer fields
            settings["data"] = with_defaults({"data": settings["data"]})["data"]
        found.settings[name] = settings
    except (RecordError, OSError) as error:
        of.problems.append(Problem(of.run, name, str(error).removeprefix(f"{path}: ")))
        return
    except (KeyError, TypeError, AttributeError) as error:  # whole JSON, but not what such a record holds
        of.problems.append(Problem(of.run, name, f"not such a record ({type(error).__name__}: {error})"))
        return
    # What the run measured itself stays.
    of.values = found.values | of.values
    of.settings |= found.settings
    of.at_bound |= found.at_bound
    of.fits |= found.fits
    of.thresholds |= found.thresholds
    of.corruptions |= found.corruptions
    of.remarks |= found.remarks
    of.segmented |= found.segmented


def _keep(of: Analyses, key: str, value: Any) -> None:
    """A number under its key; undefined ones (null) are left out."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{key} must be a finite number or null, got {value!r}")
    of.values[key] = float(value)


def _result(of: Analyses, _: str, content: Json) -> None:
    for split, measured in content["measures"].items():
        for name, value in measured.items():
            if name != "n":
                _keep(of, f"{split}.{name}", value)


def _analysis(of: Analyses, _: str, content: Json) -> None:
    for name, value in content["measures"]["test"].items():
        _keep(of, f"test.{name}", value)
    _keep(of, "analysis.temperature", content["temperature"]["value"])
    _keep(of, "analysis.p", content["p"])
    of.at_bound = bool(content["temperature"]["at_bound"])
    if "shots" in content:
        of.remarks[robustness.LONG_TAIL] = robustness.definition(content["shots"])


def _probe(of: Analyses, data: str, content: Json) -> None:
    linear = content["linear"]
    _keep(of, f"probe.{data}.linear", linear["accuracy"])
    _keep(of, f"probe.{data}.knn", content["knn"]["accuracy"])
    fits = [*linear["path"], linear["refit"]]
    of.fits[data] = sum(not fit["converged"] for fit in fits), len(fits)


def _localization(of: Analyses, data: str, content: Json) -> None:
    for name in ("energy_inside", "pointing_game"):
        _keep(of, f"localization.{data}.{name}", content[name])
    thresholds = [float(threshold) for threshold in content["thresholds"]]
    for name in ("precision", "recall", "iou"):
        if len(content[name]) != len(thresholds):
            raise RecordError(f"{name} must have one value per threshold ({len(thresholds)}), got {len(content[name])}")
        for threshold, value in zip(thresholds, content[name], strict=True):
            _keep(of, f"localization.{data}.{name}@{threshold:g}", value)
    of.thresholds[data] = thresholds


def _corruptions(of: Analyses, _: str, content: Json) -> None:
    for key, value in robustness.corruption_values(content).items():
        _keep(of, key, value)
    of.corruptions = {str(kind): str(measured["family"]) for kind, measured in content["corruptions"].items()}


def _segmentation(of: Analyses, label: str, content: Json) -> None:
    if content["status"] != "finished":
        raise RecordError(f"the fine-tuning {content['status']} after {content['iterations']} iterations")
    classes = [str(name) for name in content["data"]["class_names"]]
    for way, measured in content["measures"].items():
        for name in ("miou", "mean_accuracy", "pixel_accuracy"):
            _keep(of, f"segment.{label}.{way}.{name}", measured[name])
        if len(measured["iou"]) != len(classes):
            raise RecordError(f"iou must have one value per class ({len(classes)}), got {len(measured['iou'])}")
        for name, value in zip(classes, measured["iou"], strict=True):
            _keep(of, f"segment.{label}.{way}.iou@{name}", value)
    of.segmented[label] = classes
