"""Scenes composed of Fashion-MNIST's items, with exact masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.data.fashion_mnist import load_fashion_mnist
from maxsup.lab.data.splits import SPLIT_SEED, DataSet, Split, resize, stratified

CANVAS = 64
PICTURE = 28
# Sides in pixels, both ends included, to which the pictures of items are scaled. The gap between the two ranges
# is what makes the labelled item the labelled one.
TARGET_SIDES = (30, 40)
OTHER_SIDES = (14, 20)
OTHERS = (2, 3)
FRAGMENTS = 6
FRAGMENT_SIDES = (5, 9)
# An item's pixels are the bright ones and, so that dark cloth counts, faint ones that most neighbours are too: specks
# of a few levels lie around many items.
BRIGHT, FAINT = 24, 3
# Grey levels: the background stays below the darkest pixel of an item.
BACKGROUND = (10, 70)
ITEM = (80, 255)
# Scenes of the three splits; each labelled item is another of the split's images.
SCENES = {"train": 20_000, "validation": 2_000, "test": 2_000}
# Places tried for an item; the one that covers least of the items before it is taken.
_PLACES = 32

Integers = NDArray[np.int64]


def load_fashion_scenes(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Composed scenes: Fashion-MNIST items on clutter, 64×64, masks; the label is the largest; 20,000 + 2,000 + 2,000.

    This is composed data: the pixels of the items are real, their arrangement is not. A scene shows one large item, its
    label, and two or three small ones of other classes, all different, at random places on a dim texture with
    fragments of further items. Texture and fragments are parts of Fashion-MNIST images too. The large item is
    uncovered. Training, validation and test scenes are made of the images of Fashion-MNIST's own three splits, and are
    the same at every call.
    """
    source = load_fashion_mnist(data_dir)
    train, validation, test = (
        compose(getattr(source, name), min(count, len(getattr(source, name))), (SPLIT_SEED, part))
        for part, (name, count) in enumerate(SCENES.items())
    )
    return DataSet("fashion-scenes", source.class_names, train, validation, test).resized(image_size)


def compose(source: Split, count: int, seed: int | tuple[int, ...]) -> Split:
    """`count` scenes of the items of `source` (grey, 28×28), with masks; `seed` decides all.

    Raises:
        ValueError: if `count` exceeds the images of `source`, each of which is the labelled item once at most.
    """
    if not 1 <= count <= len(source):
        raise ValueError(f"count must be from 1 to {len(source)}, the images there are, got {count}")
    random = np.random.default_rng(seed)
    targets = stratified(source.labels, count).numpy()
    others = _others(source.labels.numpy(), targets, random)
    images = _background(source.images, count, random)
    _add_fragments(images, source.images, random)
    masks = torch.zeros(count, CANVAS, CANVAS, dtype=torch.uint8)

    layers = [targets, *others.T]
    sides = [random.integers(low, high + 1, count) for low, high in [TARGET_SIDES] + [OTHER_SIDES] * others.shape[1]]
    corners = _corners(sides, random)
    # The labelled item comes last: nothing covers it.
    for items, side, corner in reversed(list(zip(layers, sides, corners, strict=True))):
        present = np.flatnonzero(items >= 0)
        _paste(images, masks, source, present, items[present], side[present], corner[present])
    return Split(images.unsqueeze(1), source.labels[torch.from_numpy(targets)], masks)


def silhouettes(pictures: Tensor) -> Tensor:
    """Which pixels belong to the item that each grey picture (N, 1, H, W) shows on black: 1 or 0, uint8."""
    faint = (pictures > FAINT).float()
    majority = torch.nn.functional.avg_pool2d(faint, 3, stride=1, padding=1) > 0.5
    return ((pictures > BRIGHT) | ((pictures > FAINT) & majority)).byte()


def _others(labels: Integers, targets: Integers, random: np.random.Generator) -> Integers:
    """Items beside each target, (N, at most OTHERS[1]), all of different classes; -1 for none."""
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    sizes = np.array([len(of) for of in members])
    starts, members_flat = np.cumsum(sizes) - sizes, np.concatenate(members)
    # Each row a random order of the classes with the target's moved out of reach.
    keys = random.random((len(targets), len(members)))
    own = np.searchsorted(np.unique(labels), labels[targets])
    keys[np.arange(len(targets)), own] = 2.0
    most = min(OTHERS[1], len(members) - 1)
    classes = keys.argsort(axis=1)[:, :most]
    within = (random.random(classes.shape) * sizes[classes]).astype(np.int64)
    items: Integers = members_flat[starts[classes] + within]
    number = random.integers(OTHERS[0], OTHERS[1] + 1, len(targets))
    items[np.arange(most) >= number[:, None]] = -1
    return items


