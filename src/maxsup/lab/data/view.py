"""From an image file to an array of one size: what a process that decodes does to each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Least and greatest width to height of a random resized crop.
CROP_ASPECT = (3 / 4, 4 / 3)


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

    def __call__(self, image: Image.Image) -> Tensor:
        """The image as (H, W, C), uint8; chance comes from `random` and NumPy's global generator, as timm's does."""
        mode = "L" if self.channels == 1 else "RGB"
        pixels = np.array(image if image.mode == mode else image.convert(mode))
        # A tensor whose channels are last is resized three times as fast as Pillow does it, to the same within a level.
        resized = self._resized(torch.from_numpy(pixels).view(*pixels.shape[:2], self.channels).permute(2, 0, 1))
        made = resized.permute(1, 2, 0)
        return made if self.rand_augment is None else self._changed(made)

    def _resized(self, image: Tensor) -> Tensor:
        """(C, H, W) to (C, *size)."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        height, width = image.shape[1:]
        interpolation = InterpolationMode(self.interpolation)
        if self.crop_scale is not None:
            from timm.data.transforms import RandomResizedCropAndInterpolation

            box = RandomResizedCropAndInterpolation.get_params(image, self.crop_scale, CROP_ASPECT)
            return cast(Tensor, F.resized_crop(image, *box, list(self.size), interpolation, antialias=True))
        if (height, width) == self.size:  # what is in memory already has the size
            return image
        shorter = math.floor(min(self.size) / self.crop)
        resized = F.resize(image, [shorter], interpolation, antialias=True)
        return cast(Tensor, F.center_crop(resized, list(self.size)))

    def _changed(self, made: Tensor) -> Tensor:
        """RandAugment of (H, W, C); timm's operations take RGB, and what has three equal channels keeps them."""
        augment = _rand_augment(str(self.rand_augment), min(self.size), self.interpolation, self.channels)
        image = augment(Image.fromarray(made.expand(-1, -1, 3).contiguous().numpy()))
        return torch.from_numpy(np.array(image))[:, :, : self.channels]


@lru_cache
def _rand_augment(name: str, side: int, interpolation: str, channels: int) -> Any:
    """timm's RandAugment with the settings of its ImageNet training: fill with the mean, shift by 45% at most."""
    from timm.data import auto_augment
    from timm.data.transforms import str_to_pil_interp

    made = auto_augment.rand_augment_transform(
        name,
        {
            "translate_const": int(side * 0.45),
            "img_mean": (128, 128, 128) if channels == 1 else (124, 116, 104),
            "interpolation": str_to_pil_interp(interpolation),
        },
    )
    for operation in made.ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize
    return made


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's operation, with the black image that no bits have: Pillow 13 refuses 0, to which magnitude 10 comes."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)
