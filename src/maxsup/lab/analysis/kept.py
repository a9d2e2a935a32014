"""Records that are kept beside what they were computed from, and computed again when it changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from maxsup.lab import records
from maxsup.lab.records import Json, RecordError


def read_kept(file: Path, key: Json) -> Json | None:
    """The record in `file` if it is readable and has every entry of `key`; None if it has to be made."""
    if not file.exists():
        return None
    try:
        content = records.read_json(file)
    except RecordError:  # a damaged record of what can be computed again
        return None
    plain: Json = json.loads(json.dumps(key))  # as it was written: tuples became lists
    return content if all(content.get(name) == value for name, value in plain.items()) else None


def archived(file: Path, made_of: Iterable[Path], key: Json | None = None) -> Json | None:
    """The record in `file` where something that it was `made_of` is gone, so that it cannot be made again; else None.

    Published records are so: without outputs and weights. The record has to hold every entry of `key`, nested ones too.
    """
    if all(one.is_file() for one in made_of):
        return None
    kept = read_kept(file, {})
    return None if kept is None or "problem" in kept or not _holds(kept, json.loads(json.dumps(key or {}))) else kept


def _holds(content: object, key: object) -> bool:
    if isinstance(content, dict) and isinstance(key, dict):
        return all(name in content and _holds(content[name], value) for name, value in key.items())
    return content == key


def write_compact(file: Path, content: Json) -> None:
    """Writes what `records.read_json` reads, on one line: many points, indented, are blanks for the most part."""
    whole = {"schema_version": records.SCHEMA_VERSION, **content}
    records.write_text(file, json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n")
