import base64
import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix
from torch.backends import cudnn

from maxsup.lab import records, train
from maxsup.lab.analysis.weights import load_model
from maxsup.lab.recipes import Data, Model, Optimizer
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import DataError, RecordError
from maxsup.lab.segmentation import final, objective
from maxsup.lab.segmentation import train as module
from maxsup.lab.segmentation.evaluate import confusion, measures
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.objective import batch_loss
from maxsup.lab.segmentation.recipes import Augmentation, MultiScale, ade20k_upernet
from maxsup.lab.segmentation.train import Job, segment

from .conftest import SHORT

# Attention has kernels of its own.
TRANSFORMER = dataclasses.replace(
    digits_convnet(),
    epochs=1,
    data=Data(name="digits", train_size=200),
    model=Model(name="deit_tiny_patch16_224", image_size=8, patch_size=2, depth=4),
    optimizer=Optimizer(name="adamw", lr=1e-3),
)
# The paper's, on images of a few pixels.
ADE20K = dataclasses.replace(
    ade20k_upernet(),
    iterations=2,
    batch_size=2,
    interval=1,
    augmentation=dataclasses.replace(ade20k_upernet().augmentation, resize=(64, 16), crop=16),
    decoder=SHORT.decoder,
    multi_scale=SHORT.multi_scale,
)


def job(run_dir, **changes):
    return Job(run_dir, dataclasses.replace(SHORT, **changes), seed=0)


def test_a_backbone_learns_to_segment_and_its_records_say_how(run_dir, squares):
    rows = []
    of = dataclasses.replace(job(run_dir, iterations=60, interval=20), keep_weights=True)
    result = segment(of, on_interval=rows.append)
    assert [row["iteration"] for row in rows] == [20, 40, 60]
    assert rows == records.read_json_lines(of.directory / "metrics.jsonl")
    assert result["status"] == "finished"
    assert result["data"]["class_names"] == ["nothing", "dark", "bright"]
    single, multi = result["measures"]["single"], result["measures"]["multi"]
    assert single["miou"] > 0.7
    assert multi["miou"] > 0.6
    assert rows[-1]["validation_miou"] > 0.7
    assert sorted(file.name for file in of.directory.iterdir()) == [
        "gallery.json", "metrics.jsonl", "model.safetensors", "result.json", "settings.json"
    ]  # fmt: skip
    # The measures are the confusion matrix's, and it is that of the weights that were kept.
    assert measures(torch.tensor(result["confusion"]["single"])) == single
    model = Segmenter(load_model(run_dir, any_size=True), 3, (16, 16), SHORT.decoder)
    model.load_state_dict(load_file(of.directory / "model.safetensors"))
    with torch.inference_mode():
        predicted = model.eval().logits(squares.test.images).argmax(1)
    labels = squares.test.labels
    assert result["confusion"]["single"] == confusion_matrix(labels.flatten(), predicted.flatten()).tolist()
    gallery = records.read_json(of.directory / "gallery.json")
    for picture in gallery["pictures"]:
        image, truth, shown = (
            np.array(Image.open(io.BytesIO(base64.b64decode(picture[name]))))
            for name in ("image", "labels", "prediction")
        )
        index = picture["index"]
        assert (image == squares.test.images[index, 0].numpy()).all()
        assert (truth == labels[index].numpy()).all()
        assert (shown == predicted[index].numpy()).all()


def numbers(result):
    return result["measures"], result["confusion"]


def test_one_seed_gives_one_result_and_a_finished_one_is_kept(run_dir, squares, monkeypatch):
    first = segment(job(run_dir))
    again = segment(dataclasses.replace(job(run_dir), label="again"))
    other = segment(dataclasses.replace(job(run_dir), label="other", seed=1))
    assert numbers(first) == numbers(again) != numbers(other)
    monkeypatch.setattr(module, "_build", None)
    assert segment(job(run_dir)) == first


def test_an_interrupted_fine_tuning_goes_on_and_ends_as_an_unbroken_one(run_dir, squares):
    whole = segment(job(run_dir))

    def stop(row):
        if row["iteration"] == 4:
            raise KeyboardInterrupt

    cut = dataclasses.replace(job(run_dir), label="cut")
    with pytest.raises(KeyboardInterrupt):
        segment(cut, on_interval=stop)
    assert (cut.directory / "checkpoint.pt").exists()
    rows = []
    resumed = segment(cut, on_interval=rows.append)
    assert [row["iteration"] for row in rows] == [6]
    assert numbers(resumed) == numbers(whole)
    lines = [records.read_json_lines(of.directory / "metrics.jsonl") for of in (cut, job(run_dir))]
    without = [[{key: value for key, value in row.items() if key != "seconds"} for row in of] for of in lines]
    assert without[0] == without[1]
    assert not (cut.directory / "checkpoint.pt").exists()


def test_losses_of_the_library_fine_tune_too(run_dir, squares):
    losses = {}
    for loss in ("cross-entropy", "label-smoothing", "max-sup"):
        of = job(run_dir, loss=loss, alpha=0.3, iterations=1)
        segment(of)
        losses[loss] = records.read_json_lines(of.directory / "metrics.jsonl")[0]["train_loss"]
    assert of.directory.name == "segment-squares-max-sup"
    # The first step's logits are the same: the top-1 logit's penalty is at least the true one's, and at least 0.
    assert losses["max-sup"] > max(losses["cross-entropy"], losses["label-smoothing"])
    assert losses["label-smoothing"] != losses["cross-entropy"]


