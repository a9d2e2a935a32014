"""ImageNet's layouts, WebDataset shards, and image files that cannot be read."""

import gzip
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from maxsup.lab.data import DataError, Streamed, file_sets, imagenet, load
from maxsup.lab.recipes import Data
from tests.lab.real_files import colored, write_folder, write_shards

WNIDS = ["n01440764", "n01443537", "n01484850"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """ImageNet of three classes, its val still missing."""
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "HELD_OUT", 2)
    monkeypatch.setattr(imagenet, "PUBLISHED", {"train": 36, "val": 15})
    write_folder(tmp_path / "imagenet" / "train", WNIDS, 12)
    return tmp_path / "imagenet"


def load_imagenet(root, **changes):
    return load(Data(name="imagenet", image_size=24, eval_crop=0.875, loader_workers=0, **changes), root)


def test_imagenet_tests_on_val_and_selects_on_images_of_train(root):
    write_folder(root / "val", WNIDS, 5, start=12)
    loaded = load_imagenet(root)
    assert loaded.class_names == tuple(WNIDS)
    assert loaded.problems == ()
    splits = loaded.train, loaded.validation, loaded.test
    assert all(isinstance(split, Streamed) for split in splits)
    assert [split.labels.bincount().tolist() for split in splits] == [[10] * 3, [2] * 3, [5] * 3]
    assert set(loaded.train.indices.tolist()).isdisjoint(loaded.validation.indices.tolist())
    assert len(load_imagenet(root, held_out=3).validation) == 3
    assert load_imagenet(root, classes=(2, 0)).test.labels.tolist() == [1] * 5 + [0] * 5
    assert len(load_imagenet(root, train_size=6).train) == 6


def flat(root):
    """Moves val's images into one folder, in an order that mixes the classes; returns WNID by name."""
    write_folder(root / "folders", WNIDS, 5, start=12)
    (root / "val").mkdir()
    found = sorted((root / "folders").rglob("*.JPEG"))
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
    wnids = {}
    for number, file in enumerate(found, start=1):
        name = f"ILSVRC2012_val_{number:08}"
        wnids[name] = file.parent.name
        file.rename(root / "val" / f"{name}.JPEG")
    (root / "val" / "notes.txt").write_text("no image")
    return wnids


