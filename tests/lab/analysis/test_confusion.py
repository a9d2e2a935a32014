from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_confusion

from maxsup.lab.analysis.confusion import confusion_matrix, most_confused


def test_rows_are_labels_and_columns_are_predictions():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 7, generator=generator), torch.randint(6, (200,), generator=generator)
    expected = sklearn_confusion(labels, logits.argmax(1), labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(logits, labels), expected)


def test_equal_logits_count_for_the_lowest_index():
    assert confusion_matrix(torch.zeros(2, 2), torch.tensor([1, 1])).tolist() == [[0, 0], [2, 0]]


def test_the_most_confused_three_worked_out_by_hand():
    counts = np.diag([90, 90, 90, 90])
    counts[0, 1], counts[3, 1], counts[2, 0] = 5, 3, 4
    # 0-1-2: 5 + 4; 0-1-3: 5 + 3; 0-2-3: 4; 1-2-3: 3.
    assert most_confused(counts) == (0, 1, 2)
    counts[1, 3] = 3
    assert most_confused(counts) == (0, 1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_the_most_confused_three_against_every_triple(seed):
    counts = np.random.default_rng(seed).integers(0, 6, (9, 9))

    def among(triple):
        return sum(counts[a, b] for a in triple for b in triple if a != b)

    # max takes the first of equals, and combinations come in order.
    assert most_confused(counts) == max(combinations(range(9), 3), key=among)


def test_without_confusion_the_first_three():
    assert most_confused(np.eye(5, dtype=np.int64)) == (0, 1, 2)


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (9,)])
def test_a_matrix_of_fewer_than_three_classes_is_refused(shape):
    with pytest.raises(ValueError, match=r"counts must be \(K, K\) with K of at least 3"):
        most_confused(np.zeros(shape, dtype=np.int64))
