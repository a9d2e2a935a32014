"""Data sets with labels per pixel, by name.

A loader takes the folder with the data set's files (None where the user gave none). Its first docstring line is what
`maxsup list` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from maxsup.lab.data import check_folder
from maxsup.lab.data.fashion_scenes import load_fashion_scenes
from maxsup.lab.data.masks import IMAGES, load_masked_folder
from maxsup.lab.names import lookup
from maxsup.lab.records import DataError
from maxsup.lab.segmentation.data import IGNORE, Files, SegmentationData, of_masks

ADE20K_CLASSES = 150
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv/monitor"),
)
CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


def load_scenes(data_dir: Path | None = None) -> SegmentationData:
    """Fashion-MNIST items on clutter, 64×64: 10 classes and background; 20,000 + 2,000 + 2,000 composed scenes."""
    return of_masks(load_fashion_scenes(data_dir))


def load_masked(data_dir: Path | None = None) -> SegmentationData:
    """The masked-folder of classification: background and the classes' items; images of one size, 60/20/20."""
    return of_masks(load_masked_folder(data_dir))


def load_ade20k(data_dir: Path | None = None) -> SegmentationData:
    """ADE20K as ADEChallengeData2016 has it: 150 classes, 0 is no label; 20,210 + 2,000 images (validation is test).

    DIR holds images/training/NAME.jpg, annotations/training/NAME.png, the same for validation, and objectInfo150.txt.

    Raises:
        DataError: if a folder or file is missing, or there are other than 150 classes; it names it.
    """
    folder = _folder("ade20k", data_dir, "ADEChallengeData2016's images, annotations and objectInfo150.txt")
    names = _ade20k_names(folder / "objectInfo150.txt")
    table = _table({0: IGNORE} | {value: value - 1 for value in range(1, ADE20K_CLASSES + 1)})
    train, test = (_in_subfolder(folder, "annotations", part, table) for part in ("training", "validation"))
    return SegmentationData("ade20k", names, train, None, test)


def load_voc(data_dir: Path | None = None) -> SegmentationData:
    """Pascal VOC 2012: 20 classes and background, 255 is no label; the lists train.txt and val.txt (val is test).

    DIR (VOCdevkit/VOC2012) holds JPEGImages, SegmentationClass and ImageSets/Segmentation.

    Raises:
        DataError: if a folder or file is missing; it names it.
    """
    folder = _folder("voc", data_dir, "VOC2012's JPEGImages, SegmentationClass and ImageSets")

    def listed(part: str) -> list[Path]:
        names = _lines(folder / "ImageSets" / "Segmentation" / f"{part}.txt")
        return [folder / "JPEGImages" / f"{name}.jpg" for name in names]

    table = _table({IGNORE: IGNORE} | {value: value for value in range(len(VOC_CLASSES))})
    train, test = (
        _pairs(listed(part), lambda file: Path("SegmentationClass", f"{file.stem}.png"), folder, table)
        for part in ("train", "val")
    )
    return SegmentationData("voc", VOC_CLASSES, train, None, test)


def load_cityscapes(data_dir: Path | None = None) -> SegmentationData:
    """Cityscapes: 19 classes from the files gtFine_labelTrainIds.png, 255 is no label; 2,975 + 500 (val is test).

    DIR holds leftImg8bit/train/CITY/NAME_leftImg8bit.png, gtFine/train/CITY/NAME_gtFine_labelTrainIds.png, and val.

    Raises:
        DataError: if a folder or file is missing; it names it.
    """
    folder = _folder("cityscapes", data_dir, "Cityscapes' leftImg8bit and gtFine")
    table = _table({IGNORE: IGNORE} | {value: value for value in range(len(CITYSCAPES_CLASSES))})

    def labels_of(file: Path) -> Path:
        name = file.name.replace("_leftImg8bit", "_gtFine_labelTrainIds")
        return Path("gtFine", *file.parent.parts[-2:], name)

    train, test = (
        _pairs(_images(folder / "leftImg8bit" / part, deep=True), labels_of, folder, table) for part in ("train", "val")
    )
    return SegmentationData("cityscapes", CITYSCAPES_CLASSES, train, None, test)


