import pytest
import torch

from maxsup.lab.segmentation import augment
from maxsup.lab.segmentation.augment import augment_batch, augment_one, distort, draw, framed
from maxsup.lab.segmentation.batches import batches, chosen
from maxsup.lab.segmentation.data import IGNORE, Arrays
from maxsup.lab.segmentation.recipes import Augmentation
from maxsup.lab.segmentation.sources import load

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augmented(images, labels, how):
    return augment_batch(images, labels, how.crop, draw(len(images), how, generator()))


def coded(n, height, width):
    """Labels that each pixel's row and column tell, and images of ten times the label's grey."""
    labels = (torch.arange(height)[:, None] // 4 + torch.arange(width) // 4).byte().expand(n, height, width)
    return (10 * labels).unsqueeze(1).contiguous(), labels.contiguous()


def test_labels_move_with_their_pixels_in_a_batch():
    images, labels = coded(40, 24, 24)
    how = Augmentation(scale=(0.5, 2.0), crop=20, flip=True)
    moved, moved_labels = augmented(images, labels, how)
    assert moved.shape == (40, 1, 20, 20)
    assert moved_labels.shape == (40, 20, 20)
    outside = moved_labels == IGNORE
    assert 0 < float(outside.double().mean()) < 0.5  # of those that became smaller than 20
    # Bilinear grey is within one step of the label's, except where an image ends.
    inside = ~outside
    off = (moved[:, 0].float() - 10 * moved_labels.float()).abs()[inside]
    assert float((off <= 10).double().mean()) > 0.97
    assert float(moved[:, 0][outside].float().median()) == 0
    assert len({tuple(row.flatten().tolist()) for row in moved_labels}) > 30
    again, labels_again = augmented(images, labels, how)
    assert torch.equal(moved, again)
    assert torch.equal(moved_labels, labels_again)


def test_the_scale_is_drawn_between_its_ends():
    # A square of 8×8 in the middle of 32×32, scaled by exactly 2, is 16×16 wherever the square of 32 lies.
    labels = torch.zeros(20, 32, 32, dtype=torch.uint8)
    labels[:, 12:20, 12:20] = 1
    how = Augmentation(scale=(2.0, 2.0), crop=64)
    _, moved = augmented(255 * labels.unsqueeze(1), labels, how)
    assert (moved == 1).sum((1, 2)).tolist() == [256] * 20
    assert (moved == IGNORE).sum() == 0
    _, smaller = augmented(255 * labels.unsqueeze(1), labels, Augmentation(scale=(0.5, 0.5)))
    assert (smaller == 1).sum((1, 2)).tolist() == [16] * 20
    assert (smaller == IGNORE).sum((1, 2)).tolist() == [32 * 32 - 16 * 16] * 20
    assert len({int((row == 1).nonzero()[0, 0]) for row in smaller}) > 5  # wherever


def test_without_an_augmentation_nothing_changes():
    images, labels = coded(3, 8, 8)
    labels[0, 0, 0] = IGNORE
    same, same_labels = augmented(images, labels, Augmentation())
    assert torch.equal(same, images)
    assert torch.equal(same_labels, labels)
    cut, cut_labels = augmented(images, labels, Augmentation(scale=(1.0, 1.0), crop=7))
    assert cut.shape[2:] == cut_labels.shape[1:] == (7, 7)


def test_half_of_a_batch_is_mirrored():
    images = torch.tensor([10, 20], dtype=torch.uint8).expand(400, 1, 2, 2)
    labels = torch.tensor([1, 2], dtype=torch.uint8).expand(400, 2, 2)
    moved, moved_labels = augmented(images, labels, Augmentation(flip=True))
    mirrored = moved_labels[:, 0, 0] == 2
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(mirrored, moved[:, 0, 0, 0] == 20)
    assert moved_labels[mirrored][0].tolist() == [[2, 1], [2, 1]]


def test_an_image_from_a_file_is_scaled_cut_and_padded_with_its_labels():
    images, labels = coded(1, 30, 40)
    how = Augmentation(resize=(100, 60), scale=(1.0, 1.0), crop=70)
    image, of = augment_one(images[0], labels[0], how, 0)
    assert image.shape == (1, 70, 70)
    # 30×40 fits 60×100 as 60×80: 70 of its columns, and ten rows of padding.
    assert (of[60:] == IGNORE).all()
    assert (of[:60] != IGNORE).all()
    assert int(image[:, 60:].max()) == 0
    assert float((image[0, :60].float() - 10 * of[:60].float()).abs().max()) <= 10
    whole = augment_one(images[0], labels[0], Augmentation(crop=40), 0)
    assert torch.equal(whole[1][:30], labels[0])
    seeds = [augment_one(images[0], labels[0], Augmentation(crop=8, flip=True), seed)[1] for seed in (1, 1, 2)]
    assert torch.equal(seeds[0], seeds[1])
    assert not torch.equal(seeds[0], seeds[2])
    with pytest.raises(ValueError, match="crop must be given for images from files"):
        augment_one(images[0], labels[0], Augmentation(), 0)


def test_a_square_of_mostly_one_class_is_tried_again():
    # One column in forty has another class: most squares of 4 have one class alone.
    labels = torch.zeros(1, 40, 40, dtype=torch.uint8)
    labels[:, :, 20] = 1
    image = 100 * labels.unsqueeze(1)[0]
    shares = {}
    for most in (1.0, 0.8):
        found = [
            augment_one(image, labels[0], Augmentation(crop=4, most_of_one_class=most), seed)[1] for seed in range(200)
        ]
        shares[most] = sum(bool((of == 1).any()) for of in found) / 200
    # A square has the column with chance 4/37, or in one of ten tries with 1 - (33/37)^10 = 0.68.
    assert shares[1.0] == pytest.approx(4 / 37, abs=0.06)
    assert shares[0.8] == pytest.approx(0.68, abs=0.09)
    assert augment.TRIES == 10


def test_distortion_changes_colours_within_its_ends_and_no_geometry():
    grey = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    values = {int(distort(grey, generator(seed)).unique()) for seed in range(100)}
    # Of one grey, contrast changes nothing: brightness alone, by an eighth at most.
    assert min(values) >= 87
    assert max(values) <= 113
    assert len(values) > 10
    red = torch.zeros(3, 2, 2, dtype=torch.uint8)
    red[0] = 200
    found = [distort(red, generator(seed)) for seed in range(100)]
    assert all(of.shape == (3, 2, 2) and of.flatten(1).unique(dim=1).shape[1] == 1 for of in found)
    hues = [int(of[1, 0, 0]) for of in found]
    assert max(hues) > 60  # towards yellow
    assert sum(torch.equal(of, red) for of in found) > 0


def test_an_images_frame_keeps_its_proportions():
    assert framed((512, 2048), (2048, 512)) == (512, 2048)
    assert framed((300, 300), (2048, 512), 2.0) == (1024, 1024)


def test_each_image_comes_once_in_a_pass_whatever_the_batch():
    drawn = [index for iteration in range(7) for index in chosen(3, 10, 4, iteration)]
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    assert chosen(3, 10, 4, 5) == drawn[20:24]
    assert chosen(4, 10, 4, 5) != drawn[20:24]


def test_processes_share_a_batch():
    images, labels = coded(6, 8, 8)
    split = Arrays(images + torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1), labels)

    def first(processes, rank):
        ((found, _),) = batches(
            split, Augmentation(scale=(0.5, 2.0), flip=True), 4, 0, range(5, 6), CPU, rank=rank, processes=processes
        )
        return found

    whole = first(1, 0)
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 4
    assert torch.equal(first(2, 0), whole[::2])
    assert torch.equal(first(2, 1), whole[1::2])


