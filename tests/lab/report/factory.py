"""Comparison folders with known numbers, written through the same functions as real ones."""

import numpy as np
from safetensors.numpy import save_file

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


# Ten seeds and three methods: what each measure is on average, and how far the methods' seeds lie apart.
MANY = ["cross-entropy", "label-smoothing", "max-sup"]
ANALYZED = {
    # measure: (cross-entropy, label-smoothing, max-sup, spread)
    "accuracy": (0.940, 0.940, 0.943, 0.001),
    "nll": (0.17, 0.34, 0.33, 0.004),
    "ece": (0.011, 0.160, 0.164, 0.004),
    "confidence_right": (0.97, 0.86, 0.85, 0.004),
    "confidence_wrong": (0.72, 0.57, 0.55, 0.006),
    "d_within": (0.110, 0.098, 0.104, 0.001),
    "r_squared": (0.762, 0.726, 0.723, 0.003),
    "brier": (0.09, 0.12, 0.12, 0.001),
    "adaptive_ece": (0.012, 0.161, 0.163, 0.003),
    "nll_scaled": (0.165, 0.21, 0.20, 0.003),
    "brier_scaled": (0.089, 0.091, 0.090, 0.001),
    "ece_scaled": (0.0080, 0.0150, 0.0081, 0.001),
    "adaptive_ece_scaled": (0.008, 0.016, 0.0135, 0.001),
    "aurc": (0.006, 0.010, 0.009, 0.0004),
    "aurc_logit_norm": (0.0061, 0.007, 0.0068, 0.0003),
    "coverage_at_1": (0.83, 0.70, 0.74, 0.01),
    "coverage_at_5": (0.98, 0.96, 0.97, 0.004),
    "coverage_at_10": (1.0, 1.0, 1.0, 0.0),
    "coverage_at_1_logit_norm": (0.83, 0.81, 0.82, 0.01),
    "coverage_at_5_logit_norm": (0.98, 0.97, 0.97, 0.004),
    "coverage_at_10_logit_norm": (1.0, 1.0, 1.0, 0.0),
    "vci": (0.80, 0.86, 0.84, 0.004),
    "nc1": (1.1, 0.7, 0.8, 0.03),
    "nc2": (0.31, 0.22, 0.21, 0.01),
    "nc3": (0.28, 0.20, 0.19, 0.01),
    "nc4": (0.012, 0.010, 0.009, 0.001),
    "wrong_share": (0.060, 0.060, 0.057, 0.001),
    "error_enhancement_share": (0.020, 0.024, 0.021, 0.001),
    "error_enhancement_share_wrong": (0.33, 0.40, 0.36, 0.01),
}
TRAINED = ("accuracy", "nll", "ece", "confidence_right", "confidence_wrong", "d_within", "r_squared")


def value(measure, method, seed):
    """Every seed has a shift of its own, which all methods share, and a smaller one that they do not."""
    *means, spread = ANALYZED[measure]
    place = MANY.index(method)
    shared = np.random.default_rng([seed, *measure.encode()]).normal()
    own = np.random.default_rng([seed, place, *measure.encode()]).normal()
    return float(means[place] + spread * (shared + 0.4 * own))


def analysis(method, seed):
    measures = {name: value(name, method, seed) for name in ANALYZED if name not in TRAINED}
    temperature = {"value": {"cross-entropy": 1.2, "label-smoothing": 0.6, "max-sup": 0.58}[method] + seed / 500}
    content = {"settings": {"bins": 15}, "outputs_sha256": f"{method}{seed}", "p": 2.0 + seed % 2, "curves": {}}
    return content | {
        "temperature": temperature | {"at_bound": method == "max-sup" and seed == 3},
        "measures": {"validation": measures, "test": measures},
    }


def probe(method, seed):
    accuracy = {"cross-entropy": 0.95, "label-smoothing": 0.91, "max-sup": 0.94}[method] + (seed % 5) / 1000
    path = [{"strength": 10.0**e, "iterations": 9, "converged": e > -6, "accuracy": 0.9} for e in (-6, 0, 5)]
    refit = {"strength": 1.0, "iterations": 30, "converged": True}
    return {
        "settings": {"data_sha256": "images", "model_sha256": f"{method}{seed}", "neighbors": 20},
        "data": {"name": "digits", "train": 1200, "test": 300},
        "linear": {"accuracy": accuracy, "strength": 1.0, "refit": refit, "path": path},
        "knn": {"neighbors": 20, "accuracy": accuracy - 0.02},
    }


