"""Images with a label for every pixel: in memory, or as files that are read when they are needed.

Labels are 0 … K − 1, or `IGNORE` where a pixel has none: such pixels count neither in a loss nor in a measure.
"""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maxsup.lab.data import AnySplit, DataSet, Split
from maxsup.lab.data.masks import read_image
from maxsup.lab.records import DataError, Json

IGNORE = 255


@dataclass(frozen=True)
class Arrays:
    """Images (N, C, H, W) and labels (N, H, W), both uint8, in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """One image (C, H, W) and its labels (H, W)."""
        return self.images[index], self.labels[index]

    def take(self, indices: Tensor) -> Arrays:
        """The images at `indices`."""
        return Arrays(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> Arrays:
        """The images on `device`."""
        return Arrays(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        """SHA-256 of images and labels."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels):
            digest.update(f"{tuple(part.shape)}".encode())
            digest.update(np.ascontiguousarray(part.cpu().numpy()).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Files:
    """Image files and their files of labels, in the same order.

    `table`, of 256, gives the label of each value that a file of labels may hold: a class, `IGNORE`, or −1 for a value
    that it may not hold.
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    table: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """One image (C, H, W) and its labels (H, W), both uint8.

        Raises:
            DataError: if a file is unreadable, labels and image differ in size, or a label is unknown; it names the
                file.
        """
        image_file, label_file = self.images[index], self.labels[index]
        grey, pixels = read_image(image_file)
        values = _read_labels(label_file)
        if values.shape != pixels.shape[:2]:
            raise DataError(f"{label_file}: {_size(values)} pixels where {image_file} has {_size(pixels)}")
        labels = np.array(self.table, dtype=np.int16)[values]
        if labels.min() < 0:
            strange = sorted(set(np.unique(values[labels < 0]).tolist()))
            raise DataError(
                f"{label_file}: label {', '.join(map(str, strange))} where there are {self.num_classes} classes"
                f" (labels {self._known()})"
            )
        image = torch.from_numpy(pixels[None] if grey else pixels.transpose(2, 0, 1).copy())
        return image, torch.from_numpy(labels.astype(np.uint8))

    @property
    def num_classes(self) -> int:
        """How many classes the files of labels may hold."""
        return len({label for label in self.table if 0 <= label < IGNORE})

    def _known(self) -> str:
        known = [value for value, label in enumerate(self.table) if 0 <= label < IGNORE]
        ignored = [value for value, label in enumerate(self.table) if label == IGNORE]
        text = f"{known[0]} to {known[-1]}" if known == list(range(known[0], known[-1] + 1)) else str(known)[1:-1]
        return text + (f"; {', '.join(map(str, ignored))} for none" if ignored else "")

    def take(self, indices: Tensor) -> Files:
        """The images at `indices`."""
        chosen = indices.tolist()
        images, labels = (tuple(of[i] for i in chosen) for of in (self.images, self.labels))
        return dataclasses.replace(self, images=images, labels=labels)

    def check(self) -> None:
        """Reads every pair; raises as `pair` does for the first, in order, that is damaged."""
        with ThreadPoolExecutor() as pool:  # the decoders of images leave Python's lock
            for _ in pool.map(self.pair, range(len(self)), chunksize=16):
                pass

    def fingerprint(self) -> str:
        """SHA-256 of the files' names and sizes in bytes."""
        digest = hashlib.sha256(f"{self.table}".encode())
        for file in (*self.images, *self.labels):
            digest.update(f"{file.parent.name}/{file.name} {file.stat().st_size}\n".encode())
        return digest.hexdigest()


Pixels = Arrays | Files


@dataclass(frozen=True)
class SegmentationData:
    """Images with labels per pixel in their splits; `validation` is None where the test images are all there is."""

    name: str
    class_names: tuple[str, ...]
    train: Pixels
    validation: Pixels | None
    test: Pixels

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def cut(self, train_size: int | None) -> SegmentationData:
        """The data with `train_size` of its training images, drawn at random and always the same.

        Raises:
            DataError: if there are fewer.
        """
        if train_size is None:
            return self
        if train_size > len(self.train):
            raise DataError(f"train_size {train_size} exceeds the {len(self.train)} images of {self.name}")
        drawn = np.sort(np.random.default_rng(0).permutation(len(self.train))[:train_size])
        return dataclasses.replace(self, train=self.train.take(torch.from_numpy(drawn)))

    def check(self) -> None:
        """Reads every file there is.

        Raises:
            DataError: for the first that is damaged or does not fit; it names the file.
        """
        for split in (self.train, self.validation, self.test):
            if isinstance(split, Files):
                split.check()

    def description(self) -> Json:
        """What a record says of the data."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "images": {name: 0 if split is None else len(split) for name, split in splits.items()},
        }

    def fingerprint(self) -> str:
        """SHA-256 over the splits."""
        splits = (self.train, self.validation, self.test)
        return hashlib.sha256(" ".join(s.fingerprint() if s else "-" for s in splits).encode()).hexdigest()


def of_masks(data_set: DataSet) -> SegmentationData:
    """The masks of a data set as labels: background, then its classes.

    Raises:
        ValueError: if it has no masks, or more than 254 classes.
    """
    if data_set.num_classes >= IGNORE:
        raise ValueError(f"data: {data_set.name} has {data_set.num_classes} classes, labels hold {IGNORE - 1} at most")

    def arrays(split: AnySplit) -> Arrays:
        if not isinstance(split, Split) or split.masks is None:
            raise ValueError(f"data: {data_set.name} has no masks")
        return Arrays(split.images, split.masks.byte())

    splits = (arrays(split) for split in (data_set.train, data_set.validation, data_set.test))
    return SegmentationData(data_set.name, ("background", *data_set.class_names), *splits)


def _read_labels(file: Path) -> Any:
    """The values (H, W), uint8, of a PNG of labels; a palette's indices, not its colours."""
    try:
        with Image.open(file) as opened:
            if opened.mode not in ("L", "P"):
                raise DataError(f"{file}: labels are one byte a pixel (PNG mode L or P), this has mode {opened.mode}")
            return np.array(opened)
    except (OSError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise DataError(f"{file}: unreadable image ({error})") from error


def _size(pixels: Any) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}"
