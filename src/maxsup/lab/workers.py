"""Worker processes of this machine: how they start, what they see, and that they end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path

# What workers need. By name: the layers above this one are not imported here.
PRELOADED = ("maxsup.lab.train", "maxsup.lab.analysis_commands")


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes that start meanwhile know no Ctrl-C from their first moment, imports included; here it comes later."""
    resource_tracker.ensure_running()  # which would let interrupts through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_context(preloaded: Sequence[str] = PRELOADED) -> ForkServerContext:
    """Workers come from a server that has imported what they need once, and that uses no GPU and has no threads.

    To start each anew takes seconds of imports; to fork a process that uses a GPU breaks the child, and one that has
    threads can deadlock it. There is one server for all workers of this process, with what the first of them had
    `preloaded`; it knows no Ctrl-C, and neither do they until they ask for it.

    Raises:
        OSError: if the folder of temporary files is no place for its socket, or the server dies while it imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    try:
        with _own_modules(), interrupts_blocked():
            forkserver.ensure_running()
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OSError(
            f"TMPDIR must be a folder for sockets, of at most 75 characters, got {folder!r}: {error}"
        ) from error
    ready = context.Process(target=_nothing)
    try:
        ready.start()  # here Ctrl-C need not wait for the imports
    except (EOFError, ConnectionError):
        raise OSError("the server of worker processes died while it imported maxsup; its error is above") from None
    ready.join()
    return context


@contextmanager
def _own_modules() -> Iterator[None]:
    """A Python that starts meanwhile finds its modules where this one does, and not in the current folder first."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _nothing() -> None:
    pass


def begin_work(environment: Mapping[str, str]) -> None:
    """A worker's first act: to end with its parent, and to have the environment that it gives.

    The server has that of the moment in which it started. What libraries read when they are loaded, such as numbers of
    threads, they have read there.
    """
    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only workers run this
    parent.join()
    os._exit(1)
