"""The state of an unfinished run on disk."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from maxsup.lab import records
from maxsup.lab.records import RecordError
from maxsup.lab.training.run import Run


class Checkpoint:
    """Writes the state after each epoch; where writing is slow, in a tenth of the time at most."""

    SLOW_SECONDS = 0.1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due = 0.0

    def write(self, run: Run) -> None:
        """Writes the run's state, unless it is too soon."""
        begin = time.monotonic()
        if begin < self.due:
            return
        with records.replacing(self.path) as path:
            torch.save(run.state_dict(), path)
        took = time.monotonic() - begin
        self.due = time.monotonic() + 9 * took if took > self.SLOW_SECONDS else 0.0

    def load(self, run: Run, device: torch.device) -> None:
        """Gives `run` the state on disk, if there is one.

        Raises:
            RecordError: if the file is damaged.
        """
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:
            raise RecordError(
                f"{self.path}: unreadable checkpoint; delete it to start this run anew ({error})"
            ) from error
        run.load_state_dict(state)
        # The checkpoint may be older or, by a kill between the two writes, newer than the lines.
        records.write_json_lines(self.path.parent / "metrics.jsonl", run.history)
