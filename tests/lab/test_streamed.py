"""Streamed images: what they become, in which order, by whichever processes."""

import gc
import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from maxsup.lab.data import DataError, Streamed, evaluation_batches, load, training_batches
from maxsup.lab.data.view import View
from maxsup.lab.recipes import Data
from tests.lab.real_files import write_folder

CLASSES = ["one", "three", "two"]
STREAMED = Data(name="image-folder", image_size=24, streaming="on", loader_workers=0)


def with_(**changes):
    return Data(**{**STREAMED.__dict__, **changes})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "images"
    write_folder(root / "train", CLASSES, 12)
    write_folder(root / "val", CLASSES, 5, start=12)
    write_folder(root / "test", CLASSES, 4, start=20)
    return root


def epoch(folder, data, batch_size=8, seed=3, world=1):
    loaded = load(data, folder)
    return [
        list(
            training_batches(
                loaded.train,
                data,
                batch_size,
                seed=seed,
                rank=rank,
                world=world,
                num_classes=loaded.num_classes,
                normalization=loaded.mean_and_std(),
            )
        )
        for rank in range(world)
    ]


def files(folder, split):
    return sorted((folder / split).rglob("*.JPEG"))


def central(file, size, shorter, interpolation=F.InterpolationMode.BILINEAR):
    """What Pillow, by torchvision, makes of a file."""
    image = F.center_crop(F.resize(Image.open(file).convert("RGB"), shorter, interpolation), [size, size])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def levels(images, others):
    """The largest difference of two pixels."""
    return int((images.int() - others.int()).abs().max())


def test_evaluation_is_torchvisions_resize_and_central_crop(folder):
    data = with_(eval_crop=0.75, interpolation="bicubic")
    loaded = load(data, folder)
    batches = list(evaluation_batches(loaded.test, 5))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    found = torch.cat([images for images, _ in batches])
    expected = [central(file, 24, 32, F.InterpolationMode.BICUBIC) for file in files(folder, "test")]
    assert levels(found, torch.stack(expected)) <= 1
    assert torch.cat([labels for _, labels in batches]).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(loaded.test.images, found)
    assert torch.equal(loaded.test.take(torch.tensor([7, 0])).images, torch.stack([found[7], found[0]]))
    shares = [torch.cat([x for x, _ in evaluation_batches(loaded.test, 5, rank=r, world=5)]) for r in range(5)]
    assert torch.equal(torch.cat(shares), found)


