"""The state of an unfinished run on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import torch

from maxsup.lab import records
from maxsup.lab.records import Json, RecordError
from maxsup.lab.training.run import Run


class Checkpoint:
    """Writes the state after each epoch; where writing is slow, in a tenth of the time at most."""

    SLOW_SECONDS = 0.1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due = 0.0

    def write(self, run: Run) -> None:
        """Writes the run's state in the first process, unless it is too soon; all have to call it."""
        begin = time.monotonic()
        if run.processes.of_first(lambda: begin < self.due):
            return
        state = run.state_dict()
        if not run.processes.first:
            return
        with records.replacing(self.path) as path:
            torch.save(state, path)
        took = time.monotonic() - begin
        self.due = time.monotonic() + 9 * took if took > self.SLOW_SECONDS else 0.0

    def load(self, run: Run) -> None:
        """Gives `run`, in every process, the state on the first process's disk, if there is one.

        Raises:
            RecordError: if the file is damaged.
        """
        state = run.processes.of_first(self._read)
        if state is None:
            return
        run.load_state_dict(state)
        if run.processes.first:
            # The checkpoint may be older or, by a kill between the two writes, newer than the lines.
            records.write_json_lines(self.path.parent / "metrics.jsonl", run.history)

    def _read(self) -> Json | None:
        if not self.path.exists():
            return None
        try:
            return cast(Json, torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise RecordError(
                f"{self.path}: unreadable checkpoint; delete it to start this run anew ({error})"
            ) from error
