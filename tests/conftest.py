"""What has to hold before anything imports the package."""

import os

# Two workers of pytest-xdist on two cores: a thread each. Before torch is imported, which looks once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():
    # Triton looks when a kernel is defined. Without a GPU the kernel tests run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"