def test_training_without_augmentation_shows_every_image_once(folder):
    (batches,) = epoch(folder, STREAMED)
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    expected = load(STREAMED, folder).train.images
    assert levels(expected, torch.stack([central(file, 24, 24) for file in files(folder, "train")])) <= 1
    # 36 = 4·8 + 4.
    assert sorted(images.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    place = {tuple(image.flatten().tolist()): i for i, image in enumerate(expected)}
    assert labels.tolist() == [place[tuple(image.flatten().tolist())] // 12 for image in images]


AUGMENTED = {
    "random_resized_crop": True,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "flip": True,
    "rotation": 10.0,
    "repeats": 3,
}


def test_neither_the_workers_nor_the_time_decide_what_an_image_becomes(folder):
    (alone,) = epoch(folder, with_(**AUGMENTED))
    data = with_(**AUGMENTED, loader_workers=2)
    train = load(data, folder).train
    # Two epochs of the same seed by the same processes, the first broken off.
    first = iter(training_batches(train, data, 8, seed=3))
    assert torch.equal(next(first)[0], alone[0][0])
    again = list(training_batches(train, data, 8, seed=3))
    for (images, labels), (expected, expected_labels) in zip(again, alone, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)
    other = list(training_batches(train, data, 8, seed=4))
    assert not torch.equal(other[0][0], alone[0][0])


def test_the_processes_batches_are_those_of_one_process(folder):
    data = with_(**AUGMENTED)
    (alone,) = epoch(folder, data)
    together = epoch(folder, data, world=2)
    for number, (images, labels) in enumerate(alone):
        for rank in range(2):
            assert torch.equal(together[rank][number][0], images[rank::2])
            assert torch.equal(together[rank][number][1], labels[rank::2])


def test_the_processes_mix_and_erase_as_one_process_would(folder):
    data = with_(random_erasing=0.5, mixup=0.8, cutmix=1.0, flip=True)
    (alone,) = epoch(folder, data)
    together = epoch(folder, data, world=2)
    assert len(alone) == 4  # the last, smaller batch is left out
    for number, (images, labels) in enumerate(alone):
        assert images.dtype == labels.dtype == torch.float32
        assert labels.sum(1).tolist() == pytest.approx([1.0] * 8)
        shares = [together[rank][number] for rank in range(2)]

        def rows(images, labels):
            return sorted(torch.cat([labels, images.flatten(1)], dim=1).tolist())

        assert rows(images, labels) == rows(torch.cat([x for x, _ in shares]), torch.cat([y for _, y in shares]))


def test_images_in_memory_are_augmented_on_workers_too_and_grey_stays_grey():
    data = Data(name="digits", random_resized_crop=True, rand_augment="rand-m9-mstd0.5-inc1", loader_workers=0)
    loaded = load(data)
    assert isinstance(loaded.train, Streamed)
    assert loaded.train.images.shape == (1077, 1, 8, 8)
    assert loaded.channels == 1
    images, _ = next(iter(training_batches(loaded.train, data, 64, seed=0)))
    assert images.shape == (64, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert not torch.isin(images.flatten(1).sum(1), loaded.train.images.flatten(1).sum(1)).all()
    # The whole of an image, without anything done to it.
    plain = Data(name="digits", random_resized_crop=True, crop_scale=(1.0, 1.0), loader_workers=0)
    images, _ = next(iter(training_batches(load(plain).train, plain, 400, seed=0)))
    originals = {tuple(image.flatten().tolist()) for image in loaded.train.images}
    whole = [tuple(image.flatten().tolist()) in originals for image in images]
    # Ten tries at a shape of 3:4 to 4:3 fail unless it is a square to within rounding; then the whole is taken.
    assert np.mean(whole) > 0.9


def test_random_resized_crops_cover_the_area_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Red grows by one a column, green by one a row: a crop tells its place and size.
    rows, columns = np.mgrid[0:200, 0:200]
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(20):
            ramp = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
            Image.fromarray(ramp).save(tmp_path / "train" / name / f"{i}.png")
    data = Data(
        name="image-folder",
        image_size=20,
        random_resized_crop=True,
        crop_scale=(0.25, 0.5),
        repeats=1,
        loader_workers=0,
    )
    train = load(data, tmp_path).train
    crops = torch.cat([next(iter(training_batches(train, data, 24, seed=seed)))[0] for seed in range(10)]).double()
    # From the centre of the first to that of the last of 20 new pixels there are 19/20 of the crop.
    wide = (crops[:, 0, 10, -2] - crops[:, 0, 10, 1]) * 20 / 17
    tall = (crops[:, 1, -2, 10] - crops[:, 1, 1, 10]) * 20 / 17
    area, aspect = wide * tall / 200**2, wide / tall
    assert 0.23 < float(area.min()) < 0.3  # a level's rounding in each of 100 moves the area by 2%
    assert 0.45 < float(area.max()) < 0.53
    assert 0.7 < float(aspect.min()) < 0.85
    assert 1.2 < float(aspect.max()) < 1.4


def test_a_file_that_is_damaged_after_the_check_is_named(folder):
    data = with_(loader_workers=1)
    loaded = load(data, folder)
    file = files(folder, "train")[0]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{file.name}: unreadable image"):
        list(training_batches(loaded.train, data, 8, seed=0))


def test_mean_and_deviation_are_the_training_images_or_imagenets(folder):
    loaded = load(STREAMED, folder)
    mean, std = loaded.mean_and_std()
    pixels = torch.stack([central(file, 24, 24) for file in files(folder, "train")]).double() / 255
    # Pillow's and torchvision's rounding differ by a level here and there.
    assert mean.flatten().tolist() == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert std.flatten().tolist() == pytest.approx(pixels.std(dim=(0, 2, 3)).tolist(), abs=1e-4)
    mean, std = load(with_(normalize="imagenet"), folder).mean_and_std()
    assert mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_time_spent_waiting_is_part_of_the_epoch(folder):
    data = with_(rand_augment="rand-m9")
    train = load(data, folder).train
    begin = time.perf_counter()
    batches = training_batches(train, data, 8, seed=0)
    assert len(batches) == 5
    assert len(list(batches)) == 5
    assert 0 < batches.waited() < time.perf_counter() - begin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "digits", "streaming": "on"}, "streaming: digits is held in memory"),
        ({"name": "digits", "eval_crop": 0.9}, r"eval_crop 0\.9 is for streamed images; these are in memory \(digits"),
        ({"name": "digits", "interpolation": "bicubic"}, "interpolation bicubic is for streamed images or random_res"),
        ({"name": "digits", "loader_workers": 2}, "loader_workers is for images that are decoded in training"),
        ({"name": "digits", "held_out": 2}, "held_out: digits has its own validation split"),
        ({"name": "digits", "normalize": "imagenet"}, "normalize imagenet is for RGB images; those of digits have 1"),
    ],
)
def test_options_that_do_not_apply_in_memory_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        load(Data(**change))


