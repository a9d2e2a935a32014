"""Augmentation on the device against timm and torchvision: rotation, erasing, mixup and cutmix, repeated images."""

import math
import random

import numpy as np
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.random_erasing import RandomErasing
from torchvision.transforms.v2 import functional as F

from maxsup.lab.data import Split, training_batches
from maxsup.lab.data.augment import rotate
from maxsup.lab.data.mixing import erased_boxes
from maxsup.lab.data.order import epoch_order
from maxsup.lab.recipes import Data

# To floats without a change but the division by 255.
AS_THEY_ARE = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)


def pixels(n, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (n, 1, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("shape", [(32, 32), (20, 30)])
def test_rotation_is_torchvisions(shape):
    images = torch.randint(256, (4, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    degrees = torch.tensor([15.0, -15.0, 7.3, 120.0])
    expected = torch.stack([F.rotate(image, float(angle)) for image, angle in zip(images, degrees, strict=True)])
    # Points midway between two pixels fall to one or the other by their last digit.
    assert float((rotate(images, degrees) == expected).double().mean()) > 0.995
    assert torch.equal(rotate(images, torch.zeros(4)), images)


def test_angles_are_drawn_evenly_to_both_sides():
    # One pixel far out on a dark image shows by how much each was turned.
    images = torch.zeros(300, 1, 41, 41, dtype=torch.uint8)
    images[:, 0, 20, 38:41] = 255
    (batch, _) = next(training_batches(Split(images, torch.zeros(300).long()), Data(rotation=30), 300, seed=0))
    rows = torch.arange(41.0).view(1, 41, 1) - 20
    columns = torch.arange(41.0).view(1, 1, 41) - 20
    weights = batch[:, 0].double()
    turned = torch.atan2(-(weights * rows).sum((1, 2)), (weights * columns).sum((1, 2))) * 180 / math.pi
    assert float(turned.min()) == pytest.approx(-30, abs=2.5)
    assert float(turned.max()) == pytest.approx(30, abs=2.5)
    # Uniform in ±30: mean 0 ± 1, deviation 30/√3 = 17.3 ± 0.5 (one standard error).
    assert float(turned.mean()) == pytest.approx(0, abs=3)
    assert float(turned.std()) == pytest.approx(30 / math.sqrt(3), abs=1.5)


def test_erased_boxes_have_the_law_of_timms():
    n, side = 4000, 32
    boxes = erased_boxes(0.25, n, (side, side), seed=0)
    erased = boxes[boxes[:, 2] > 0]
    assert len(erased) / n == pytest.approx(0.25, abs=0.03)  # 4 standard errors
    assert bool((erased[:, 0] + erased[:, 2] <= side).all())
    assert bool((erased[:, 1] + erased[:, 3] <= side).all())
    random.seed(0)
    timms = RandomErasing(1.0, mode="const", device="cpu")
    areas = [int((timms(torch.ones(1, side, side)) == 0).sum()) for _ in range(len(erased))]
    ours = erased[:, 2] * erased[:, 3]
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(areas, quantile), abs=20)


def test_erasing_puts_noise_into_the_boxes_and_leaves_the_rest():
    images = torch.full((400, 1, 32, 32), 255, dtype=torch.uint8)
    split, data = Split(images, torch.arange(400)), Data(random_erasing=0.5)
    batches = list(training_batches(split, data, 100, seed=7, normalization=AS_THEY_ARE))
    boxes = erased_boxes(0.5, 400, (32, 32), seed=7)
    noise = []
    for image, (top, left, height, width) in zip(torch.cat([x for x, _ in batches]), boxes, strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert bool((image[0][~inside] == 1).all())
        noise.append(image[0][inside])
    noise = torch.cat(noise)
    assert len(noise) > 10_000
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert torch.cat([y for _, y in batches]).sort().values.tolist() == list(range(400))


def mixed(data, n=16, batch_size=8, seed=0):
    images = pixels(n)
    split = Split(images, torch.arange(n))
    made = training_batches(split, data, batch_size, seed=seed, num_classes=n, normalization=AS_THEY_ARE)
    return images.float() / 255, list(made)


def test_mixup_adds_images_and_labels_by_one_share_a_batch():
    originals, batches = mixed(Data(mixup=0.8))
    shares = []
    for images, labels in batches:
        # The probabilities say what each image must be.
        assert torch.allclose(images, torch.einsum("nk,kchw->nchw", labels, originals), atol=1e-6)
        assert labels.sum(1).tolist() == pytest.approx([1.0] * 8)
        assert (labels > 0).sum(1).tolist() == [2] * 8
        values = labels[labels > 0].unique().tolist()
        assert len({round(min(value, 1 - value), 5) for value in values}) == 1
        shares.append(values[0])
    assert shares[0] != shares[1]
    assert torch.equal(mixed(Data(mixup=0.8))[1][1][0], batches[1][0])
    assert not torch.equal(mixed(Data(mixup=0.8), seed=1)[1][1][0], batches[1][0])


def test_cutmix_pastes_a_box_whose_area_is_the_labels_share():
    originals, batches = mixed(Data(cutmix=1.0), n=32)
    pasted = 0
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            classes = label.nonzero().flatten().tolist()
            same = [(image == originals[c]) for c in classes]
            assert bool(torch.stack(same).any(0).all())
            for c, here in zip(classes, same, strict=True):
                # A pixel of both is counted twice: 64 of them, seldom equal among 255 values.
                assert float(here.double().mean()) == pytest.approx(float(label[c]), abs=0.1)
            pasted += len(classes) == 2
    assert pasted >= 16  # a box may be empty


def test_mixup_and_cutmix_take_turns():
    originals, batches = mixed(Data(mixup=1.0, cutmix=1.0), n=64)
    kinds = [bool((images[:, None] == originals[None]).any(1).all()) for images, _ in batches]
    assert {True, False} == set(kinds)


def test_mixing_leaves_other_libraries_chance_alone():
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    mixed(Data(mixup=0.8, random_erasing=0.5))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002


@pytest.mark.parametrize(("n", "repeats"), [(1000, 3), (700, 2), (100, 3)])
def test_repeated_images_are_those_of_timms_sampler(n, repeats):
    order = epoch_order(n, repeats, torch.Generator().manual_seed(5))
    for world in (1, 2, 4):
        for rank in range(world):
            sampler = RepeatAugSampler(range(n), num_replicas=world, rank=rank, num_repeats=repeats)
            sampler.set_epoch(5)  # which is its generator's seed
            # Where n is no multiple of the processes, timm gives each as many as the first.
            theirs, ours = list(sampler), order[rank::world].tolist()
            assert theirs[: len(ours)] == ours
            assert len(theirs) - len(ours) <= 1