def localization(method, seed):
    energy = {"cross-entropy": 0.40, "label-smoothing": 0.36, "max-sup": 0.44}[method] + (seed % 4) / 200
    thresholds = [round(0.1 * step, 1) for step in range(1, 10)]
    return {
        "settings": {"data": "fashion-scenes"},
        "data": "fashion-scenes",
        "thresholds": thresholds,
        "precision": [energy + 0.05 * threshold for threshold in thresholds],
        "recall": [1 - threshold for threshold in thresholds],
        "iou": [energy * (1 - threshold) for threshold in thresholds],
        "energy_inside": energy,
        "pointing_game": energy + 0.3,
        "n": 500,
    }


KINDS = {"impulse-noise": "noise", "fog": "weather"}


def corruptions(method, seed):
    """Two kinds, whose error rises with the severity: 10% more a step for noise, 5% for fog."""
    clean = {"cross-entropy": 0.10, "label-smoothing": 0.09, "max-sup": 0.08}[method] + seed / 1000
    steps = {"impulse-noise": 0.10, "fog": 0.05}

    def rising(step):
        return [clean + step * severity for severity in range(1, 6)]

    means = dict.fromkeys(("error", "nll", "ece"), clean + 0.075 * 3)
    return {
        "settings": {"version": 1},
        "model_sha256": f"{method}{seed}",
        "data": {"name": "digits", "n": 300},
        "clean": dict.fromkeys(means, clean),
        "corruptions": {
            kind: {"family": KINDS[kind]} | {measure: rising(step) for measure in means} for kind, step in steps.items()
        },
        "by_severity": {measure: rising(0.075) for measure in means},
        "by_family": {KINDS[kind]: dict.fromkeys(means, clean + 3 * step) for kind, step in steps.items()},
        "mean": means,
    }


def analyzed(directory, recipe=None, seeds=10):
    """Three methods × ten seeds, each finished, analysed, probed on the digits and measured against masks."""
    recipe = recipe or {"name": "fashion-mnist-resnet18", "epochs": 20, "alpha": {"start": 0.1, "end": 0.2}}
    write_json(directory / "comparison.json", {"recipe": recipe, "methods": MANY, "seeds": list(range(seeds))})
    for method in MANY:
        for seed in range(seeds):
            path = write_run(directory, method, seed, value("accuracy", method, seed))
            result = {name: value(name, method, seed) for name in TRAINED} | {"n": 100}
            whole = {"status": "finished", "epochs": 4, "selected_epoch": 3, "seconds": {"training": 4.0}}
            write_json(path / "result.json", whole | {"measures": {"train": result, "test": result}})
            write_json(path / "analysis.json", analysis(method, seed))
            write_json(path / "probe-digits.json", probe(method, seed))
            write_json(path / "localization-fashion-scenes.json", localization(method, seed))
            save_file({"test.logits": np.zeros((4, 3), np.float32)}, path / "outputs.safetensors")
    return directory


def spoiled(directory):
    """The same with one run diverged, one missing, and records truncated or of another kind in others."""
    analyzed(directory)
    write_run(directory, "label-smoothing", 2, 0.9, status="diverged")
    missing = run_directory(directory, "max-sup", 5)
    for file in missing.iterdir():
        file.unlink()
    spoil(run_directory(directory, "max-sup", 0) / "outputs.safetensors")
    (run_directory(directory, "max-sup", 0) / "analysis.json").unlink()
    spoil(run_directory(directory, "max-sup", 1) / "analysis.json")
    spoil(run_directory(directory, "cross-entropy", 3) / "probe-digits.json")
    write_json(run_directory(directory, "cross-entropy", 4) / "localization-fashion-scenes.json", {"data": "other"})
    return directory


def spoil(path):
    """Cuts a file's end off."""
    path.write_bytes(path.read_bytes()[:-20])


def measured(directory, accuracy, recipe=None, **others):
    """Finished runs with chosen test measures, each {method: value per seed}; the rest is the same in every run."""
    seeds = range(max(map(len, accuracy.values())))
    recipe = recipe or {"name": "small"}
    write_json(directory / "comparison.json", {"recipe": recipe, "methods": list(accuracy), "seeds": list(seeds)})
    for method, values in accuracy.items():
        for seed, of in enumerate(values):
            path = write_run(directory, method, seed, of)
            test = dict.fromkeys(TRAINED, 0.5) | {"accuracy": of}
            test |= {measure: chosen[method][seed] for measure, chosen in others.items()}
            measures = {"train": {"d_within": 0.5, "r_squared": 0.5}, "test": test}
            write_json(
                path / "result.json", {"status": "finished", "epochs": 4, "selected_epoch": 3, "measures": measures}
            )
    return directory
