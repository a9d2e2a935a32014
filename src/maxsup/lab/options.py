"""The options of each command; the documentation of a field is what `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maxsup.lab.recipes import Recipe
from maxsup.lab.segmentation.recipes import SegmentationRecipe

RecipeOptions = Annotated[Recipe, tyro.conf.arg(name="")]
SegmentationOptions = Annotated[SegmentationRecipe, tyro.conf.arg(name="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")]


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
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Compare:
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
    executor: Literal["local", "ray"] = "local"
    """Where runs are made: in processes of this machine, or on a Ray cluster whose nodes share `--out`."""
    workers: int | None = None
    """Runs at a time; None: one per GPU, or as many as the cores carry; on a Ray cluster as many as it carries."""
    ray_address: str | None = None
    """Address of the Ray cluster; None: that in RAY_ADDRESS, or one that is started on this machine."""
    gpus_per_run: float | None = None
    """Part of a GPU that a run takes on the Ray cluster, as 0.25; None: 1 where there are GPUs."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Analyze:
    """Measure and draw what finished runs show, from their records and weights; nothing is trained.

    For each run calibration, selective classification, collapse and curves, and where its images have masks how
    Grad-CAM lies on them; for a comparison also the plane of three classes and a gallery of Grad-CAM.
    """

    paths: Paths
    """Folders of finished runs, or of comparisons."""
    classes: tuple[str, str, str] | None = None
    """Three classes by name for the plane of their templates; None takes those confused most."""
    method: str | None = None
    """Method whose confusions choose the three classes; None takes the comparison's first."""
    workers: int | None = None
    """Runs at a time, one thread each; None: as many as there are cores."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Probe:
    """Fit a logistic regression, and k nearest neighbours, on the frozen features of finished runs; nothing is trained.

    The strength of the regularisation is chosen among 45 on a fifth of the training images; the accuracy is that on the
    test images. Images are resized to those that the network knows. A thread takes seconds a run for a thousand
    training images, half a minute for 5,000 and minutes for more.
    """

    paths: Paths
    """Folders of finished runs, or of comparisons."""
    data: str
    """Data set by name; `maxsup list` shows them."""
    classes: tuple[int, ...] | None = None
    """Classes to keep, by index; None keeps all, or those that the network was not trained on."""
    train_size: int | None = None
    """Training images, drawn evenly over the classes; None takes all."""
    neighbors: int = 20
    """Neighbours that vote, by cosine."""
    workers: int | None = None
    """Runs at a time, one thread each; None: as many as there are cores."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Corrupt:
    """Test finished runs on corrupted test images: error, NLL and ECE by kind and severity; nothing is trained.

    Twelve kinds of noise, blur, weather and digital damage with five severities each, so that each run sees its test
    images 61 times; every run sees the same.
    """

    paths: Paths
    """Folders of finished runs, or of comparisons."""
    workers: int | None = None
    """Runs at a time, one thread each; None: one where there is a GPU, else as many as there are cores."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Segment:
    """Fine-tune UPerNet on the backbones of finished runs, and measure the mIoU on the test images.

    The records go into the runs' own folders. What is finished is kept; what was interrupted goes on.
    """

    paths: Paths
    """Folders of finished runs, or of comparisons."""
    recipe: SegmentationOptions
    seed: int | None = None
    """Seed of the decoder's weights, of the order of the images and of the augmentation; None: each run's own."""
    label: str | None = None
    """Name of this fine-tuning in records and report; None: that of the data, and of another loss than usual."""
    keep_weights: bool = False
    """Keep the fine-tuned weights."""
    workers: int | None = None
    """Runs at a time; None: one per GPU, or one per core."""
    loaders: int | None = None
    """Processes a run that read files; None: 8 beside a GPU, none without."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Report:
    """Write a comparison's tables (JSON, CSV, Markdown, LaTeX), or a study's, and report.html from its records."""

    directory: Annotated[Path, tyro.conf.Positional]
    """Folder of the comparison, or of the study's report (study-NAME)."""
    reference: str | None = None
    """Method from which differences are taken; None: the comparison's first."""


