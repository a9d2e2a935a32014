"""Options of the commands that list, make, show, export and import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class StudyList:
    """List the studies: what they show, what data, which methods, how many runs and how many GPU hours."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME...]")] = ()
    """Studies to list; none lists all."""
    seeds: int | None = None
    """Seeds per method; None takes the study's own number."""
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
