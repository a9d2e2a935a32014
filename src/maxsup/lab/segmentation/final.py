"""What is measured and kept of a fine-tuned network: confusion matrices over a split, and a gallery of its test images.

The images of a split are shared by the processes; the matrix is the sum over all of them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from maxsup.lab.processes import Processes
from maxsup.lab.records import Json
from maxsup.lab.segmentation.augment import framed
from maxsup.lab.segmentation.data import Pixels, SegmentationData
from maxsup.lab.segmentation.evaluate import confusion, measures, predictions, resize
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.recipes import MultiScale, SegmentationRecipe

PICTURES = 8
# Longer side of a picture in the records, in pixels.
PICTURE_SIDE = 256


def confusion_over(
    model: Segmenter,
    split: Pixels,
    recipe: SegmentationRecipe,
    num_classes: int,
    processes: Processes,
    several: MultiScale | None = None,
) -> Tensor:
    """The confusion matrix (K, K), int64, of all pixels of `split`, at one scale or at `several`."""
    mine = range(processes.rank, len(split), processes.world)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=processes.device)
    with _evaluating(model):
        for predicted, labels in _predictions(model, split, mine, recipe, processes.device, several):
            matrix += confusion(predicted, labels, num_classes)
    return processes.sum(matrix)


def test(model: Segmenter, data: SegmentationData, recipe: SegmentationRecipe, processes: Processes) -> Json:
    """The test split's measures and confusion matrices: ``single`` scale, and ``multi`` where the recipe has scales."""
    ways: dict[str, MultiScale | None] = {"single": None}
    if recipe.multi_scale.scales:
        ways["multi"] = recipe.multi_scale
    found: Json = {"measures": {}, "confusion": {}}
    for name, several in ways.items():
        matrix = confusion_over(model, data.test, recipe, data.num_classes, processes, several).cpu()
        found["measures"][name] = measures(matrix)
        found["confusion"][name] = matrix.tolist()
    return found


def gallery(model: Segmenter, data: SegmentationData, recipe: SegmentationRecipe, device: torch.device) -> Json:
    """Test images evenly spaced over the split, their labels, and the predictions at one scale, as PNG in base64.

    Large pictures are shrunk. A picture of labels is grey; its values are the labels.
    """
    indices = np.linspace(0, len(data.test) - 1, min(PICTURES, len(data.test))).round().astype(int).tolist()
    pictures = []
    for index in indices:
        image, labels = data.test.pair(index)
        with _evaluating(model):
            ((predicted, _),) = _predictions(model, data.test, [index], recipe, device)
        of = {
            "image": _shrunk(image, labels=False),
            "labels": _shrunk(labels.unsqueeze(0), labels=True),
            "prediction": _shrunk(predicted.byte().cpu(), labels=True),
        }
        pictures.append({"index": index, **{name: _png(value) for name, value in of.items()}})
    return {"class_names": list(data.class_names), "pictures": pictures}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; leaves the mode as it was."""
    cudnn = torch.backends.cudnn
    was_training, benchmark = model.training, cudnn.benchmark
    model.eval()
    # Files have sizes of their own, and cuDNN would try all its kernels anew for each.
    cudnn.benchmark = False
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
        cudnn.benchmark = benchmark


def _predictions(
    model: Segmenter,
    split: Pixels,
    indices: Sequence[int],
    recipe: SegmentationRecipe,
    device: torch.device,
    several: MultiScale | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `evaluate.predictions`, in full precision, with what the recipe says of test images."""
    frame = recipe.augmentation.resize
    return predictions(
        model.logits,
        split,
        indices,
        device,
        (1.0,) if several is None else several.scales,
        flip=several is not None and several.flip,
        multiple=model.pyramid.multiple,
        frame=None if frame is None else lambda size: framed(size, frame),
    )


def _shrunk(picture: Tensor, *, labels: bool) -> Tensor:
    """A picture (C, H, W), uint8, with a longer side of `PICTURE_SIDE` at most."""
    height, width = picture.shape[1:]
    if max(height, width) <= PICTURE_SIDE:
        return picture
    size = framed((height, width), (PICTURE_SIDE, PICTURE_SIDE))
    if not labels:
        return resize(picture.unsqueeze(0), size)[0]
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new).long() for new, old in zip(size, (height, width), strict=True)
    )
    return picture[:, rows[:, None], columns]


def _png(picture: Tensor) -> str:
    from PIL import Image

    pixels = (picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
