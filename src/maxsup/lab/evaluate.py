"""From a trained model to outputs, and from outputs to the measures of a record."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maxsup.lab import records
from maxsup.lab.data import AnySplit, evaluation_batches
from maxsup.lab.data.order import even_share
from maxsup.lab.models import Classifier
from maxsup.lab.processes import Processes
from maxsup.metrics import class_separation, confidence

# The measures are taken over the whole split at once; the batch only bounds memory.
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Outputs:
    """Penultimate features (N, D), logits (N, K), float32, and labels (N,), of one split."""

    features: Tensor
    logits: Tensor
    labels: Tensor


def outputs(model: Classifier, split: AnySplit, device: torch.device) -> Outputs:
    """Runs `model` in evaluation mode over `split`, in the precision that is set; leaves its mode as it was."""
    return gathered_outputs(model, split, Processes(device))


def gathered_outputs(model: Classifier, split: AnySplit, processes: Processes) -> Outputs:
    """As `outputs`, each process running its share; all get the whole, in the split's order and every image once."""
    was_training = model.training
    model.eval()
    features, logits, labels = [], [], []
    try:
        with torch.inference_mode():
            for images, batch_labels in evaluation_batches(
                split, EVALUATION_BATCH, device=processes.device, rank=processes.rank, world=processes.world
            ):
                images = images.contiguous(memory_format=torch.channels_last)
                batch_features, batch_logits = model.features_and_logits(images)
                features.append(batch_features.float())
                logits.append(batch_logits.float())
                labels.append(batch_labels)
    finally:
        model.train(was_training)
    shares = [len(even_share(len(split), rank, processes.world)) for rank in range(processes.world)]
    return Outputs(*(processes.gather(torch.cat(parts), shares) for parts in (features, logits, labels)))


def measures(of: Outputs) -> dict[str, float | int | None]:
    """The measures of a split; None where one is undefined (confidence on errors without an error).

    ECE: 15 equal-width bins of the top-1 probability over the whole split (torchmetrics).
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = of.logits, of.labels
    separation = class_separation(of.features, labels)
    right, wrong = confidence.top1_confidence(logits, labels)
    ece = multiclass_calibration_error(logits.softmax(dim=1), labels, num_classes=logits.shape[1], n_bins=15)
    values = {
        "accuracy": confidence.accuracy(logits, labels),
        "nll": confidence.nll(logits, labels),
        "ece": ece,
        "confidence_right": right,
        "confidence_wrong": wrong,
        "d_within": separation.d_within,
        "d_total": separation.d_total,
        "r_squared": separation.r_squared,
    }
    return {"n": len(labels), **{name: records.finite(value) for name, value in values.items()}}


def clean_measures(of: Outputs, clean: Tensor) -> dict[str, float | int | None]:
    """The measures of training images against their right labels (N,), where some labels of `of` are wrong.

    And of the images with a wrong label, the shares that the model gives this label (``memorized``) and the right one
    (``recovered``); None where there are none.
    """
    clean = clean.to(of.labels.device)
    predicted = of.logits.argmax(1)
    wrong = of.labels != clean
    memorized = (predicted == of.labels)[wrong].double().mean()
    recovered = (predicted == clean)[wrong].double().mean()
    shares = {"memorized": records.finite(memorized), "recovered": records.finite(recovered)}
    return {**measures(replace(of, labels=clean)), **shares}
