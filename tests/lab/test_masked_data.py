import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from maxsup.lab.data import DataError, Split, fashion_mnist, fashion_scenes, load
from maxsup.lab.data.fashion_mnist import load_fashion_mnist
from maxsup.lab.data.fashion_scenes import CANVAS, compose, load_fashion_scenes, silhouettes
from maxsup.lab.data.masks import load_masked_folder
from maxsup.lab.data.splits import resize, resize_masks
from maxsup.lab.recipes import Data


def blocks(n, classes=10):
    """Pictures whose item is one solid square of 20×20, of a grey that is its class's own."""
    labels = torch.arange(n) % classes
    images = torch.zeros(n, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 4:24, 4:24] = (100 + 10 * labels).byte().view(-1, 1, 1, 1)
    return Split(images, labels)


def bright(grey):
    return round(80 + grey * 175 / 255)


def test_masks_hold_the_items_own_pixels_and_the_label_is_the_largest():
    scenes = compose(blocks(60), 60, seed=0)
    assert scenes.images.shape == (60, 1, CANVAS, CANVAS)
    assert scenes.labels.bincount().tolist() == [6] * 10
    for image, mask, label, target in zip(
        scenes.images[:, 0], scenes.masks, scenes.labels, scenes.target_masks(), strict=True
    ):
        present = set(mask.unique().tolist()) - {0}
        assert 3 <= len(present) <= 4  # nothing here is covered as a whole
        for value in present:
            inside = mask == value
            # The square's blurred edge is darker than the square; half of it or more belongs to the item.
            assert int(image[inside].max()) == bright(100 + 10 * (value - 1))
            assert int(image[inside].min()) >= bright(100 / 2) - 1
            rows, columns = inside.nonzero().unbind(1)
            height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
            if value == label + 1:
                # 20/28 of a side from 30 to 40, nothing of it covered; scaling rounds the four corners off.
                assert height == width
                assert 20 <= height <= 30
                assert int(inside.sum()) >= height * width - 4
                assert torch.equal(inside, target)
            else:
                assert max(height, width) <= 16  # 20/28 of 20 at most, and the rounding of either edge


def test_the_clutter_is_outside_the_masks_and_the_background_darker_than_an_item():
    scenes = compose(blocks(20), 20, seed=1)
    background = scenes.images[:, 0][scenes.masks == 0]
    low, high = fashion_scenes.BACKGROUND
    assert int(background.min()) >= low
    dark = (background < fashion_scenes.ITEM[0]).double().mean()
    # Six fragments of 5 to 9 pixels' side cover 6·51/4096 = 7.5% of a scene, less where items lie on them.
    assert 0.88 < float(dark) < 0.99
    assert int(background[background < fashion_scenes.ITEM[0]].max()) <= high


def test_the_seed_decides_every_pixel():
    first, again, other = (compose(blocks(30), 30, seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)


def test_scenes_are_made_of_as_few_classes_as_there_are():
    scenes = compose(blocks(12, classes=2), 6, seed=0)
    assert {len(mask.unique()) for mask in scenes.masks} == {3}  # background, target, the other class
    with pytest.raises(ValueError, match="count must be from 1 to 12, the images there are, got 13"):
        compose(blocks(12), 13, seed=0)


def test_silhouettes_take_dark_cloth_and_leave_specks():
    picture = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    picture[..., 10:20, 10:20] = 5  # dark cloth
    picture[..., 12:14, 12:14] = 0  # a hole
    picture[..., 2, 2] = 10  # a speck
    picture[..., 5, 3:9] = 200  # a strap of one pixel
    inside = silhouettes(picture)[0, 0].bool()
    assert inside[11:19, 11].all()
    assert not inside[12:14, 12:14].any()
    assert not inside[2, 2]
    assert int(inside[5].sum()) == 6
    assert not inside[4].any()


def write_idx(path, array):
    content = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content))


def test_each_split_is_made_of_its_own_split_of_fashion_mnist(tmp_path):
    """A Fashion-MNIST whose every picture is a square of one grey, so that pixels tell from which split they come."""
    for prefix, n, grey in (("train", 120, 100), ("t10k", 40, 200)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 2:26, 2:26] = grey
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    scenes = load_fashion_scenes(tmp_path)
    assert [len(s) for s in (scenes.train, scenes.validation, scenes.test)] == [110, 10, 40]
    for split, grey in ((scenes.train, 100), (scenes.validation, 100), (scenes.test, 200)):
        assert int(split.images.max()) == bright(grey)
        assert int(split.images.min()) == round(10 + grey * 60 / 255)
    assert load(Data(name="fashion-scenes", image_size=32), tmp_path).test.masks.shape == (40, 32, 32)


def test_real_scenes_are_balanced_and_leak_no_item():
    if not fashion_mnist.DEBIAN_FASHION_MNIST.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    source = load_fashion_mnist()
    scenes = compose(source.test, 500, seed=0)
    assert scenes.labels.bincount().tolist() == [50] * 10
    area = scenes.target_masks().double().mean(dim=(1, 2))
    share = silhouettes(source.test.images).double().mean()
    squares = np.square(np.arange(30, 41)).mean() / 64**2
    assert float(area.mean()) == pytest.approx(float(share) * squares, rel=0.05)
    assert float(area.min()) > 0.01  # a sandal's few straps
    assert float(area.max()) <= 40**2 / 64**2
    brightness = scenes.images[:, 0][scenes.target_masks()].double().mean()
    items = source.test.images[source.test.images > 3].double().mean()
    assert float(brightness) == pytest.approx(float(80 + items * 175 / 255), abs=8)


