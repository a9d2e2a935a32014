import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.segmentation import MeanIoU

from maxsup.lab.segmentation import evaluate
from maxsup.lab.segmentation.augment import framed
from maxsup.lab.segmentation.data import IGNORE, Arrays
from maxsup.lab.segmentation.evaluate import confusion, measures, predictions, probabilities, resize


def random_labels(seed, classes=7, shape=(5, 20, 30)):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, shape)
    # Half of the pixels are right, so that classes differ.
    predicted = np.where(random.random(shape) < 0.5, labels, random.integers(0, classes, shape))
    labels[random.random(shape) < 0.1] = IGNORE
    return torch.from_numpy(predicted), torch.from_numpy(labels).byte()


@pytest.mark.parametrize("seed", range(3))
def test_measures_of_random_predictions_are_those_of_scikit_learn(seed):
    predicted, labels = random_labels(seed)
    matrix = sum(confusion(p, y, 7) for p, y in zip(predicted, labels, strict=True))  # an image at a time
    counted = labels != IGNORE
    y, p = labels[counted].numpy(), predicted[counted].numpy()
    assert matrix.tolist() == confusion_matrix(y, p, labels=range(7)).tolist()
    assert torch.equal(matrix, multiclass_confusion_matrix(predicted, labels.long(), 7, ignore_index=IGNORE))
    found = measures(matrix)
    assert found["iou"] == pytest.approx(jaccard_score(y, p, average=None).tolist())
    assert found["miou"] == pytest.approx(jaccard_score(y, p, average="macro"))
    assert found["mean_accuracy"] == pytest.approx(balanced_accuracy_score(y, p))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(y, p))


def test_the_mean_iou_of_one_image_is_torchmetrics():
    predicted, labels = random_labels(5, shape=(1, 40, 40))
    labels[labels == IGNORE] = 0
    oracle = MeanIoU(num_classes=7, input_format="index")
    oracle.update(predicted, labels.long())
    assert measures(confusion(predicted, labels, 7))["miou"] == pytest.approx(float(oracle.compute()), rel=1e-6)


def test_the_mean_iou_is_not_the_mean_over_images():
    # A image of 1 pixel wrong, one of 3 right: IoU of class 0 is 3/4 over all pixels, (0 + 1)/2 over the images.
    matrix = confusion(torch.tensor([1]), torch.tensor([0]), 2) + confusion(torch.zeros(3), torch.zeros(3), 2)
    assert measures(matrix)["iou"] == [0.75, 0.0]


def test_classes_that_are_nowhere_do_not_count():
    # Class 2 is neither labelled nor predicted; class 1 is predicted alone.
    found = measures(torch.tensor([[2, 2, 0], [0, 0, 0], [0, 0, 0]]))
    assert found == {"miou": 0.25, "mean_accuracy": 0.5, "pixel_accuracy": 0.5, "iou": [0.5, 0.0, None]}
    assert measures(torch.zeros(2, 2))["miou"] is None


class Linear(torch.nn.Module):
    """Logits of each pixel from its brightness and its column, at half the image's size: not the same when mirrored."""

    def forward(self, images):
        x = images[:, :1].float() / 255
        x = torch.nn.functional.avg_pool2d(x, 2)
        column = torch.linspace(0, 1, x.shape[3]).expand_as(x)
        return torch.cat([3 * x, 2 * column - x, 1 - x], dim=1)


def test_the_multi_scale_test_is_the_average_by_hand():
    images = torch.randint(0, 256, (2, 1, 12, 16), generator=torch.Generator().manual_seed(0)).byte()
    model, size = Linear(), (10, 14)
    by_hand = []
    for height, width in ((6, 8), (12, 16), (18, 24)):
        scaled = torch.nn.functional.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
        scaled = scaled.round().byte()
        for flip in (False, True):
            logits = model(torch.flip(scaled, [3]) if flip else scaled)
            logits = torch.nn.functional.interpolate(logits, size, mode="bilinear")
            by_hand.append(torch.softmax(torch.flip(logits, [3]) if flip else logits, 1))
    expected = torch.stack(by_hand).mean(0)
    found = probabilities(model, images, size, (0.5, 1.0, 1.5), flip=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(2, *size))
    # A single scale, not mirrored, is the softmax of the network's own logits.
    torch.testing.assert_close(probabilities(model, images, size), by_hand[2])
    with pytest.raises(ValueError, match="scales must name at least one"):
        probabilities(model, images, size, ())


def test_scaled_sides_are_multiples_of_a_patch():
    shown = []

    def model(images):
        shown.append(tuple(images.shape[2:]))
        return Linear()(images)

    images = torch.zeros(1, 1, 30, 45, dtype=torch.uint8)
    assert probabilities(model, images, (30, 45), (0.1, 0.5, 1.0), multiple=8).shape == (1, 3, 30, 45)
    assert shown == [(8, 8), (16, 24), (32, 48)]


def test_predictions_have_the_labels_size_whatever_the_frame():
    shown = []

    def model(images):
        shown.append(tuple(images.shape[2:]))
        return Linear()(images)

    images = torch.randint(0, 256, (3, 1, 20, 30), generator=torch.Generator().manual_seed(0)).byte()
    split = Arrays(images, torch.zeros(3, 20, 30, dtype=torch.uint8))
    frame = lambda size: framed(size, (100, 40))  # noqa: E731
    ((predicted, labels),) = predictions(model, split, [2, 0], torch.device("cpu"), frame=frame)
    assert shown == [(40, 60)]
    assert predicted.shape == labels.shape == (2, 20, 30)
    expected = probabilities(Linear(), resize(images[[2, 0]], (40, 60)), (20, 30)).argmax(1)
    assert torch.equal(predicted, expected)


def test_large_images_are_shown_a_few_at_a_time(monkeypatch):
    split = Arrays(torch.zeros(5, 1, 20, 30, dtype=torch.uint8), torch.zeros(5, 20, 30, dtype=torch.uint8))

    def sizes():
        return [len(labels) for _, labels in predictions(Linear(), split, range(5), torch.device("cpu"))]

    assert sizes() == [5]
    monkeypatch.setattr(evaluate, "EVALUATION_PIXELS", 2 * 20 * 30)
    assert sizes() == [2, 2, 1]
    monkeypatch.setattr(evaluate, "EVALUATION_PIXELS", 1)
    assert sizes() == [1] * 5
