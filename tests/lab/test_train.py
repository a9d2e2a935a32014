import copy
import dataclasses
import fcntl
import json
import math
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from maxsup.lab import methods, models, train
from maxsup.lab.checkpoint import CheckpointFile
from maxsup.lab.data import load
from maxsup.lab.evaluate import Outputs, measures
from maxsup.lab.methods import Method
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Alpha, Data, Model
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, read_json, read_json_lines, read_run

# Long enough that epochs differ and an interruption has a before and an after; under a second a run.
TINY = dataclasses.replace(digits_convnet(), epochs=4, data=Data(name="digits", train_size=200, pad_crop=1))


@pytest.fixture(autouse=True)
def a_checkpoint_every_epoch(monkeypatch):
    """However busy the machine is: a slow disk would otherwise be spared."""
    monkeypatch.setattr(CheckpointFile, "SLOW_SECONDS", float("inf"))


def without_times(record):
    record = copy.deepcopy(record)
    record.pop("seconds", None)
    return record


def test_a_run_leaves_every_record_and_no_other_file(tmp_path):
    result = train.train(TINY, "max-sup", 1, tmp_path)
    assert sorted(os.listdir(tmp_path)) == [
        "metrics.jsonl",
        "model.safetensors",
        "outputs.safetensors",
        "result.json",
        "run.json",
    ]
    info = read_json(tmp_path / "run.json")
    assert (info["method"], info["seed"]) == ("max-sup", 1)
    assert info["recipe"]["data"]["train_size"] == 200
    assert info["versions"]["torch"] == torch.__version__
    assert info["hardware"]["cores"] == os.cpu_count()
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["alpha"] for row in rows] == pytest.approx([0.1, 0.1 + 0.1 / 3, 0.1 + 0.2 / 3, 0.2])
    assert result["status"] == "finished"
    assert result["measures"]["train"]["n"] == 200
    assert read_run(tmp_path).status == "finished"


