"""Corrupted images after Hendrycks and Dietterich (ICLR 2019, arXiv:1903.12261): twelve kinds, five severities.

Batches of tensors of any size, on any device. What chance decides depends on the image's index, the corruption and the
severity alone: batches, devices, models and seeds make no difference. Lengths are shares of the image's shorter side,
and the kinds are fewer and simpler than those of ImageNet-C, whose images they do not repeat.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from maxsup.lab.names import lookup

SEVERITIES = 5
_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class Random:
    """Random numbers for each image of a batch, by its index and a number for the corruption and severity.

    They are hashes of the counters and not of a generator's state, so that every device has the same ones.
    """

    indices: Tensor
    key: int

    def uniform(self, *shape: int, part: int = 0) -> Tensor:
        """Numbers above 0 and below 1, (n, *shape), on the indices' device; another `part` gives others."""
        images = _mixed(self.indices + _mixed(self.key * 16 + part))
        places = _mixed(torch.arange(math.prod(shape), device=self.indices.device))
        hashes: Tensor = _mixed(images[:, None] ^ places)
        numbers: Tensor = ((hashes >> 8).float() + 0.5) / 2**24
        return numbers.view(-1, *shape)

    def normal(self, *shape: int, part: int = 0) -> Tensor:
        """Numbers of mean 0 and standard deviation 1, (n, *shape)."""
        numbers: Tensor = torch.special.ndtri(self.uniform(*shape, part=part))
        return numbers


Numbers = TypeVar("Numbers", int, Tensor)


def _mixed(x: Numbers) -> Numbers:
    """A hash of 32 bits (the finalizer of MurmurHash3); products may overflow 64 bits, the lower half stays right."""
    x = x & _BITS
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _BITS
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _BITS
    return x ^ (x >> 16)


