"""Data sets as arrays: images, labels, fixed splits, and the changes of them that every data set offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from maxsup.lab.data.streamed import Streamed

# The split belongs to the data set: it is the same for every recipe, method and seed.
SPLIT_SEED = 0
# Images resized at a time: they are floats meanwhile, four times as large.
_RESIZE_BATCH = 1000


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8, and labels (N,), int64; `masks` (N, H, W), integers, where a data set has them.

    A mask says what each pixel shows: 0 is the background, c + 1 an item of class c. An image shows its label's class
    once at most, so that `target_masks` is the labelled item and nothing else.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.images.shape[1]

    def to(self, device: torch.device) -> Split:
        """The split on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return Split(self.images.to(device), self.labels.to(device), masks)

    def take(self, indices: Tensor) -> Split:
        """The images at `indices`."""
        masks = None if self.masks is None else self.masks[indices]
        return Split(self.images[indices], self.labels[indices], masks)

    def of_classes(self, classes: Sequence[int]) -> Split:
        """The images of `classes` in their old order; their labels become positions in `classes`.

        In the masks, items of other classes become background.
        """
        kept = torch.isin(self.labels, torch.tensor(classes)).nonzero().squeeze(1)
        new = torch.full((max(classes) + 1,), -1)
        new[list(classes)] = torch.arange(len(classes))
        masks = self.masks
        if masks is not None:
            values = torch.zeros(max(int(masks.max()), max(classes) + 1) + 1, dtype=masks.dtype)
            values[torch.tensor(classes) + 1] = torch.arange(1, len(classes) + 1, dtype=masks.dtype)
            masks = values[masks[kept].long()]
        return Split(self.images[kept], new[self.labels[kept]], masks)

    def resized(self, image_size: int) -> Split:
        """The split with images, and their masks, of `image_size` × `image_size`."""
        masks = None if self.masks is None else resize_masks(self.masks, image_size)
        return Split(resize(self.images, image_size), self.labels, masks)

    def target_masks(self) -> Tensor:
        """Which pixels show the labelled item: (N, H, W), bool.

        Raises:
            ValueError: if the data set has no masks.
        """
        if self.masks is None:
            raise ValueError("these images have no masks")
        return self.masks == (self.labels + 1).view(-1, 1, 1)


# In memory, or read when needed; both offer the same.
AnySplit = Split | Streamed

# Streamed images, drawn evenly over the classes, by which the channels' mean and deviation are measured.
_MEASURED = 1024


@dataclass(frozen=True)
class DataSet:
    """A data set with its three splits."""

    name: str
    class_names: tuple[str, ...]
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    problems: tuple[str, ...] = ()
    """What is wrong with the files, without being fatal: unreadable images, which are left out, and odd counts."""
    constants: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation per channel to normalise with; None for those of the training images."""
    clean_labels: Tensor | None = field(default=None, kw_only=True)
    """The right labels of the training images, (N,), where some of those in `train` are wrong."""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.train.channels

    @property
    def clean_train(self) -> AnySplit:
        """The training images with their right labels."""
        return self.train if self.clean_labels is None else replace(self.train, labels=self.clean_labels)

    def training_images(self) -> dict[str, object]:
        """For records: the training images of each class by their right label, and how many have a wrong one."""
        clean = self.clean_train.labels
        return {
            "per_class": clean.bincount(minlength=self.num_classes).tolist(),
            "flipped": int((clean != self.train.labels).sum()),
        }

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel of images scaled to 0..1, shape (C, 1, 1).

        They are `constants`, or else of the training images; of streamed ones, of at most 1,024, always the same.
        """
        if self.constants is not None:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.constants)
            return mean, std
        train = self.train
        if isinstance(train, Streamed) and len(train) > _MEASURED:
            train = train.take(stratified(train.labels, _MEASURED))
        images = train.images.double() / 255
        return (
            images.mean(dim=(0, 2, 3)).float().view(-1, 1, 1),
            images.std(dim=(0, 2, 3)).float().view(-1, 1, 1),
        )

    def with_splits(self, change: Callable[[AnySplit], AnySplit]) -> DataSet:
        """The data set with `change` made to each split."""
        return replace(self, train=change(self.train), validation=change(self.validation), test=change(self.test))

    def of_classes(self, classes: Sequence[int]) -> DataSet:
        """The data set with `classes` alone, by index, renumbered in the given order.

        Raises:
            ValueError: for fewer than two classes, one given twice, or one that there is not; or if labels are wrong on
                purpose, which comes after the choice of classes.
        """
        if self.clean_labels is not None:
            raise ValueError(f"classes must be chosen before the labels of {self.name} are flipped")
        for place, c in enumerate(classes):
            if not 0 <= c < self.num_classes:
                raise ValueError(f"classes: {c} is not in 0..{self.num_classes - 1}, the classes of {self.name}")
            if c in classes[:place]:
                raise ValueError(f"classes: {c} is given twice")
        if len(classes) < 2:
            raise ValueError(f"classes must name at least 2 of the {self.num_classes} of {self.name}, got {classes}")
        chosen = replace(self, class_names=tuple(self.class_names[c] for c in classes))
        return chosen.with_splits(lambda split: split.of_classes(classes))

    def resized(self, image_size: int | None) -> DataSet:
        """The data set with images of `image_size` × `image_size` (see `resize`); None leaves them as they are."""
        if image_size is None:
            return self
        return self.with_splits(lambda split: split.resized(image_size))


