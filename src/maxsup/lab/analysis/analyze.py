"""What a finished run's outputs show: measures and curves, from its records alone; nothing is trained again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from maxsup.lab import environment, records
from maxsup.lab.analysis import curves
from maxsup.lab.analysis.confusion import confusion_matrix
from maxsup.lab.analysis.kept import archived, read_kept, write_compact
from maxsup.lab.analysis.outputs import OUTPUTS, outputs_fingerprint, read_outputs
from maxsup.lab.analysis.shots import Shots, shot_accuracy, shots, training_images
from maxsup.lab.analysis.weights import WEIGHTS, fingerprint, load_model
from maxsup.lab.evaluate import Outputs
from maxsup.lab.models import Backbone
from maxsup.lab.records import Json, RecordError
from maxsup.metrics import calibration, collapse, confidence, selective

NAME = "analysis.json"
RISKS = (0.01, 0.05, 0.10)
# The confusion matrix of more classes is left out of the record: it would be most of it.
CONFUSION_CLASSES = 200

SETTINGS: Json = {
    "version": 1,  # to be raised when the same settings would give another record
    "bins": curves.BINS,
    "points": curves.POINTS,
    "density_bins": curves.DENSITY_BINS,
    "near_zero": curves.NEAR_ZERO,
    "near_zero_bins": curves.NEAR_ZERO_BINS,
    "risks": list(RISKS),
    "p_candidates": list(selective.P_CANDIDATES),
    "confusion_classes": CONFUSION_CLASSES,
}


def analyze(run_dir: Path) -> Json:
    """Measures and curves of the finished run in `run_dir`; returns the record, which it keeps as ``analysis.json``.

    A record that was made of the same outputs, weights and settings is returned as it is. The temperature and the p of
    logit normalisation are chosen on the validation split; a measure that ends in ``_scaled`` is taken after scaling.
    The record holds::

        settings, outputs_sha256, model_sha256
        temperature   value and at_bound: whether it is the end of the range that was searched
        p             of the norm in logit normalisation
        measures      by split (validation, test) and name; None where undefined
        curves        of the test split: reliability, reliability_scaled, risk_coverage, logit_density, near_zero
        confusion     counts by label and prediction on the validation split, for 200 classes at most
        shots         where training images were long-tailed: the classes with many, medium and few, and the definition

    Where the outputs or weights are gone, as from published records, an earlier record is returned too: it cannot be
    made again. Where they are damaged, it is replaced by one that holds the ``problem``, so that a report shows neither
    in place of the other.

    Raises:
        RecordError: if the run's outputs or weights are missing or damaged, or do not fit together; it names the file.
    """
    file = run_dir / NAME
    earlier = archived(file, (run_dir / OUTPUTS, run_dir / WEIGHTS))
    if earlier is not None:
        return earlier
    try:
        key: Json = {
            "settings": SETTINGS,
            "outputs_sha256": outputs_fingerprint(run_dir),
            "model_sha256": fingerprint(run_dir),
        }
        groups = shots(training_images(run_dir) or [])
        if groups is not None:
            key["shots"] = dataclasses.asdict(groups)
        kept = read_kept(file, key)
        if kept is not None:
            return kept
        content = _analyze(run_dir, groups)
    except RecordError as error:
        if (run_dir / "run.json").is_file():
            records.write_json(file, {"problem": str(error).replace(f"{run_dir}/", "")})
        raise
    write_compact(file, {**key, **content, **environment.source_state()})
    return records.read_json(file)


def _analyze(run_dir: Path, groups: Shots | None) -> Json:
    of = read_outputs(run_dir)
    layer = cast(Backbone, load_model(run_dir).backbone).get_classifier()
    weight = cast(nn.Linear, layer).weight.detach()
    validation, test = of["validation"], of["test"]
    try:
        fit = calibration.fit_temperature(validation.logits, validation.labels)
        p = selective.choose_p(validation.logits, validation.labels)
        content: Json = {
            "temperature": {"value": fit.temperature, "at_bound": fit.at_bound},
            "p": p,
            "measures": {split: measures(of[split], weight, fit.temperature, p) for split in of},
        }
    except ValueError as error:  # outputs that are readable and still no outputs of a classifier, as of one class
        raise RecordError(f"{run_dir / 'outputs.safetensors'}: {error}") from error
    if groups is not None:
        for split in of:
            content["measures"][split] |= shot_accuracy(of[split].logits, of[split].labels, groups)
    scaled = test.logits.double() / fit.temperature
    content["curves"] = {
        "reliability": curves.reliability(test.logits, test.labels),
        "reliability_scaled": curves.reliability(scaled, test.labels),
        "risk_coverage": curves.risk_coverage(test.logits, test.labels, p),
        "logit_density": curves.logit_density(test.logits, test.labels),
        "near_zero": curves.near_zero(test.logits),
    }
    if validation.logits.shape[1] <= CONFUSION_CLASSES:
        content["confusion"] = confusion_matrix(validation.logits, validation.labels).tolist()
    return content


def measures(of: Outputs, weight: Tensor, temperature: float, p: float) -> dict[str, float | None]:
    """The measures of a split beyond those of `maxsup.lab.evaluate.measures`; None where one is undefined.

    Args:
        of: the outputs of the split.
        weight: (K, D), the last layer's.
        temperature: by which logits are divided for the measures that end in ``_scaled``.
        p: of the norm in logit normalisation.
    """
    logits, labels = of.logits, of.labels
    scaled = logits.double() / temperature
    correct = logits.argmax(1) == labels
    scores = {"": selective.max_probability(logits), "_logit_norm": selective.logit_normalization(logits, p)}
    values = {
        "brier": calibration.brier(logits, labels),
        "adaptive_ece": calibration.expected_calibration_error(logits, labels, curves.BINS, adaptive=True),
        "nll_scaled": confidence.nll(scaled, labels),
        "brier_scaled": calibration.brier(scaled, labels),
        "ece_scaled": calibration.expected_calibration_error(scaled, labels, curves.BINS),
        "adaptive_ece_scaled": calibration.expected_calibration_error(scaled, labels, curves.BINS, adaptive=True),
    }
    for suffix, score in scores.items():
        values[f"aurc{suffix}"] = selective.aurc(score, correct)
        for risk in RISKS:
            values[f"coverage_at_{risk:.0%}".rstrip("%") + suffix] = selective.coverage_at_risk(score, correct, risk)
    values["vci"] = collapse.variability_collapse_index(of.features, labels)
    values |= collapse.neural_collapse(of.features, labels, weight, logits)._asdict()
    enhancement = confidence.error_enhancement_share(logits, labels)
    values["wrong_share"] = enhancement.frequency
    values["error_enhancement_share"] = enhancement.share
    values["error_enhancement_share_wrong"] = enhancement.share_wrong
    return {name: records.finite(value) for name, value in values.items()}