def test_options_of_folders_that_contradict_each_other_are_refused(folder):
    with pytest.raises(
        ValueError, match=r"eval_crop 0\.9 is for streamed images; these are in memory with data\.stream"
    ):
        load(Data(name="image-folder", image_size=24, streaming="off", eval_crop=0.9), folder)
    with pytest.raises(ValueError, match="held_out: image-folder has its own validation split here"):
        load(with_(held_out=3), folder)
    small = Data(name="image-folder", image_size=24)
    assert not isinstance(load(small, folder).test, Streamed)
    assert isinstance(load(Data(name="image-folder", image_size=24, eval_crop=0.9), folder).test, Streamed)


def test_what_mixing_needs_is_asked_for(folder):
    data = with_(mixup=0.2)
    train = load(data, folder).train
    normalization = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    with pytest.raises(ValueError, match="batch_size must be a multiple of 4 with mixup or cutmix"):
        training_batches(train, data, 10, seed=0, world=2)
    with pytest.raises(ValueError, match="batch_size 64 exceeds the 36 images of an epoch"):
        training_batches(train, data, 64, seed=0)
    with pytest.raises(ValueError, match=r"normalization must be given with data\.random_erasing"):
        next(training_batches(train, data, 8, seed=0, num_classes=3))
    with pytest.raises(ValueError, match=r"num_classes must be given with data\.mixup"):
        next(training_batches(train, data, 8, seed=0, normalization=normalization))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_the_same_images_and_tells_how_long_it_waited(folder):
    data = with_(random_resized_crop=True, rand_augment="rand-m9", loader_workers=2)
    train = load(data, folder).train
    batches = training_batches(train, data, 8, seed=3, device="cuda")
    found = [(images.cpu(), labels.cpu()) for images, labels in batches]
    (expected,) = epoch(folder, with_(random_resized_crop=True, rand_augment="rand-m9"))
    for (images, labels), (wanted, wanted_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, wanted)
        assert torch.equal(labels, wanted_labels)
    assert batches.waited() > 0
    test = load(data, folder).test
    assert torch.equal(torch.cat([x.cpu() for x, _ in evaluation_batches(test, 5, device="cuda")]), test.images)


def test_a_killed_training_takes_its_processes_with_it(folder):
    program = (
        "import os, signal, sys\n"
        "if __name__ == '__main__':\n"
        "    from pathlib import Path\n"
        "    from multiprocessing import active_children\n"
        "    from maxsup.lab.data import load, training_batches\n"
        "    from maxsup.lab.recipes import Data\n"
        "    data = Data(name='image-folder', image_size=24, streaming='on', loader_workers=2)\n"
        "    batches = training_batches(load(data, Path(sys.argv[1])).train, data, 8, seed=0)\n"
        "    next(batches)\n"
        "    print(*[child.pid for child in active_children()], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (folder / "program.py").write_text(program)
    run = subprocess.run(
        [sys.executable, str(folder / "program.py"), str(folder)], capture_output=True, text=True, timeout=300
    )
    children = [int(pid) for pid in run.stdout.split()]
    assert len(children) == 2, run.stderr
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_processes_end_with_the_split(folder):
    data = with_(loader_workers=2)
    train = load(data, folder).train
    gc.disable()  # a circle of references would keep them until the next collection
    try:
        list(training_batches(train, data, 8, seed=0))
        children = {child.pid for child in multiprocessing.active_children()}
        assert len(children) == 2
        del train
        assert not {child.pid for child in multiprocessing.active_children()} & children
    finally:
        gc.enable()


def test_rand_augment_of_the_greatest_magnitude_keeps_no_bits_of_some_images():
    view = View((8, 8), 3, rand_augment="rand-m10-mstd0-n1-p1-inc1")
    image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    made = [view(image) for _ in range(200)]
    # One of 15 operations is Posterize, which keeps 4 - 4 bits: Pillow 13 would refuse.
    assert 0.01 < np.mean([not bool(pixels.any()) for pixels in made]) < 0.2
