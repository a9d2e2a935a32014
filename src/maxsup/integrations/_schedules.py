"""Schedules under trainers that count epochs and updates themselves.

Moving to the trainer's own number, which its checkpoints hold, makes a resumed run go on as an unbroken one.
"""

from __future__ import annotations

from typing import Any, Literal

from maxsup._batch import check_choice
from maxsup.schedules import ConstantAlpha, CosineAlpha, LinearAlpha

Interval = Literal["epoch", "step"]
Schedule = ConstantAlpha | LinearAlpha | CosineAlpha


def check_schedule(schedule: Any, interval: str) -> None:
    """Raises unless `schedule` is one of `maxsup.schedules` and `interval` is known."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be one of maxsup.schedules, got {type(schedule).__name__}")
    check_choice("interval", interval, ("epoch", "step"))