def stratified(labels: Tensor, size: int) -> Tensor:
    """`size` indices, the same at every call, with each class's share kept to within one image."""
    generator = np.random.default_rng(SPLIT_SEED)
    shuffled = torch.from_numpy(generator.permutation(len(labels)))
    # Rank of each image within its class, as a fraction: the `size` smallest take every class's head evenly.
    classes, members = labels[shuffled].sort(stable=True)
    _, sizes = classes.unique_consecutive(return_counts=True)
    firsts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.arange(len(labels)) - firsts
    fraction = torch.empty(len(labels), dtype=torch.float64)
    fraction[members] = (rank.double() + 0.5) / sizes.repeat_interleave(sizes)
    return shuffled[fraction.argsort(stable=True)[:size]].sort().values


def hold_out(split: AnySplit, size: int) -> tuple[AnySplit, AnySplit]:
    """The rest of `split`, and a stratified `size` images of it, the same at every call."""
    held = stratified(split.labels, size)
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[held] = False
    return split.take(rest.nonzero().squeeze(1)), split.take(held)


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 images (N, C, H, W) to (N, C, size, size): shorter side to `size`, bilinearly, then the centre.

    Shrinking averages over what a new pixel covers (antialiasing); enlarging is plain bilinear interpolation.
    """
    height, width = images.shape[2:]
    if height == width == size:
        return images
    shape, rows, columns = _scaled(height, width, size)
    parts = [
        torch.nn.functional.interpolate(part.float(), shape, mode="bilinear", antialias=True).round().byte()
        for part in images.split(_RESIZE_BATCH)
    ]
    return torch.cat(parts)[:, :, rows, columns].contiguous()


def resize_masks(masks: Tensor, size: int) -> Tensor:
    """Masks (N, H, W) to (N, size, size), cut as `resize` cuts the images; each pixel takes the nearest one's value."""
    height, width = masks.shape[1:]
    if height == width == size:
        return masks
    (tall, wide), rows, columns = _scaled(height, width, size)
    old_rows = ((torch.arange(tall) + 0.5) * height / tall).long()[rows]
    old_columns = ((torch.arange(wide) + 0.5) * width / wide).long()[columns]
    return masks[:, old_rows[:, None], old_columns]


def _scaled(height: int, width: int, size: int) -> tuple[tuple[int, int], slice, slice]:
    """The shape whose shorter side is `size`, and the rows and columns of its central square."""
    shorter = min(height, width)
    shape = (round(height * size / shorter), round(width * size / shorter))
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return shape, slice(top, top + size), slice(left, left + size)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 images (N, C, H, W) with `channels`: grey is repeated, RGB becomes its luma (ITU-R BT.601).

    Raises:
        ValueError: for any other pair of channels.
    """
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] == 3 and channels == 1:
        red, green, blue = (images[:, i : i + 1].float() for i in range(3))
        return (0.299 * red + 0.587 * green + 0.114 * blue).round().byte()
    raise ValueError(f"images of {images.shape[1]} channels cannot become images of {channels}")
