"""Worker processes of this machine: how they start, what they see, and that they end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext

# What workers need. By name: the layers above this one are not imported here.
PRELOADED = ("maxsup.lab.train", "maxsup.lab.analysis_commands")


def worker_context() -> ForkServerContext:
    """Workers come from a server that has imported what they need once, and that uses no GPU.

    To start each anew takes seconds of imports; to fork a process that uses a GPU breaks the child. The server starts
    with the first worker; start workers within `interrupts_blocked`, or Ctrl-C ends it.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(PRELOADED))
    return server


def begin_work(environment: Mapping[str, str], gpu: str | None) -> None:
    """A worker's first act: its parent's environment, and its GPU as the only one; it ends with its parent.

    The server has the environment of the moment in which it started. What libraries read when they are loaded, such as
    numbers of threads, they have read there.
    """
    os.environ.clear()
    os.environ.update(environment)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    end_with_parent()


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only workers run this
    parent.join()
    os._exit(1)