@dataclass(frozen=True)
class Study:
    """Make one of the paper's tables: its recipes × methods × seeds, then the report with the paper's numbers.

    Each recipe is a comparison in a folder of its own; studies that train the same share it if they have the same
    --out. The same command resumes an interrupted study; seeds can be added later. Options of the recipe change all
    recipes of the study. Whatever makes it another experiment than the paper's makes it a rehearsal, and its report
    says so.
    """

    recipe: RecipeOptions
    out: Path
    """Folder of the study's comparisons and report; several studies can share it."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; every method runs with each. Fewer than 8 cannot show a difference among six methods."""
    scale: float = 1.0
    """Share of the epochs and of the training images to take, for a rehearsal."""
    image_size: int | None = None
    """Side of the images for a rehearsal, with networks made for it: smaller patches, or the stem for small images."""
    executor: Literal["local", "ray"] = "local"
    """Where runs are made: in processes of this machine, or on a Ray cluster whose nodes share `--out`."""
    workers: int | None = None
    """Runs at a time; None: one per GPU, or as many as the cores carry; on a Ray cluster as many as it carries."""
    ray_address: str | None = None
    """Address of the Ray cluster; None: that in RAY_ADDRESS, or one that is started on this machine."""
    gpus_per_run: float | None = None
    """Part of a GPU that a run takes on the Ray cluster, as 0.25; None: 1 where there are GPUs."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""
    probe_data: str = "cifar10"
    """Images of the linear probe (table3)."""
    probe_train_size: int | None = None
    """Training images of the linear probe; None takes all."""
    probe_data_dir: Path | None = None
    """Folder with the files of the probe's images, where it needs some."""


@dataclass(frozen=True)
class StudyList:
    """List the studies: which table, what data, which methods, how many runs and how many GPU hours."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME...]")] = ()
    """Studies to list; none lists all."""
    seeds: int = 3
    """Seeds per method."""
    measure: bool = False
    """Time a few steps of each recipe's network on synthetic images here, and estimate the GPU hours from it."""


@dataclass(frozen=True)
class DataMake:
    """Make a set of glyphs, `glyphs` or `glyphs-large`, of font files: images of their letters, split by typeface.

    Takes minutes. Nothing is downloaded or installed; docs/glyphs.md names packages of fonts.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Set by name: `glyphs` (62 letters and digits) or `glyphs-large` (447 letters)."""
    fonts: Path | None = None
    """Folder whose fonts, at any depth, are taken; None takes those of the system's font folders."""
    out: Path | None = None
    """Folder to write to; None: ~/.cache/maxsup, where the set is found without --data-dir."""


@dataclass(frozen=True)
class DataShow:
    """Draw a contact sheet of a data set as PNG: a row of images for each class."""

    name: Annotated[str, tyro.conf.Positional]
    """Data set by name; `maxsup list` shows them."""
    out: Path
    """PNG file to write."""
    split: Literal["train", "validation", "test"] = "train"
    """Split whose images are shown."""
    per_class: int = 24
    """Images of each class."""
    classes: tuple[int, ...] | None = None
    """Classes to show, by index; None shows all."""
    image_size: int | None = None
    """Side in pixels to which images are resized; None keeps the data set's own."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Export:
    """Write a finished run's network for others: weights as safetensors, timm's config.json, a model card.

    timm cannot build `convnet`, nor the stem for small images; those come without config.json, and the card says how
    they are loaded.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the finished run."""
    out: Path
    """Folder to write to."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some: image size and class names come from it."""


@dataclass(frozen=True)
class Import:
    """Make a run's folder of a checkpoint that was trained elsewhere, for `maxsup analyze`, `probe` and `export`.

    The names of the weights must be those of timm's network, as they are in torchvision's ResNets and in DeiT; they may
    be wrapped as {"model": …} or {"state_dict": …}. Images are normalised by ImageNet's constants.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """File of the weights, as torch.save or safetensors write them."""
    model: str
    """The network by its timm name, as resnet50 or deit_small_patch16_224."""
    out: Path
    """Folder of the run."""
    method: str = "imported"
    """What the record calls the method that it was trained with."""
    data: str | None = None
    """Images of the network's own classes, to measure it on, as `maxsup analyze` needs; None measures nothing."""
    image_size: int | None = None
    """Side of the images in pixels; None is the size that the network is made for."""
    eval_crop: float | None = None
    """Share of a resized image file's side that the central crop keeps; None is 0.875 (224 of 256 pixels)."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How image files are resized; None: bicubic for vision transformers, else bilinear."""
    data_dir: Path | None = None
    """Folder with the data set's files, where it needs some."""


@dataclass(frozen=True)
class Distill:
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
