import re
from xml.etree import ElementTree

import pytest

from maxsup.lab.records import read_comparison, read_json, run_directory, write_json
from maxsup.lab.report import figures
from maxsup.lab.report.figures.style import method_style
from tests.lab.report import factory
from tests.lab.report.figures import conftest

NAMES = [
    "training-curves",
    "accuracy-spread",
    "logit-densities",
    "reliability",
    "risk-coverage",
    "projection",
    "gradcam",
    "overlap-scenes",
]


def test_every_picture_is_drawn_from_its_records(drawn):
    pictures, notes = drawn
    assert notes == []
    assert [picture.name for picture in pictures] == NAMES
    for picture in pictures:
        assert picture.title
        assert picture.caption.endswith(".")
        ElementTree.fromstring(picture.svg)
        ids = re.findall(r'\bid="([^"]+)"', picture.svg)
        assert len(ids) == len(set(ids))
        for method in factory.METHODS:
            assert method in picture.svg
            if picture.name != "projection":  # its colours are the classes'
                assert method_style([], method)["color"].lower() in picture.svg
    assert {size for picture in pictures for size in re.findall(r"font: (?:bold )?([\d.]+)px", picture.svg)} <= {
        "8",
        "9",
    }


def test_the_same_records_give_the_same_bytes(complete, drawn):
    assert figures.all_figures(read_comparison(complete)) == drawn


def texts(svg):
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def test_axes_are_labelled_with_units(drawn):
    shown = {picture.name: texts(picture.svg) for picture in drawn.pictures}
    assert {"training loss", "validation NLL in nats", "validation accuracy in %", "epoch"} <= set(
        shown["training-curves"]
    )
    assert "test accuracy in %" in shown["accuracy-spread"]
    assert {"all logits", "largest logit", "logit of the true class", "density"} <= set(shown["logit-densities"])
    assert "logits below 0.5 in magnitude" in shown["logit-densities"]
    assert {"as trained", "after temperature scaling", "accuracy"} <= set(shown["reliability"])
    assert "risk: errors among them, in %" in shown["risk-coverage"]
    assert {"class shirt", "class coat", "class bag", "class templates"} <= set(shown["projection"])
    assert {"precision", "recall", "intersection over union"} <= set(shown["overlap-scenes"])


def test_the_gallery_marks_wrong_predictions_by_sign_and_frame(drawn):
    gallery = next(p for p in drawn.pictures if p.name == "gradcam")
    shown = texts(gallery.svg)
    # cross-entropy takes the shirt for a coat; everything else is right.
    marked = [text for text in shown if text.startswith(("✓", "✗"))]
    assert marked == ["✓ 0.80", "✗ 0.60", "✓ 0.80", "✓ 0.50"]
    assert shown.count("coat") == 1
    assert gallery.svg.count("<image") == 6
    assert gallery.svg.count("stroke-dasharray") == 4  # the four sides of one frame


def test_what_is_absent_is_left_out_without_a_note(tmp_path):
    pictures, notes = figures.all_figures(read_comparison(factory.comparison(tmp_path)))
    assert [picture.name for picture in pictures] == NAMES[:2]
    assert notes == []


def test_an_empty_comparison_has_no_picture(tmp_path):
    write_json(tmp_path / "comparison.json", {"recipe": {"name": "x"}, "methods": ["a"], "seeds": [0]})
    assert figures.all_figures(read_comparison(tmp_path)) == ([], [])


