"""From a fine-tuned network to its confusion matrix over all pixels, and from that to the measures of a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from maxsup.lab import records
from maxsup.lab.records import Json
from maxsup.lab.segmentation.data import IGNORE, Arrays, Pixels

# Test images in memory are shown so many at a time, and fewer of more pixels together; this only bounds memory.
EVALUATION_BATCH, EVALUATION_PIXELS = 64, 2**22


class Frame(Protocol):
    """The size in which a test image is shown to the network, from its own (height, width)."""

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) to (height, width)."""


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Pixels by label (rows) and prediction (columns), (K, K), int64; those labelled `IGNORE` do not count."""
    counted = labels != IGNORE
    places = labels[counted].long() * num_classes + predicted[counted].long()
    # torchmetrics' matrix, where kernels are to be deterministic, takes K² numbers a pixel.
    return places.bincount(minlength=num_classes**2).reshape(num_classes, num_classes)


def measures(matrix: Tensor) -> Json:
    """The measures of a confusion matrix (K, K) of all test pixels: fractions, None where one is undefined.

    IoU of a class: pixels of it that are predicted as it, over those that are labelled or predicted as it. ``miou`` is
    its mean over the classes that are labelled or predicted somewhere; ``mean_accuracy`` is the mean, over the labelled
    classes, of the share of a class's pixels that are predicted as it; ``pixel_accuracy`` that share of all pixels.

    >>> measures(torch.tensor([[3, 1], [0, 0]]))
    {'miou': 0.375, 'mean_accuracy': 0.75, 'pixel_accuracy': 0.75, 'iou': [0.75, 0.0]}
    """
    hits = matrix.diagonal().double()
    labelled, predicted = matrix.sum(1).double(), matrix.sum(0).double()
    iou, accuracy = hits / (labelled + predicted - hits), hits / labelled
    return {
        "miou": records.finite(iou.nanmean()),
        "mean_accuracy": records.finite(accuracy.nanmean()),
        "pixel_accuracy": records.finite(hits.sum() / matrix.sum()),
        "iou": [records.finite(value) for value in iou],
    }


def probabilities(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    size: tuple[int, int],
    scales: Sequence[float] = (1.0,),
    *,
    flip: bool = False,
    multiple: int = 1,
) -> Tensor:
    """Class probabilities (N, K, *size), averaged over scaled images and, with `flip`, their mirrored ones.

    `images` (N, C, H, W), uint8, are scaled bilinearly, to sides that are multiples of `multiple`; `model` gives logits
    (N, K, h, w) of any size, which are scaled to `size` before the softmax.

    Raises:
        ValueError: if `scales` is empty.
    """
    total: Tensor | None = None
    for scale in scales:
        shape = [multiple * max(1, round(side * scale / multiple)) for side in images.shape[2:]]
        scaled = resize(images, (shape[0], shape[1]))
        for mirrored in (False, True) if flip else (False,):
            logits = model(scaled.flip(3) if mirrored else scaled).float()
            logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
            found = (logits.flip(3) if mirrored else logits).softmax(1)
            total = found if total is None else total.add_(found)
    if total is None:
        raise ValueError("scales must name at least one")
    return total.div_(len(scales) * (2 if flip else 1))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images (N, C, H, W) to (N, C, *size), bilinearly, averaged where that shrinks them."""
    if tuple(images.shape[2:]) == size:
        return images
    # On an accelerator bytes cannot be interpolated.
    scaled = nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).byte()


def predictions(
    model: Callable[[Tensor], Tensor],
    split: Pixels,
    indices: Sequence[int],
    device: torch.device,
    scales: Sequence[float] = (1.0,),
    *,
    flip: bool = False,
    multiple: int = 1,
    frame: Frame | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted classes and labels (n, H, W) of the images at `indices`, a batch of one size after the other."""
    step = 1  # files have sizes of their own
    if isinstance(split, Arrays):
        step = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // split.labels[0].numel()))
    for part in (indices[i : i + step] for i in range(0, len(indices), step)):
        images, labels = (torch.stack(of).to(device) for of in zip(*map(split.pair, part), strict=True))
        size = (labels.shape[1], labels.shape[2])
        shown = images if frame is None else resize(images, frame(size))
        yield probabilities(model, shown, size, scales, flip=flip, multiple=multiple).argmax(1), labels