# Images are floats in 0..1, (n, C, H, W); what leaves 0..1 is cut off afterwards.
Change = Callable[[Tensor, float, Random], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption: its family, and its strength at each severity."""

    family: str
    change: Change
    strengths: tuple[float, ...]


def corrupt(images: Tensor, name: str, severity: int, indices: Tensor) -> Tensor:
    """Images (n, C, H, W), uint8, with C = 1 or 3, as `name` of `CORRUPTIONS` leaves them, on their device.

    Args:
        images: the images.
        name: the kind of corruption.
        severity: from 1 to 5.
        indices: (n,), int64; which image of its split each is.

    Raises:
        UnknownNameError: for a kind that there is not.
        ValueError: for another severity, or other images.
    """
    kind = lookup("corruption", name, CORRUPTIONS)
    if severity not in range(1, SEVERITIES + 1):
        raise ValueError(f"severity must be from 1 to {SEVERITIES}, got {severity}")
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 of shape (n, 1 or 3, H, W), got {images.dtype} of shape {tuple(images.shape)}"
        )
    random = Random(indices.to(images.device), list(CORRUPTIONS).index(name) * SEVERITIES + severity)
    changed = kind.change(images.float() / 255, kind.strengths[severity - 1], random)
    return (changed.clamp(0, 1) * 255).round().byte()


def _gaussian_noise(x: Tensor, deviation: float, random: Random) -> Tensor:
    """Noise of a standard deviation, on each value alone."""
    return x + deviation * random.normal(*x.shape[1:])


def _shot_noise(x: Tensor, photons: float, random: Random) -> Tensor:
    """Poisson noise, where white is so many photons: the smallest count whose distribution function reaches u."""
    rate, u = x * photons, random.uniform(*x.shape[1:])
    probability = torch.exp(-rate)
    reached, count = probability.clone(), torch.zeros_like(x)
    for k in range(1, math.ceil(photons + 6 * math.sqrt(photons) + 6)):  # the tail beyond is below 1e-8
        count += u > reached
        probability *= rate / k
        reached += probability
    return count / photons


def _impulse_noise(x: Tensor, share: float, random: Random) -> Tensor:
    """A share of the values becomes black or white, half of it each."""
    u = random.uniform(*x.shape[1:])
    return torch.where(u < share, (u < share / 2).float(), x)


def _defocus_blur(x: Tensor, radius: float, random: Random) -> Tensor:
    """The mean over a disc of this radius, in shares of the side."""
    kernel = disc(radius * min(x.shape[2:])).to(x.device)
    pad = len(kernel) // 2
    padded = functional.pad(x, (pad, pad, pad, pad), mode="reflect").flatten(0, 1)
    return functional.conv2d(padded[:, None], kernel[None, None]).view(x.shape)


def disc(radius: float) -> Tensor:
    """The kernel, of odd side and sum 1, that averages over a disc of `radius` pixels, between pixels linearly."""
    half = math.ceil(radius)
    steps = torch.linspace(-1, 1, 65)
    rows, columns = (radius * part for part in torch.cartesian_prod(steps, steps).T)
    inside = rows**2 + columns**2 <= radius**2
    pixels = torch.arange(-half, half + 1).float()[:, None]
    tall, wide = ((1 - (pixels - part[inside]).abs()).clamp(min=0) for part in (rows, columns))
    kernel: Tensor = tall @ wide.T / inside.sum()
    return kernel


def _streaked(x: Tensor, length: float, angles: Tensor) -> Tensor:
    """The mean over a line of `length` pixels at each image's angle (n,), in radians, around every pixel."""
    direction = torch.stack([angles.cos() / x.shape[3], angles.sin() / x.shape[2]], dim=1) * 2
    total, steps = torch.zeros_like(x), math.ceil(length) + 1
    for place in torch.linspace(-length / 2, length / 2, steps).tolist():
        total += _moved(x, 1.0, place * direction)
    return total / steps


def _moved(x: Tensor, scale: float, shift: Tensor) -> Tensor:
    """Each image read at `scale` times the position plus its `shift` (n, 2), in halves of the width and height."""
    matrix = torch.cat([scale * torch.eye(2, device=x.device).expand(len(x), 2, 2), shift[:, :, None]], dim=2)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _motion_blur(x: Tensor, length: float, random: Random) -> Tensor:
    """The mean over a line of this length, in shares of the side, at an angle of the image's own."""
    return _streaked(x, length * min(x.shape[2:]), math.pi * random.uniform(1).squeeze(1))


def _zoom_blur(x: Tensor, zoom: float, random: Random) -> Tensor:
    """The mean over magnifications from 1 to 1 + zoom."""
    steps = math.ceil(zoom * max(x.shape[2:]) / 2) + 2
    still = torch.zeros(len(x), 2, device=x.device)
    return torch.stack([_moved(x, 1 / m, still) for m in torch.linspace(1, 1 + zoom, steps).tolist()]).mean(0)


def _brightness(x: Tensor, more: float, random: Random) -> Tensor:
    """The value of HSV, the largest of the channels, is raised; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-6)), raised)


def _fog(x: Tensor, density: float, random: Random) -> Tensor:
    """x·τ + (1 - τ): white light before what is seen, τ = 1 - density·(½ + ½·clouds), clouds from 0 to 1."""
    clouds = torch.zeros(len(x), 1, *x.shape[2:], device=x.device)
    for octave in range(5):
        cells = 2**octave + 1
        coarse = random.uniform(1, cells, cells, part=octave)
        finer = functional.interpolate(coarse, tuple(x.shape[2:]), mode="bilinear", align_corners=True)
        clouds += finer / 2**octave
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    veil = density * (0.5 + 0.5 * (clouds - low) / (high - low))
    return x * (1 - veil) + veil


def _snow(x: Tensor, cover: float, random: Random) -> Tensor:
    """White flakes, streaked as they fall, in this share of the cells of a grid; and a veil of twice that."""
    side = min(x.shape[2:])
    cells = min(side, 56)
    flakes = (random.uniform(1, cells, cells) < cover).float()
    flakes = functional.interpolate(flakes, tuple(x.shape[2:]), mode="bilinear", align_corners=False)
    falling = math.pi * (0.35 + 0.3 * random.uniform(1, part=1).squeeze(1))
    streaks = 2 * _streaked(flakes, 0.08 * side, falling)
    return x + (1 - x) * (streaks + 2 * cover).clamp(max=1)


def _contrast(x: Tensor, share: float, random: Random) -> Tensor:
    """This share of the distance from the channel's mean is left."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + share * (x - mean)


def _pixelate(x: Tensor, share: float, random: Random) -> Tensor:
    """Means over blocks, so that this share of the rows and columns is left."""
    size = [max(1, round(share * side)) for side in x.shape[2:]]
    return functional.interpolate(
        functional.interpolate(x, size, mode="area"), tuple(x.shape[2:]), mode="nearest-exact"
    )


def _jpeg(x: Tensor, quality: float, random: Random) -> Tensor:
    """JPEG of this quality by Pillow, on the CPU: the coders of GPUs give other values."""
    images = (x * 255).round().byte().permute(0, 2, 3, 1).squeeze(3).cpu().numpy()
    found = []
    for image in images:
        with io.BytesIO() as file:
            Image.fromarray(image).save(file, "JPEG", quality=int(quality))
            found.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(found)).to(x.device).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2) / 255


# The strengths of the noise, of brightness, contrast and JPEG are ImageNet-C's.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian-noise": Corruption("noise", _gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": Corruption("noise", _shot_noise, (60, 25, 12, 5, 3)),
    "impulse-noise": Corruption("noise", _impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus-blur": Corruption("blur", _defocus_blur, (0.02, 0.03, 0.04, 0.05, 0.06)),
    "motion-blur": Corruption("blur", _motion_blur, (0.06, 0.10, 0.14, 0.18, 0.22)),
    "zoom-blur": Corruption("blur", _zoom_blur, (0.10, 0.15, 0.20, 0.25, 0.30)),
    "brightness": Corruption("weather", _brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "fog": Corruption("weather", _fog, (0.3, 0.45, 0.6, 0.7, 0.8)),
    "snow": Corruption("weather", _snow, (0.03, 0.06, 0.09, 0.12, 0.16)),
    "contrast": Corruption("digital", _contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": Corruption("digital", _pixelate, (0.5, 0.4, 0.3, 0.25, 0.2)),
    "jpeg": Corruption("digital", _jpeg, (25, 18, 15, 10, 7)),
}
FAMILIES = ("noise", "blur", "weather", "digital")