def _background(images: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Dim textures (count, CANVAS, CANVAS): the middles of two pictures each, averaged and magnified."""
    low, high = BACKGROUND
    middle = images[:, 0, 7:-7, 7:-7]
    pairs = torch.from_numpy(random.integers(len(images), size=(2, count)))
    # Each pair's second is turned upside down, so that the average looks like neither.
    blend = (middle[pairs[0]].float() + middle[pairs[1]].flip(1).float()) / 2
    magnified = resize(blend.round().byte().unsqueeze(1), CANVAS).squeeze(1)
    return (low + magnified.float() * ((high - low) / 255)).round().byte()


def _add_fragments(canvases: Tensor, images: Tensor, random: np.random.Generator) -> None:
    """Pastes FRAGMENTS small squares of the middles of pictures onto each canvas, as bright as items are."""
    count, margin = len(canvases), 6
    for _ in range(FRAGMENTS):
        items = torch.from_numpy(random.integers(len(images), size=count))
        sides = random.integers(FRAGMENT_SIDES[0], FRAGMENT_SIDES[1] + 1, count)
        corners = (random.random((count, 2)) * (CANVAS - sides + 1)[:, None]).astype(np.int64)
        cuts = margin + (random.random((count, 2)) * (PICTURE - 2 * margin - sides + 1)[:, None]).astype(np.int64)
        for side in range(FRAGMENT_SIDES[0], FRAGMENT_SIDES[1] + 1):
            rows = np.flatnonzero(sides == side)
            where = _pixels(rows, corners[rows], side)
            pixels = images[items[torch.from_numpy(rows)], 0][_pixels(np.arange(len(rows)), cuts[rows], side)]
            canvases[where] = _bright(pixels)


def _corners(sides: list[Integers], random: np.random.Generator) -> list[Integers]:
    """Top left corners, (N, 2) an item, each of `_PLACES` random ones that overlaps least with the items before."""
    placed: list[tuple[Integers, Integers]] = []
    for side in sides:
        places = 1 if not placed else _PLACES
        tried = (random.random((len(side), places, 2)) * (CANVAS - side + 1)[:, None, None]).astype(np.int64)
        overlap = np.zeros(tried.shape[:2], np.int64)
        for corner, other in placed:
            ends = np.minimum(tried + side[:, None, None], (corner + other[:, None])[:, None])
            overlap += np.clip(ends - np.maximum(tried, corner[:, None]), 0, None).prod(axis=2)
        placed.append((tried[np.arange(len(side)), overlap.argmin(axis=1)], side))
    return [corner for corner, _ in placed]


def _paste(
    images: Tensor, masks: Tensor, source: Split, scenes: Integers, items: Integers, sides: Integers, corners: Integers
) -> None:
    """Scales item `items[i]` to `sides[i]` and paints its pixels over scene `scenes[i]`, in image and mask."""
    for side in np.unique(sides):
        rows = np.flatnonzero(sides == side)
        chosen = torch.from_numpy(items[rows])
        pictures = source.images[chosen]
        scaled, covered = resize(torch.cat([pictures, 255 * silhouettes(pictures)], dim=1), int(side)).unbind(1)
        inside = covered > 127
        where = _pixels(scenes[rows], corners[rows], int(side))
        images[where] = torch.where(inside, _bright(scaled), images[where])
        values = (source.labels[chosen] + 1).byte().view(-1, 1, 1).expand_as(scaled)
        masks[where] = torch.where(inside, values, masks[where])


def _bright(pixels: Tensor) -> Tensor:
    low, high = ITEM
    return (low + pixels.float() * ((high - low) / 255)).round().byte()


def _pixels(images: Integers, corners: Integers, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The index of the squares of `side` at `corners` (n, 2) of `images` (n,): three tensors that broadcast."""
    steps = np.arange(side)
    rows = (corners[:, 0, None] + steps)[:, :, None]
    columns = (corners[:, 1, None] + steps)[:, None, :]
    return torch.from_numpy(images.reshape(-1, 1, 1)), torch.from_numpy(rows), torch.from_numpy(columns)
