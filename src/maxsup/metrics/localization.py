"""Whether a class activation map lies on the object: maps (N, H, W) against masks (N, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Localization(NamedTuple):
    """Agreement of maps with masks, means over the images, float64, each from 0 to 1."""

    precision: Tensor
    """|B ∩ M| / |B| at each threshold, (T,)."""
    recall: Tensor
    """|B ∩ M| / |M| at each threshold, (T,)."""
    iou: Tensor
    """|B ∩ M| / |B ∪ M| at each threshold, (T,)."""
    energy_inside: Tensor
    """Σ_M cam / Σ cam, 0-dimensional."""
    pointing_game: Tensor
    """Share of images whose map is largest inside the mask, 0-dimensional."""


def localization(cam: Tensor, mask: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Localization:
    r"""Precision, recall and IoU of thresholded class activation maps, their energy inside the mask, pointing game.

    The thresholded map of an image is B = {cam ≥ τ·max cam}, its mask M. The pointing game asks whether the largest
    value (the first in row-major order among equals) lies in M, without a margin around it.

    A map that is zero everywhere points nowhere and counts as a miss: B is empty, and all its measures are 0.

    Args:
        cam: (N, H, W), floating point, finite, at least 0; in the size of the mask.
        mask: (N, H, W), bool, with at least one pixel in each image.
        thresholds: the τ, each above 0 and at most 1.

    Raises:
        ValueError: if shapes or types do not fit, there is no image, a map has a value that is negative or not finite,
            a mask is empty, or there is no threshold or one outside of (0, 1].

    Example:
        >>> cam = torch.tensor([[[4.0, 2.0], [2.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, True]]])
        >>> result = localization(cam, mask, thresholds=(0.5, 1.0))
        >>> [[round(x, 4) for x in values.tolist()] for values in result[:3]]
        [[0.6667, 1.0], [0.6667, 0.3333], [0.5, 0.3333]]
        >>> float(result.energy_inside), float(result.pointing_game)
        (0.75, 1.0)

    Reference: energy: Wang et al., "Score-CAM", CVPR Workshops 2020; pointing game: Zhang et al., "Top-down Neural
    Attention by Excitation Backprop", ECCV 2016.
    """
    _check(cam, mask, thresholds)
    flat, inside = cam.flatten(1), mask.flatten(1)
    peak, where = flat.max(1, keepdim=True)
    alive = peak > 0
    area = inside.sum(1)
    rows = []
    for threshold in thresholds:
        # In the map's own type, in which 0.7·1 is the 0.7 that a map can hold.
        above = (flat >= threshold * peak) & alive
        both, size = (above & inside).sum(1).double(), above.sum(1)
        rows.append(torch.stack((both / size.clamp_min(1), both / area, both / (size + area - both))).mean(1))
    precision, recall, iou = torch.stack(rows, 1)
    # In units of the peak, which no sum of a half-precision map can overflow.
    energy = torch.where(alive, flat.double() / peak, 0.0)
    share = (energy * inside).sum(1) / energy.sum(1).clamp_min(1)
    hit = inside.gather(1, where) & alive
    return Localization(precision, recall, iou, share.mean(), hit.double().mean())


def _check(cam: Tensor, mask: Tensor, thresholds: Sequence[float]) -> None:
    if cam.ndim != 3 or cam.numel() == 0 or not cam.is_floating_point():
        raise ValueError(
            f"cam must be floating point of shape (N, H, W) without an empty dimension, got {cam.dtype}, "
            f"{tuple(cam.shape)}"
        )
    if mask.shape != cam.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {tuple(cam.shape)}, got {mask.dtype}, {tuple(mask.shape)}")
    if not bool(cam.isfinite().all()) or bool((cam < 0).any()):
        raise ValueError(f"cam must be finite and at least 0, got values from {float(cam.min())} to {float(cam.max())}")
    empty = (~mask.flatten(1).any(1)).nonzero()
    if len(empty):
        raise ValueError(f"mask must have at least one pixel in each image, got none in image {int(empty[0])}")
    wrong = [threshold for threshold in thresholds if not 0 < threshold <= 1]
    if wrong or len(thresholds) == 0:
        raise ValueError(f"thresholds must be above 0 and at most 1, at least one, got {wrong[0] if wrong else 'none'}")
