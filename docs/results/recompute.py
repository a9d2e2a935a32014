"""Recomputes cells of a comparison's tables from the runs' raw outputs, with NumPy alone.

    python recompute.py DIR [METHOD ...]

DIR is the folder of a comparison whose runs still have their outputs.safetensors (features, logits and labels of the
validation and test images); METHOD is one of its methods, or all are taken. Nothing of maxsup or PyTorch is imported:
the file format, the formulas and the means over seeds are written out again below. What summary.json says stands beside
each number. The exit code is 1 if any of them differs by more than rounding.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
BINS = 15
# The runs' own arithmetic is partly in float32, so that the last of its seven digits can differ.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


def read_safetensors(path):
    """Every tensor of a file by name: 8 bytes with the header's length, the header as JSON, then the raw numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        numbers = np.frombuffer(content[begin:end], dtype=TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def measures(features, logits, labels):
    """The measures of one split, in float64; features (N, D), logits (N, K), labels (N,)."""
    features, logits = features.astype(np.float64), logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    confidence = np.exp(log_probabilities.max(axis=1))
    right = logits.argmax(axis=1) == labels

    # Expected calibration error: Σ_b (n_b / N) |accuracy_b − confidence_b| over bins of equal width.
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]

    # Mean cosine distance over all pairs within a class, and over all pairs; every class has the same weight. The mean
    # of x·y over all pairs of a class is the squared norm of its mean unit vector.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = 1 - (means**2).sum(axis=1).mean()
    total = 1 - (means.mean(axis=0) ** 2).sum()
    return {
        "accuracy": right.mean(),
        "confidence_wrong": confidence[~right].mean() if not right.all() else None,
        "nll": -log_probabilities[np.arange(len(labels)), labels].mean(),
        "ece": sum(gaps),
        "d_within": within,
        "r_squared": 1 - within / total,
    }


def finished_runs(directory, method):
    """The outputs file of each finished run of a method, by seed."""
    found = {}
    for result in directory.glob(f"runs/{method}/seed-*/result.json"):
        if json.loads(result.read_text())["status"] == "finished":
            found[int(result.parent.name.removeprefix("seed-"))] = result.with_name("outputs.safetensors")
    return dict(sorted(found.items()))


def described(values):
    """Number, mean and standard deviation (n − 1) of the values that are defined."""
    values = np.array([value for value in values if value is not None], dtype=np.float64)
    mean = values.mean() if len(values) else None
    return len(values), mean, values.std(ddof=1) if len(values) > 1 else None


def agree(ours, theirs):
    """Whether two numbers, or two that are undefined, are the same up to rounding."""
    if ours is None or theirs is None:
        return ours is theirs
    return bool(abs(ours - theirs) <= ABSOLUTE + RELATIVE * abs(theirs))


def shown(n, mean, std):
    """`mean ± std (n)`."""
    texts = ["-" if value is None else f"{value:.6f}" for value in (mean, std)]
    return f"{texts[0]} ± {texts[1]} (n = {n})"


def compare(directory, method, recorded):
    """Prints the cells of one method, recomputed and as recorded; returns how many differ."""
    files = finished_runs(directory, method)
    absent = [str(file) for file in files.values() if not file.is_file()]
    if absent or not files:
        sys.exit(f"{absent[0] if absent else directory / 'runs' / method}: no recorded outputs")
    runs = []
    for file in files.values():
        tensors = read_safetensors(file)
        runs.append(measures(*(tensors[f"test.{part}"] for part in ("features", "logits", "labels"))))
    print(f"{method}, test images, seeds {', '.join(map(str, files))}")
    wrong = 0
    for name in runs[0]:
        ours = described([of[name] for of in runs])
        entry = recorded.get(f"test.{name}")
        line = f"  {name:17}recomputed {shown(*ours)}   "
        if entry is None:
            print(f"{line}summary.json has none")
            continue
        theirs = entry["n"], entry["mean"], entry["std"]
        same = all(agree(*pair) for pair in zip(ours, theirs, strict=True))
        wrong += not same
        print(f"{line}summary.json {shown(*theirs)}{'' if same else '   DIFFERS'}")
    return wrong


def main():
    """Reads the command line, compares, and exits with 1 if a cell differs."""
    parser = argparse.ArgumentParser(description="Recomputes cells of a comparison's tables with NumPy alone.")
    parser.add_argument("directory", type=Path, help="folder of a comparison")
    parser.add_argument("methods", nargs="*", help="methods; all of the comparison if none is named")
    options = parser.parse_args()
    record = options.directory / "summary.json"
    if not record.is_file():
        sys.exit(f"{record}: missing; `maxsup report {options.directory}` writes it")
    recorded = json.loads(record.read_text(encoding="utf-8"))["methods"]
    unknown = [method for method in options.methods if method not in recorded]
    if unknown:
        sys.exit(f"unknown method {unknown[0]!r}; {record} has {', '.join(recorded)}")
    methods = options.methods or list(recorded)
    wrong = sum(compare(options.directory, method, recorded[method]["measures"]) for method in methods)
    print(f"{wrong} cells differ" if wrong else "all cells agree")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
