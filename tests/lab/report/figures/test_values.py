"""What the figures compute before they draw."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from maxsup.lab.records import read_comparison
from maxsup.lab.report.figures.calibration import pooled
from maxsup.lab.report.figures.curves import mean_and_band, spread_points
from maxsup.lab.report.figures.logits import polygon, summed
from maxsup.lab.report.figures.projection import projection
from tests.lab.report import factory
from tests.lab.report.figures import conftest


def test_histograms_of_different_widths_add_up():
    # Values 0.6, 0.9 | −0.1, 0.1, 0.1 in bins of 0.5 and 0.25.
    coarse = {"first": 1, "count": [2]}
    fine = {"first": -1, "count": [1, 2]}
    width, first, counts = summed([coarse, fine], [0.5, 0.25])
    assert (width, first, counts.tolist()) == (0.5, -1, [1, 2, 2])


def test_summed_histograms_are_those_of_all_values():
    generator = np.random.default_rng(0)
    parts, widths, everything = [], [], []
    for width in (0.125, 0.5, 0.25):
        values = generator.normal(size=500)
        places = np.floor(values / width).astype(int)
        parts.append({"first": int(places.min()), "count": np.bincount(places - places.min()).tolist()})
        widths.append(width)
        everything.append(values)
    width, first, counts = summed(parts, widths)
    edges = width * np.arange(first, first + len(counts) + 1)
    np.testing.assert_array_equal(counts, np.histogram(np.concatenate(everything), edges)[0])
    assert width == 0.5


@pytest.mark.parametrize("n", [1, 10, 10_000])
def test_a_density_integrates_to_one(n):
    places = np.floor(np.random.default_rng(n).normal(3, 2, n) / 2**-5).astype(int)
    x, y = polygon(2**-5, int(places.min()), np.bincount(places - places.min()))
    assert trapezoid(y, x) == pytest.approx(1, rel=1e-12)
    assert y[0] == y[-1] == 0


def test_a_density_is_near_that_of_the_distribution():
    places = np.floor(np.random.default_rng(0).normal(3, 2, 100_000) / 2**-5).astype(int)
    x, y = polygon(2**-5, int(places.min()), np.bincount(places - places.min()))
    expected = np.exp(-((x - 3) ** 2) / 8) / np.sqrt(8 * np.pi)
    assert np.abs(y - expected).max() < 0.04 * expected.max()  # a bin at the top has 5,000 values, ± 1.4%
    # Scott's width is 2.15 · 2 · 0.1 = 0.43: the power of two below is drawn.
    assert x[1] - x[0] == 0.25


def test_pooled_bins_weigh_images():
    bins = [
        {"count": [10, 0, 3], "confidence": [0.1, None, 0.9], "accuracy": [0.2, None, 1.0]},
        {"count": [30, 0, 4], "confidence": [0.3, None, 0.8], "accuracy": [0.6, None, 0.0]},
    ]
    confidence, accuracy, share = pooled(bins)
    # (10·0.1 + 30·0.3) / 40; the third bin has 7 images, too few to show.
    assert confidence == pytest.approx([0.25])
    assert accuracy == pytest.approx([0.5])
    assert share == pytest.approx([40 / 47])


def test_a_small_test_split_still_shows_its_fullest_bin():
    assert pooled([{"count": [2, 1], "confidence": [0.4, 0.9], "accuracy": [0.5, 1.0]}])[2] == pytest.approx([2 / 3])


def test_the_mean_is_over_the_seeds_that_have_a_point():
    axes = Figure().subplots()
    mean_and_band(axes, [1, 2, 3], [[2.0, 4.0, 6.0], [4.0, float("nan")]], ["max-sup"], "max-sup")
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 3], [2, 4], [3, 6]])
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1.0, 2.0), (1.0, 4.0), (2.0, 4.0), (3.0, 6.0)} <= {tuple(point) for point in band}


def test_the_scatter_takes_finished_runs(tmp_path):
    points = spread_points(read_comparison(factory.damaged(tmp_path)), "train")
    assert points == {"cross-entropy": [(0.1, 94.0)], "max-sup": [(0.1, 94.0)]}


def test_both_splits_of_a_method_have_one_square_scale():
    record = conftest.projection()
    figure = projection(record)
    of = record["methods"]["max-sup"]
    points = np.array([*of["train"]["points"], *of["validation"]["points"], *of["templates"]])
    train, validation = figure.axes[1], figure.axes[3]
    assert train.get_title() == "max-sup"
    assert train.get_xlim() == validation.get_xlim()
    assert train.get_ylim() == validation.get_ylim()
    low, high = train.get_xlim()
    assert high - low == pytest.approx(np.diff(train.get_ylim())[0])
    assert low < points[:, 0].min()
    assert high > points[:, 0].max()
