"""Nested records as flat fields."""

from __future__ import annotations

from maxsup.lab.records import Json


def flat(values: Json, prefix: str = "") -> Json:
    """Nested fields under dotted names.

    >>> flat({"epochs": 5, "model": {"name": "convnet"}})
    {'epochs': 5, 'model.name': 'convnet'}
    """
    fields: Json = {}
    for name, value in values.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields
