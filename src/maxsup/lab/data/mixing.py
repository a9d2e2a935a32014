"""Augmentation that needs floats: random erasing, mixup and cutmix, on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.data.randomness import preserved, seed_of, start_at
from maxsup.lab.recipes import Data

# Of timm's RandomErasing: share of the area, least height to width (and the inverse the greatest), tries.
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = 0.3
_TRIES = 10
# Purposes of seeds; 0 is the workers'.
_BOXES, _NOISE, _MIX = 1, 2, 3


class FloatAugmentation:
    """What happens to an epoch's images once they are floats of mean 0 and deviation 1.

    Random erasing (Zhong et al. 2020, arXiv:1708.04896) fills a box with noise of mean 0 and deviation 1, pixel by
    pixel. Mixup (Zhang et al. 2018, arXiv:1710.09412) and cutmix (Yun et al. 2019, arXiv:1905.04899) are timm's, in its
    batch mode: one share for a global batch, images mixed in pairs, and with both one of the two at even chances. The
    labels become class probabilities; they are not smoothed, which is the loss's affair.

    Args:
        data: the recipe's augmentation.
        n: positions of the epoch.
        shape: (C, H, W) of the images.
        seed: of the epoch.
        num_classes: columns of the probabilities.
        normalization: mean and standard deviation per channel, (C, 1, 1).

    Raises:
        ValueError: if `normalization`, or for mixup and cutmix `num_classes`, is None.
    """

    def __init__(
        self,
        data: Data,
        n: int,
        shape: torch.Size,
        seed: int,
        num_classes: int | None,
        normalization: tuple[Tensor, Tensor] | None,
    ) -> None:
        if normalization is None:
            raise ValueError("normalization must be given with data.random_erasing, data.mixup or data.cutmix")
        self.mean, self.std = normalization
        self.seed = seed
        self.boxes = erased_boxes(data.random_erasing, n, shape[-2:], seed) if data.random_erasing else None
        self.mix = None
        if data.mixes:
            if num_classes is None:
                raise ValueError("num_classes must be given with data.mixup or data.cutmix")
            from timm.data import Mixup

            self.mix = Mixup(data.mixup, data.cutmix, label_smoothing=0.0, num_classes=num_classes)

    def __call__(
        self, images: Tensor, labels: Tensor, positions: NDArray[np.int64], batch: range, number: int
    ) -> tuple[Tensor, Tensor]:
        """uint8 images at `positions`, all within the global `batch`, the epoch's `number`-th, to floats and labels."""
        device = images.device
        mean, std = self.mean.to(device, torch.float32), self.std.to(device, torch.float32)
        images = (images.float() / 255 - mean) / std
        if self.boxes is not None:
            self._erase(images, positions, batch, number)
        if self.mix is not None:
            with preserved():
                start_at(seed_of(self.seed, _MIX, number))
                images, labels = self.mix(images, labels)
        return images, labels

    def _erase(self, images: Tensor, positions: NDArray[np.int64], batch: range, number: int) -> None:
        assert self.boxes is not None
        erased = np.flatnonzero(self.boxes[batch.start : batch.stop, 2] > 0) + batch.start
        # Noise for the whole batch, of which each process takes its images' own.
        generator = torch.Generator(images.device).manual_seed(seed_of(self.seed, _NOISE, number))
        noise = torch.randn((len(erased), *images.shape[1:]), generator=generator, device=images.device)
        place = {int(position): i for i, position in enumerate(erased)}
        own = [i for i, position in enumerate(positions.tolist()) if position in place]
        if not own:
            return
        taken = torch.tensor([place[int(positions[i])] for i in own]).to(images.device, non_blocking=True)
        indices = torch.tensor(own).to(images.device, non_blocking=True)
        boxes = torch.from_numpy(self.boxes[positions[own]]).to(images.device, non_blocking=True)
        top, left, height, width = (part.view(-1, 1, 1, 1) for part in boxes.unbind(1))
        rows = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
        columns = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
        inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
        images[indices] = torch.where(inside, noise[taken], images[indices])


def erased_boxes(probability: float, n: int, shape: torch.Size, seed: int) -> NDArray[np.int64]:
    """Top, left, height and width of the box that is erased at each of n positions, (n, 4); height 0 where none is.

    The law is timm's: a share of the area, evenly in 2%..33%, and a logarithm of height to width, evenly in
    log 0.3..-log 0.3; the first of ten tries that is smaller than the image.
    """
    height, width = shape
    random = np.random.default_rng([seed, _BOXES])
    chosen = np.flatnonzero(random.random(n) < probability)
    area = random.uniform(*ERASED_AREA, (len(chosen), _TRIES)) * (height * width)
    aspect = np.exp(random.uniform(np.log(ERASED_ASPECT), -np.log(ERASED_ASPECT), (len(chosen), _TRIES)))
    tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < height) & (wide < width)
    each, first = np.arange(len(chosen)), fits.argmax(axis=1)
    size = np.stack([tall[each, first], wide[each, first]], axis=1) * fits.any(axis=1, keepdims=True)
    room = np.array([height, width]) - size + 1
    boxes = np.zeros((n, 4), dtype=np.int64)
    boxes[chosen] = np.concatenate([np.floor(random.random((len(chosen), 2)) * room), size], axis=1)
    return boxes
