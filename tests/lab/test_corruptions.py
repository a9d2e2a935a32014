import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from maxsup.lab.data import corruptions, load
from maxsup.lab.data.corruptions import CORRUPTIONS, FAMILIES, Random, corrupt, disc
from maxsup.lab.data.splits import resize
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Data

INDICES = torch.arange(8)


def photos(side, channels, n=8):
    """Digits, enlarged, with a tint in three channels: edges, flats and greys."""
    grey = resize(load(Data("digits")).test.images[:n], side)
    return grey if channels == 1 else torch.cat([grey, grey // 2, 255 - grey], dim=1)


def flat(value, channels=1, side=64, n=8):
    return torch.full((n, channels, side, side), value, dtype=torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("side", "channels"), [(28, 1), (28, 3), (64, 3)])
def test_every_severity_changes_more_than_the_one_before(name, side, channels):
    images = photos(side, channels)
    found = [corrupt(images, name, severity, INDICES) for severity in range(1, 6)]
    assert all(of.shape == images.shape and of.dtype == torch.uint8 for of in found)
    errors = [float((of.double() - images.double()).square().mean()) for of in found]
    assert errors[0] > 0
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_depends_on_its_index_and_not_on_its_batch(name):
    images = photos(32, 3)
    whole = corrupt(images, name, 3, INDICES)
    order = torch.tensor([5, 2, 7])
    assert torch.equal(corrupt(images[order], name, 3, order), whole[order])
    assert torch.equal(corrupt(images, name, 3, INDICES), whole)


def test_noise_differs_between_images_severities_and_kinds():
    image = flat(128, n=1)
    seen = {
        corrupt(image, name, severity, torch.tensor([index])).numpy().tobytes()
        for name in ("gaussian-noise", "impulse-noise")
        for severity in (1, 2)
        for index in (0, 1, 10_000)
    }
    assert len(seen) == 12


def test_random_numbers_are_uniform_normal_and_independent():
    random = Random(torch.arange(100), key=7)
    u = random.uniform(1000)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(random.normal(1000).flatten().numpy(), "norm").pvalue > 0.001
    # Correlations of 100,000 pairs have a standard deviation of 0.003: between images, places and parts.
    others = random.uniform(1000, part=1), Random(torch.arange(100), key=8).uniform(1000)
    for a, b in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u, others[0]), (u, others[1])):
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.015


def test_the_hash_is_murmurs():
    # Of MurmurHash3's 32-bit finalizer, computed with Python's integers of any size.
    def reference(h):
        h ^= h >> 16
        h = h * 0x85EBCA6B % 2**32
        h ^= h >> 13
        h = h * 0xC2B2AE35 % 2**32
        return h ^ h >> 16

    values = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    assert corruptions._mixed(torch.tensor(values)).tolist() == [reference(value) for value in values]
    assert reference(1) == 0x514E28B7


def test_gaussian_noise_has_its_deviation():
    noisy = corrupt(flat(128), "gaussian-noise", 1, INDICES).double() / 255
    assert float(noisy.std()) == pytest.approx(0.08, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(128 / 255, abs=0.002)


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (5, 3)])
def test_shot_noise_is_poisson(severity, photons):
    grey = flat(102)  # 0.4 of white
    change = CORRUPTIONS["shot-noise"].change
    counts = photons * change(grey.float() / 255, photons, Random(INDICES, severity))
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    n, rate = counts.numel(), 0.4 * photons
    assert float(counts.mean()) == pytest.approx(rate, abs=4 * math.sqrt(rate / n))
    expected = stats.poisson(rate).pmf(np.arange(200))
    seen = np.bincount(counts.round().long().flatten().numpy(), minlength=200) / n
    assert np.abs(seen - expected).max() < 4 * math.sqrt(0.25 / n)


def test_impulses_are_half_black_half_white():
    noisy = corrupt(flat(100), "impulse-noise", 5, INDICES)
    black, white = (float((noisy == value).double().mean()) for value in (0, 255))
    assert black == pytest.approx(0.135, abs=0.01)
    assert white == pytest.approx(0.135, abs=0.01)
    assert set(noisy.unique().tolist()) == {0, 100, 255}


@pytest.mark.parametrize("name", ["defocus-blur", "motion-blur", "zoom-blur", "contrast", "pixelate"])
def test_a_flat_image_stays(name):
    found = corrupt(flat(77, channels=3, side=40), name, 5, INDICES)
    assert found.unique().tolist() == [77]


def test_disc_kernels_by_hand():
    # Far below a pixel nearly all stays; the disc of radius r has second moments r²/4, and tents spread them further.
    assert disc(0.01)[1, 1] > 0.98
    for radius in (0.8, 3.0, 9.5):
        kernel = disc(radius).double()
        places = torch.arange(len(kernel)).double() - len(kernel) // 2
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        assert torch.allclose(kernel, kernel.T, atol=1e-6)
        assert torch.allclose(kernel, kernel.flip(0), atol=1e-6)
        variance = float((kernel.sum(1) * places**2).sum())
        # A tent at a uniformly random place between pixels adds ⅙ on average.
        assert variance == pytest.approx(radius**2 / 4 + 1 / 6, rel=0.1)


