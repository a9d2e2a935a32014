import gzip
import struct

import numpy as np
import pytest
import torch

from maxsup.lab.data import DataError, fashion_mnist, load
from maxsup.lab.data.digits import load_digits
from maxsup.lab.data.fashion_mnist import load_fashion_mnist, read_idx
from maxsup.lab.data.splits import resize
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Data


def write_idx(path, array):
    content = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def fashion_folder(tmp_path):
    """A small set in the real files' format: 120 + 40 images of random grey."""
    random = np.random.default_rng(0)
    for prefix, n in (("train", 120), ("t10k", 40)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", random.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    return tmp_path


def test_digits_are_scikit_learns_split_once_and_evenly():
    digits = load_digits()
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1077, 360, 360]
    everything = torch.cat([s.images for s in (digits.train, digits.validation, digits.test)]).double().sum()
    from sklearn.datasets import load_digits as original

    # 255/16 per grey level, rounded to whole levels: half a level's error at most on each of 1797·64 pixels.
    assert abs(float(everything) - original().images.sum() * 255 / 16) < 0.5 * 1797 * 64
    shares = digits.validation.labels.bincount(minlength=10)
    assert int(shares.min()) >= 34
    assert int(shares.max()) <= 37
    assert torch.equal(load_digits().test.labels, digits.test.labels)


def test_splits_share_no_image():
    digits = load_digits()
    seen = [{tuple(image.flatten().tolist()) for image in s.images} for s in (digits.train, digits.test)]
    # scikit-learn's digits hold no duplicates, so any common image would be a leak.
    assert seen[0].isdisjoint(seen[1])


def test_train_size_is_stratified_fixed_and_nested_in_the_training_images():
    small = load(Data(name="digits", train_size=100))
    again = load(Data(name="digits", train_size=100))
    assert small.train.labels.bincount().tolist() == pytest.approx([10] * 10, abs=1)
    assert torch.equal(small.train.images, again.train.images)
    assert torch.equal(small.test.images, load_digits().test.images)
    with pytest.raises(DataError, match="train_size 5000 exceeds the 1077 images of digits"):
        load(Data(name="digits", train_size=5000))


def test_classes_are_kept_and_renumbered_in_their_order_within_the_same_splits():
    full, odd = load(Data(name="digits")), load(Data(name="digits", classes=(7, 1)))
    assert odd.class_names == ("7", "1")
    for part in ("train", "validation", "test"):
        whole, kept = getattr(full, part), getattr(odd, part)
        is_kept = (whole.labels == 7) | (whole.labels == 1)
        assert torch.equal(kept.images, whole.images[is_kept])
        assert torch.equal(kept.labels, (whole.labels[is_kept] == 1).long())
    cut = load(Data(name="digits", classes=(7, 1), train_size=50))
    assert cut.train.labels.bincount().tolist() == [25, 25]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 10), r"classes: 10 is not in 0\.\.9, the classes of digits"),
        ((-1, 2), r"classes: -1 is not in 0\.\.9"),
        ((3, 4, 3), "classes: 3 is given twice"),
        ((3,), r"classes must name at least 2 of the 10 of digits, got \(3,\)"),
        ((), r"classes must name at least 2 of the 10 of digits, got \(\)"),
    ],
)
def test_wrong_classes_are_named(classes, message):
    with pytest.raises(ValueError, match=message):
        load(Data(name="digits", classes=classes))


def test_resizing_is_bilinear_with_the_shorter_side_and_a_central_crop():
    ramp = torch.tensor([[0, 100]], dtype=torch.uint8).view(1, 1, 1, 2).repeat(1, 1, 2, 1)
    # Pixel centres at -0.25, 0.25, 0.75 and 1.25 of the old grid; the edges continue their pixel.
    assert resize(ramp, 4)[0, 0].tolist() == [[0, 25, 75, 100]] * 4
    # Shrinking by antialiased triangles of two old pixels' half-width: their weighted means.
    halves = torch.tensor([0, 0, 200, 200], dtype=torch.uint8).view(1, 1, 1, 4).repeat(1, 1, 4, 1)
    assert resize(halves, 2)[0, 0].tolist() == [[29, 171]] * 2  # (0·3 + 0·3 + 200·1)/7 = 28.6 and its mirror
    wide = torch.arange(12, dtype=torch.uint8).view(1, 1, 2, 6)
    assert resize(wide, 2)[0, 0].tolist() == [[2, 3], [8, 9]]
    assert resize(wide.expand(3, 2, 2, 6), 5).shape == (3, 2, 5, 5)
    assert load(Data(name="digits", image_size=28)).test.images.shape == (360, 1, 28, 28)


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean fashion-mnist"):
        load(Data(name="fashion-mnits"))


def test_idx_files_are_read_plain_and_gzipped(fashion_folder):
    loaded = load_fashion_mnist(fashion_folder)
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [110, 10, 40]
    assert loaded.train.images.shape[1:] == (1, 28, 28)
    assert torch.equal(loaded.test.labels, torch.arange(40) % 10)


def test_read_idx_agrees_with_torchvision():
    torchvision_mnist = pytest.importorskip("torchvision.datasets.mnist")
    file = fashion_mnist.DEBIAN_FASHION_MNIST / "t10k-labels-idx1-ubyte.gz"
    if not file.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "labels"
        plain.write_bytes(gzip.decompress(file.read_bytes()))
        expected = torchvision_mnist.read_label_file(str(plain))
    assert np.array_equal(read_idx(file), expected.numpy())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_truncated_file_is_named(fashion_folder, suffix):
    file = fashion_folder / f"t10k-images-idx3-ubyte{suffix}"
    whole = (fashion_folder / "t10k-images-idx3-ubyte.gz").read_bytes()
    if not suffix:
        (fashion_folder / "t10k-images-idx3-ubyte.gz").unlink()
        whole = gzip.decompress(whole)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"t10k-images-idx3-ubyte{suffix}: "):
        load_fashion_mnist(fashion_folder)


def test_damaged_files_are_named(fashion_folder):
    (fashion_folder / "train-labels-idx1-ubyte").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: not an IDX file"):
        load_fashion_mnist(fashion_folder)
    write_idx(fashion_folder / "train-labels-idx1-ubyte", np.full(120, 11, np.uint8))
    with pytest.raises(DataError, match="label 11 where there are 10 classes"):
        load_fashion_mnist(fashion_folder)
    (fashion_folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte \(or \.gz\) is missing"):
        load_fashion_mnist(fashion_folder)


def test_fashion_mnist_names_all_three_sources_when_none_works(tmp_path, monkeypatch):
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(DataError) as caught:
        load_fashion_mnist(tmp_path / "mine")
    for part in (str(tmp_path / "mine"), str(tmp_path / "debian"), "dataset-fashion-mnist", "network is unreachable"):
        assert part in str(caught.value)


def test_debians_fashion_mnist_is_the_published_set():
    if not fashion_mnist.DEBIAN_FASHION_MNIST.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    loaded = load_fashion_mnist()
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [55_000, 5_000, 10_000]
    assert loaded.test.labels.bincount().tolist() == [1000] * 10
    assert loaded.validation.labels.bincount().tolist() == [500] * 10
