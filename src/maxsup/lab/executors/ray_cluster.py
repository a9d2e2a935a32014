"""Runs as tasks of a Ray cluster whose nodes share the comparison's folder.

Records and checkpoints stay in that folder, so that a run outlives its node and another node can take it up. What a
lost node's process may still do is bounded by leases: each attempt is given a file, the driver deletes it before it
gives the run to another, and a worker that finds its file gone stops at the end of its epoch without a trace.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maxsup.lab import records
from maxsup.lab.executors import Ended, Job
from maxsup.lab.recipes import Recipe
from maxsup.lab.records import InUseError, Json, RecordError

LOCK_SECONDS = 300.0
"""How long an attempt waits for the one before it to let go of the run's folder: until Ray has ended a node that it
takes for dead, and a file server has freed a dead client's locks."""
VISIBLE_SECONDS = 120.0
"""How long a node's last record may take to be seen here; network file systems cache names for a while."""
_LEASES = ".tmp-leases-"


class LeaseRevokedError(BaseException):
    """The run was given to another worker. Nothing failed: it must pass by what records exceptions."""


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster; `address` as `ray.init` takes it, None for the one in `RAY_ADDRESS` or a new one on this machine.

    A run takes the recipe's `cpu_threads` as CPUs and `gpus_per_run` of a GPU, which None makes 1 where the cluster has
    GPUs and 0 where not.

    Raises:
        ValueError: if `gpus_per_run` is not in [0, 1], or Ray is not installed.
    """

    address: str | None = None
    gpus_per_run: float | None = None

    def __post_init__(self) -> None:
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run <= 1:
            raise ValueError(f"gpus_per_run must be in [0, 1], for a run trains on one GPU, got {self.gpus_per_run}")
        if importlib.util.find_spec("ray") is None:
            raise ValueError("executor ray: Ray is not installed; it needs pip install 'maxsup[ray]'")

    def start(self, recipe: Recipe, directory: Path, data_dir: Path | None, workers: int | None) -> RayPool:
        """Connects, checks that every node that can take a run sees the folders and has the same code, and is ready.

        Raises:
            ValueError: if no node has the CPUs and the GPU for a run, or a node does not see a folder or has other
                versions; it names the node.
            ConnectionError: if there is no cluster at the address.
        """
        import ray

        ours = not ray.is_initialized()
        if ours:
            _reach(self.address or os.environ.get("RAY_ADDRESS", ""))
            # Ray would report its use to its makers, from a cluster that is started here. A run sends nothing anywhere.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
        directory = directory.absolute()  # another node's working directory is another
        leases = None
        try:
            cpus, gpus, nodes = _places(recipe, self.gpus_per_run, [node for node in ray.nodes() if node["Alive"]])
            for old in directory.glob(f"{_LEASES}*"):  # of a command that was killed: its workers are to stop
                shutil.rmtree(old)
            leases = Path(tempfile.mkdtemp(prefix=_LEASES, dir=directory))
            leases.chmod(directory.stat().st_mode & 0o777)  # nodes may run as another user, as they may write runs
            _check_nodes(nodes, leases, data_dir and data_dir.absolute())
        except BaseException:
            if leases is not None:
                shutil.rmtree(leases)
            if ours:
                ray.shutdown()
            raise
        return RayPool(cpus, gpus, workers, leases, disconnect=ours)


def _reach(address: str) -> None:
    """Raises where nobody answers at HOST:PORT; Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster answers at {address} ({error.strerror or error})") from error


def _places(recipe: Recipe, gpus: float | None, nodes: Sequence[Json]) -> tuple[int, float, list[Json]]:
    """What a run takes, and the nodes that have it."""
    if gpus is None:
        gpus = float(any(node["Resources"].get("GPU") for node in nodes))
    fit = [
        node
        for node in nodes
        if node["Resources"].get("CPU", 0) >= recipe.cpu_threads and node["Resources"].get("GPU", 0) >= gpus
    ]
    if not fit:
        there = ", ".join(
            f"{node['NodeManagerHostname']}: {node['Resources'].get('CPU', 0):g} CPUs, "
            f"{node['Resources'].get('GPU', 0):g} GPUs"
            for node in nodes
        )
        raise ValueError(f"no node of the cluster has {recipe.cpu_threads} CPUs and {gpus:g} GPUs for a run ({there})")
    return recipe.cpu_threads, gpus, fit


def _look(leases: Path, data_dir: Path | None, node: str) -> Json:
    """On a node: whether it can write beside the driver and read the data, and what code it would run."""
    from maxsup.lab import environment

    problem = None
    try:
        (leases / f"node-{node}").touch()
    except OSError as error:
        problem = f"cannot write to {leases.parent} ({error.strerror}); all nodes must share this folder"
    if data_dir is not None and not data_dir.is_dir():
        problem = f"has no folder {data_dir}, the --data-dir"
    code = {**environment.versions(), "source_sha256": environment.source_state()["source_sha256"]}
    return {"problem": problem, "code": code}


