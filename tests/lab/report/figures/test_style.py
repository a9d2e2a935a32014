import matplotlib as mpl
from matplotlib.figure import Figure

from maxsup.lab.methods import METHODS
from maxsup.lab.report.figures import style
from maxsup.lab.report.figures.style import method_marker, method_style


def test_every_method_of_the_lab_has_a_look_of_its_own():
    assert set(style._LOOKS) == set(METHODS)
    assert len({look[:2] for look in style._LOOKS.values()}) == len(METHODS)
    assert sorted(look[2] for look in style._LOOKS.values()) == sorted(style.MARKERS)


def test_a_method_looks_the_same_in_any_company():
    alone = method_style(["max-sup"], "max-sup")
    assert alone == {"color": "#009E73", "linestyle": "-"}
    assert method_style([*METHODS, "other"], "max-sup") == alone
    assert method_marker(["other", "max-sup"], "max-sup") == "^"


def test_an_unknown_method_takes_the_next_free_look():
    methods = ["mine", "max-sup", "yours"]
    known = [tuple(method_style(methods, method).values()) for method in METHODS]
    mine, yours = (tuple(method_style(methods, method).values()) for method in ("mine", "yours"))
    assert mine not in known
    assert yours not in known
    assert mine != yours
    assert method_style(["mine"], "mine") == method_style(methods, "mine")


def contrast(first, second):
    """WCAG's contrast of two colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_colours_show_on_paper_and_on_a_dark_page():
    assert min(contrast(colour, "#FFFFFF") for colour in style.COLOURS) > 2
    assert min(contrast(colour, "#16181B") for colour in style.COLOURS) > 3


def test_a_legend_of_many_rows_leaves_the_panels_their_height():
    heights = []
    for methods in (["max-sup"], list(METHODS)):
        with style.drawing():
            figure = Figure(figsize=(style.WIDTH, 3), layout="constrained")
            axes = figure.subplots()
            for method in methods:
                axes.plot([0, 1], label=method)
            style.legend(figure)
            figure.draw_without_rendering()
            heights.append(axes.get_position().height * figure.get_figheight())
    assert abs(heights[1] - heights[0]) < 0.1  # inches; the figures differ by four rows of legend


def test_files_are_deterministic_and_leave_matplotlib_alone():
    def draw():
        with style.drawing():
            figure = Figure(layout="constrained")
            figure.subplots().plot([1, 2], marker="o", label="α & <β>")
            style.legend(figure)
            return figure

    before = dict(mpl.rcParams)
    first = style.svg(draw()), style.pdf(draw())
    assert (style.svg(draw()), style.pdf(draw())) == first
    assert dict(mpl.rcParams) == before
    assert first[0].startswith("<svg")
    assert "α &amp; &lt;β&gt;" in first[0]
    assert first[1].startswith(b"%PDF")
    assert b"CreationDate" not in first[1]
