"""ImageNet-1k (Russakovsky et al. 2015, arXiv:1409.0575), in the layouts in which its owners have it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch

from maxsup.lab.data.file_sets import Listed, data_set
from maxsup.lab.data.image_folder import class_folders, list_classes
from maxsup.lab.data.masks import IMAGES
from maxsup.lab.data.sources import Files
from maxsup.lab.data.splits import DataSet
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

CLASSES = 1000
PUBLISHED = {"train": 1_281_167, "val": 50_000}
# Of each class, for selection: less than a hundredth of the training images.
HELD_OUT = 10
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


def load_imagenet(data_dir: Path | None = None, image_size: int | None = None, data: Data | None = None) -> DataSet:
    """ImageNet-1k: DIR/train/WNID/*.JPEG and DIR/val, as folders or flat beside its labels; 10,000 of train held out.

    A flat val needs DIR/ILSVRC2012_devkit_t12 (its data/meta.mat and ground truth), or Kaggle's LOC_val_solution.csv in
    DIR. The classes are the 1,000 WordNet ids in order, as in every published model. The published validation images
    are the test split, as in the literature; images held out of train (`data.held_out`) select the weights. Images are
    streamed; a first start checks them all, which takes minutes and is kept. Counts other than the published ones
    and unreadable files are listed in the data set's `problems`.

    Raises:
        ValueError: if `image_size` is None, or an option does not apply.
        DataError: if a folder is missing, there are not 1,000 classes, a class has no image, a label is missing, or too
            many files are unreadable; it names what is wrong.
    """
    if image_size is None:
        raise ValueError("imagenet: data.image_size must be given; files have sizes of their own")
    if data_dir is None:
        raise DataError("imagenet: --data-dir must name the folder that has train and val")
    for name in ("train", "val"):
        if not (data_dir / name).is_dir():
            raise DataError(f"{data_dir / name}: missing; ImageNet has DIR/train/WNID/*.JPEG and DIR/val")
    classes = class_folders(data_dir / "train")
    if len(classes) != CLASSES:
        raise DataError(f"{data_dir / 'train'}: {len(classes)} folders of classes, where ImageNet has {CLASSES}")
    val = data_dir / "val"
    flat = not any(path.is_dir() for path in val.iterdir())
    listed = {
        "train": list_classes(data_dir / "train", classes, 2),
        "val": _flat(data_dir, classes) if flat else list_classes(val, classes, 1),
    }
    found = data_set(
        "imagenet",
        classes,
        listed,
        image_size,
        data or Data(),
        held_out=HELD_OUT * CLASSES,
        always_streamed=True,
    )
    counts = {name: len(of.labels) for name, of in listed.items()}
    odd = [f"{n}: {counts[n]} images, where {PUBLISHED[n]} are published" for n in counts if counts[n] != PUBLISHED[n]]
    return replace(found, problems=(*found.problems, *odd))


def _flat(data_dir: Path, classes: list[str]) -> Listed:
    """The validation images of a folder without classes, in order of name.

    Raises:
        DataError: if the labels are missing or do not fit.
    """
    val = data_dir / "val"
    names = sorted(path.name for path in val.iterdir() if path.suffix.lower() in IMAGES)
    if (data_dir / SOLUTION).is_file():
        wnids = _solution(data_dir / SOLUTION)
    elif (data_dir / DEVKIT).is_dir():
        wnids = _devkit(data_dir / DEVKIT, names)
    else:
        raise DataError(
            f"{val}: has no folders of classes, and {data_dir} neither {DEVKIT} nor {SOLUTION} to label them"
        )
    unlabelled = [name for name in names if Path(name).stem not in wnids]
    if unlabelled:
        raise DataError(f"{val / unlabelled[0]}: no label for it ({len(unlabelled)} such of {len(names)})")
    number = {wnid: label for label, wnid in enumerate(classes)}
    own = [wnids[Path(name).stem] for name in names]
    strange = sorted(set(own) - set(number))
    if strange:
        raise DataError(f"{val}: its labels name {strange[0]}, no class of {data_dir / 'train'}")
    return Listed(Files(val, names), torch.tensor([number[wnid] for wnid in own]), (val,))


def _solution(file: Path) -> dict[str, str]:
    """WNID by image from Kaggle's file: a row has the image and `WNID x y x y`, repeated."""
    with file.open(newline="") as lines:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(lines)}


def _devkit(folder: Path, names: list[str]) -> dict[str, str]:
    """WNID by image from the development kit: a line for each image in order of name has a number of meta.mat's."""
    from scipy.io import loadmat

    truth, meta = folder / "data" / GROUND_TRUTH, folder / "data" / "meta.mat"
    for file in (truth, meta):
        if not file.is_file():
            raise DataError(f"{file}: missing")
    numbers = [int(line) for line in truth.read_text().split()]
    if len(numbers) != len(names):
        raise DataError(f"{truth}: {len(numbers)} labels for the {len(names)} images in val")
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    unknown = sorted(set(numbers) - set(wnids))
    if unknown:
        raise DataError(f"{truth}: number {unknown[0]} is no class of {meta}")
    return {Path(name).stem: wnids[number] for name, number in zip(names, numbers, strict=True)}
