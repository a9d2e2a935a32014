import os
import shutil
import signal
import time

import pytest
import torch

from maxsup.lab import records
from maxsup.lab.analysis.batch import Outcome, collect, run_each
from maxsup.lab.records import RecordError, RunRecord


def work(path):
    """What a worker is given here: the run's name says what happens."""
    if path.name == "damaged":
        raise RecordError(f"{path}: damaged")
    if path.name == "unforeseen":
        return {"value": {}["key"]}
    if path.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "slow":
        time.sleep(0.5)
    if path.name.startswith("together"):  # with two others: each worker gets one
        path.touch()
        while len(list(path.parent.glob("together-*"))) < 3:
            time.sleep(0.01)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"name": path.name, "threads": torch.get_num_threads(), "process": os.getpid(), "gpu": gpu}


def runs_named(tmp_path, *names):
    return [RunRecord(tmp_path / name, "max-sup", seed, "finished") for seed, name in enumerate(names)]


def test_outcomes_come_in_the_order_of_the_runs_and_errors_stay_with_their_run(tmp_path):
    runs = runs_named(tmp_path, "slow", "damaged", "fast", "unforeseen")
    shown: list[Outcome] = []
    before = dict(os.environ)
    outcomes = run_each(work, runs, workers=2, show=shown.append)
    assert os.environ == before
    assert [outcome.run for outcome in outcomes] == runs
    assert sorted(outcome.run.seed for outcome in shown) == [0, 1, 2, 3]
    slow, damaged, fast, unforeseen = outcomes
    assert (slow.record["name"], fast.record["name"]) == ("slow", "fast")
    assert slow.record["threads"] == fast.record["threads"] == 1
    assert os.getpid() not in (slow.record["process"], fast.record["process"])
    assert (damaged.record, damaged.error) == (None, f"{tmp_path / 'damaged'}: damaged")
    assert "Traceback" in unforeseen.error
    assert unforeseen.error.endswith("KeyError: 'key'")


def test_a_worker_that_is_killed_is_an_error_and_no_endless_wait(tmp_path):
    outcomes = run_each(work, runs_named(tmp_path, "fast", "killed", "slow"), workers=1)
    assert outcomes[0].record is not None
    assert all("a worker process was killed" in outcome.error for outcome in outcomes[1:])


def test_each_worker_sees_one_of_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,MIG-7")
    runs = runs_named(tmp_path, "together-0", "together-1", "together-2")
    outcomes = run_each(work, runs, workers=3, gpus=["4", "MIG-7"])
    assert sorted(outcome.record["gpu"] for outcome in outcomes) == ["4", "4", "MIG-7"]
    outcomes = run_each(work, runs_named(tmp_path, "fast"))
    assert outcomes[0].record["gpu"] == "4,MIG-7"


def test_no_runs_and_no_workers(tmp_path):
    assert run_each(work, []) == []
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_each(work, runs_named(tmp_path, "fast"), workers=0)


def test_folders_of_runs_and_comparisons_give_each_finished_run_once(trained, tmp_path):
    recipe = records.read_json(trained / "run.json")["recipe"]
    records.write_json(tmp_path / "comparison.json", {"recipe": recipe, "methods": ["max-sup"], "seeds": [3, 4]})
    with pytest.raises(RecordError, match="none of the comparison's 2 runs is finished"):
        collect([tmp_path])
    inside = tmp_path / "runs" / "max-sup" / "seed-3"
    shutil.copytree(trained, inside)
    runs, comparisons = collect([tmp_path, inside, trained])
    assert [run.path for run in runs] == [inside, trained]
    assert [(run.method, run.seed) for run in runs] == [("max-sup", 3)] * 2
    assert [comparison.path for comparison in comparisons] == [tmp_path]
    (inside / "result.json").unlink()
    with pytest.raises(RecordError, match="the run is unfinished"):
        collect([inside])
    with pytest.raises(RecordError, match="no run and no comparison here"):
        collect([tmp_path / "runs"])
