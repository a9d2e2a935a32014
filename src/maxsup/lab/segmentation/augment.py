"""Training images and their labels at random scales, cut, mirrored and distorted: the two always move together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from maxsup.lab.segmentation.data import IGNORE
from maxsup.lab.segmentation.recipes import Augmentation

# Squares tried at most, where one class fills too much of them.
TRIES = 10
# Photometric distortion (Liu et al. 2016, SSD): each part with this chance. Brightness moves by an eighth, hue by a
# tenth of the circle.
CHANCE = 0.5
BRIGHTNESS, CONTRAST, SATURATION, HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1)


@dataclass(frozen=True)
class Draws:
    """What chance decides for each image of a batch: scale (N,), place (N, 2) in 0..1, whether it is mirrored (N,)."""

    scale: Tensor
    place: Tensor
    mirrored: Tensor

    def __getitem__(self, which: slice) -> Draws:
        return Draws(self.scale[which], self.place[which], self.mirrored[which])


def draw(n: int, how: Augmentation, generator: torch.Generator) -> Draws:
    """The draws for `n` images, on the generator's device."""
    scale, rows, columns, mirrored = torch.rand(4, n, generator=generator, device=generator.device)
    least, largest = how.scale
    half = mirrored < 0.5 if how.flip else torch.zeros_like(mirrored, dtype=torch.bool)
    return Draws(least + (largest - least) * scale, torch.stack([rows, columns], dim=1), half)


def augment_batch(images: Tensor, labels: Tensor, crop: int | None, draws: Draws) -> tuple[Tensor, Tensor]:
    """A batch in memory, scaled, cut and mirrored: images (N, C, S, S) and labels (N, S, S), uint8.

    S is `crop`, or the shorter side. One interpolation does it all: bilinear for images, nearest for labels. What lies
    outside an image is black, without a label.
    """
    height, width = labels.shape[1:]
    side = crop or min(height, width)
    grid = _grid(draws, (height, width), side)
    images = nn.functional.grid_sample(images.float(), grid, align_corners=False).round().byte()
    # One more than the label, so that the black outside is the label that there is not.
    shifted = (labels.float() + 1).masked_fill_(labels == IGNORE, 0).unsqueeze(1)
    shifted = nn.functional.grid_sample(shifted, grid, mode="nearest", align_corners=False)
    return images, torch.where(shifted == 0, IGNORE, shifted - 1)[:, 0].byte()


def _grid(draws: Draws, size: tuple[int, int], side: int) -> Tensor:
    """Where each pixel of the squares lies in its image, as `grid_sample` takes it: (N, side, side, 2).

    A square lies within the scaled image at a random place, or where the image is smaller, around it at a random one.
    """
    steps = torch.arange(side, device=draws.scale.device) + 0.5
    along = []
    for length, place in zip(size, draws.place.unbind(1), strict=True):
        # In whole pixels: at its own size an image is cut, and not interpolated.
        start = (place * (length * draws.scale - side)).round()
        along.append(2 * ((start[:, None] + steps) / draws.scale[:, None]) / length - 1)
    rows, columns = along
    columns = torch.where(draws.mirrored[:, None], columns.flip(1), columns)
    return torch.stack([columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], dim=3)


def framed(size: tuple[int, int], frame: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """(height, width) scaled in proportion to fit a longer and a shorter side, each times `scale`.

    >>> framed((480, 640), (2048, 512)), framed((100, 1000), (2048, 512)), framed((480, 640), (2048, 512), 0.5)
    ((512, 683), (205, 2048), (256, 341))
    """
    longer, shorter = frame
    factor = scale * min(longer / max(size), shorter / min(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def augment_one(image: Tensor, labels: Tensor, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
    """An image (C, H, W) from a file and its labels (H, W) as a square of `how.crop`, uint8; `seed` decides all.

    Raises:
        ValueError: if `how.crop` is None.
    """
    if how.crop is None:
        raise ValueError("augmentation.crop must be given for images from files, which have sizes of their own")
    generator = torch.Generator().manual_seed(seed)
    factor = _uniform(how.scale, generator)
    size = (image.shape[1], image.shape[2])
    scaled = (
        (round(size[0] * factor), round(size[1] * factor)) if how.resize is None else framed(size, how.resize, factor)
    )
    if scaled != size:
        image = transforms.resize(image, list(scaled), antialias=True)
        labels = nn.functional.interpolate(labels[None, None].float(), scaled, mode="nearest-exact")[0, 0].byte()
    top, left = _place(labels, how, generator)
    image, labels = (of[..., top : top + how.crop, left : left + how.crop] for of in (image, labels))
    if how.flip and _happens(generator):
        image, labels = image.flip(2), labels.flip(1)
    if how.photometric:
        image = distort(image, generator)
    below, right = how.crop - labels.shape[0], how.crop - labels.shape[1]
    if below or right:
        image = nn.functional.pad(image, (0, right, 0, below))
        labels = nn.functional.pad(labels, (0, right, 0, below), value=IGNORE)
    return image.contiguous(), labels.contiguous()


def _place(labels: Tensor, how: Augmentation, generator: torch.Generator) -> tuple[int, int]:
    """Row and column of a random square; the last of `TRIES` where one class fills too much of each."""
    assert how.crop is not None  # the caller's
    top = left = 0
    for _ in range(TRIES):
        top, left = (
            int(torch.randint(max(length - how.crop, 0) + 1, (), generator=generator)) for length in labels.shape
        )
        if how.most_of_one_class >= 1:
            break
        square = labels[top : top + how.crop, left : left + how.crop]
        counts = square[square != IGNORE].long().bincount()
        if (counts > 0).sum() > 1 and counts.max() < how.most_of_one_class * counts.sum():
            break
    return top, left


def _uniform(ends: tuple[float, float], generator: torch.Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(torch.rand((), generator=generator))


def _happens(generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < CHANCE)


def distort(image: Tensor, generator: torch.Generator) -> Tensor:
    """Photometric distortion of an image (C, H, W), uint8; of a grey one, brightness and contrast alone."""
    # Contrast comes before the colours or after them.
    first = _happens(generator)
    if _happens(generator):
        image = transforms.adjust_brightness(image, _uniform(BRIGHTNESS, generator))
    if first and _happens(generator):
        image = transforms.adjust_contrast(image, _uniform(CONTRAST, generator))
    if image.shape[0] == 3:
        if _happens(generator):
            image = transforms.adjust_saturation(image, _uniform(SATURATION, generator))
        if _happens(generator):
            image = transforms.adjust_hue(image, _uniform(HUE, generator))
    if not first and _happens(generator):
        image = transforms.adjust_contrast(image, _uniform(CONTRAST, generator))
    return image
