import numpy as np
import pytest
import torch
from PIL import Image

from maxsup.lab.data import DataError, DataSet, Split
from maxsup.lab.names import UnknownNameError
from maxsup.lab.segmentation.data import IGNORE, Arrays, of_masks
from maxsup.lab.segmentation.sources import load

from .conftest import write_pair


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def test_ade20k_has_150_classes_and_no_label_for_0(ade20k):
    data = load("ade20k", ade20k)
    data.check()
    assert data.num_classes == 150
    assert data.class_names[:2] == ("name 1", "name 2")
    assert (len(data.train), data.validation, len(data.test)) == (8, None, 4)
    image, labels = data.train.pair(1)
    assert image.shape == (3, 21, 29)
    assert labels.shape == (21, 29)
    # The stripes 0, 1, 2 and 150 become none, 0, 1 and 149.
    assert labels[0, [0, 8, 15, 28]].tolist() == [IGNORE, 0, 1, 149]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "annotations/validation/ADE_val_00000002.png").unlink(),
         r"annotations/validation/ADE_val_00000002\.png: missing; it belongs to .*ADE_val_00000002\.jpg"),
        (lambda root: write_pair(root, "training", "ADE_train_00000003", (20, 20), 0, values=(1, 151, 200)),
         r"ADE_train_00000003\.png: label 151, 200 where there are 150 classes \(labels 1 to 150; 0 for none\)"),
        (lambda root: png(root / "annotations/training/ADE_train_00000000.png", np.ones((19, 30))),
         r"ADE_train_00000000\.png: 30×19 pixels where .*ADE_train_00000000\.jpg has 30×20"),
        (lambda root: png(root / "annotations/training/ADE_train_00000000.png", np.ones((20, 30, 3))),
         r"ADE_train_00000000\.png: labels are one byte a pixel \(PNG mode L or P\), this has mode RGB"),
        (lambda root: (root / "annotations/training/ADE_train_00000000.png").write_bytes(b"no image"),
         r"ADE_train_00000000\.png: unreadable image"),
        (lambda root: (root / "images/training/ADE_train_00000005.jpg").write_bytes(b"no image"),
         r"ADE_train_00000005\.jpg: unreadable image"),
        (lambda root: (root / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n"),
         r"objectInfo150\.txt: 1 classes, where ADE20K has 150"),
        (lambda root: (root / "objectInfo150.txt").write_text("wall\n"), r"objectInfo150\.txt: no column Name"),
        (lambda root: (root / "objectInfo150.txt").unlink(), r"objectInfo150\.txt: missing"),
        (lambda root: (root / "images/validation").rename(root / "images/val"), r"images/validation: missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_told_with_the_file(ade20k, damage, message):
    damage(ade20k)
    with pytest.raises(DataError, match=message):
        load("ade20k", ade20k).check()


def test_a_folder_must_be_given_and_exist(tmp_path):
    with pytest.raises(DataError, match="ade20k: --data-dir must name a folder with ADEChallengeData2016's"):
        load("ade20k")
    with pytest.raises(DataError, match="none: no such folder"):
        load("voc", tmp_path / "none")
    with pytest.raises(UnknownNameError, match="did you mean ade20k"):
        load("ade20", tmp_path)


def test_voc_reads_the_lists_and_the_palettes_indices(tmp_path):
    for name, value in (("a", 0), ("b", 20), ("c", 255)):
        png(tmp_path / "JPEGImages" / f"{name}.jpg", np.full((4, 5, 3), 90))
        mask = Image.fromarray(np.full((4, 5), value, np.uint8), mode="P" if value else None)
        mask.putpalette([0, 0, 0] * 255 + [224, 224, 192])
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    data = load("voc", tmp_path)
    data.check()
    assert data.num_classes == 21
    assert [int(data.train.pair(i)[1][0, 0]) for i in (0, 1)] == [0, 20]
    assert data.test.pair(0)[1].unique().tolist() == [IGNORE]


def test_cityscapes_pairs_files_city_by_city(tmp_path):
    for part, city in (("train", "aachen"), ("train", "bonn"), ("val", "ulm")):
        png(tmp_path / "leftImg8bit" / part / city / "x_0_leftImg8bit.png", np.zeros((2, 4, 3)))
        png(tmp_path / "gtFine" / part / city / "x_0_gtFine_labelTrainIds.png", np.full((2, 4), 18))
    data = load("cityscapes", tmp_path)
    data.check()
    assert (len(data.train), len(data.test), data.num_classes) == (2, 1, 19)
    assert data.class_names[18] == "bicycle"
    assert data.train.labels[1].parts[-2] == "bonn"


def test_a_label_folder_names_its_classes(tmp_path):
    for part in ("train", "val"):
        png(tmp_path / "images" / part / "1.png", np.zeros((3, 3)))
        png(tmp_path / "labels" / part / "1.png", np.eye(3))
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    data = load("label-folder", tmp_path)
    assert data.class_names == ("ground", "thing")
    assert data.validation is None
    assert data.test.images[0].parts[-2] == "val"
    png(tmp_path / "images" / "test" / "1.png", np.zeros((3, 3)))
    png(tmp_path / "labels" / "test" / "1.png", 255 * np.eye(3))
    data = load("label-folder", tmp_path)
    assert data.validation.images[0].parts[-2] == "val"
    image, labels = data.test.pair(0)
    assert image.shape == (1, 3, 3)
    assert labels.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    (tmp_path / "classes.txt").write_text("ground\nground\n")
    with pytest.raises(DataError, match=r"classes\.txt: ground is there twice"):
        load("label-folder", tmp_path)
    (tmp_path / "classes.txt").write_text("ground\n")
    with pytest.raises(DataError, match=r"classes\.txt: 1 classes, where there must be from 2 to 254"):
        load("label-folder", tmp_path)


def test_masks_of_a_data_set_are_labels_with_a_background():
    masks = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.int16)
    split = Split(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), masks)
    data = of_masks(DataSet("few", ("a", "b"), split, split, split))
    assert data.class_names == ("background", "a", "b")
    assert data.train.labels.tolist() == masks.tolist()
    assert data.description()["images"] == {"train": 1, "validation": 1, "test": 1}
    bare = Split(split.images, split.labels)
    with pytest.raises(ValueError, match="few has no masks"):
        of_masks(DataSet("few", ("a", "b"), bare, bare, bare))


def test_training_images_are_drawn_and_always_the_same(ade20k):
    data = load("ade20k", ade20k)
    few = data.cut(3)
    assert len(few.train) == len(set(few.train.images)) == 3
    assert few.train == load("ade20k", ade20k).cut(3).train
    assert few.test == data.test
    assert data.cut(None) is data
    with pytest.raises(DataError, match="train_size 9 exceeds the 8 images of ade20k"):
        data.cut(9)


def test_the_fingerprint_tells_other_data(ade20k):
    of = load("ade20k", ade20k)
    before = of.fingerprint()
    assert before == load("ade20k", ade20k).fingerprint() != of.cut(3).fingerprint()
    write_pair(ade20k, "training", "ADE_train_00000003", (40, 40), 0)
    assert load("ade20k", ade20k).fingerprint() != before
    arrays = Arrays(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert arrays.fingerprint() != Arrays(arrays.images, arrays.labels + 1).fingerprint()