def test_a_flat_val_has_its_labels_from_the_development_kit(root):
    wnids = flat(root)
    # The kit numbers classes in an order of its own, and has inner nodes of WordNet after them.
    numbers = {WNIDS[1]: 1, WNIDS[2]: 2, WNIDS[0]: 3, "n00001740": 4}
    kit = root / imagenet.DEVKIT / "data"
    kit.mkdir(parents=True)
    rows = np.array([(number, wnid) for wnid, number in numbers.items()], [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    scipy.io.savemat(kit / "meta.mat", {"synsets": rows})
    truth = kit / imagenet.GROUND_TRUTH
    truth.write_text("".join(f"{numbers[wnids[name]]}\n" for name in sorted(wnids)))
    test = load_imagenet(root).test
    assert test.labels.tolist() == [WNIDS.index(wnids[name]) for name in sorted(wnids)]
    assert test.source.name(0) == f"{root}/val/ILSVRC2012_val_00000001.JPEG"
    truth.write_text("1\n" * 14)
    with pytest.raises(DataError, match=r"ground_truth\.txt: 14 labels for the 15 images in val"):
        load_imagenet(root)
    truth.write_text("4\n" * 15)
    with pytest.raises(DataError, match=r"val: its labels name n00001740, no class of .*train"):
        load_imagenet(root)
    truth.write_text("9\n" * 15)
    with pytest.raises(DataError, match=r"number 9 is no class of .*meta\.mat"):
        load_imagenet(root)
    (kit / "meta.mat").unlink()
    with pytest.raises(DataError, match=r"meta\.mat: missing"):
        load_imagenet(root)


def test_a_flat_val_has_its_labels_from_kaggles_file(root):
    wnids = flat(root)
    lines = [f"{name},{wnid} 1 2 30 40 {wnid} 5 6 7 8 \n" for name, wnid in wnids.items()]
    (root / imagenet.SOLUTION).write_text("ImageId,PredictionString\n" + "".join(reversed(lines)))
    assert load_imagenet(root).test.labels.tolist() == [WNIDS.index(wnids[name]) for name in sorted(wnids)]
    (root / imagenet.SOLUTION).write_text("ImageId,PredictionString\n" + "".join(lines[1:]))
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000001\.JPEG: no label for it \(1 such of 15\)"):
        load_imagenet(root)
    (root / imagenet.SOLUTION).unlink()
    with pytest.raises(DataError, match=r"neither ILSVRC2012_devkit_t12 nor LOC_val_solution\.csv"):
        load_imagenet(root)


def test_what_is_wrong_with_imagenet_is_named(root, monkeypatch):
    with pytest.raises(DataError, match="val: missing"):
        load_imagenet(root)
    write_folder(root / "val", WNIDS, 5, start=12)
    monkeypatch.setattr(imagenet, "PUBLISHED", {"train": 37, "val": 15})
    assert load_imagenet(root).problems == ("train: 36 images, where 37 are published",)
    with pytest.raises(ValueError, match="streaming: imagenet is streamed; off is for an image-folder"):
        load_imagenet(root, streaming="off")
    with pytest.raises(ValueError, match=r"held_out must be below the 36 training images, got 36"):
        load_imagenet(root, held_out=36)
    (root / "val" / WNIDS[1]).rename(root / "val" / "n1")
    with pytest.raises(DataError, match=r"val/n1: no class of .*train"):
        load_imagenet(root)
    monkeypatch.setattr(imagenet, "CLASSES", 1000)
    with pytest.raises(DataError, match="train: 3 folders of classes, where ImageNet has 1000"):
        load_imagenet(root)


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_unreadable_images_are_left_out_and_listed_below_the_limit(tmp_path, streaming):
    write_folder(tmp_path / "train", ["one", "two"], 20)
    files = sorted((tmp_path / "train").rglob("*.JPEG"))
    for file in files:  # plain noise, long files: a cut in the middle of the pixels, not of the header
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    files[3].write_bytes(files[3].read_bytes()[:-400])
    files[30].write_bytes(b"")
    data = Data(name="image-folder", image_size=16, streaming=streaming, unreadable_limit=0.05)
    for _ in range(2):  # found, and read from what was kept
        loaded = load(data, tmp_path)
        assert sum(len(split) for split in (loaded.train, loaded.validation, loaded.test)) == 38
        assert len(loaded.problems) == 2
        assert loaded.problems[0].startswith(f"{files[3]}: unreadable image (")
        assert loaded.problems[1].startswith(f"{files[30]}: unreadable image (")
    strict = Data(name="image-folder", image_size=16, streaming=streaming, unreadable_limit=0.04)
    with pytest.raises(
        DataError, match=rf"2 of 40 images are unreadable, above .*0\.04: {files[3]}: unr.*; {files[30]}"
    ):
        load(strict, tmp_path)
    # The check is made anew where files have changed.
    files[3].unlink()
    files[30].unlink()
    assert load(strict, tmp_path).problems == ()


def test_a_class_whose_images_are_all_unreadable_is_fatal(tmp_path):
    write_folder(tmp_path / "train", ["one", "two"], 6)
    for file in (tmp_path / "train" / "two").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="no readable image of 'two' in train"):
        load(Data(name="image-folder", image_size=16, streaming="on", unreadable_limit=1.0), tmp_path)


def test_large_folders_are_streamed_and_grey_ones_stay_grey(tmp_path, monkeypatch):
    write_folder(tmp_path / "train", ["one", "two"], 6)
    data = Data(name="image-folder", image_size=16, loader_workers=None)
    assert not isinstance(load(data, tmp_path).train, Streamed)
    monkeypatch.setattr(file_sets, "IN_MEMORY", 12 * 3 * 16 * 16 - 1)
    assert isinstance(load(data, tmp_path).train, Streamed)
    assert load(data, tmp_path).channels == 3
    for file in (tmp_path / "train").rglob("*.JPEG"):
        Image.open(file).convert("L").save(file)
        file.rename(file.with_name(f"grey-{file.name}"))
    loaded = load(data, tmp_path)
    assert loaded.channels == 1
    assert loaded.train.images.shape[1:] == (1, 16, 16)


SHARDS = Data(name="webdataset", image_size=40, loader_workers=0)


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_give_every_image_with_its_label(tmp_path, label):
    folder = tmp_path / "shards"
    written = write_shards(folder, {"train": (0, 6), "validation": (10, 4)}, 3, label=label)
    loaded = load(SHARDS, folder)
    assert loaded.class_names == ("0", "1", "2")
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [14, 4, 12]
    assert loaded.test.labels.tolist() == [c for c, _ in written["validation"]]
    expected = torch.stack(
        [torch.from_numpy(np.asarray(colored(index)).copy()).permute(2, 0, 1) for _, index in written["validation"]]
    )
    # JPEG at quality 95 is off by a few levels.
    assert float((loaded.test.images.double() - expected.double()).abs().mean()) < 3
    first = written["validation"][0][1]
    assert loaded.test.source.name(0) == f"{folder}/digits-validation-0000.tar:validation/{first:05}.jpg"


TIMM_READS = """
import sys, numpy, timm
images, labels = zip(*timm.data.create_dataset("wds/digits", root=sys.argv[1], split="validation"))
numpy.savez(sys.argv[2], images=[numpy.array(image) for image in images], labels=labels)
"""


def test_shards_are_read_as_timm_reads_them(tmp_path):
    pytest.importorskip("webdataset")
    folder = tmp_path / "shards"
    write_shards(folder, {"train": (0, 6), "validation": (10, 4)}, 3)
    # A process of its own: webdataset leaves files open.
    subprocess.run([sys.executable, "-c", TIMM_READS, folder, tmp_path / "theirs.npz"], check=True, timeout=300)
    theirs, ours = np.load(tmp_path / "theirs.npz"), load(SHARDS, folder).test
    assert np.array_equal(theirs["images"].transpose(0, 3, 1, 2), ours.images.numpy())
    assert theirs["labels"].tolist() == ours.labels.tolist()


def test_what_is_wrong_with_shards_is_named(tmp_path):
    folder = tmp_path / "shards"
    with pytest.raises(DataError, match="shards: no such folder"):
        load(SHARDS, folder)
    folder.mkdir()
    with pytest.raises(DataError, match=r"_info\.json: missing"):
        load(SHARDS, folder)
    write_shards(folder, {"train": (0, 6), "test": (10, 4)}, 3)
    file, shard = folder / "_info.json", folder / "digits-test-0001.tar"
    info = json.loads(file.read_text())

    def refused(message, **changes):
        file.write_text(json.dumps({**info, **changes}))
        with pytest.raises(DataError, match=message):
            load(SHARDS, folder)

    refused(r"not timm's description of shards \(KeyError\('filenames'\)\)", splits={"train": {}})
    refused("no split train among test", splits={"test": info["splits"]["test"]})
    refused("2 class_names, and a label 2", class_names=["a", "b"])
    refused("no readable image of 'd' in train", class_names=["a", "b", "c", "d"])
    counted = {**info["splits"], "test": {**info["splits"]["test"], "num_samples": 13}}
    refused("num_samples 13, and the shards have 12", splits=counted)
    labelled = {**info["splits"], "test": {**info["splits"]["test"], "alt_label": "label"}}
    refused(r"0000\.tar:test/\d+\.jpg: has no \.json with its label", splits=labelled)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:3000])
    refused(r"digits-test-0001\.tar: no whole, uncompressed tar file")
    shard.write_bytes(gzip.compress(whole))
    refused(r"digits-test-0001\.tar: no whole, uncompressed tar file")
    shard.unlink()
    refused(r"digits-test-0001\.tar: missing; .*_info\.json names it")


def test_samples_without_an_image_or_with_a_negative_label_are_none(tmp_path):
    write_shards(tmp_path, {"train": (0, 6)}, 3, per_shard=100)
    shard = tmp_path / "digits-train-0000.tar"
    with tarfile.open(shard, "a") as tar:
        extra = tmp_path / "extra"
        for name, content in (("x.cls", "1"), ("y.cls", "-1"), ("y.jpg", "")):
            extra.write_text(content)
            tar.add(extra, f"train/{name}")
    loaded = load(SHARDS, tmp_path)
    assert sum(len(s) for s in (loaded.train, loaded.validation, loaded.test)) == 18
