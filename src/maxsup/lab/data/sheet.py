"""A contact sheet: images of a data set, a row a class, to look at before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maxsup.lab.data.splits import DataSet, Split, with_channels

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP = 2
_LABELS = 96
_TEXT = 14


def contact_sheet(data_set: DataSet, split: str = "train", per_class: int = 24) -> Image:
    """`per_class` images of each class, spread evenly over the split's, in a row behind the class's name.

    Raises:
        ValueError: if `split` is none of train, validation and test, or `per_class` is below 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    if split not in ("train", "validation", "test"):
        raise ValueError(f"split must be train, validation or test, got {split!r}")
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    chosen: Split = getattr(data_set, split)
    height, width = (side + _GAP for side in chosen.images.shape[2:])
    row = max(height, _TEXT + _GAP)
    sheet = Image.new("RGB", (_LABELS + per_class * width, row * data_set.num_classes), "dimgray")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(_font()), _TEXT)
    for label, name in enumerate(data_set.class_names):
        pen.text((_GAP, row * label), name, fill="white", font=font)
        members = (chosen.labels == label).nonzero().squeeze(1)
        places = np.unique(np.linspace(0, len(members) - 1, min(per_class, len(members))).round().astype(np.int64))
        images = with_channels(chosen.images[members[places]], 3).permute(0, 2, 3, 1).numpy()
        for column, image in enumerate(images):
            sheet.paste(Image.fromarray(np.ascontiguousarray(image)), (_LABELS + column * width, row * label))
    return sheet


def _font() -> Path:
    """DejaVu Sans, which has the letters of most alphabets and comes with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
