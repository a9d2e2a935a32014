"""TensorBoard, Weights & Biases and MLflow, through Accelerate's trackers: a run's epochs as they end.

The records stay the truth; a tracker is a view of them for who watches many runs. ::

    with tracking(("tensorboard",), directory, project="maxsup", run={"method": method, "seed": seed}) as on_epoch:
        train(recipe, method, seed, directory, on_epoch=on_epoch)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate import tracking as accelerate_tracking

from maxsup.lab.names import lookup
from maxsup.lab.records import Json

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # name: package


def check_trackers(names: Sequence[str]) -> None:
    """Whether there are such trackers.

    Raises:
        UnknownNameError: for an unknown tracker.
        ValueError: if a tracker's package is not installed.
    """
    for name in names:
        lookup("tracker", name, TRACKERS)
        if name not in map(str, accelerate_tracking.get_available_trackers()):
            raise ValueError(f"tracker {name} needs a package that is not installed: pip install {TRACKERS[name]}")


@contextmanager
def tracking(names: Sequence[str], directory: Path, *, project: str, run: Json) -> Iterator[Callable[[Json], None]]:
    """Yields what to call with each epoch's row; closes the trackers whatever happens.

    They are opened by the first row: a run that is refused, or finished already, leaves nothing in them.

    Args:
        names: trackers of `TRACKERS`; none yields a function that does nothing.
        directory: the run's folder: its name is the run's, and TensorBoard writes into ``tensorboard/`` in it. The
            others have their own places, and take keys and addresses from their environment variables.
        project: the W&B project or MLflow experiment.
        run: what runs (recipe, method, seed); stored flat, as ``recipe.optimizer.lr``.

    Raises:
        UnknownNameError: for an unknown tracker.
        ValueError: if a tracker's package is not installed.
    """
    check_trackers(names)
    with ExitStack() as stack:
        trackers: list[Any] = []

        def start() -> None:
            directory.mkdir(parents=True, exist_ok=True)
            if not PartialState._shared_state:  # which the trackers ask for this process's place
                PartialState(cpu=True)
                stack.callback(PartialState._reset_state)
            for name in dict.fromkeys(names):
                tracker = _tracker(name, directory, project)
                tracker.start()
                stack.callback(tracker.finish)
                tracker.store_init_configuration(flat(run))
                trackers.append(tracker)

        def on_epoch(row: Json) -> None:
            if names and not trackers:
                start()
            # None is a number that is not finite, which not every tracker takes.
            values = {name: value for name, value in row.items() if name != "epoch" and value is not None}
            for tracker in trackers:
                tracker.log(values, step=row["epoch"] + 1)

        yield on_epoch


def _tracker(name: str, directory: Path, project: str) -> Any:
    kind = accelerate_tracking.LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        return kind("tensorboard", directory)
    if name == "wandb":
        return kind(project, name=directory.name, dir=str(directory))
    return kind(project, run_name=directory.name)


def flat(content: Json, prefix: str = "") -> dict[str, str | int | float | bool]:
    """The leaves of nested JSON by their dotted names; what is no number or text becomes text.

    >>> flat({"seed": 0, "recipe": {"optimizer": {"lr": 0.1}, "sizes": [1, 2], "limit": None}})
    {'seed': 0, 'recipe.optimizer.lr': 0.1, 'recipe.sizes': '[1, 2]', 'recipe.limit': 'None'}
    """
    leaves: dict[str, str | int | float | bool] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return leaves
