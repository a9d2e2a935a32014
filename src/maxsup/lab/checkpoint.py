"""The file from which interrupted work goes on."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from maxsup.lab import records
from maxsup.lab.records import Json, RecordError


class CheckpointFile:
    """A state on disk; where writing is slow, it is left out so often that it takes a tenth of the time at most."""

    SLOW_SECONDS = 0.1

    def __init__(self, path: Path) -> None:
        self.path = path
        self._due = 0.0

    def is_due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._due

    def write(self, state: Json) -> None:
        """Writes the state, due or not."""
        begin = time.monotonic()
        with records.replacing(self.path) as path:
            torch.save(state, path)
        took = time.monotonic() - begin
        self._due = time.monotonic() + 9 * took if took > self.SLOW_SECONDS else 0.0

    def read(self, device: torch.device | str = "cpu") -> Json | None:
        """The state, on `device`; None if there is none.

        Raises:
            RecordError: if the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            state: Json = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:
            raise RecordError(f"{self.path}: unreadable checkpoint; delete it to start anew ({error})") from error
        return state
