"""Comparison folders with known numbers, written through the same functions as real ones."""

from maxsup.lab.records import run_directory, write_json, write_json_lines, write_text

METHODS = ["cross-entropy", "max-sup"]
# accuracy on the test images by method and seed; the other measures are derived from it.
ACCURACY = {"cross-entropy": [0.90, 0.92, 0.94], "max-sup": [0.91, 0.94, 0.94]}


def split(accuracy):
    return {
        "n": 100,
        "accuracy": accuracy,
        "nll": 1 - accuracy,
        "ece": 0.05,
        "confidence_right": accuracy,
        "confidence_wrong": None if accuracy == 0.92 else 0.5,
        "d_within": 0.1,
        "d_total": 0.4,
        "r_squared": 0.75,
    }


def write_run(directory, method, seed, accuracy, status="finished"):
    path = run_directory(directory, method, seed)
    info = {
        "method": method,
        "seed": seed,
        "recipe": {"name": "small & simple"},
        "started": "2026-01-01T00:00:00+00:00",
    }
    info |= {"git_commit": "abc", "git_dirty": False, "versions": {"torch": "2.9"}, "hardware": {"cores": 2}}
    write_json(path / "run.json", info)
    rows = [
        {"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": 0.5, "validation_nll": 0.9, "learning_rate": 0.1}
        | {"validation_accuracy": accuracy - 0.1 / (e + 1), "alpha": None, "seconds": 1.0}
        for e in range(4)
    ]
    write_json_lines(path / "metrics.jsonl", rows)
    measures = {name: split(accuracy) for name in ("train", "validation", "test")} if status == "finished" else {}
    result = {"status": status, "epochs": 4, "selected_epoch": 3, "measures": measures}
    write_json(path / "result.json", result | {"seconds": {"training": 4.0, "evaluation": 1.0}})
    return path


def comparison(directory):
    """Two methods × three seeds, all finished."""
    write_json(
        directory / "comparison.json", {"recipe": {"name": "small & simple"}, "methods": METHODS, "seeds": [0, 1, 2]}
    )
    for method, values in ACCURACY.items():
        for seed, accuracy in enumerate(values):
            write_run(directory, method, seed, accuracy)
    return directory


def damaged(directory):
    """The same with one run diverged, one failed, one missing and one with a truncated record."""
    comparison(directory)
    write_run(directory, "cross-entropy", 0, 0.9, status="diverged")
    failed = run_directory(directory, "cross-entropy", 1)
    (failed / "result.json").unlink()
    write_text(failed / "error.txt", "Traceback …\nRuntimeError: <out of & luck>\n")
    missing = run_directory(directory, "max-sup", 0)
    for file in missing.iterdir():
        file.unlink()
    truncated = run_directory(directory, "max-sup", 1) / "metrics.jsonl"
    truncated.write_text(truncated.read_text()[:-20])
    return directory