def test_the_recorded_measures_are_those_of_the_recorded_outputs_and_weights(tmp_path):
    result = train.train(TINY, "label-smoothing", 0, tmp_path)
    out = load_file(tmp_path / "outputs.safetensors")
    data = load(TINY.data)
    assert torch.equal(out["test.labels"], data.test.labels)
    accuracy = (out["test.logits"].argmax(1) == out["test.labels"]).double().mean().item()
    assert result["measures"]["test"]["accuracy"] == pytest.approx(accuracy, abs=1e-7)
    model = models.Classifier(models.build(Model(), 1, 10), *data.mean_and_std())
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        features, logits = model.eval().features_and_logits(data.test.images)
    torch.testing.assert_close(logits, out["test.logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features, out["test.features"], rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    first, again, other = (train.train(TINY, "max-sup", s, tmp_path / n) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert without_times(first) == without_times(again)
    assert first["measures"] != other["measures"]


@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, method):
    whole = train.train(TINY, method, 0, tmp_path / "whole")

    def interrupt(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(TINY, method, 0, tmp_path / "broken", on_epoch=interrupt)
    assert read_run(tmp_path / "broken").status == "unfinished"
    seen = []
    resumed = train.train(TINY, method, 0, tmp_path / "broken", on_epoch=seen.append)
    assert [row["epoch"] for row in seen] == [2, 3]
    assert without_times(resumed) == without_times(whole)
    rows = [
        [without_times(row) for row in read_json_lines(tmp_path / d / "metrics.jsonl")] for d in ("whole", "broken")
    ]
    assert rows[0] == rows[1]
    outputs = [load_file(tmp_path / d / "outputs.safetensors") for d in ("whole", "broken")]
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


def test_a_kill_between_checkpoint_and_metrics_loses_no_line(tmp_path):
    def interrupt(row):
        if row["epoch"] == 3:  # the last: the resumed run trains no further epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(TINY, "max-sup", 0, tmp_path, on_epoch=interrupt)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / ".tmp-result.json-x").write_text("half")
    train.train(TINY, "max-sup", 0, tmp_path)
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == 4
    assert not list(tmp_path.glob(".tmp*"))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train.train(TINY, "max-sup", 0, tmp_path)
    epochs = []
    assert train.train(TINY, "max-sup", 0, tmp_path, on_epoch=epochs.append) == first
    assert epochs == []


def test_another_recipe_method_or_seed_is_refused_with_the_fields(tmp_path):
    train.train(TINY, "max-sup", 0, tmp_path)
    with pytest.raises(RecordError, match=r"recipe\.alpha\.end: 0\.2 -> 0\.3"):
        train.train(dataclasses.replace(TINY, alpha=Alpha(end=0.3)), "max-sup", 0, tmp_path)
    with pytest.raises(RecordError, match='method: "max-sup" -> "label-smoothing"; seed: 0 -> 5'):
        train.train(TINY, "label-smoothing", 5, tmp_path)


def test_a_run_in_use_is_refused(tmp_path):
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(RecordError, match="another process is at work here"):
            train.train(TINY, "max-sup", 0, tmp_path)
    finally:
        os.close(handle)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a checkpoint")
    with pytest.raises(RecordError, match=r"checkpoint\.pt: unreadable checkpoint; delete it"):
        train.train(TINY, "max-sup", 0, tmp_path)
    assert "unreadable checkpoint" in read_run(tmp_path).problem


def test_a_checkpoint_of_another_version_is_named(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match=r"checkpoint\.pt: a checkpoint of another version, without 'history'"):
        train.train(TINY, "max-sup", 0, tmp_path)


class _Explodes(nn.Module):
    def forward(self, logits, target):
        return logits.mean() * float("nan")


def test_a_loss_that_becomes_nan_is_recorded_as_diverged(tmp_path, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "explodes", Method("NaN", lambda alpha, classes: _Explodes()))
    result = train.train(TINY, "explodes", 0, tmp_path)
    assert (result["status"], result["epochs"], result["measures"]) == ("diverged", 0, {})
    assert read_run(tmp_path).status == "diverged"
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_failure_leaves_its_traceback_and_a_success_removes_it(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(train, "_epochs", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            train.train(TINY, "max-sup", 0, tmp_path)
    assert "RuntimeError: out of luck" in (tmp_path / "error.txt").read_text()
    assert train.train(TINY, "max-sup", 0, tmp_path)["status"] == "finished"
    assert not (tmp_path / "error.txt").exists()


def test_selection_takes_the_latest_best_epoch_or_the_last(tmp_path):
    best = train.train(TINY, "max-sup", 0, tmp_path / "best")
    rows = read_json_lines(tmp_path / "best" / "metrics.jsonl")
    top = max(row["validation_accuracy"] for row in rows)
    assert best["selected_epoch"] == max(row["epoch"] for row in rows if row["validation_accuracy"] == top)
    assert best["measures"]["validation"]["accuracy"] == pytest.approx(top, abs=1e-7)
    last = train.train(dataclasses.replace(TINY, selection="last", epochs=1), "max-sup", 0, tmp_path / "last")
    assert last["selected_epoch"] == 0


def test_global_state_is_restored(tmp_path):
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    train.train(dataclasses.replace(TINY, epochs=1), "max-sup", 0, tmp_path)
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before


def test_unknown_method_writes_nothing(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean max-sup"):
        train.train(TINY, "maxsup", 0, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_measures_of_a_hand_made_split():
    # Two classes on two axes, one error made with probability 0.8.
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    out = measures(Outputs(features, logits, torch.tensor([0, 0, 0])))
    assert out["n"] == 3
    assert out["accuracy"] == pytest.approx(2 / 3)
    assert out["confidence_right"] == pytest.approx((0.9 + 0.6) / 2)
    assert out["confidence_wrong"] == pytest.approx(0.8)
    # Each prediction is alone in its bin: |accuracy − confidence| averages (0.1 + 0.8 + 0.4) / 3.
    assert out["ece"] == pytest.approx(1.3 / 3, abs=1e-6)
    # Certainties share the last bin: one certain and wrong, one at 0.95 and right, are 0.475 too sure together.
    certain = torch.tensor([[200.0, 0.0], [math.log(0.95), math.log(0.05)]])
    assert measures(Outputs(features[1:], certain, torch.tensor([1, 0])))["ece"] == pytest.approx(0.475, abs=1e-6)
    # Similarities among the three, self-pairs included: 5 of 9 are 1, the others 0.
    assert out["d_within"] == pytest.approx(4 / 9)
    right = measures(Outputs(features[:1], logits[:1], torch.tensor([0])))
    assert right["confidence_wrong"] is None
    json.dumps(right, allow_nan=False)
