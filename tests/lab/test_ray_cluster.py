"""Comparisons on a Ray cluster of local nodes; every node is a set of processes of its own."""

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from maxsup.lab import compare as comparing
from maxsup.lab.compare import compare
from maxsup.lab.executors import Ended, Job, choose
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, read_comparison, read_json, read_json_lines, run_directory
from maxsup.lab.train import train

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'maxsup[ray]')")
from ray.cluster_utils import Cluster  # noqa: E402

from maxsup.lab.executors import ray_cluster  # noqa: E402
from maxsup.lab.executors.ray_cluster import RayCluster, make_run  # noqa: E402

TINY = dataclasses.replace(digits_convnet(), epochs=3, data=Data(name="digits", train_size=150, pad_crop=1))
LONG = dataclasses.replace(TINY, epochs=60)


@pytest.fixture(scope="module")
def cluster():
    """A head that takes no run; the tests add the nodes that do."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def node(cluster):
    """A node that takes one run at a time."""
    return cluster.add_node(num_cpus=1, num_gpus=0)


@pytest.fixture
def job(tmp_path):
    return Job(TINY, "max-sup", 0, tmp_path / "run", None)


@pytest.fixture
def lease(tmp_path):
    (tmp_path / "lease").touch()
    return tmp_path / "lease"


def rest(directory):
    """What no comparison leaves behind once it is over."""
    return [*directory.rglob(".tmp-*"), *directory.rglob("checkpoint.pt"), *directory.rglob("error.txt")]


def epochs(directory):
    return read_json_lines(directory / "metrics.jsonl") if (directory / "metrics.jsonl").exists() else []


def test_a_killed_node_loses_no_record(monkeypatch, cluster, node, tmp_path):
    second = cluster.add_node(num_cpus=1, num_gpus=0)
    states, before = [], {}

    def kill_the_second(state):
        states.append(state)
        if not before and len(state.active) == 2 and all(1 <= done <= 40 for _, done in state.active):
            before.update({job: epochs(job.directory) for job, _ in state.active})
            cluster.remove_node(second, allow_graceful=False)  # SIGKILL

    methods, seeds = ["cross-entropy", "max-sup"], [0, 1]
    failed = compare(LONG, methods, seeds, tmp_path, executor=RayCluster(cluster.address), show=kill_the_second)
    assert failed == []
    ((lost, reason),) = states[-1].lost
    assert reason.startswith("the worker was lost")
    assert {(job.method, job.seed) for job in states[-1].finished} == {(m, s) for m in methods for s in seeds}
    # The lost run went on from a checkpoint: its first epoch is the first attempt's, down to the time it took. (Later
    # ones may be made again: where writing is slow, not every epoch leaves a checkpoint.)
    assert epochs(lost.directory)[0] == before[lost][0]
    for run in read_comparison(tmp_path).runs:
        assert run.status == "finished"
        assert [row["epoch"] for row in run.epochs] == list(range(LONG.epochs))
    assert rest(tmp_path) == []
    # And what it gives is what one process gives that nothing interrupted, on a CPU as on the nodes.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    alone = train(LONG, lost.method, lost.seed, tmp_path / "alone")
    assert read_json(lost.directory / "result.json")["measures"] == alone["measures"]


def test_ctrl_c_ends_the_runs_on_the_cluster_and_the_same_command_goes_on(cluster, node, tmp_path):
    command = [sys.executable, "-m", "maxsup", "compare", "digits-convnet", "--data.train-size", "150"]
    command += ["--epochs", "60", "--methods", "max-sup", "--seeds", "0", "--out", str(tmp_path)]
    command += ["--executor", "ray", "--ray-address", cluster.address]
    directory = run_directory(tmp_path, "max-sup", 0)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not epochs(directory):
        assert running.poll() is None, running.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"the same command goes on from here" in errors
    assert b"Traceback" not in errors
    done = epochs(directory)
    assert 1 <= len(done) < 60
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert epochs(directory)[0] == done[0]  # down to the time it took
    assert len(epochs(directory)) == 60
    assert json.loads((tmp_path / "summary.json").read_text())
    assert rest(tmp_path) == []


def test_an_error_of_a_run_is_told_and_not_tried_again(cluster, node, tmp_path):
    blocked = run_directory(tmp_path, "cross-entropy", 0)
    blocked.mkdir(parents=True)
    (blocked / "checkpoint.pt").write_bytes(b"not a checkpoint")
    states = []
    executor = RayCluster(cluster.address)
    failed = compare(
        TINY, ["cross-entropy", "max-sup"], [0], tmp_path, executor=executor, workers=1, show=states.append
    )
    assert [(job.method, job.seed) for job, _ in failed] == [("cross-entropy", 0)]
    assert "unreadable checkpoint" in failed[0][1]
    assert states[-1].lost == ()
    assert max(len(state.active) for state in states) == 1
    assert [run.status for run in read_comparison(tmp_path).runs] == ["failed", "finished"]


def test_a_command_whose_comparison_another_one_took_over_ends(cluster, node, tmp_path):
    def take_over(state):
        for leases in tmp_path.glob(".tmp-leases-*"):  # as the start of another command does
            shutil.rmtree(leases)

    with pytest.raises(RecordError, match=f"another command has taken over {tmp_path}"):
        compare(LONG, ["max-sup"], [0], tmp_path, executor=RayCluster(cluster.address), show=take_over)


def test_a_cluster_that_cannot_make_the_run_is_refused(cluster, node, tmp_path):
    with pytest.raises(ValueError, match=r"no node of the cluster has 1 CPUs and 0\.5 GPUs for a run \(.*: 1 CPU"):
        compare(TINY, ["max-sup"], [0], tmp_path, executor=RayCluster(cluster.address, gpus_per_run=0.5))
    wide = dataclasses.replace(TINY, cpu_threads=64)
    with pytest.raises(ValueError, match="no node of the cluster has 64 CPUs"):
        compare(wide, ["max-sup"], [0], tmp_path / "wide", executor=RayCluster(cluster.address))
    assert rest(tmp_path) == []


def test_a_node_without_the_data_is_named(cluster, node, tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(ValueError, match=rf"node .+ \(.+\) has no folder {absent}, the --data-dir"):
        compare(TINY, ["max-sup"], [0], tmp_path, data_dir=absent, executor=RayCluster(cluster.address))


def test_a_node_that_does_not_share_the_folder_is_named(tmp_path, job):
    seen = ray_cluster._look(tmp_path / "nowhere" / "leases", None, "abc")
    assert seen["problem"] == (
        f"cannot write to {tmp_path / 'nowhere'} (No such file or directory); all nodes must share this folder"
    )
    # A node that came later gets no run into a folder of its own.
    assert "all nodes must share this folder" in make_run(job, tmp_path / "nowhere" / "lease", 1)
    assert not job.directory.exists()


def test_a_node_with_other_code_is_refused(monkeypatch, cluster, node, tmp_path):
    from maxsup.lab import environment

    monkeypatch.setattr(environment, "source_state", lambda: {"source_sha256": "0"})
    with pytest.raises(ValueError, match=r'than this machine: source_sha256: "0" -> "[0-9a-f]{64}"'):
        compare(TINY, ["max-sup"], [0], tmp_path, executor=RayCluster(cluster.address))


def test_a_worker_whose_run_was_given_away_stops_without_a_trace(monkeypatch, job, lease):
    from maxsup.lab import train as training

    write = training.records.write_json_lines

    def take_away_after_two_epochs(path, rows):
        write(path, rows)
        if len(rows) == 2:
            lease.unlink()

    monkeypatch.setattr(training.records, "write_json_lines", take_away_after_two_epochs)
    assert make_run(job, lease, 1) == f"{job.directory}: given to another worker"
    assert len(epochs(job.directory)) == 2
    assert not (job.directory / "error.txt").exists()
    assert not (job.directory / "result.json").exists()


def test_an_attempt_waits_until_the_one_before_lets_go(job, lease):
    job.directory.mkdir()
    held = os.open(job.directory / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    timer = threading.Timer(1.5, os.close, [held])
    timer.start()
    assert make_run(job, lease, 1) == ""
    timer.join()
    assert read_json(job.directory / "result.json")["status"] == "finished"


def test_an_attempt_does_not_wait_for_ever(monkeypatch, job, lease):
    monkeypatch.setattr(ray_cluster, "LOCK_SECONDS", 0.0)
    job.directory.mkdir()
    held = os.open(job.directory / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert "another process is at work here" in make_run(job, lease, 1)
    finally:
        os.close(held)


class _Losing:
    """An executor that loses every attempt after it has made as many epochs as it is told."""

    def __init__(self, *epochs_made):
        self.epochs_made, self.job, self.done = list(epochs_made), None, 0

    def start(self, recipe, directory, data_dir, workers):
        return self

    def has_room(self):
        return self.job is None

    def give(self, job):
        self.job = job

    def active(self):
        return [self.job]

    def ended(self, timeout):
        job, self.job = self.job, None
        if not self.epochs_made:
            return [Ended(job)]
        self.done += self.epochs_made.pop(0)
        job.directory.mkdir(parents=True, exist_ok=True)
        (job.directory / "metrics.jsonl").write_text("{}\n" * self.done)
        return [Ended(job, "the worker was lost (node died)", lost=True)]

    def stop(self):
        pass


def test_a_run_that_gets_on_may_lose_any_number_of_workers(tmp_path):
    assert compare(TINY, ["max-sup"], [0], tmp_path, executor=_Losing(0, 1, 0, 1, 0, 1, 0)) == []


def test_a_run_that_loses_its_workers_in_vain_fails(tmp_path):
    states = []
    failed = compare(TINY, ["max-sup"], [0], tmp_path, executor=_Losing(1, 0, 0, 0, 0), show=states.append)
    assert [error for _, error in failed] == ["the worker was lost (node died)"]
    assert len(states[-1].lost) == comparing.LOSSES - 1
    assert (run_directory(tmp_path, "max-sup", 0) / "error.txt").read_text() == "the worker was lost (node died)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("local", "auto", None), "--ray-address auto is for --executor ray"),
        (("local", None, 0.5), r"--gpus-per-run 0\.5 is for --executor ray"),
        (("ray", None, 2.0), r"gpus_per_run must be in \[0, 1\], .* got 2\.0"),
        (("ray", None, float("nan")), r"gpus_per_run must be in \[0, 1\], .* got nan"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(*arguments)


def test_an_address_where_nobody_answers_is_told_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address}"):
            ray_cluster._reach(address)
    ray_cluster._reach("auto")


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maxsup\[ray\]'"):
        choose("ray", None, None)


def test_a_run_takes_one_gpu_where_there_are_gpus():
    def node(cpus, gpus):
        return {"NodeManagerHostname": "host", "Resources": {"CPU": cpus, "GPU": gpus}}

    nodes = [node(8.0, 4.0), node(8.0, 0.0), node(1.0, 4.0)]
    two_threads = dataclasses.replace(TINY, cpu_threads=2)
    assert ray_cluster._places(two_threads, None, nodes) == (2, 1.0, nodes[:1])
    assert ray_cluster._places(two_threads, 0.25, nodes) == (2, 0.25, nodes[:1])
    assert ray_cluster._places(two_threads, 0.0, nodes) == (2, 0.0, nodes[:2])
    assert ray_cluster._places(TINY, None, nodes[1:2]) == (1, 0.0, nodes[1:2])


def test_a_record_that_is_not_seen_here_is_an_error(monkeypatch, job):
    monkeypatch.setattr(ray_cluster, "VISIBLE_SECONDS", 0.0)
    assert ray_cluster._unseen(job).endswith("result.json is not seen from this machine")
    job.directory.mkdir()
    (job.directory / "result.json").touch()
    assert ray_cluster._unseen(job) == ""
