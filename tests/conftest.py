"""What has to hold before anything imports the package."""

import os

import torch

if not torch.cuda.is_available():
    # Triton looks when a kernel is defined. Without a GPU the kernel tests run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"
