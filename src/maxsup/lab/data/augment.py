"""Augmentation of batches on the device that trains: what is drawn for an epoch, and what it does to images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from maxsup.lab.recipes import Data


@dataclass(frozen=True)
class Draws:
    """What chance decided for each of n images; None where the recipe has no such augmentation.

    An epoch's are drawn at once, by position: an image's fate depends neither on the batch's size nor on the process
    that trains on it.
    """

    shifts: Tensor | None = None
    """Rows and columns, (n, 2), by which the crop lies inside the padded image."""
    mirrored: Tensor | None = None
    """Whether an image is mirrored, (n,)."""
    degrees: Tensor | None = None
    """How far an image is turned, counter-clockwise, (n,)."""

    def __getitem__(self, positions: slice | Tensor) -> Draws:
        parts = (self.shifts, self.mirrored, self.degrees)
        return Draws(*(None if part is None else part[positions] for part in parts))


def draw(data: Data, n: int, generator: torch.Generator) -> Draws:
    """The draws for `n` images, on the generator's device."""
    device = generator.device
    shifts = mirrored = degrees = None
    if data.pad_crop:
        shifts = torch.randint(2 * data.pad_crop + 1, (n, 2), generator=generator, device=device)
    if data.flip:
        mirrored = torch.rand(n, generator=generator, device=device) < 0.5
    if data.rotation:
        degrees = (2 * torch.rand(n, generator=generator, device=device) - 1) * data.rotation
    return Draws(shifts, mirrored, degrees)


def augment(images: Tensor, data: Data, draws: Draws) -> Tensor:
    """Random crop, flip and rotation of a batch (N, C, H, W), uint8, each image on its own, on the images' device."""
    height, width = images.shape[2:]
    if draws.shifts is not None:
        pad = data.pad_crop
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        # A view of every crop, (N, C, 2·pad + 1, 2·pad + 1, H, W), out of which one an image is copied.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        rows, columns = draws.shifts.unbind(1)
        images = crops[torch.arange(len(images), device=images.device), :, rows, columns]
    if draws.mirrored is not None:
        images = torch.where(draws.mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    return images if draws.degrees is None else rotate(images, draws.degrees)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turns uint8 images (N, C, H, W) about their centres, counter-clockwise, by `degrees` (N,).

    Each pixel takes the nearest old one's value, and 0 from outside, as torchvision's RandomRotation does by default.
    """
    height, width = images.shape[2:]
    cosine, sine = (f(degrees * (math.pi / 180)) for f in (torch.cos, torch.sin))
    zero = torch.zeros_like(cosine)
    # The grid runs from -1 to 1 along both axes, so that a turn of an oblong image is not one of its grid.
    theta = torch.stack([cosine, -sine * height / width, zero, sine * width / height, cosine, zero], dim=1)
    grid = torch.nn.functional.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
    turned = torch.nn.functional.grid_sample(
        images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return turned.to(images.dtype)
