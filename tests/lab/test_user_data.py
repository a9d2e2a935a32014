"""Data sets that the user brings: CIFAR's pickles and folders of images, here made of the handwritten digits."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from maxsup.lab.data import DataError, load
from maxsup.lab.data import cifar as module
from maxsup.lab.data.splits import resize, with_channels
from maxsup.lab.recipes import Data

DIGITS = load_digits()
PIXELS = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)


def rgb(count, start=0):
    """Digits as CIFAR has its images: (count, 3, 32, 32), the channels being told apart by their brightness."""
    grey = torch.from_numpy(PIXELS[start : start + count]).unsqueeze(1)
    big = resize(grey, 32).numpy()
    return np.concatenate([big, big // 2, 255 - big], axis=1)


def published(monkeypatch, kind, folder, train, test, meta):
    """Writes pickles, and lets torchvision take their MD5 sums for those of the published files."""

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    folder.mkdir(parents=True)
    monkeypatch.setattr(kind, "train_list", [write(*part) for part in train])
    monkeypatch.setattr(kind, "test_list", [write(*test)])
    key, names = meta
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": write(kind.meta["filename"], {key: names})[1]})


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    def part(name, start, n):
        return name, {"data": rgb(n, start).reshape(n, -1), "labels": DIGITS.target[start : start + n].tolist()}

    parts = [part(f"data_batch_{i + 1}", 40 * i, 40) for i in range(5)]
    names = [f"digit_{c}" for c in range(10)]
    folder = tmp_path / "cifar-10-batches-py"
    kind = torchvision.datasets.CIFAR10
    published(monkeypatch, kind, folder, parts, part("test_batch", 200, 30), ("label_names", names))
    return tmp_path


def test_cifar10_is_the_pickles_pixels_with_a_tenth_held_out(cifar10):
    loaded = load(Data(name="cifar10"), cifar10)
    assert [len(split) for split in (loaded.train, loaded.validation, loaded.test)] == [180, 20, 30]
    assert loaded.class_names == tuple(f"digit-{c}" for c in range(10))
    assert torch.equal(loaded.test.images, torch.from_numpy(rgb(30, 200)))
    assert loaded.test.labels.tolist() == DIGITS.target[200:230].tolist()
    everything = torch.cat([loaded.train.images, loaded.validation.images]).flatten(1)
    original = torch.from_numpy(rgb(200)).flatten(1)
    assert sorted(everything.tolist()) == sorted(original.tolist())
    assert load(Data(name="cifar10", image_size=16), cifar10).test.images.shape == (30, 3, 16, 16)


def test_fewer_of_cifars_images_can_be_held_out(cifar10):
    whole = load(Data(name="cifar10"), cifar10)
    total = len(whole.train) + len(whole.validation)
    loaded = load(Data(name="cifar10", held_out=10), cifar10)
    assert (len(loaded.train), len(loaded.validation)) == (total - 10, 10)
    with pytest.raises(ValueError, match=rf"data\.held_out must be below the {total} training images, got {total}"):
        load(Data(name="cifar10", held_out=total), cifar10)


def test_cifar100_has_the_fine_labels(tmp_path, monkeypatch):
    def part(name, start, n):
        labels = DIGITS.target[start : start + n].tolist()
        return name, {
            "data": rgb(n, start).reshape(n, -1),
            "fine_labels": [10 * label for label in labels],
            "coarse_labels": labels,
        }

    kind, names = torchvision.datasets.CIFAR100, [f"c{i}" for i in range(100)]
    folder = tmp_path / "cifar-100-python"
    published(monkeypatch, kind, folder, [part("train", 0, 100)], part("test", 100, 20), ("fine_label_names", names))
    loaded = load(Data(name="cifar100"), tmp_path)
    assert loaded.num_classes == 100
    assert loaded.test.labels.tolist() == (10 * DIGITS.target[100:120]).tolist()


def test_a_damaged_or_missing_cifar_file_is_named_and_never_unpickled(cifar10):
    file = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    whole = file.read_bytes()

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a file that is not the published one was unpickled",)

    for content in (whole[: len(whole) // 2], pickle.dumps(Trap())):
        file.write_bytes(content)
        with pytest.raises(DataError, match="data_batch_3: truncated or damaged"):
            load(Data(name="cifar10"), cifar10)
    file.unlink()
    with pytest.raises(DataError, match="data_batch_3: missing"):
        load(Data(name="cifar10"), cifar10)


def test_cifar_that_is_nowhere_names_the_places(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(module.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError) as caught:
        load(Data(name="cifar10"), tmp_path / "mine")
    for part in ("cifar-10-batches-py", str(tmp_path / "mine"), str(tmp_path / "home"), "network is unreachable"):
        assert part in str(caught.value)


def write_folder(folder, classes=("three", "one"), start=0, n=10, suffix=".png"):
    """`n` digits for each class, from the `start`-th of its kind; returns them by class."""
    digits = {"one": 1, "three": 3, "seven": 7}
    written = {}
    for name in classes:
        of = PIXELS[digits[name] == DIGITS.target][start : start + n]
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(of):
            Image.fromarray(image).save(folder / name / f"{i:03}{suffix}")
        written[name] = torch.from_numpy(of).unsqueeze(1)
    return written


def load_folder(folder, size=8):
    return load(Data(name="image-folder", image_size=size), folder)


def rows(images):
    return sorted(images.flatten(1).tolist())


def test_a_folder_with_all_three_splits_is_taken_as_it_is(tmp_path):
    written = {
        name: write_folder(tmp_path / name, start=start) for name, start in (("train", 0), ("val", 10), ("test", 20))
    }
    loaded = load_folder(tmp_path)
    assert loaded.class_names == ("one", "three")
    for name, split in (("train", loaded.train), ("val", loaded.validation), ("test", loaded.test)):
        assert torch.equal(split.images, torch.cat([written[name]["one"], written[name]["three"]]))
        assert split.labels.tolist() == [0] * 10 + [1] * 10


def test_splits_that_are_missing_are_held_out_of_train(tmp_path):
    written = write_folder(tmp_path / "train")
    loaded = load_folder(tmp_path)
    parts = (loaded.train, loaded.validation, loaded.test)
    assert [split.labels.bincount().tolist() for split in parts] == [[6, 6], [2, 2], [2, 2]]
    assert rows(torch.cat([split.images for split in parts])) == rows(torch.cat(list(written.values())))
    assert torch.equal(load_folder(tmp_path).test.images, loaded.test.images)
    # ImageNet's layout: val has the labels that are published, and is what is tested on.
    val = write_folder(tmp_path / "val", start=10, n=3)
    loaded = load_folder(tmp_path)
    assert torch.equal(loaded.test.images, torch.cat([val["one"], val["three"]]))
    assert [len(split) for split in (loaded.train, loaded.validation)] == [16, 4]
    (tmp_path / "val").rename(tmp_path / "test")
    assert torch.equal(load_folder(tmp_path).test.images, loaded.test.images)


def test_images_are_resized_each_from_its_own_size_and_are_grey_only_if_all_are(tmp_path):
    written = write_folder(tmp_path / "train")
    assert load_folder(tmp_path, 16).channels == 1
    deeper = tmp_path / "train" / "one" / "deeper"
    deeper.mkdir()
    coloured = np.zeros((12, 20, 3), np.uint8)
    coloured[..., 0] = 200
    Image.fromarray(coloured).save(deeper / "wide.PNG")
    (tmp_path / "train" / "one" / "notes.txt").write_text("no image")
    loaded = load_folder(tmp_path, 16)
    images = torch.cat([split.images for split in (loaded.train, loaded.validation, loaded.test)])
    assert images.shape == (21, 3, 16, 16)
    grey = with_channels(resize(torch.cat(list(written.values())), 16), 3)
    red = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    red[:, 0] = 200
    assert rows(images) == rows(torch.cat([grey, red]))


def test_jpeg_files_are_read(tmp_path):
    written = write_folder(tmp_path / "train", suffix=".jpg")
    loaded = load_folder(tmp_path)
    images = torch.cat([split.images for split in (loaded.train, loaded.validation, loaded.test)])
    # JPEG is lossy: dark backgrounds are clipped at 0, so that the whole gets a little brighter.
    assert float(images.double().mean()) == pytest.approx(
        float(torch.cat(list(written.values())).double().mean()), abs=3
    )


def test_what_is_wrong_with_a_folder_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"data\.image_size must be given"):
        load(Data(name="image-folder"), tmp_path)
    with pytest.raises(DataError, match="--data-dir must name a folder"):
        load_folder(None)
    with pytest.raises(DataError, match="train: missing"):
        load_folder(tmp_path)
    write_folder(tmp_path / "train", ["one"])
    with pytest.raises(DataError, match="train: 1 folders of classes"):
        load_folder(tmp_path)
    write_folder(tmp_path / "train", ["three"], n=4)
    with pytest.raises(DataError, match="three: 4 images, where a class needs 5"):
        load_folder(tmp_path)
    write_folder(tmp_path / "train", ["seven"])
    write_folder(tmp_path / "train" / "three" / "more", ["three"])
    write_folder(tmp_path / "test", ["one", "three"])
    with pytest.raises(DataError, match="seven: 0 images, where a class needs 1"):
        load_folder(tmp_path)
    write_folder(tmp_path / "test", ["seven"])
    (tmp_path / "test" / "eight").mkdir()
    with pytest.raises(DataError, match=r"eight: no class of .*train"):
        load_folder(tmp_path)
    (tmp_path / "test" / "eight").rmdir()
    file = tmp_path / "train" / "seven" / "004.png"
    for content in (file.read_bytes()[:60], b"no image"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"004\.png: unreadable image"):
            load_folder(tmp_path)
