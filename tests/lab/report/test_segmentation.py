import base64
import io

import numpy as np
import pytest
from PIL import Image

from maxsup.lab.records import read_comparison, run_directory, write_json
from maxsup.lab.report import figures, summarize, tables, write_report
from maxsup.lab.report.figures import segmentation
from tests.lab.report import factory

CLASSES = ["background", "shoe", "a/b & c"]
MIOU = {"cross-entropy": [0.50, 0.52, 0.54], "max-sup": [0.53, 0.54, 0.57]}


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, "png")
    return base64.b64encode(out.getvalue()).decode()


def measured(miou, classes=CLASSES):
    return {
        "miou": miou,
        "mean_accuracy": miou + 0.1,
        "pixel_accuracy": miou + 0.3,
        "iou": [miou + 0.2, miou - 0.2, None][: len(classes)] + [miou] * (len(classes) - 3),
    }


def result(method, seed, classes=CLASSES, **changes):
    miou = MIOU[method][seed]
    return {
        "status": "finished",
        "iterations": 100,
        "settings": {"recipe": {"iterations": 100}, "seed": seed, "model_sha256": f"{method}{seed}"},
        "data": {"name": "scenes", "class_names": classes},
        "measures": {"single": measured(miou, classes), "multi": measured(miou + 0.01, classes)},
    } | changes


def segmented(directory, classes=CLASSES):
    factory.comparison(directory)
    truth = np.array([[0, 1, 1, 255], [0, 2, 2, 0]])
    for method in factory.METHODS:
        for seed in (0, 1, 2):
            folder = run_directory(directory, method, seed) / "segment-scenes"
            write_json(folder / "settings.json", {"seed": seed})
            write_json(folder / "result.json", result(method, seed, classes))
            predicted = truth if method == "max-sup" else np.zeros_like(truth)
            picture = {"image": png(40 * truth[:, :3]), "labels": png(truth), "prediction": png(predicted)}
            pictures = [{"index": index, **picture} for index in (0, 7)]
            write_json(folder / "gallery.json", {"class_names": classes, "pictures": pictures})
    return directory


def group_of(summary):
    return next(group for group in summary["groups"] if group["name"] == "segmentation")


def test_tables_have_intervals_and_paired_statistics(tmp_path):
    summary = summarize(read_comparison(segmented(tmp_path)))
    entry = summary["methods"]["max-sup"]["measures"]["segment.scenes.single.miou"]
    assert entry["mean"] == pytest.approx((0.53 + 0.54 + 0.57) / 3)
    difference = entry["difference"]
    assert difference["n"] == 3
    assert difference["mean"] == pytest.approx((0.03 + 0.02 + 0.03) / 3)
    assert difference["p_sign_flip"] == 0.25
    assert difference["interval"][0] < difference["mean"] < difference["interval"][1]
    group = group_of(summary)
    assert group["notes"] == []
    assert [table["title"] for table in group["tables"]] == [
        "scenes, one scale",
        "scenes, several scales",
        "scenes, several scales: IoU % by class",
    ]
    of = summary["methods"]["cross-entropy"]["measures"]
    assert of["segment.scenes.multi.iou@shoe"]["mean"] == pytest.approx(0.52 + 0.01 - 0.2)
    # No test image shows it or is predicted to: no column.
    assert "segment.scenes.multi.iou@a/b & c" not in of
    grid = next(grid for grid in tables.grids(summary) if grid.caption.startswith("scenes, one scale: mean"))
    assert grid.heads == ["method", "n", "mIoU %", "mean acc. %", "pixel acc. %"]
    assert grid.texts()[0] == ["cross-entropy", "3", "52.0 ± 2.0", "62.0 ± 2.0", "82.0 ± 2.0"]


def test_what_is_missing_or_damaged_is_told(tmp_path):
    summary = summarize(read_comparison(factory.comparison(tmp_path / "none")))
    assert group_of(summary)["tables"] == ()
    assert group_of(summary)["notes"] == ["No backbone was fine-tuned to segment: maxsup segment DIR --data NAME."]
    directory = segmented(tmp_path / "some")
    folders = {(m, s): run_directory(directory, m, s) / "segment-scenes" for m in factory.METHODS for s in (0, 1, 2)}
    (folders["max-sup", 0] / "result.json").unlink()
    factory.spoil(folders["max-sup", 1] / "result.json")
    diverged = result("cross-entropy", 2, status="diverged", measures={})
    write_json(folders["cross-entropy", 2] / "result.json", diverged)
    write_json(
        folders["cross-entropy", 1] / "result.json", result("cross-entropy", 1, settings={"recipe": {"iterations": 9}})
    )
    for file in folders["max-sup", 2].iterdir():
        file.unlink()
    notes = group_of(summarize(read_comparison(directory)))["notes"]
    file = "segment-scenes/result.json"
    assert (
        f"max-sup seed 0: {file}: missing: the fine-tuning is unfinished; the command that began it goes on from there"
        in notes
    )
    assert any(note.startswith(f"max-sup seed 1: {file}: not a readable JSON record") for note in notes)
    assert f"cross-entropy seed 2: {file}: the fine-tuning diverged after 100 iterations" in notes
    assert f"{file} is missing for max-sup seed 2." in notes
    assert f"{file} was made with different settings in different runs: they are not comparable." in notes
    write_report(directory)
    assert "the fine-tuning diverged" in (directory / "report.html").read_text()


