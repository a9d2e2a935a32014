"""What tests on a GPU share."""

import warnings
from contextlib import contextmanager

import torch


@contextmanager
def no_host_synchronisation():
    """Any wait of the host for the device, as far as PyTorch detects it, is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
