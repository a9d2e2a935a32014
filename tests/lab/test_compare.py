import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from maxsup.lab import report
from maxsup.lab.compare import compare, open_comparison
from maxsup.lab.executors import local
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import (
    InUseError,
    RecordError,
    exclusive,
    read_comparison,
    read_json,
    run_directory,
    write_json,
)

TINY = dataclasses.replace(digits_convnet(), epochs=3, data=Data(name="digits", train_size=150, pad_crop=1))
COMMAND = [sys.executable, "-m", "maxsup", "compare", "digits-convnet", "--data.train-size", "150"]


def statuses(directory):
    return {(run.method, run.seed): run.status for run in read_comparison(directory).runs}


def test_compare_makes_every_run_and_shows_its_progress(tmp_path):
    states = []
    assert compare(TINY, ["cross-entropy", "max-sup"], [0, 1], tmp_path, workers=2, show=states.append) == []
    assert set(statuses(tmp_path).values()) == {"finished"}
    assert len(states[-1].finished) == states[-1].total == 4
    assert {job.seed for job, _ in states[0].active} == {0}  # so that what is there early can be paired
    # A worker that made several runs gives what one run alone gives.
    from maxsup.lab.train import train

    alone = train(TINY, "max-sup", 1, tmp_path / "alone")
    together = read_json(run_directory(tmp_path, "max-sup", 1) / "result.json")
    assert alone["measures"] == together["measures"]


def test_a_failed_run_is_reported_and_the_others_go_on_and_it_is_made_good_later(tmp_path):
    blocked = run_directory(tmp_path, "cross-entropy", 0)
    blocked.mkdir(parents=True)
    (blocked / "checkpoint.pt").write_bytes(b"not a checkpoint")
    failed = compare(TINY, ["cross-entropy", "max-sup"], [0], tmp_path, workers=1)
    assert [(job.method, job.seed) for job, _ in failed] == [("cross-entropy", 0)]
    assert "unreadable checkpoint" in failed[0][1]
    assert "unreadable checkpoint" in (blocked / "error.txt").read_text()
    assert statuses(tmp_path) == {("cross-entropy", 0): "failed", ("max-sup", 0): "finished"}
    (blocked / "checkpoint.pt").unlink()
    before = (run_directory(tmp_path, "max-sup", 0) / "result.json").stat().st_mtime_ns
    assert compare(TINY, ["cross-entropy", "max-sup"], [0], tmp_path, workers=1) == []
    assert set(statuses(tmp_path).values()) == {"finished"}
    assert (run_directory(tmp_path, "max-sup", 0) / "result.json").stat().st_mtime_ns == before


def test_a_worker_that_dies_fails_its_run_alone(tmp_path):
    killed = []

    def kill_the_first(state):
        import multiprocessing

        if state.active and not killed:
            child = multiprocessing.active_children()[0]
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child.pid)

    failed = compare(TINY, ["cross-entropy", "max-sup"], [0], tmp_path, workers=1, show=kill_the_first)
    assert [(job.method, error) for job, error in failed] == [
        ("cross-entropy", "the worker process died (exit code -9, killed, perhaps for want of memory)")
    ]
    assert statuses(tmp_path)["max-sup", 0] == "finished"
    assert "exit code -9" in (run_directory(tmp_path, "cross-entropy", 0) / "error.txt").read_text()


def test_another_recipe_is_refused_with_the_fields(tmp_path):
    open_comparison(TINY, ["max-sup"], [0], tmp_path)
    with pytest.raises(RecordError, match=r"another recipe: batch_size: 64 -> 32; epochs: 3 -> 9"):
        open_comparison(dataclasses.replace(TINY, epochs=9, batch_size=32), ["max-sup"], [0], tmp_path)


def test_a_recipe_recorded_before_it_got_a_field_has_the_fields_default(tmp_path):
    open_comparison(TINY, ["max-sup"], [0], tmp_path)
    file = tmp_path / "comparison.json"
    old = read_json(file)
    del old["recipe"]["precision"], old["recipe"]["data"]["label_noise"]
    write_json(file, old)
    assert len(open_comparison(TINY, ["max-sup"], [0, 1], tmp_path)) == 2
    write_json(file, old)
    noisy = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, label_noise=0.2))
    with pytest.raises(RecordError, match=r"data\.label_noise: 0\.0 -> 0\.2"):
        open_comparison(noisy, ["max-sup"], [0], tmp_path)