def test_damaged_records_are_noted_and_the_others_drawn(everything):
    run = run_directory(everything, "max-sup", 0)
    (run / "analysis.json").write_text((run / "analysis.json").read_text()[:300])
    write_json(run_directory(everything, "max-sup", 1) / "analysis.json", {"problem": "outputs.safetensors: truncated"})
    (run_directory(everything, "max-sup", 2) / "analysis.json").unlink()
    content = read_json(run_directory(everything, "cross-entropy", 1) / "analysis.json")
    del content["curves"]["near_zero"]
    write_json(run_directory(everything, "cross-entropy", 1) / "analysis.json", content)
    write_json(everything / "analysis" / "projection.json", {"classes": []})
    (everything / "analysis" / "gradcam.json").write_text("{")
    (run_directory(everything, "max-sup", 2) / "localization-scenes.json").write_text("[]")
    pictures, notes = figures.all_figures(read_comparison(everything))
    assert [picture.name for picture in pictures] == [n for n in NAMES if n not in ("projection", "gradcam")]
    reliability = next(picture for picture in pictures if picture.name == "reliability")
    assert "max-sup" not in texts(reliability.svg)
    unreadable = "not a readable JSON record (Expecting property name enclosed in double quotes"
    assert [note[:90] for note in notes] == [
        "cross-entropy seed 1, analysis.json: lacks near_zero",
        notes[1][:90],
        "max-sup seed 1, analysis.json: outputs.safetensors: truncated",
        "max-sup seed 2, analysis.json: missing",
        "analysis/projection.json: lacks methods, chosen_by",
        f"analysis/gradcam.json: {unreadable}"[:90],
        "max-sup seed 2, localization-scenes.json: schema version None; this maxsup reads version 1",
    ]
    assert notes[1].startswith("max-sup seed 0, analysis.json: not a readable JSON record (")


def test_records_on_other_axes_are_noted_and_left_out(everything):
    other = run_directory(everything, "max-sup", 2) / "localization-scenes.json"
    write_json(other, {name: values[:2] for name, values in conftest.overlap(0).items() if isinstance(values, list)})
    (run_directory(everything, "max-sup", 1) / "localization-scenes.json").unlink()
    write_json(
        run_directory(everything, "max-sup", 0) / "analysis.json", {"settings": {"bins": 9}, **conftest.analysis(1)}
    )
    pictures, notes = figures.all_figures(read_comparison(everything))
    assert [picture.name for picture in pictures] == NAMES
    left_out = "made with other settings than the first such record, and left out"
    assert notes == [
        f"max-sup seed 0, analysis.json: {left_out}",
        f"max-sup seed 2, localization-scenes.json: {left_out}",
        "max-sup seed 1, localization-scenes.json: missing",
    ]


def test_unfinished_runs_show_in_the_training_curves_alone(everything):
    write_json(run_directory(everything, "max-sup", 0) / "result.json", {"status": "diverged"})
    for seed in (1, 2):
        (run_directory(everything, "max-sup", seed) / "result.json").unlink()
    pictures, notes = figures.all_figures(read_comparison(everything))
    assert notes == []
    of_methods = {picture.name: "max-sup" in texts(picture.svg) for picture in pictures}
    assert of_methods == {name: name in ("training-curves", "projection", "gradcam") for name in NAMES}


def test_pictures_are_saved_for_papers(drawn, tmp_path):
    pictures = drawn.pictures[:2]
    written = figures.save(pictures, tmp_path / "figures")
    assert [path.name for path in written] == [f"{name}.{kind}" for name in NAMES[:2] for kind in ("svg", "pdf")]
    svg = written[0].read_text()
    assert '<rect width="100%" height="100%" fill="white"/>' in svg
    ElementTree.fromstring(svg)
    first = [path.read_bytes() for path in written]
    assert first[1].startswith(b"%PDF")
    assert [path.read_bytes() for path in figures.save(pictures, tmp_path / "figures")] == first


@pytest.mark.parametrize("methods", [1, 2, 5, 13])
def test_a_projection_has_room_for_every_method(methods):
    record = conftest.projection()
    record["methods"] = {f"method-{i}": record["methods"]["max-sup"] for i in range(methods)}
    svg = figures.svg(figures.projection.projection(record))
    assert sum(text.startswith("method-") for text in texts(svg)) == methods


def test_class_names_break_to_fit_under_small_images():
    from maxsup.lab.report.figures.gradcam import _wrapped

    assert _wrapped("t-shirt/top", 8) == "t-shirt/\ntop"
    assert _wrapped("ankle boot", 8) == "ankle\nboot"
    assert _wrapped("t-shirt/top", 16) == "t-shirt/top"
    assert _wrapped("American Staffordshire terrier", 16) == "American\nStaffordshire…"