def _check_nodes(nodes: Sequence[Json], leases: Path, data_dir: Path | None) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from maxsup.lab import environment

    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        look = ray.remote(_look).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
        asked[node["NodeID"]] = look.remote(leases, data_dir, node["NodeID"])
    gone: tuple[type[Exception], ...] = (ray.exceptions.TaskUnschedulableError, *_losses())
    first: tuple[str, Json] = "this machine", {"source_sha256": environment.source_state()["source_sha256"]}
    for node in nodes:
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            seen = ray.get(asked[node["NodeID"]])
        except ray.exceptions.RayTaskError as error:
            raise ValueError(f"{name} cannot run maxsup: {str(error).strip().splitlines()[-1]}") from error
        except gone:
            continue  # gone since it was listed: it will get no run
        if seen["problem"] is None and not (leases / f"node-{node['NodeID']}").exists():
            seen["problem"] = f"has another {leases.parent} than this machine; all nodes must share this folder"
        if seen["problem"] is not None:
            raise ValueError(f"{name} {seen['problem']}")
        # The driver trains nothing: its PyTorch may be another build. Its maxsup may not.
        other = records.differences(first[1], {key: seen["code"][key] for key in first[1]})
        if other:
            raise ValueError(f"{name} would mix other code into the comparison than {first[0]}: {'; '.join(other)}")
        first = name, seen["code"]


def _losses() -> tuple[type[Exception], ...]:
    """What Ray raises for a task whose process or node is gone, whatever the task did."""
    from ray import exceptions

    return (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def make_run(job: Job, lease: Path, gpus: float) -> str:
    """On a node: trains the job as long as the lease's file exists; returns its error, "" for none."""
    host = socket.gethostname()
    try:
        with lease.open("r+") as file:  # never creates: on a node that does not share the folder it is not there
            file.write(host)  # tells the driver that the job does not wait any more
    except OSError as error:
        return f"node {host} cannot write to {lease} ({error.strerror}); all nodes must share this folder"
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def keep_on(row: Json | None = None) -> None:
        if not lease.exists():
            raise LeaseRevokedError(f"{job.directory}: given to another worker")

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            from maxsup.lab.train import train  # inside: what fails here is the job's error, with its traceback

            keep_on()
            train(job.recipe, job.method, job.seed, job.directory, data_dir=job.data_dir, on_epoch=keep_on)
        except LeaseRevokedError as revoked:
            return str(revoked)
        except InUseError:
            # The attempt before this one may still hold the folder, until it ends or sees that its lease is gone.
            if time.monotonic() > deadline:
                return traceback.format_exc()
            time.sleep(1)
        except Exception:
            return traceback.format_exc()
        else:
            return ""


@dataclass(frozen=True)
class _Attempt:
    job: Job
    lease: Path

    def started(self) -> bool:
        return self.lease.stat().st_size > 0


class RayPool:
    """Tasks of the cluster that `ray` is connected to."""

    def __init__(self, cpus: int, gpus: float, workers: int | None, leases: Path, *, disconnect: bool) -> None:
        import ray

        self._ray = ray
        # Ray would make a lost task again by itself, and a run that kills its worker time and again with it. The
        # comparison sees whether a run gets on.
        self._task = ray.remote(make_run).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._gpus = gpus
        self._workers = workers
        self._leases = leases
        self._disconnect = disconnect
        self._given = 0
        self._attempts: dict[Any, _Attempt] = {}

    @contextmanager
    def _still_ours(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if self._leases.exists():
                raise
            raise RecordError(f"another command has taken over {self._leases.parent}; this one has ended") from error

    def has_room(self) -> bool:
        """Always, unless `workers` is given: Ray queues what the cluster cannot take yet, and so sees the demand."""
        return self._workers is None or len(self._attempts) < self._workers

    def give(self, job: Job) -> None:
        """Submits the job with a new lease."""
        self._given += 1
        lease = self._leases / f"{job.method}-seed-{job.seed}-attempt-{self._given}"
        with self._still_ours():
            lease.touch()
            lease.chmod(self._leases.stat().st_mode & 0o666)
        data_dir = job.data_dir and job.data_dir.absolute()
        there = replace(job, directory=job.directory.absolute(), data_dir=data_dir)
        self._attempts[self._task.remote(there, lease, self._gpus)] = _Attempt(job, lease)

    def active(self) -> Sequence[Job]:
        """The jobs whose workers have begun."""
        with self._still_ours():
            return [attempt.job for attempt in self._attempts.values() if attempt.started()]

    def ended(self, timeout: float) -> Sequence[Ended]:
        """Jobs that ended; the lease of each is revoked first, so that a lost one can be given again."""
        ready, _ = self._ray.wait(list(self._attempts), timeout=timeout)
        ended = []
        for reference in ready:
            attempt = self._attempts.pop(reference)
            with self._still_ours():
                attempt.lease.unlink()
            try:
                error = str(self._ray.get(reference)) or _unseen(attempt.job)
            except _losses() as loss:
                ended.append(Ended(attempt.job, f"the worker was lost ({_line(loss)})", lost=True))
            except self._ray.exceptions.RayError as failure:
                ended.append(Ended(attempt.job, f"{type(failure).__name__}: {failure}"))
            else:
                ended.append(Ended(attempt.job, error))
        return ended

    def stop(self) -> None:
        """Revokes all leases and kills the tasks."""
        if self._leases.exists():
            shutil.rmtree(self._leases)
        for reference in self._attempts:
            self._ray.cancel(reference, force=True)
        if self._disconnect:
            self._ray.shutdown()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def _unseen(job: Job) -> str:
    """The error of a run that is over on its node and stays invisible here, "" if it is seen."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not (job.directory / "result.json").exists():
        if time.monotonic() > deadline:
            return f"a node has finished the run, but {job.directory / 'result.json'} is not seen from this machine"
        time.sleep(1)
    return ""
