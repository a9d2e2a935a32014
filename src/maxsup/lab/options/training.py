"""Options of what trains: `train`, `compare`, `distill`, `tune` and a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maxsup.lab.recipes import Recipe

RecipeOptions = Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Train:
    """Train one method with one seed and write the run's records. The same command resumes an interrupted run."""

    recipe: RecipeOptions
    out: Path
    """Folder of the run."""
    method: str = "max-sup"
    """Method by name; `maxsup list` shows them."""
    seed: int = 0
    """Seed of the weights, of the order of the images and of the augmentation."""
    tracker: tuple[str, ...] = ()
    """Where epochs are shown as they end, beside the records: tensorboard, wandb, mlflow."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True, kw_only=True)
class ManyRuns:
    """Where the runs of a command are made, and how many at a time."""

    executor: Literal["local", "ray"] = "local"
    """Where runs are made: in processes of this machine, or on a Ray cluster whose nodes share the folders."""
    workers: int | None = None
    """Runs at a time; None: one per GPU, or as many as the cores carry; on a Ray cluster as many as it carries."""
    ray_address: str | None = None
    """Address of the Ray cluster; None: that in RAY_ADDRESS, or one that is started on this machine."""
    gpus_per_run: float | None = None
    """Part of a GPU that a run takes on the Ray cluster, as 0.25; None: 1 where there are GPUs."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True, kw_only=True)
class Compare(ManyRuns):
    """Train methods × seeds into a folder, then write the comparison's tables and report.html.

    Differences are taken from the first method. The same command resumes an interrupted comparison; methods and
    seeds can be added to it later.
    """

    recipe: RecipeOptions
    out: Path
    """Folder of the comparison."""
    methods: tuple[str, ...] = ("cross-entropy", "label-smoothing", "max-sup")
    """Methods by name, the first being the reference; `maxsup list` shows them."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds; every method runs with each. Fewer than 8 cannot show a difference among seven methods."""
    tracker: tuple[str, ...] = ()
    """Where each run's epochs are shown as they end, beside the records: tensorboard, wandb, mlflow."""


@dataclass(frozen=True, kw_only=True)
class Distill(ManyRuns):
    """Train students from the networks of finished runs, seed by seed, into a comparison.

    The loss of a student is (1 - weight) CE + weight T² KL(teacher || student) (Hinton et al. 2015). A student of the
    networks that a method trained is called distilled-from-METHOD; seed s learns from the teacher with seed s, on the
    same images in the same order as every other student with that seed.
    """

    recipe: RecipeOptions
    out: Path
    """Folder of the students' comparison."""
    student: str | None = None
    """Recipe of the students; None: that of the teachers. Its fields are options."""
    temperature: float = 4.0
    """T, by which both networks' logits are divided in the KL divergence."""
    weight: float = 0.9
    """Share of the teacher in the loss; the rest is cross-entropy with the labels."""
    methods: tuple[str, ...] | None = None
    """Methods of the teachers, the first being the reference; None takes all that there are."""
    seeds: tuple[int, ...] | None = None
    """Seeds; None takes all that the teachers have."""
    alone: bool = True
    """Train the student without a teacher too, by cross-entropy."""
    tracker: tuple[str, ...] = ()
    """Where each run's epochs are shown as they end, beside the records: tensorboard, wandb, mlflow."""


@dataclass(frozen=True, kw_only=True)
class Study(ManyRuns):
    """Make a study: its recipes × methods × seeds, then the report, with the paper's numbers if it is the paper's.

    Each recipe is a comparison in a folder of its own; studies that train the same share it if they have the same
    --out. The same command resumes an interrupted study; seeds can be added later. Options of the recipe change all
    recipes of the study. Whatever makes it another experiment makes it a rehearsal, and its report says so.
    """

    recipe: RecipeOptions
    out: Path
    """Folder of the study's comparisons and report; several studies can share it."""
    seeds: tuple[int, ...] | None = None
    """Seeds; every method runs with each. None takes the study's own, 0 1 2 for the paper's. Fewer than 8 cannot show a
    difference among seven methods."""
    only: tuple[str, ...] | None = None
    """Comparisons to make, by their folders' names; None makes all. The report has those that are there."""
    scale: float = 1.0
    """Share of the epochs and of the training images to take, for a rehearsal."""
    image_size: int | None = None
    """Side of the images for a rehearsal, with networks made for it: smaller patches, or the stem for small images."""
    probe_data: str | None = None
    """Images of the probe, of a study that has one; None takes the study's own."""
    probe_train_size: int | None = None
    """Training images of the probe; None takes as many as the study does."""
    probe_data_dir: Path | None = None
    """Folder with the files of the probe's images, where it needs some; None: that of the same data set's training
    images, or the usual place."""


@dataclass(frozen=True, kw_only=True)
class Tune(ManyRuns):
    """Choose learning rate and weight decay for each method by validation accuracy, then compare with them.

    Every method has the same grid and the same tuning seeds, which are no seeds of the comparison. The report has two
    tables: all methods with the recipe's own settings, and each with those that were chosen for it. The same command
    resumes what was interrupted.
    """

    recipe: RecipeOptions
    out: Path
    """Folder of the grid, the choice, the comparisons and their report."""
    methods: tuple[str, ...] = (
        "cross-entropy",
        "label-smoothing",
        "online-label-smoothing",
        "zipf-label-smoothing",
        "max-sup",
        "logit-penalty",
        "confidence-penalty",
    )
    """Methods by name, the first being the reference; `maxsup list` shows them."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the comparison. Fewer than 8 cannot show a difference among seven methods."""
    tuning_seeds: tuple[int, ...] = (1000, 1001)
    """Seeds of the grid; none can be a seed of the comparison."""
    lrs: tuple[float, ...] | None = None
    """Learning rates of the grid; None: half the recipe's, the recipe's, and twice the recipe's."""
    weight_decays: tuple[float, ...] | None = None
    """Weight decays of the grid; None: half the recipe's, the recipe's, and twice the recipe's."""
