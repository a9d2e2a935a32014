"""WebDataset shards: tar files whose members of one name are a sample, in the layout that timm's reader takes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import torch

from maxsup.lab.data.checked import kept, stamp_of
from maxsup.lab.data.file_sets import Listed, data_set
from maxsup.lab.data.sources import Shards
from maxsup.lab.data.splits import DataSet
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError, Json

INFO = ("_info.json", "info.json")
# What timm's reader takes, and in its order.
IMAGES = ("jpg", "png", "webp", "jpeg")
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def load_webdataset(data_dir: Path | None = None, image_size: int | None = None, data: Data | None = None) -> DataSet:
    """WebDataset shards: DIR/_info.json with the splits' tar files, as timm has it; samples KEY.jpg and KEY.cls.

    `_info.json` names for each of the splits train, validation and test its `filenames` and `num_samples`, and an
    `alt_label` where the label is that field of KEY.json instead of KEY.cls. The labels 0..K-1 are the classes, named
    by `class_names` in `_info.json` or else by their numbers. Splits that are missing are held out as those of an
    image-folder are. Images are streamed: shards are indexed once, which is kept, and then read at random, so that each
    epoch has every image once, in an order that the seed alone decides. Readers of whole shards cannot promise that.

    Raises:
        ValueError: if `image_size` is None, or an option does not apply.
        DataError: if a file is missing, damaged or compressed, counts differ, a class has no image, or too many images
            are unreadable; it names the file.
    """
    if image_size is None:
        raise ValueError("webdataset: data.image_size must be given; images have sizes of their own")
    if data_dir is None:
        raise DataError("webdataset: --data-dir must name the folder that has _info.json and the shards")
    info, file = _info(data_dir)
    splits: dict[str, Any] = {_SPLITS[name]: of for name, of in info["splits"].items() if name in _SPLITS}
    if "train" not in splits:
        raise DataError(f"{file}: no split train among {', '.join(info['splits'])}")
    listed = {name: _listed(data_dir, file, of) for name, of in splits.items()}
    number = 1 + max(int(of.labels.max()) for of in listed.values())
    names = [str(name) for name in info.get("class_names", range(number))]
    if len(names) < number:
        raise DataError(f"{file}: {len(names)} class_names, and a label {number - 1}")
    return data_set("webdataset", names, listed, image_size, data or Data(), always_streamed=True)


def _info(data_dir: Path) -> tuple[Json, Path]:
    files = [data_dir / name for name in INFO if (data_dir / name).is_file()]
    if not files:
        raise DataError(f"{data_dir / INFO[0]}: missing; it names the shards of each split")
    try:
        info = json.loads(files[0].read_text(encoding="utf-8"))
        for of in info["splits"].values():
            of["filenames"], of["num_samples"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{files[0]}: not timm's description of shards ({error!r})") from error
    return info, files[0]


def _listed(data_dir: Path, info: Path, of: Json) -> Listed:
    shards = [data_dir / name for name in of["filenames"]]
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard}: missing; {info} names it")
    label = str(of.get("alt_label") or "")
    found = kept(
        f"shards-{stamp_of([label], shards)}",
        lambda: {"samples": [_index(number, shard, label) for number, shard in enumerate(shards)]},
    )
    samples = [sample for shard in found["samples"] for sample in shard]
    if len(samples) != of["num_samples"]:
        raise DataError(f"{info}: num_samples {of['num_samples']}, and the shards have {len(samples)}")
    shard, offset, length, labels = torch.tensor([sample[:4] for sample in samples], dtype=torch.int64).unbind(1)
    return Listed(Shards(shards, shard, offset, length, [sample[4] for sample in samples]), labels, tuple(shards))


def _index(number: int, shard: Path, alt_label: str) -> list[tuple[int, int, int, int, str]]:
    """Shard, offset, length, label and name of each image of a shard, in order."""
    samples: list[tuple[int, int, int, int, str]] = []
    try:
        with tarfile.open(shard, "r:") as tar:
            sample: dict[str, tarfile.TarInfo] = {}
            key = None
            for member in tar:
                if not member.isfile():
                    continue
                # A sample's members have one name up to the first dot of its last part, and follow one another.
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if (folder, stem) != key:
                    samples += _sample(tar, sample, number, shard, alt_label)
                    key, sample = (folder, stem), {}
                sample[extension.lower()] = member
            samples += _sample(tar, sample, number, shard, alt_label)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: no whole, uncompressed tar file ({error})") from error
    return samples


def _sample(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], number: int, shard: Path, alt_label: str
) -> list[tuple[int, int, int, int, str]]:
    """One sample; none for members without an image, and for a negative label, which says that there is none."""
    image = next((members[extension] for extension in IMAGES if extension in members), None)
    if image is None:
        return []
    where = f"{shard}:{image.name}"
    extension = "json" if alt_label else "cls"
    if extension not in members:
        raise DataError(f"{where}: has no .{extension} with its label")
    content = tar.extractfile(members[extension])
    assert content is not None  # it is a file
    text = content.read()
    try:
        label = int(json.loads(text)[alt_label] if alt_label else text)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: no label in its .{extension} ({error!r})") from error
    return [(number, image.offset_data, image.size, label, image.name)] if label >= 0 else []