def test_runs_that_train_made_in_place_are_taken_and_those_of_another_recipe_refused(tmp_path):
    from maxsup.lab.train import train

    short = dataclasses.replace(TINY, epochs=1)
    train(short, "max-sup", 0, run_directory(tmp_path, "max-sup", 0))
    with pytest.raises(RecordError, match=r"seed-0 holds a run with another recipe: epochs: 1 -> 3"):
        open_comparison(TINY, ["max-sup"], [0], tmp_path)
    assert not (tmp_path / "comparison.json").exists()
    assert [run.status for run in open_comparison(short, ["max-sup"], [0, 1], tmp_path)] == ["finished", "missing"]


def test_two_at_once_in_one_folder_are_refused_before_a_run_is_touched(tmp_path):
    with exclusive(tmp_path), pytest.raises(InUseError, match="another process is at work here"):
        compare(TINY, ["max-sup"], [0], tmp_path)
    assert os.listdir(tmp_path) == []


def test_methods_and_seeds_are_added_and_never_dropped(tmp_path):
    open_comparison(TINY, ["max-sup", "cross-entropy", "max-sup"], [3], tmp_path)
    runs = open_comparison(TINY, ["label-smoothing"], [1], tmp_path)
    comparison = read_comparison(tmp_path)
    assert comparison.methods == ["max-sup", "cross-entropy", "label-smoothing"]
    assert comparison.seeds == [1, 3]
    assert len(runs) == 6


@pytest.mark.parametrize(
    ("methods", "seeds", "error", "message"),
    [
        (["max-sub"], [0], UnknownNameError, "did you mean max-sup"),
        (["max-sup"], [-1], ValueError, "seeds must be at least 0, got -1"),
        (["max-sup"], [], ValueError, "must each name at least one"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, methods, seeds, error, message):
    with pytest.raises(error, match=message):
        open_comparison(TINY, methods, seeds, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_default_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert local.default_workers(dataclasses.replace(TINY, cpu_threads=3)) == 2
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: 4)
    assert local.default_workers(TINY) == 4


def test_after_kill_9_the_same_command_gives_the_same_summary(tmp_path):
    options = ["--epochs", "6", "--methods", "cross-entropy", "max-sup", "--seeds", "0", "--workers", "2"]

    def command(out):
        return [*COMMAND, *options, "--out", str(tmp_path / out)]

    subprocess.run(command("whole"), check=True, capture_output=True, timeout=300)
    broken = subprocess.Popen(command("broken"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs = [run_directory(tmp_path / "broken", method, 0) for method in ("cross-entropy", "max-sup")]
    deadline = time.monotonic() + 120
    while not any((run / "checkpoint.pt").exists() for run in runs):
        assert broken.poll() is None, broken.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    broken.kill()
    broken.communicate()
    assert {run.status for run in read_comparison(tmp_path / "broken").runs} != {"finished"}
    subprocess.run(command("broken"), check=True, capture_output=True, timeout=300)
    summaries = [json.loads((tmp_path / d / "summary.json").read_text()) for d in ("whole", "broken")]
    for summary in summaries:
        del summary["times"]
    assert summaries[0] == summaries[1]
    assert not list((tmp_path / "broken").rglob(".tmp-*"))
    assert not list((tmp_path / "broken").rglob("checkpoint.pt"))


def test_ctrl_c_stops_the_workers_and_says_how_to_go_on(tmp_path):
    command = [*COMMAND, "--epochs", "500", "--methods", "max-sup", "--seeds", "0", "--out", str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (run_directory(tmp_path, "max-sup", 0) / "checkpoint.pt").exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"the same command goes on from here" in errors
    assert b"Traceback" not in errors
    assert report.write_report(tmp_path)  # a report of what there is