def test_ade20ks_layout_end_to_end(run_dir, ade20k):
    of = Job(run_dir, ADE20K, seed=0)
    result = segment(of, ade20k)
    assert result["data"]["images"] == {"train": 8, "validation": 0, "test": 4}
    matrix = np.array(result["confusion"]["multi"])
    # Three of four stripes are labelled, in their own size: 24 rows of 18, 20, 22 and 24 columns.
    labelled = sum(24 * (width - -(-width // 4)) for width in (18, 20, 22, 24))
    assert matrix.shape == (150, 150)
    assert matrix.sum() == labelled
    assert sorted(np.flatnonzero(matrix.sum(1))) == [0, 1, 149]
    assert [row["validation_miou"] for row in records.read_json_lines(of.directory / "metrics.jsonl")] == [None, None]

    def stop(row):
        raise KeyboardInterrupt

    cut = dataclasses.replace(of, label="cut")
    with pytest.raises(KeyboardInterrupt):
        segment(cut, ade20k, on_interval=stop)
    assert numbers(segment(cut, ade20k)) == numbers(result)
    (ade20k / "annotations/validation/ADE_val_00000001.png").unlink()
    with pytest.raises(DataError, match=r"ADE_val_00000001\.png: missing"):
        segment(of, ade20k)


def test_steps_see_grey_and_coloured_files_as_the_network_does(run_dir, ade20k, monkeypatch):
    """A graph takes batches of one shape; the network is of grey images, and all of these but one are."""
    for file in sorted((ade20k / "images/training").iterdir())[1:]:
        Image.open(file).convert("L").save(file)
    seen = []
    made = module.step_of

    def step_of(*of, **options):
        step = made(*of, **options)
        return lambda images, labels: seen.append(tuple(images.shape)) or step(images, labels)

    monkeypatch.setattr(module, "step_of", step_of)
    segment(Job(run_dir, dataclasses.replace(ADE20K, iterations=8, interval=8), seed=0), ade20k)
    assert seen == [(2, 1, 16, 16)] * 8


def test_without_a_gpu_no_graph_is_made_and_the_record_says_so(run_dir, squares, monkeypatch):
    plain = segment(job(run_dir))
    monkeypatch.setattr(objective, "Graph", None)
    asked = segment(dataclasses.replace(job(run_dir), label="asked", cuda_graph=True))
    assert numbers(asked) == numbers(plain)
    assert asked["cuda_graph"] is plain["cuda_graph"] is False


def test_what_does_not_fit_is_refused(run_dir, squares, tmp_path):
    segment(job(run_dir, iterations=1))
    with pytest.raises(
        RecordError, match=r"holds another fine-tuning: recipe\.iterations: 1 -> 2\. Give another --label"
    ):
        segment(job(run_dir, iterations=2))
    with pytest.raises(RecordError, match="no run here"):
        segment(job(tmp_path / "none"))
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        segment(dataclasses.replace(job(run_dir), seed=-1))
    with pytest.raises(ValueError, match="are for images from files alone"):
        segment(dataclasses.replace(job(run_dir, augmentation=Augmentation(photometric=True)), label="photometric"))
    assert "images from files alone" in (run_dir / "segment-photometric" / "error.txt").read_text()


def test_a_loss_that_is_not_finite_ends_as_diverged(run_dir, squares):
    recipe = dataclasses.replace(SHORT, optimizer=dataclasses.replace(SHORT.optimizer, lr=1e30, warmup=0))
    result = segment(Job(run_dir, recipe, seed=0))
    assert result["status"] == "diverged"
    assert result["measures"] == {}


def test_the_test_looks_for_no_faster_kernels_at_each_size(run_dir, squares, monkeypatch):
    """Of files each image has its own size; training, whose crops have one, goes on looking."""
    found = []
    monkeypatch.setattr(final, "confusion", lambda *of: found.append(cudnn.benchmark) or confusion(*of))
    monkeypatch.setattr(objective, "batch_loss", lambda *of: found.append(cudnn.benchmark) or batch_loss(*of))
    segment(job(run_dir, multi_scale=MultiScale()))
    # Three intervals of two steps and a validation, then the test.
    assert found == [True, True, False] * 3 + [False]
    assert not cudnn.benchmark


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("default")  # of operations that have no deterministic kernel
@pytest.mark.parametrize("network", ["convnet", "vision transformer"])
def test_on_a_gpu_deterministic_kernels_repeat_a_result(run_dir, squares, network, tmp_path):
    if network == "vision transformer":
        run_dir = tmp_path / "run"
        train.train(TRANSFORMER, "max-sup", 0, run_dir)
    long = job(run_dir, iterations=40, interval=20, deterministic=True)
    of = [dataclasses.replace(long, label=label) for label in ("one", "two", "cut", "graph", "graph, cut")]
    of[3:] = [dataclasses.replace(graphed, cuda_graph=True) for graphed in of[3:]]

    def stop(row):
        raise KeyboardInterrupt

    for cut in of[2], of[4]:
        with pytest.raises(KeyboardInterrupt):
            segment(cut, on_interval=stop)
    found = [segment(each) for each in of]
    lines = [records.read_json_lines(each.directory / "metrics.jsonl") for each in of]
    losses = [[row["train_loss"] for row in rows] for rows in lines]
    assert [each["cuda_graph"] for each in found] == [False, False, False, True, True]
    assert all(same == losses[0] for same in losses)
    assert all(numbers(same) == numbers(found[0]) for same in found)
    assert found[0]["measures"]["single"]["miou"] > 0.5
