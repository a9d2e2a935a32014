"""Which image files cannot be read: looked for once, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maxsup.lab import records
from maxsup.lab.data.sources import Source, opened
from maxsup.lab.records import DataError, Json

_AT_A_TIME = 256
_SHOWN = 5


@dataclass(frozen=True)
class Checked:
    """What was found: whether all images are grey, and the unreadable ones with the reason, by their number."""

    grey: bool
    unreadable: dict[int, str]


def check(source: Source, stamp: str) -> Checked:
    """Decodes every image of `source`, JPEG at an eighth of its size, on all processors.

    What is found is kept in ~/.cache/maxsup under `stamp`, which must change with the files; a second process that
    checks the same waits for the first.
    """

    def find() -> Json:
        numbers = range(len(source))
        parts = [numbers[start : start + _AT_A_TIME] for start in range(0, len(source), _AT_A_TIME)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            found = list(pool.map(lambda part: [_check(source, index) for index in part], parts))
        results = [one for part in found for one in part]
        return {
            "grey": all(grey for grey, reason in results if reason is None),
            "unreadable": {str(index): reason for index, (_, reason) in enumerate(results) if reason is not None},
        }

    found = kept(f"checked-{stamp}", find)
    return Checked(found["grey"], {int(index): reason for index, reason in found["unreadable"].items()})


def _check(source: Source, index: int) -> tuple[bool, str | None]:
    try:
        image = opened(source, index, small=True)
    except DataError as error:
        return True, str(error)
    return image.mode in ("1", "L"), None


def refuse_too_many(reasons: Sequence[str], of: int, limit: float) -> None:
    """Raises DataError if more than the share `limit` of `of` images are unreadable, with the first reasons."""
    if len(reasons) <= limit * of:
        return
    shown = "; ".join(reasons[:_SHOWN]) + (f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else "")
    raise DataError(f"{len(reasons)} of {of} images are unreadable, above data.unreadable_limit {limit:g}: {shown}")


def kept(name: str, find: Callable[[], Json]) -> Json:
    """What `find` found, from ~/.cache/maxsup/NAME.json if it was found before; one process at a time looks."""
    file = Path.home() / ".cache" / "maxsup" / f"{name}.json"
    with _alone(file):
        if not file.is_file():
            records.write_json(file, find())
        return records.read_json(file)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def stamp_of(parts: Sequence[str], paths: Sequence[Path]) -> str:
    """A fingerprint of names, and of files or folders as they are now: path, size of a file, time of change.

    A folder's time changes when a file comes or goes, not when one is overwritten: to look at each of a million files
    would take longer than to list them.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode("utf-8", "surrogateescape"))
    for path in paths:
        status = path.stat()
        size = 0 if path.is_dir() else status.st_size
        digest.update(f"{path.resolve()}\0{size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
