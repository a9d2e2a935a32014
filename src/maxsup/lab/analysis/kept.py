"""Records that are kept beside what they were computed from, and computed again when it changes."""

from __future__ import annotations

import json
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


def write_compact(file: Path, content: Json) -> None:
    """Writes what `records.read_json` reads, on one line: many points, indented, are blanks for the most part."""
    whole = {"schema_version": records.SCHEMA_VERSION, **content}
    records.write_text(file, json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n")
