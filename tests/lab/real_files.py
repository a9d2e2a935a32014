"""The handwritten digits of scikit-learn written out in the file formats of larger data sets."""

import io
import json
import tarfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DIGITS = load_digits()


def colored(index, size=40):
    """The digit as an RGB image, its channels told apart by their brightness."""
    grey = Image.fromarray(np.rint(DIGITS.images[index] * (255 / 16)).astype(np.uint8))
    pixels = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
    return Image.fromarray(np.stack([pixels, pixels // 2, 255 - pixels], axis=-1))


def of_class(c, start, n):
    """`n` indices of the digits of class `c`, from the `start`-th of its kind."""
    return np.flatnonzero(DIGITS.target == c)[start : start + n].tolist()


def write_folder(folder, classes, n, start=0, suffix=".JPEG", size=40):
    """`n` digits a class in folders of their classes' names, from the `start`-th of its kind."""
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i, index in enumerate(of_class(c, start, n)):
            # Sizes of their own, as photographs have.
            colored(index, size + 3 * i).save(folder / name / f"{name}_{i:04}{suffix}", quality=95)


def write_shards(folder, splits, classes, *, label="cls", per_shard=7):
    """Shards of `splits` {name: (start, n)} with their _info.json, as timm reads them; returns images by split."""
    folder.mkdir(exist_ok=True)
    info = {"name": "digits", "splits": {}}
    written = {}
    for split, (start, n) in splits.items():
        samples = [(c, index) for i in range(n) for c in range(classes) for index in of_class(c, start + i, 1)]
        written[split] = samples
        parts = [samples[i : i + per_shard] for i in range(0, len(samples), per_shard)]
        names = [f"digits-{split}-{i:04}.tar" for i in range(len(parts))]
        for name, part in zip(names, parts, strict=True):
            with tarfile.open(folder / name, "w") as tar:
                for c, index in part:
                    jpeg = io.BytesIO()
                    colored(index).save(jpeg, "JPEG", quality=95)
                    text = json.dumps({"label": c}).encode() if label == "json" else str(c).encode()
                    for extension, content in (("jpg", jpeg.getvalue()), (label, text)):
                        member = tarfile.TarInfo(f"{split}/{index:05}.{extension}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        info["splits"][split] = {
            "name": split,
            "num_samples": len(samples),
            "filenames": names,
            "shard_lengths": [len(part) for part in parts],
            **({"alt_label": "label"} if label == "json" else {}),
        }
    (folder / "_info.json").write_text(json.dumps(info))
    return written
