"""A folder of images with mask files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from maxsup.lab.data.splits import DataSet, Split, hold_out, resize, resize_masks, with_channels
from maxsup.lab.records import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def load_masked_folder(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Your images with masks: DIR/images/CLASS/NAME.png (or .jpg, …), DIR/masks/CLASS/NAME.png; 60/20/20 stratified.

    A mask has its image's size; where it is not zero, there is the item of the image's class. The classes are the
    folders' names in order. The images are grey if all files are, and RGB otherwise. Without `image_size` all must
    have one size.

    Raises:
        DataError: if a folder or mask is missing, a file is unreadable, or a size does not fit; it names the file.
    """
    if data_dir is None:
        raise DataError(
            "masked-folder: --data-dir must name a folder with images/CLASS/NAME.png and masks/CLASS/NAME.png"
        )
    folder = data_dir / "images"
    if not folder.is_dir():
        raise DataError(f"{folder}: missing; a masked folder has images/CLASS/NAME.png and masks/CLASS/NAME.png")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise DataError(f"{folder}: {len(classes)} folders of classes, where a data set needs 2")
    images: list[Tensor] = []
    masks: list[Tensor] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in IMAGES)
        # Each split needs one.
        if len(files) < 5:
            raise DataError(f"{folder / name}: {len(files)} images, where a class needs 5 to be in every split")
        for file in files:
            image, mask = _pair(file, data_dir / "masks" / name / f"{file.stem}.png", image_size)
            if images and image.shape[1:] != images[0].shape[1:]:
                raise DataError(f"{file}: {_size(image)} pixels where others have {_size(images[0])}; set image_size")
            images.append(image)
            # int16 holds more classes than a file system would like to list.
            masks.append(mask.short() * (label + 1))
            labels.append(label)
    channels = max(len(image) for image in images)
    stacked = torch.cat([with_channels(image.unsqueeze(0), channels) for image in images])
    everything = Split(stacked, torch.tensor(labels), torch.stack(masks))
    fifth = round(len(everything) / 5)
    rest, test = hold_out(everything, fifth)
    train, validation = hold_out(rest, fifth)
    return DataSet("masked-folder", tuple(classes), train, validation, test)


def _pair(image_file: Path, mask_file: Path, image_size: int | None) -> tuple[Tensor, Tensor]:
    """One image (C, H, W), uint8, and its mask (H, W), bool, of `image_size` if it is given."""
    if not mask_file.is_file():
        raise DataError(f"{mask_file}: missing; {image_file} has no mask")
    grey, pixels = read_image(image_file)
    inside = _mask(mask_file)
    image = torch.from_numpy(pixels[None] if grey else pixels.transpose(2, 0, 1).copy())
    mask = torch.from_numpy(inside if inside.ndim == 2 else inside.any(axis=2))
    if mask.shape != image.shape[1:]:
        raise DataError(f"{mask_file}: {_size(mask)} pixels where {image_file} has {_size(image)}")
    if not bool(mask.any()):
        raise DataError(f"{mask_file}: marks no pixel")
    if image_size is None:
        return image, mask
    return resize(image.unsqueeze(0), image_size)[0], resize_masks(mask.unsqueeze(0), image_size)[0]


def read_image(file: Path) -> tuple[bool, NDArray[np.uint8]]:
    """Whether an image is grey, and its pixels, (H, W) or (H, W, 3).

    Raises:
        DataError: if it is unreadable; it names the file.
    """
    with _reading(file), Image.open(file) as opened:
        grey = opened.mode in ("1", "L")
        return grey, np.array(opened.convert("L" if grey else "RGB"))


def _mask(file: Path) -> NDArray[np.bool_]:
    """Where a mask is not zero, (H, W) or (H, W, 3)."""
    with _reading(file), Image.open(file) as opened:
        if opened.mode not in ("1", "L", "P", "RGB", "I", "I;16"):
            raise DataError(f"{file}: a mask has one channel or three, this has mode {opened.mode}")
        inside: NDArray[np.bool_] = np.array(opened) != 0
        return inside


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise DataError(f"{file}: unreadable image ({error})") from error


def _size(of: Tensor) -> str:
    height, width = of.shape[-2:]
    return f"{width}×{height}"
