"""From an image file to an array of one size: what a process that decodes does to each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maxsup.lab.data.randomness import seeded


@dataclass(frozen=True)
class View:
    """How images are cut, resized and augmented one by one."""

    size: tuple[int, int]
    """Rows and columns of the array."""
    channels: int
    """1 or 3."""
    interpolation: str = "bilinear"
    """`bilinear` or `bicubic`, antialiased."""
    crop: float = 1.0
    """Share of the resized image's shorter side that the central crop keeps."""
    crop_scale: tuple[float, float] | None = None
    """Random resized crop instead of the central one, of so much of the area."""
    rand_augment: str | None = None
    """RandAugment by timm's name (Cubuk et al. 2020, arXiv:1909.13719)."""

    def __call__(self, image: Image.Image, seed: int | None) -> NDArray[np.uint8]:
        """The image as (H, W, C), uint8; `seed` (None for a view that leaves nothing to chance) decides the rest."""
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if seed is None:
            image = self._central(image)
        else:
            with seeded(seed):
                image = self._augmented(image)
        pixels = np.asarray(image)
        return pixels[..., None] if self.channels == 1 else pixels

    def _central(self, image: Image.Image) -> Image.Image:
        from torchvision.transforms import functional as F

        if (image.height, image.width) == self.size:  # what is in memory already has the size
            return image
        shorter = math.floor(min(self.size) / self.crop)
        resized = F.resize(image, shorter, _interpolation(self.interpolation))
        cropped: Image.Image = F.center_crop(resized, list(self.size))
        return cropped

    def _augmented(self, image: Image.Image) -> Image.Image:
        if self.crop_scale is None:
            image = self._central(image)
        else:
            image = _random_resized_crop(self.size, self.crop_scale, self.interpolation)(image)
        if self.rand_augment is None:
            return image
        # timm's operations take RGB; what has three equal channels keeps them, with a grey to fill with.
        augment = _rand_augment(self.rand_augment, min(self.size), self.interpolation, self.channels)
        changed: Image.Image = augment(image.convert("RGB"))
        return changed.convert(image.mode)


def _interpolation(name: str) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)


@lru_cache
def _random_resized_crop(size: tuple[int, int], scale: tuple[float, float], interpolation: str) -> Any:
    from timm.data.transforms import RandomResizedCropAndInterpolation

    return RandomResizedCropAndInterpolation(size, scale=scale, interpolation=interpolation)


@lru_cache
def _rand_augment(name: str, side: int, interpolation: str, channels: int) -> Any:
    """timm's RandAugment with the settings of its ImageNet training: fill with the mean, shift by 45% at most."""
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.transforms import str_to_pil_interp

    return rand_augment_transform(
        name,
        {
            "translate_const": int(side * 0.45),
            "img_mean": (128, 128, 128) if channels == 1 else (124, 116, 104),
            "interpolation": str_to_pil_interp(interpolation),
        },
    )