def test_files_give_the_same_batches_at_any_number_of_workers(ade20k):
    split = load("ade20k", ade20k).train
    how = Augmentation(resize=(64, 24), scale=(0.5, 2.0), crop=16, most_of_one_class=0.75, flip=True, photometric=True)
    own = list(batches(split, how, 3, 0, range(2, 5), CPU))
    assert [images.shape for images, _ in own] == [(3, 3, 16, 16)] * 3
    assert all(labels.dtype == torch.uint8 and labels.shape == (3, 16, 16) for _, labels in own)
    of_a_worker = list(batches(split, how, 3, 0, range(2, 5), CPU, workers=1))
    halves = [list(batches(split, how, 3, 0, range(2, 5), CPU, rank=rank, processes=2)) for rank in (0, 1)]
    for i, (images, labels) in enumerate(own):
        assert torch.equal(of_a_worker[i][0], images)
        assert torch.equal(of_a_worker[i][1], labels)
        assert torch.equal(halves[0][i][0], images[::2])
        assert torch.equal(halves[1][i][1], labels[1::2])


def test_what_arrays_cannot_have_is_refused():
    images, labels = coded(4, 8, 8)
    with pytest.raises(ValueError, match="are for images from files alone"):
        next(batches(Arrays(images, labels), Augmentation(photometric=True), 2, 0, range(1), CPU))
