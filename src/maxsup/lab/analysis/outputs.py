"""The recorded outputs of a finished run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from maxsup.lab.evaluate import Outputs
from maxsup.lab.records import RecordError

SPLITS = ("validation", "test")
_PARTS = ("features", "logits", "labels")


OUTPUTS = "outputs.safetensors"


def outputs_file(run_dir: Path) -> Path:
    """Where a finished run keeps its outputs.

    Raises:
        RecordError: if the file is missing.
    """
    file = run_dir / OUTPUTS
    if not file.is_file():
        raise RecordError(f"{file}: missing; a run writes it when it finishes, and `maxsup import` with --data")
    return file


def outputs_fingerprint(run_dir: Path) -> str:
    """SHA-256 of the outputs file.

    Raises:
        RecordError: if the file is missing.
    """
    with outputs_file(run_dir).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_outputs(run_dir: Path) -> dict[str, Outputs]:
    """Features, logits and labels of the validation and the test split, on the CPU.

    Raises:
        RecordError: if the file is missing, truncated or corrupt, lacks a tensor, or its tensors do not fit together
            or are not finite; it names the file.
    """
    file = outputs_file(run_dir)
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise RecordError(f"{file}: truncated or corrupt outputs ({error})") from error
    absent = [f"{split}.{part}" for split in SPLITS for part in _PARTS if f"{split}.{part}" not in tensors]
    if absent:
        raise RecordError(f"{file}: lacks {', '.join(absent)}")
    return {split: _checked(Outputs(*(tensors[f"{split}.{part}"] for part in _PARTS)), file, split) for split in SPLITS}


def _checked(of: Outputs, file: Path, split: str) -> Outputs:
    shapes = [tuple(tensor.shape) for tensor in (of.features, of.logits, of.labels)]
    n = len(of.labels)
    if n == 0 or [len(shape) for shape in shapes] != [2, 2, 1] or any(shape[0] != n for shape in shapes):
        raise RecordError(f"{file}: {split} features, logits and labels have shapes {shapes}, which do not fit")
    if int(of.labels.min()) < 0 or int(of.labels.max()) >= of.logits.shape[1]:
        raise RecordError(f"{file}: a {split} label is not among the {of.logits.shape[1]} classes of the logits")
    if not bool(of.features.isfinite().all()) or not bool(of.logits.isfinite().all()):
        raise RecordError(f"{file}: {split} features or logits are not finite")
    return of
