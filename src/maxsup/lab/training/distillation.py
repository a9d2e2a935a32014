"""Knowledge distillation: the loss against a teacher's logits, and the teacher of a run (Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from maxsup.lab import records
from maxsup.lab.analysis.batch import collect
from maxsup.lab.analysis.weights import fingerprint, load_model, trained_data
from maxsup.lab.data import DataSet
from maxsup.lab.methods import Method
from maxsup.lab.models import Backbone, Classifier
from maxsup.lab.recipes import Recipe
from maxsup.lab.recipes.distillation import PREFIX, Student
from maxsup.lab.records import Json, RecordError, RunRecord


class DistillationLoss(nn.Module):
    """(1 − w)·CE(z, y) + w·T²·KL(softmax(t / T) ‖ softmax(z / T)), the mean over the batch.

    T² keeps the size of the teacher's gradient as T grows (Hinton et al. 2015, arXiv:1503.02531). The teacher's logits
    get no gradient.
    """

    def __init__(self, temperature: float, weight: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor, teacher_logits: Tensor) -> Tensor:
        """Logits (N, K), classes (N,) or probabilities (N, K), and the teacher's logits (N, K), to a scalar."""
        hard = nn.functional.cross_entropy(logits, target)
        soft = nn.functional.kl_div(
            (logits / self.temperature).log_softmax(1),
            (teacher_logits.detach() / self.temperature).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


class Teacher(nn.Module):
    """A trained network that is shown the images of a student's batches, in evaluation mode and without gradient.

    uint8 images it normalises itself; floats are normalised already, by the constants of the student's training images,
    and are brought to its own.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Classifier, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.register_buffer("scale", std / model.std)
        self.register_buffer("shift", (mean - model.mean) / model.std)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        with torch.no_grad():
            return cast(Tensor, self.model(images * self.scale + self.shift if images.is_floating_point() else images))


def teacher_run(recipe: Recipe, method: str, seed: int) -> RunRecord | None:
    """The finished run from which `method` learns with `seed`; None for a method without a teacher.

    Raises:
        ValueError: if the recipe is no student's, or has no such teacher.
        RecordError: if a teacher's folder holds no finished run.
    """
    if not method.startswith(PREFIX):
        return None
    if not isinstance(recipe, Student):
        raise ValueError(f"{method!r} needs a teacher, which `maxsup distill` gives it, and {recipe.name!r} names none")
    runs, _ = collect(map(Path, recipe.teachers))
    found = [run for run in runs if (run.method, run.seed) == (method.removeprefix(PREFIX), seed)]
    if not found:
        raise ValueError(f"no finished teacher for {method!r}, seed {seed}, in {', '.join(recipe.teachers)}")
    return found[0]


def student_method(recipe: Recipe) -> Method:
    """How a student trains: with `DistillationLoss`, and no weight that is scheduled."""
    of = cast(Student, recipe)
    return Method("learns from a teacher", lambda alpha, classes: DistillationLoss(of.temperature, of.weight))


def described(run: RunRecord) -> Json:
    """What a student's record says of its teacher."""
    measured = run.result["measures"].get("test", {})
    return {
        "path": str(run.path.resolve()),
        "method": run.method,
        "seed": run.seed,
        "model_sha256": fingerprint(run.path),
        "test_accuracy": measured.get("accuracy"),
    }


def check_same_teacher(directory: Path, taught: Json) -> None:
    """Raises RecordError if the student in `directory` began with another teacher than the one `described` tells of."""
    began = records.read_json(directory / "run.json").get("teacher", {})
    if began.get("model_sha256") != taught.get("teacher", {}).get("model_sha256"):
        raise RecordError(f"{directory}: the teacher's weights in {began['path']} are not those it began with")


def load_teacher(run: RunRecord, recipe: Recipe, data: DataSet) -> Teacher:
    """The teacher for a student on `data`, on the CPU.

    Raises:
        RecordError: if the run's record or weights are missing or damaged.
        ValueError: if it was trained on other images or classes than the student.
    """
    trained = trained_data(run.path)
    for field in ("name", "classes", "image_size"):
        theirs, ours = getattr(trained, field), getattr(recipe.data, field)
        if theirs != ours:
            raise ValueError(f"{run.path}: the teacher's data.{field} is {theirs!r}, the student's {ours!r}")
    model = load_model(run.path)
    classes = cast(nn.Linear, cast(Backbone, model.backbone).get_classifier()).out_features
    if (len(model.mean), classes) != (data.channels, data.num_classes):
        raise ValueError(
            f"{run.path}: the teacher takes images of {len(model.mean)} channels and knows {classes} classes; the "
            f"student's data has {data.channels} and {data.num_classes}"
        )
    return Teacher(model, *data.mean_and_std())
