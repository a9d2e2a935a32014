"""What a record says about where it was made: commit, versions, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
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
    "segmentation-models-pytorch",
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


def source_state() -> Json:
    """Which code ran: the commit (None outside a git checkout of maxsup), and a hash that needs no git.

    `source_sha256` runs over the package's Python files, names and contents in order of name.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return {**_git_state(package.parents[1]), "source_sha256": digest.hexdigest()}


def _git_state(root: Path) -> Json:
    if not (root / ".git").exists():  # an installed package inside somebody else's repository is not that commit
        return {"git_commit": None, "git_dirty": None}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout without its objects: the hash says enough
        return {"git_commit": None, "git_dirty": None}