def test_motion_blur_spreads_a_point_along_a_line():
    point = torch.zeros(8, 1, 41, 41, dtype=torch.uint8)
    point[:, :, 20, 20] = 255
    change = CORRUPTIONS["motion-blur"].change
    found = change(point.float() / 255, 10 / 41, Random(INDICES, 0)).squeeze(1).double()
    assert torch.allclose(found.sum((1, 2)), torch.ones(8).double(), atol=1e-4)
    places = torch.arange(41).double() - 20
    for image in found:
        y, x = image.sum(1), image.sum(0)
        xx, yy, xy = (x * places**2).sum(), (y * places**2).sum(), places @ image @ places
        eigenvalues = torch.linalg.eigvalsh(torch.tensor([[xx, xy], [xy, yy]]))
        # 11 points over a length of 10 have variance 10 along the line, and a tent's at most ¼ across.
        assert float(eigenvalues[1]) == pytest.approx(10, abs=0.5)
        assert float(eigenvalues[0]) < 0.3


def test_zoom_blur_leaves_the_centre_and_smears_outwards():
    image = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    image[:, :, 30:35, 30:35] = 255
    image[:, :, :, 60] = 255  # a bar at the right
    found = corrupt(image, "zoom-blur", 5, INDICES[:1])[0, 0]
    assert found[32, 32] == 255
    assert found[32, 61:].sum() > 0
    assert found[32, 50:58].sum() == 0


def test_brightness_keeps_hue_and_saturation():
    image = torch.tensor([0, 51, 102], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    # The value 0.4 becomes 0.6: one and a half times of each.
    assert corrupt(image, "brightness", 2, INDICES[:1])[0, :, 0, 0].tolist() == [0, 76, 153]
    assert corrupt(flat(0, channels=3, n=1), "brightness", 2, INDICES[:1]).unique().tolist() == [51]


def test_contrast_by_hand():
    image = torch.tensor([[0, 200], [100, 100]], dtype=torch.uint8).view(1, 1, 2, 2)
    assert corrupt(image, "contrast", 3, INDICES[:1]).flatten().tolist() == [80, 120, 100, 100]


def test_pixelate_by_hand():
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4) * 10
    found = corrupt(image, "pixelate", 1, INDICES[:1])[0, 0]  # half: blocks of 2 × 2
    assert found.tolist() == [[25, 25, 45, 45]] * 2 + [[105, 105, 125, 125]] * 2


def test_fog_is_white_light_before_the_image():
    white, black = (corrupt(flat(value), "fog", 3, INDICES).double() / 255 for value in (255, 0))
    assert float(white.min()) == 1.0
    # 0.6·(½ + ½·clouds): from 0.3 to 0.6, and each image's clouds reach both ends.
    assert torch.allclose(black.amin((1, 2, 3)), torch.tensor(0.3).double(), atol=0.003)
    assert torch.allclose(black.amax((1, 2, 3)), torch.tensor(0.6).double(), atol=0.003)


def test_snow_never_darkens():
    images = photos(48, 3)
    assert bool((corrupt(images, "snow", 2, INDICES) >= images).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    images = photos(32, channels, n=1)
    pixels = images[0, 0] if channels == 1 else images[0].permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=15)
    theirs = torch.from_numpy(np.array(Image.open(buffer))).int()
    ours = corrupt(images, "jpeg", 3, INDICES[:1])[0].int()
    assert torch.equal(ours[0] if channels == 1 else ours.permute(1, 2, 0), theirs)


def test_there_are_three_of_each_family():
    assert [of.family for of in CORRUPTIONS.values()] == [family for family in FAMILIES for _ in range(3)]


def test_what_is_refused():
    with pytest.raises(UnknownNameError, match="jpg"):
        corrupt(flat(0), "jpg", 1, INDICES)
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity must be from 1 to 5, got {severity}"):
            corrupt(flat(0), "jpeg", severity, INDICES)
    with pytest.raises(ValueError, match="images must be uint8 of shape"):
        corrupt(flat(0).float(), "jpeg", 1, INDICES)
    with pytest.raises(ValueError, match="images must be uint8 of shape"):
        corrupt(flat(0, channels=2), "jpeg", 1, INDICES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_cuda_agrees_with_the_cpu(name):
    images = photos(96, 3)
    for severity in (1, 5):
        here = corrupt(images, name, severity, INDICES).int()
        there = corrupt(images.cuda(), name, severity, INDICES).cpu().int()
        # Single grey levels where a float lies between two; a photon of shot noise where u lies at a bound.
        assert ((here - there).abs() > 1).double().mean() < 1e-4
