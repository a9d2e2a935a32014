"""Options of the commands on finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maxsup.lab.segmentation.recipes import SegmentationRecipe

SegmentationOptions = Annotated[SegmentationRecipe, tyro.conf.arg(name="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")]


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
    cuda_graph: bool = False
    """Replay the step as a CUDA graph: the same kernels with fewer waits for the host. For one process with a GPU."""
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
class Claims:
    """Say of each of the paper's claims what finished comparisons show, from their records; nothing is trained.

    A verdict is: confirmed here, contradicted here, not seen, cannot be shown with this n, not measured. Each row has
    the effect, its interval, n, the exact p and the corrected one; where nothing is seen, the effect that this n could
    have shown; where nothing is measured, the command that would.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder with comparisons in it, at any depth, or one comparison."""
    out: Path | None = None
    """Folder for claims.md, claims.json and claims.html; None is the folder itself."""
