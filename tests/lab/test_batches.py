"""Batches of images in memory: order, shares of several processes, augmentation on the device."""

import pytest
import torch

from maxsup.lab.data import Split, evaluation_batches, training_batches
from maxsup.lab.data import batches as batches_module
from maxsup.lab.data.augment import augment, draw
from maxsup.lab.recipes import Data


def augmented(images, data, seed=0):
    return augment(images, data, draw(data, len(images), torch.Generator().manual_seed(seed)))


def numbered(n):
    """n images of one pixel that is their label."""
    return Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.arange(n))


def test_augmentation_shifts_each_image_on_its_own_and_invents_no_pixel():
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).repeat(200, 1, 1, 1)
    out = augmented(images, Data(pad_crop=1))
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    crops = {tuple(padded[r : r + 8, c : c + 8].flatten().tolist()) for r in range(3) for c in range(3)}
    seen = {tuple(image.flatten().tolist()) for image in out}
    assert seen == crops  # 200 draws of 9 equally likely crops miss one with a chance of 5e-10
    flipped = augmented(images, Data(flip=True))
    share = float((flipped[:, 0, 0, 0] == 8).double().mean())
    assert 0.35 < share < 0.65
    assert torch.equal(augmented(images, Data()), images)


def test_augmentation_keeps_the_channels_of_an_image_together():
    images = torch.stack([torch.arange(16).view(4, 4), torch.arange(16).view(4, 4) + 100]).to(torch.uint8)
    out = augmented(images.repeat(20, 1, 1, 1), Data(pad_crop=1, flip=True), seed=1)
    inside = out[:, 1] >= 100
    assert torch.equal(out[:, 0][inside], out[:, 1][inside] - 100)


def test_training_batches_show_every_image_once_and_leave_out_a_lone_one():
    batches = list(training_batches(numbered(21), Data(), 4, seed=0))
    assert [len(labels) for _, labels in batches] == [4] * 5
    labels = torch.cat([labels for _, labels in batches])
    assert len(labels.unique()) == 20
    assert torch.equal(torch.cat([images for images, _ in batches]).flatten().long(), labels)
    again = torch.cat([y for _, y in training_batches(numbered(21), Data(), 4, seed=0)])
    assert torch.equal(labels, again)
    other = torch.cat([y for _, y in training_batches(numbered(21), Data(), 4, seed=1)])
    assert not torch.equal(labels, other)


@pytest.mark.parametrize("world", [2, 3])
def test_the_processes_batches_are_those_of_one_process(world):
    images = torch.randint(256, (31, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split, data = Split(images, torch.arange(31)), Data(pad_crop=2, flip=True)
    alone = list(training_batches(split, data, 12, seed=5))
    # 31 = 12 + 12 + 7: the last batch is shared by 3 as 3 + 2 + 2.
    together = [list(training_batches(split, data, 12, seed=5, rank=r, world=world)) for r in range(world)]
    for number, (images, labels) in enumerate(alone):
        for rank in range(world):
            assert torch.equal(together[rank][number][0], images[rank::world])
            assert torch.equal(together[rank][number][1], labels[rank::world])
    # What happens to an image does not depend on the batch's size.
    assert torch.equal(
        torch.cat([x for x, _ in training_batches(split, data, 31, seed=5)]), torch.cat([x for x, _ in alone])
    )


def test_processes_leave_out_a_last_batch_with_less_than_two_images_for_one():
    lengths = [[len(y) for _, y in training_batches(numbered(11), Data(), 8, seed=0, rank=r, world=2)] for r in (0, 1)]
    assert lengths == [[4], [4]]
    with pytest.raises(ValueError, match="batch_size must be at least 2 for each of 2 processes, got 3"):
        next(training_batches(numbered(11), Data(), 3, seed=0, world=2))
    with pytest.raises(ValueError, match="rank must be from 0 to world - 1 = 1, got 2"):
        next(training_batches(numbered(11), Data(), 4, seed=0, rank=2, world=2))


@pytest.mark.parametrize("world", [1, 2, 4, 13])
def test_evaluation_shares_joined_in_order_of_rank_are_the_split(world):
    shares = [list(evaluation_batches(numbered(11), 3, rank=r, world=world)) for r in range(world)]
    labels = torch.cat([y for share in shares for _, y in share])
    images = torch.cat([x for share in shares for x, _ in share])
    assert labels.tolist() == list(range(11))
    assert torch.equal(images, numbered(11).images)
    sizes = [sum(len(y) for _, y in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.5}])
def test_batches_do_not_depend_on_how_many_are_augmented_at_once(monkeypatch, world, changes):
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.randint(256, (50, 3, 6, 6), dtype=torch.uint8, generator=generator), torch.arange(50) % 4)
    recipe = Data(pad_crop=1, flip=True, rotation=30.0, **changes)
    constants = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.3)

    def made(taken):
        monkeypatch.setattr(batches_module, "_TAKEN_BYTES", taken)
        options = {"rank": world - 1, "world": world, "num_classes": 4, "normalization": constants}
        return list(training_batches(split, recipe, 12, seed=3, **options))

    alone, two, whole = (made(batches * 12 // world * 3 * 6 * 6) for batches in (1, 2, 100))
    assert len(alone) == len(two) == len(whole) == (4 if changes or world == 3 else 5)
    for batches in zip(alone, two, whole, strict=True):
        for parts in zip(*batches, strict=True):
            assert torch.equal(parts[0], parts[1])
            assert torch.equal(parts[0], parts[2])


def test_an_empty_split_has_no_batches():
    assert list(training_batches(numbered(0), Data(), 4, seed=0)) == []
