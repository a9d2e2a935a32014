import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from maxsup.lab import records
from maxsup.lab.analysis.batch import Outcome, collect, run_each
from maxsup.lab.executors.local import visible_gpus
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


def compute(path):
    """What a worker with a GPU is given: something to compute there."""
    return {"sum": torch.ones(1000, device="cuda").sum().item(), "gpus": torch.cuda.device_count()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_workers_compute_on_a_gpu_also_where_their_parent_did(tmp_path):
    torch.ones(1, device="cuda")
    outcomes = run_each(compute, runs_named(tmp_path, "a", "b"), workers=2, gpus=visible_gpus()[:1])
    assert [outcome.record for outcome in outcomes] == [{"sum": 1000.0, "gpus": 1}] * 2


def test_the_server_of_workers_uses_no_gpu_and_runs_no_threads():
    """What it imports must not touch the driver: a process that is forked after that has no GPU."""
    program = (
        "import sys, threading, torch\n"
        "touched = []\n"
        "for name in ('_cuda_init', '_cuda_getDeviceCount'):\n"
        "    if hasattr(torch._C, name):\n"
        "        setattr(torch._C, name, lambda name=name: touched.append(name) or 0)\n"
        "from maxsup.lab.workers import PRELOADED\n"
        "for name in PRELOADED:\n"
        "    __import__(name)\n"
        "assert 'timm' in sys.modules and 'sklearn' in sys.modules\n"
        "assert not touched, touched\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


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