def test_the_page_has_gallery_and_classes_from_records_alone(tmp_path):
    directory = segmented(tmp_path)
    write_report(directory)
    page = (directory / "report.html").read_text()
    for text in ("Semantic segmentation", "Segmentation of scenes", "IoU of each class of scenes"):
        assert text in page
    assert (directory / "segmentation-scenes.svg").is_file()
    assert (directory / "class-iou-scenes.pdf").is_file()
    pictures = {picture.name: picture for picture in figures.all_figures(read_comparison(directory)).pictures}
    gallery = pictures["segmentation-scenes"].figure
    heads = [text.get_text() for text in gallery.texts]
    assert heads == ["image", "labels", "cross-entropy", "max-sup"]
    assert len(gallery.axes) == 2 * 4
    # Of seven labelled pixels three are background; the other method's are all right.
    assert [axes.get_xlabel() for axes in gallery.axes[:4]] == ["", "", "43%", "100%"]
    colours = segmentation.palette(CLASSES)
    shown = gallery.axes[1].get_images()[0].get_array()
    assert (shown[0, 3] == 1).all()
    assert (shown[0, 1] == colours[1]).all()
    assert (shown[0, 0] == segmentation.BACKGROUND).all()
    axes = pictures["class-iou-scenes"].figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == CLASSES
    points = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert points["cross-entropy"][:2] == pytest.approx([72, 32])
    assert np.isnan(points["cross-entropy"][2])


def test_many_classes_have_no_table_and_those_that_differ_most_in_the_figure(tmp_path):
    classes = [f"class {c}" for c in range(150)]
    summary = summarize(read_comparison(segmented(tmp_path, classes)))
    assert len(group_of(summary)["tables"]) == 2
    base = np.full(150, 0.5)
    other = base.copy()
    other[7:47] += 0.1
    figure = segmentation.class_iou(["a", "b"], classes, {"a": [base], "b": [other, other]})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == classes[7:47]
    colours = segmentation.palette(classes)
    assert len({tuple(colour) for colour in colours[:150]}) == 150
    assert len({tuple(colour) for colour in segmentation.palette(["background", *map(str, range(20))])[:21]}) == 21


def test_galleries_of_other_images_and_damaged_ones_are_left_out(tmp_path):
    directory = segmented(tmp_path)
    file = run_directory(directory, "max-sup", 0) / "segment-scenes" / "gallery.json"
    content = {"class_names": CLASSES, "pictures": [{"index": 3, "image": "", "labels": "", "prediction": ""}]}
    write_json(file, content)
    drawn = figures.all_figures(read_comparison(directory))
    assert (
        "max-sup, segment-scenes/gallery.json: shows other images than the first such record, and left out"
        in drawn.notes
    )
    factory.spoil(file)
    drawn = figures.all_figures(read_comparison(directory))
    assert any(note.startswith("max-sup seed 0, segment-scenes/gallery.json: not a readable") for note in drawn.notes)


def test_the_verdict_speaks_of_the_mean_iou(tmp_path):
    rows = {method: [0.5] * 10 for method in factory.METHODS}
    directory = factory.measured(tmp_path, {"cross-entropy": [0.9] * 10, "max-sup": [0.9] * 10})
    for method in rows:
        for seed in range(10):
            folder = run_directory(directory, method, seed) / "segment-scenes"
            write_json(folder / "settings.json", {"seed": seed})
            shift = 0.02 + seed / 1000 if method == "max-sup" else 0.0
            write_json(folder / "result.json", result(method, 0, measures={"single": measured(0.5 + shift)}))
    verdict = " ".join(summarize(read_comparison(directory))["verdict"])
    assert "Mean IoU on scenes in percentage points: significantly higher (better) with max-sup (+2.45)" in verdict