def masked(labels, masks):
    labels = torch.tensor(labels)
    return Split(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, torch.tensor(masks, dtype=torch.uint8))


def test_masks_go_along_with_their_images():
    split = masked([0, 2, 1], [[[1, 3], [0, 0]], [[3, 3], [1, 2]], [[2, 0], [3, 3]]])
    assert split.take(torch.tensor([2, 0])).masks.tolist() == [[[2, 0], [3, 3]], [[1, 3], [0, 0]]]
    assert split.to(torch.device("cpu")).masks is not None
    assert split.target_masks().tolist() == [
        [[True, False], [False, False]],
        [[True, True], [False, False]],
        [[True, False], [False, False]],
    ]
    # Class 2 becomes 0, class 1 stays 1, class 0 is background.
    kept = split.of_classes([2, 1])
    assert kept.labels.tolist() == [0, 1]
    assert kept.masks.tolist() == [[[1, 1], [0, 2]], [[2, 0], [1, 1]]]
    assert kept.target_masks().sum(dim=(1, 2)).tolist() == [2, 1]
    with pytest.raises(ValueError, match="these images have no masks"):
        Split(split.images, split.labels).target_masks()


def test_masks_are_resized_as_their_images():
    mask = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7]]], dtype=torch.uint8)
    assert resize_masks(mask, 2).tolist() == [[[1, 2], [5, 6]]]
    doubled = resize_masks(mask, 4)
    assert doubled.tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2], [5, 5, 6, 6], [5, 5, 6, 6]]]
    # A solid square keeps its place in image and mask alike.
    square = torch.zeros(1, 1, 30, 40, dtype=torch.uint8)
    square[..., 9:18, 12:24] = 255
    for size in (10, 20, 60):
        image, small = resize(square, size)[0, 0], resize_masks((square[0] > 0).byte(), size)[0]
        assert torch.equal(image > 127, small.bool())


@pytest.fixture
def folder(tmp_path):
    """Two classes of five 12×10 images; the item is a rectangle whose corner tells which image it is."""
    for place, name in enumerate(("cat", "dog")):
        for i in range(5):
            pixels = np.full((10, 12), 10 * i + 100 * place, np.uint8)
            mask = np.zeros((10, 12), np.uint8)
            mask[i : i + 4, 2:8] = 255
            for kind, array in (("images", pixels), ("masks", mask)):
                file = tmp_path / kind / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    return tmp_path


def test_a_folder_of_images_and_masks_is_read(folder):
    data = load(Data(name="masked-folder"), folder)
    assert data.class_names == ("cat", "dog")
    splits = (data.train, data.validation, data.test)
    assert [s.labels.bincount().tolist() for s in splits] == [[3, 3], [1, 1], [1, 1]]
    for split in splits:
        for image, label, mask, target in zip(
            split.images, split.labels, split.masks, split.target_masks(), strict=True
        ):
            i = int(image.max()) % 100 // 10
            assert int(image.max()) // 100 == label
            assert target.nonzero().tolist() == [[r, c] for r in range(i, i + 4) for c in range(2, 8)]
            assert mask.unique().tolist() == [0, label + 1]


def test_one_coloured_image_makes_all_rgb_and_any_size_fits_with_image_size(folder):
    Image.new("RGB", (24, 20), (255, 0, 0)).save(folder / "images" / "dog" / "5.jpg", quality=100, subsampling=0)
    Image.new("1", (24, 20), 1).save(folder / "masks" / "dog" / "5.png")
    data = load_masked_folder(folder, 8)
    assert data.train.images.shape[1:] == (3, 8, 8)
    everything = torch.cat([s.images for s in (data.train, data.validation, data.test)])
    assert len(everything) == 11
    assert sum(bool(image[0].min() > 250 and image[1].max() < 5) for image in everything) == 1
    with pytest.raises(DataError, match=r"dog/5\.jpg: 24×20 pixels where others have 12×10; set image_size"):
        load_masked_folder(folder)


def test_what_is_wrong_with_a_masked_folder_is_named(folder, tmp_path_factory):
    with pytest.raises(DataError, match="--data-dir must name a folder with images/CLASS"):
        load_masked_folder()
    with pytest.raises(DataError, match="images: missing"):
        load_masked_folder(tmp_path_factory.mktemp("empty"))
    mask, image = folder / "masks" / "cat" / "3.png", folder / "images" / "cat" / "3.png"
    whole = mask.read_bytes()
    mask.unlink()
    with pytest.raises(DataError, match=r"masks/cat/3\.png: missing; .*images/cat/3\.png has no mask"):
        load_masked_folder(folder)
    Image.new("L", (11, 10), 1).save(mask)
    with pytest.raises(DataError, match=r"masks/cat/3\.png: 11×10 pixels where .*images/cat/3\.png has 12×10"):
        load_masked_folder(folder)
    Image.new("L", (12, 10), 0).save(mask)
    with pytest.raises(DataError, match=r"masks/cat/3\.png: marks no pixel"):
        load_masked_folder(folder)
    Image.new("RGBA", (12, 10)).save(mask)
    with pytest.raises(DataError, match=r"masks/cat/3\.png: a mask has one channel or three, this has mode RGBA"):
        load_masked_folder(folder)
    mask.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"masks/cat/3\.png: unreadable image"):
        load_masked_folder(folder)
    mask.write_bytes(whole)
    image.write_text("not an image")
    with pytest.raises(DataError, match=r"images/cat/3\.png: unreadable image"):
        load_masked_folder(folder)
    image.unlink()
    with pytest.raises(DataError, match="cat: 4 images, where a class needs 5"):
        load_masked_folder(folder)
