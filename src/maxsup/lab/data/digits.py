"""Scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from maxsup.lab.data.splits import DataSet, Split, hold_out


def load_digits(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Scikit-learn's handwritten digits: 1,797 images, 8×8, 10 classes; 60/20/20 stratified, embedded."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    # 17 grey levels, 0..16, stretched to the 0..255 that every image here has.
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = Split(images, torch.from_numpy(digits.target).long())
    rest, test = hold_out(everything, 360)
    train, validation = hold_out(rest, 360)
    return DataSet("digits", tuple(str(c) for c in range(10)), train, validation, test).resized(image_size)
