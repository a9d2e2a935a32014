"""What a record says about where it was made: commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from maxsup.lab.records import Json

_PACKAGES = (
    "maxsup",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-learn",
    "torchmetrics",
)


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that can change a result; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["torch"] = torch.__version__  # with the build, +cpu or +cu130, that the metadata lacks
    if found["maxsup"] is None:
        from maxsup._version import __version__

        found["maxsup"] = __version__
    return found


def hardware() -> Json:
    """Processor, cores, memory and GPU."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].split(":", 1)[1].strip() if models else processor
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "processor": processor,
        "cores": os.cpu_count(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


def git_state() -> Json:
    """The commit of the source tree and whether it has uncommitted changes; None outside a git checkout of maxsup."""
    root = Path(__file__).resolve().parents[3]
    nothing = {"git_commit": None, "git_dirty": None}
    if not (root / ".git").exists():  # an installed package inside somebody else's repository is not that commit
        return nothing

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError) as error:
        print(f"maxsup: the records will name no commit: {error}", file=sys.stderr)
        return nothing
