"""Processes that decode and augment images, and the time that is spent waiting for them."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maxsup.lab.data.randomness import preserved, start_at
from maxsup.lab.data.sources import Source, opened
from maxsup.lab.data.view import View
from maxsup.lab.records import DataError
from maxsup.lab.workers import end_with_parent, worker_context

# Images that a worker makes at a time. A part of a batch: several workers share one, and a queue of parts is small
# enough for the shared memory that a container has by default.
CHUNK = 32
# What workers need; the main module because a user's may have what they are given.
_PRELOADED = ("__main__", "maxsup.lab.data.preload")

# The image's number in its source, and the seed of its augmentation.
Task = tuple[int, int | None]


class Wait:
    """Seconds that the device stood still because images were not ready.

    On a GPU, time between its last work and the next, by events in its stream; elsewhere, time that the process waited.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the time of what is done within."""
        if self._cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def seconds(self) -> float:
        """The sum so far; on a GPU it waits until the device has come so far."""
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds


class _Views(Dataset[Tensor]):
    """What a worker does with a list of tasks."""

    def __init__(self, source: Source, view: View) -> None:
        self.source = source
        self.view = view

    def __getitems__(self, tasks: Sequence[Task]) -> Tensor | DataError:
        try:
            with preserved():
                views = [self._one(index, seed) for index, seed in tasks]
        except DataError as error:  # as a value: the loader would bury the message in a worker's traceback
            return error
        return torch.stack(views)

    def _one(self, index: int, seed: int | None) -> Tensor:
        image = opened(self.source, index)
        if seed is not None:
            start_at(seed)
        return self.view(image)


class _Plan:
    """The parts of batches that an epoch consists of; changed between epochs."""

    def __init__(self) -> None:
        self.batches = 0
        self.tasks: Callable[[int], Sequence[Task]] = _none

    def __iter__(self) -> Iterator[Sequence[Task]]:
        for number in range(self.batches):
            batch = self.tasks(number)
            for start in range(0, len(batch), CHUNK):
                yield batch[start : start + CHUNK]


def _none(number: int) -> Sequence[Task]:
    return []


class Loader:
    """Batches of images (N, H, W, C), uint8, decoded by `workers` processes that live as long as this.

    What an image becomes depends on its task alone, never on the process that makes it.

    Raises:
        ValueError: in a daemonic process of multiprocessing's, which may not start others, unless `workers` is 0.
    """

    def __init__(self, source: Source, view: View, workers: int, device: torch.device, batch_size: int) -> None:
        if workers and multiprocessing.current_process().daemon:
            raise ValueError("data.loader_workers must be 0 in a daemonic process, which may not start others")
        self._plan = _Plan()
        self._device = device
        ahead = max(2, -(-2 * batch_size // (CHUNK * max(1, workers))))  # two batches, over all workers
        self._loader: Any = DataLoader(
            _Views(source, view),
            batch_sampler=cast(Any, self._plan),
            num_workers=workers,
            collate_fn=_same,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            prefetch_factor=ahead if workers else None,
            multiprocessing_context=worker_context(_PRELOADED) if workers else None,
            worker_init_fn=_begin,
        )

    def batches(self, sizes: Sequence[int], tasks: Callable[[int], Sequence[Task]], wait: Wait) -> Iterator[Tensor]:
        """The images of batches of the given sizes, on the device; time without them goes to `wait`.

        `tasks(number)` are those of a batch: an epoch's all at once would be millions of Python objects.

        Raises:
            DataError: for an image that is unreadable; it names it.
        """
        self._plan.batches, self._plan.tasks = len(sizes), tasks
        try:
            parts = iter(self._loader)
            for size in sizes:
                images = []
                for _ in range(0, size, CHUNK):
                    with wait.measured():
                        part = next(parts)
                    if isinstance(part, DataError):
                        raise part
                    images.append(part.to(self._device, non_blocking=True))
                yield torch.cat(images) if len(images) > 1 else images[0]
        finally:
            # They refer to the split, which refers to this: without the circle, the processes end with the split.
            if self._plan.tasks is tasks:
                self._plan.tasks = _none


def _same(part: Any) -> Any:
    return part


def _begin(worker: int) -> None:
    # torch's workers end with their parent, which is the server of processes here and would outlive a killed training.
    end_with_parent()
    # Of Pillow, for files of ImageNet with damaged EXIF data or transparency in palettes, at each epoch anew.
    warnings.filterwarnings("ignore", module="PIL")


def default_workers() -> int:
    """The processors that this process may use, shared among the training processes that torchrun started here."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
