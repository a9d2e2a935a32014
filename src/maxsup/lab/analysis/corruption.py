"""How a finished run's network stands corrupted test images: error, NLL and ECE by kind and severity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from maxsup.lab import environment, records
from maxsup.lab.analysis import curves
from maxsup.lab.analysis.kept import archived, read_kept, write_compact
from maxsup.lab.analysis.outputs import OUTPUTS, outputs_fingerprint, read_outputs
from maxsup.lab.analysis.weights import WEIGHTS, fingerprint, load_model, trained_data
from maxsup.lab.data import AnySplit, evaluation_batches, load
from maxsup.lab.data.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES, corrupt
from maxsup.lab.evaluate import EVALUATION_BATCH
from maxsup.lab.models import Classifier
from maxsup.lab.records import Json, RecordError
from maxsup.metrics.calibration import calibration_error_of

NAME = "corruptions.json"
MEASURES = ("error", "nll", "ece")
# Values of the images of a batch at most: hashes and sums over kernels are several times as large.
_VALUES = 1 << 24

SETTINGS: Json = {
    "version": 1,  # to be raised when the same settings would give another record
    "strengths": {name: list(kind.strengths) for name, kind in CORRUPTIONS.items()},
    "bins": curves.BINS,
}


def measure_corruptions(run_dir: Path, data_dir: Path | None = None) -> Json:
    """Tests the finished run in `run_dir` on corrupted test images; returns the record, kept as ``corruptions.json``.

    A record that was made of the same weights and settings is returned as it is. Each measure is over all test images:
    ``error`` (a share), ``nll`` (in nats), ``ece`` (15 equal-width bins). The record holds::

        settings, outputs_sha256, model_sha256
        data          name and number of the test images
        clean         the measures of the images as they are
        corruptions   by kind its family, and by measure a value per severity
        by_severity   by measure, a value per severity: the mean over the kinds
        by_family     by family (noise, blur, weather, digital) and measure: the mean over its kinds and severities
        mean          by measure: the mean over kinds and severities. ImageNet-C's mCE without its division by the
                      errors of AlexNet

    Raises:
        RecordError: if the run's record, outputs or weights are missing or damaged, the test images are not those of
            its outputs, or its logits are not finite.
        DataError: if the data is absent or damaged.
        ValueError: for images of other than one or three channels.
    """
    file = run_dir / NAME
    earlier = archived(file, (run_dir / OUTPUTS, run_dir / WEIGHTS), {"settings": SETTINGS})
    if earlier is not None:
        return earlier
    key: Json = {
        "settings": SETTINGS,
        "outputs_sha256": outputs_fingerprint(run_dir),
        "model_sha256": fingerprint(run_dir),
    }
    kept = read_kept(file, key)
    if kept is not None:
        return kept
    data_set = load(trained_data(run_dir), data_dir)
    if not torch.equal(read_outputs(run_dir)["test"].labels, data_set.test.labels):
        raise RecordError(f"{run_dir}: {data_set.name} has other test images here than when the run was tested")
    found = _measure(load_model(run_dir), data_set.test)
    if not all(value is not None for of in found.values() for value in of.values()):
        raise RecordError(f"{run_dir / 'model.safetensors'}: the logits of corrupted images are not finite")
    content = {"data": {"name": data_set.name, "n": len(data_set.test)}, **_arranged(found)}
    write_compact(file, {**key, **content, **environment.source_state()})
    return records.read_json(file)


def variants() -> Iterator[tuple[str, int]]:
    """Every kind and severity, after the images as they are ("", 0)."""
    yield "", 0
    for name in CORRUPTIONS:
        for severity in range(1, SEVERITIES + 1):
            yield name, severity


def _measure(model: Classifier, split: AnySplit) -> dict[tuple[str, int], dict[str, float | None]]:
    """The measures of every variant of the split's images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    first, _ = next(iter(evaluation_batches(split.take(torch.arange(1)), 1, device=device)))
    size = max(1, min(EVALUATION_BATCH, _VALUES // first.numel()))
    parts: dict[tuple[str, int], list[Tensor]] = {variant: [] for variant in variants()}
    start = 0
    with torch.inference_mode():
        for images, labels in evaluation_batches(split, size, device=device):
            indices = torch.arange(start, start + len(images), device=device)
            start += len(images)
            for name, severity in parts:
                shown = corrupt(images, name, severity, indices) if severity else images
                logits = model(shown.contiguous(memory_format=torch.channels_last)).double()
                parts[name, severity].append(_per_image(logits, labels))
    found = {}
    for variant, of in parts.items():
        nll, confidence, right = torch.cat(of, dim=1)
        ece = calibration_error_of(confidence.nan_to_num(), right, curves.BINS)
        values = {"error": 1 - right.mean(), "nll": nll.mean(), "ece": ece}
        found[variant] = {name: records.finite(value) for name, value in values.items()}
    return found


def _per_image(logits: Tensor, labels: Tensor) -> Tensor:
    """NLL, probability of the top-1 class, and whether it is right, (3, n), of logits (n, K) in double precision."""
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.stack([nll, logits.softmax(1).amax(1), (logits.argmax(1) == labels).double()])


def _arranged(found: dict[tuple[str, int], dict[str, float | None]]) -> Json:
    """The record's part on measures, from those of every variant."""
    severities = range(1, SEVERITIES + 1)

    def mean(measure: str, names: list[str], of: range = severities) -> float:
        values = [found[name, severity][measure] or 0.0 for name in names for severity in of]
        return sum(values) / len(values)

    every = list(CORRUPTIONS)
    return {
        "clean": found["", 0],
        "corruptions": {
            name: {"family": CORRUPTIONS[name].family}
            | {measure: [found[name, severity][measure] for severity in severities] for measure in MEASURES}
            for name in every
        },
        "by_severity": {measure: [mean(measure, every, range(s, s + 1)) for s in severities] for measure in MEASURES},
        "by_family": {
            family: {
                measure: mean(measure, [name for name in every if CORRUPTIONS[name].family == family])
                for measure in MEASURES
            }
            for family in FAMILIES
        },
        "mean": {measure: mean(measure, every) for measure in MEASURES},
    }
