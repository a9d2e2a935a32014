"""The state of an unfinished run, written by one process and read by all."""

from __future__ import annotations

from pathlib import Path

from maxsup.lab import records
from maxsup.lab.checkpoint import CheckpointFile
from maxsup.lab.records import RecordError
from maxsup.lab.training.run import Run


class Checkpoint:
    """A run's file; all processes have to call its methods."""

    def __init__(self, path: Path) -> None:
        self.file = CheckpointFile(path)

    def write(self, run: Run) -> None:
        """Writes the run's state in the first process, if it is due."""
        if not run.processes.of_first(self.file.is_due):
            return
        state = run.state_dict()
        if run.processes.first:
            self.file.write(state)

    def load(self, run: Run) -> None:
        """Gives `run`, in every process, the state on the first process's disk, if there is one.

        Raises:
            RecordError: if the file is damaged, or another version of the package wrote it.
        """
        state = run.processes.of_first(self.file.read)
        if state is None:
            return
        try:
            run.load_state_dict(state)
        except KeyError as error:
            raise RecordError(
                f"{self.file.path}: a checkpoint of another version, without {error}; delete it to start anew"
            ) from error
        if run.processes.first:
            # The checkpoint may be older or, by a kill between the two writes, newer than the lines.
            records.write_json_lines(self.file.path.parent / "metrics.jsonl", run.history)
