"""The records of runs and comparisons: what each file holds, and how it is written and read.

A run's folder::

    run.json             what runs: recipe, method, seed, commit, versions, hardware
    metrics.jsonl        one line an epoch
    result.json          the end: status, measures per split, times; its presence means that the run is over
    outputs.safetensors  features, logits and labels of the validation and test split
    model.safetensors    the selected weights
    analysis.json        what `maxsup analyze` measured; localization-<data>.json Grad-CAM against masks
    probe-<data>.json    what `maxsup probe` measured
    corruptions.json     what `maxsup corrupt` measured
    segment-<label>/     what `maxsup segment` made; see `maxsup.lab.segmentation.train`
    error.txt            the traceback of the last failed attempt
    checkpoint.pt        state after the last finished epoch, while the run is unfinished

A comparison's folder has ``comparison.json``, ``runs/<method>/seed-<seed>/`` and, from `maxsup analyze`, ``analysis/``.
A folder of comparisons whose runs only choose settings, as those of `maxsup tune`'s grid, has ``trials.json``.
Every file is written under a temporary name and renamed, so that what has its final name is whole.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, SupportsFloat

SCHEMA_VERSION = 1
TRIALS = "trials.json"

Status = Literal["finished", "diverged", "failed", "unfinished", "missing"]
Json = dict[str, Any]


class RecordError(ValueError):
    """A record is unreadable, of another schema, or contradicts what it is asked to continue."""


class InUseError(RecordError):
    """Another process is at work in the folder."""


class DataError(ValueError):
    """Data that is absent, truncated or corrupt; the message names the file."""


_TEMPORARY = ".tmp-"
LOCK = ".lock"


def remove_temporary(directory: Path) -> None:
    """Removes what writers that were killed left in `directory`; only for its one writer to call."""
    for path in directory.glob(f"{_TEMPORARY}*"):
        path.unlink()


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds a folder, so that two processes never write into one, and clears what a killed one left.

    Raises:
        InUseError: if another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / LOCK
    # A file opened for writing: network file systems lock nothing else.
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it has removed it by now, if it was opened before: then another may have made a new one.
            held = file.exists() and os.path.samestat(file.stat(), os.fstat(handle))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise InUseError(f"{directory}: another process is at work here")
        try:
            remove_temporary(directory)
            yield
        finally:
            file.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` on success and removes it on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{path.name}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as any file that the user makes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a failed write, as on a full disk, does not say where
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Json) -> None:
    """Writes `content` as JSON with the schema version, whole or not at all."""
    write_text(path, json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Json:
    """Reads what `write_json` wrote.

    Raises:
        RecordError: if the file is no JSON object or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a readable JSON record ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(f"{path}: schema version {version!r}; this maxsup reads version {SCHEMA_VERSION}")
    return dict(content)


def write_json_lines(path: Path, rows: list[Json]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[Json]:
    """Reads what `write_json_lines` wrote.

    Raises:
        RecordError: if a line is no JSON object; it names the file and the line.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise RecordError(f"{path}: line {number} is no JSON object")
        rows.append(row)
    return rows


def finite(value: SupportsFloat) -> float | None:
    """The number for a record; None for NaN and infinities, which JSON does not have."""
    number = float(value)
    return number if math.isfinite(number) else None


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Lists the fields in which two JSON values differ, as ``name: old -> new``.

    >>> differences({"epochs": 5, "model": {"width": 8}}, {"epochs": 9, "model": {"width": 8}})
    ['epochs: 5 -> 9']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [f"{name}: {json.dumps(old)} -> {json.dumps(new)}"]


@dataclass(frozen=True)
class RunRecord:
    """One run as its folder tells it; `problem` says what is wrong where something is."""

    path: Path
    method: str
    seed: int
    status: Status
    info: Json = field(default_factory=dict)
    epochs: list[Json] = field(default_factory=list)
    result: Json = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A comparison as its folder tells it; `runs` in the order methods × seeds, missing ones included."""

    path: Path
    recipe: Json
    methods: list[str]
    seeds: list[int]
    runs: list[RunRecord]

    def of_method(self, method: str) -> list[RunRecord]:
        """The runs of one method, in the order of the seeds."""
        return [run for run in self.runs if run.method == method]


def run_directory(directory: Path, method: str, seed: int) -> Path:
    """Where a comparison keeps one run."""
    return directory / "runs" / method / f"seed-{seed}"


def _last_error(path: Path) -> str | None:
    file = path / "error.txt"
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else None


def read_run(path: Path, method: str = "", seed: int = -1) -> RunRecord:
    """Reads a run's folder; a damaged record becomes a run with a `problem`, never an exception."""
    problem = _last_error(path)
    ended: Status = "failed" if problem else "missing"
    if not (path / "run.json").exists():
        return RunRecord(path, method, seed, ended, problem=problem)
    try:
        info = read_json(path / "run.json")
        method, seed = info["method"], info["seed"]
        epochs = read_json_lines(path / "metrics.jsonl") if (path / "metrics.jsonl").exists() else []
        result = read_json(path / "result.json") if (path / "result.json").exists() else {}
        ended = result["status"] if result else "failed" if problem else "unfinished"
    except (RecordError, KeyError, OSError) as error:
        return RunRecord(path, method, seed, "failed", problem=f"{type(error).__name__}: {error}")
    return RunRecord(path, method, seed, ended, info, epochs, result, problem)


def read_finished(path: Path, done: str) -> RunRecord:
    """Reads the folder of a run that has to be finished to be, for example, "analyzed".

    Raises:
        RecordError: if there is none, or it is not finished; it says why.
    """
    if not (path / "run.json").is_file():
        raise RecordError(f"{path}: no run here (run.json is missing)")
    run = read_run(path)
    if run.status != "finished":
        reason = f" ({run.problem.strip().splitlines()[-1]})" if run.problem else ""
        raise RecordError(f"{path}: the run is {run.status}, and only a finished one can be {done}{reason}")
    return run


def read_comparison(path: Path) -> Comparison:
    """Reads a comparison's folder.

    Raises:
        RecordError: if `path` holds no readable ``comparison.json``.
    """
    file = path / "comparison.json"
    if not file.is_file():
        raise RecordError(f"{path}: no comparison here (comparison.json is missing)")
    content = read_json(file)
    runs = [
        read_run(run_directory(path, method, seed), method, seed)
        for method in content["methods"]
        for seed in content["seeds"]
    ]
    return Comparison(path, content["recipe"], content["methods"], content["seeds"], runs)