def load_label_folder(data_dir: Path | None = None) -> SegmentationData:
    """Your images: DIR/images/train/NAME.png (or .jpg, …), DIR/labels/train/NAME.png, DIR/classes.txt; val; test.

    A line of classes.txt names a class; the value of a pixel in a file of labels is the number of its class, the first
    being 0, or 255 for no label. Where there is no test folder, val is the test split.

    Raises:
        DataError: if a folder or file is missing, or classes.txt names too few or too many classes; it names it.
    """
    layout = "images/train/NAME.png (or .jpg, …), labels/train/NAME.png, the same for val, and classes.txt"
    folder = _folder("label-folder", data_dir, layout)
    names = tuple(_lines(folder / "classes.txt"))
    if not 2 <= len(names) < IGNORE:
        raise DataError(f"{folder / 'classes.txt'}: {len(names)} classes, where there must be from 2 to {IGNORE - 1}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{folder / 'classes.txt'}: {', '.join(twice)} is there twice")
    table = _table({IGNORE: IGNORE} | {value: value for value in range(len(names))})

    def split(part: str) -> Files:
        files = _images(folder / "images" / part)
        return _pairs(files, lambda file: Path("labels", part, f"{file.stem}.png"), folder, table)

    train, held = split("train"), split("val")
    has_test = (folder / "images" / "test").is_dir()
    return SegmentationData(
        "label-folder", names, train, held if has_test else None, split("test") if has_test else held
    )


DATA_SETS: dict[str, Callable[[Path | None], SegmentationData]] = {
    "fashion-scenes": load_scenes,
    "masked-folder": load_masked,
    "label-folder": load_label_folder,
    "ade20k": load_ade20k,
    "voc": load_voc,
    "cityscapes": load_cityscapes,
}


def load(name: str, data_dir: Path | None = None) -> SegmentationData:
    """The data set `name` of `DATA_SETS`.

    Raises:
        UnknownNameError: for a name that is not there.
        DataError: if files or folders are absent or damaged.
    """
    loader = lookup("data set with labels per pixel", name, DATA_SETS)
    check_folder(data_dir)
    return loader(data_dir)


def _folder(name: str, data_dir: Path | None, content: str) -> Path:
    if data_dir is None:
        raise DataError(f"{name}: --data-dir must name a folder with {content}")
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: missing; {name} is a folder with {content}")
    return data_dir


def _table(labels: dict[int, int]) -> tuple[int, ...]:
    return tuple(labels.get(value, -1) for value in range(256))


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file}: missing")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _images(folder: Path, *, deep: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: missing")
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in IMAGES)


def _in_subfolder(folder: Path, labels: str, part: str, table: tuple[int, ...]) -> Files:
    """images/PART/NAME.jpg with LABELS/PART/NAME.png."""
    return _pairs(_images(folder / "images" / part), lambda file: Path(labels, part, f"{file.stem}.png"), folder, table)


def _pairs(images: Sequence[Path], labels_of: Callable[[Path], Path], folder: Path, table: Iterable[int]) -> Files:
    """The images with their files of labels, whose paths `labels_of` gives from `folder` on."""
    if not images:
        raise DataError(f"{folder}: a split without an image")
    labels = [folder / labels_of(file) for file in images]
    for image, mask in zip(images, labels, strict=True):
        for file, other in ((image, mask), (mask, image)):
            if not file.is_file():
                raise DataError(f"{file}: missing; it belongs to {other}")
    return Files(tuple(images), tuple(labels), tuple(table))


def _ade20k_names(file: Path) -> tuple[str, ...]:
    """The first name of each class, from the table that comes with the images."""
    head, *rows = _lines(file) or [""]
    columns = head.split("\t")
    if "Name" not in columns:
        raise DataError(f"{file}: no column Name in its first line")
    place = columns.index("Name")
    cells = [row.split("\t") for row in rows]
    if len(rows) != ADE20K_CLASSES or any(len(row) <= place for row in cells):
        raise DataError(f"{file}: {len(rows)} classes, where ADE20K has {ADE20K_CLASSES}")
    return tuple(row[place].split(",")[0].strip() for row in cells)
