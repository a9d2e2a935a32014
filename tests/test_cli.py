import json
import os
import shutil
import statistics
import subprocess
import sys

import pytest
import torch

from maxsup import __version__, cli

FAST = ["--epochs", "1", "--data.train-size", "100"]


def run(capsys, *arguments):
    """Exit code, standard output and standard error of the command, called in this process."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_and_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for word in (
        "list",
        "train RECIPE",
        "compare RECIPE",
        "analyze PATH",
        "probe PATH",
        "corrupt PATH",
        "segment PATH",
        "report DIR",
        "Exit codes",
    ):
        assert word in out
    assert run(capsys) == (0, out, "")
    assert run(capsys, "--version") == (0, f"maxsup {__version__}\n", "")


def test_a_reader_that_stops_reading_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "maxsup", "list"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_list_names_every_recipe_method_and_data_set_with_a_line(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  "))
    assert {"digits-convnet", "fashion-mnist-resnet18", "cross-entropy", "max-sup", "digits"} <= lines.keys()
    assert all(len(text) > 10 for text in lines.values())


def test_help_shows_the_recipes_values(capsys):
    code, out, _ = run(capsys, "train", "fashion-mnist-resnet18", "--help")
    assert code == 0
    for text in ("--optimizer.lr", "(default: 256)", "--data.train-size", "--method", "--alpha.end", "--out PATH"):
        assert text in out
    code, out, _ = run(capsys, "compare", "--help")
    assert code == 0
    assert "RECIPE is one of digits-convnet" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["train", "digit-convnet"], "unknown recipe 'digit-convnet'; did you mean digits-convnet?"),
        (
            ["train", "digits-convnet", "--method", "maxsup", "--out", "x"],
            "unknown method 'maxsup'; did you mean max-sup",
        ),
        (["compare", "digits-convnet", "--methods", "CE", "--out", "x"], "unknown method 'CE'; known: "),
        (
            ["train", "digits-convnet", "--data.name", "digit", "--out", "x"],
            "unknown data set 'digit'; did you mean digits",
        ),
        (
            ["train", "digits-convnet", "--model.name", "resnet81", "--out", "x"],
            "unknown model 'resnet81'; did you mean",
        ),
        (
            ["compare", "digits-convnet", "--optimizer.name", "adamww", "--out", "x"],
            "unknown optimizer 'adamww'; did you mean",
        ),
        (
            ["compare", "digits-convnet", "--alpha.end", "2", "--out", "x"],
            "label-smoothing: alpha must be a number from 0 to 1, got 2.0",
        ),
        (["train", "digits-convnet", "--epoch", "3", "--out", "x"], "unknown option '--epoch'; did you mean --epochs"),
        (
            ["train", "digits-convnet", "--optimizer.rl=3", "--out", "x"],
            "unknown option '--optimizer.rl'; did you mean",
        ),
        (["train", "digits-convnet", "surplus", "--out", "x"], "unexpected argument 'surplus'"),
        (["train", "--method", "max-sup"], "takes a recipe first"),
        (["compare", "digits-convnet", "--workers", "0", "--out", "x"], "workers must be at least 1, got 0"),
        (["tune", "digits-convnet", "--workers", "0", "--out", "x"], "--workers must be at least 1, got 0"),
        (["compare", "digits-convnet", "--seeds", "-1", "--out", "x"], "seeds must be at least 0, got -1"),
        (["train", "digits-convnet", "--epochs", "0", "--out", "x"], "epochs must be at least 1, got 0"),
        (["corrupt"], "`maxsup corrupt` takes folders"),
        (["corrupt", "x"], "x: no run and no comparison here"),
        (["probe"], "`maxsup probe` takes folders"),
        (["probe", "--data", "digits"], "`maxsup probe` takes folders"),
        (["probe", "x", "--data", "digit"], "unknown data set 'digit'; did you mean digits"),
        (["probe", "x", "--data", "digits"], "x: no run and no comparison here"),
        (["probe", "x", "--data", "digits", "--neighbours", "3"], "unknown option '--neighbours'; did you mean"),
        (["probe", "x", "--data", "digits", "--neighbors", "0"], "neighbors must be at least 1, got 0"),
        (["probe", "x", "--data", "digits", "--train-size", "0"], "train_size must be at least 1 or None, got 0"),
        (["analyze"], "`maxsup analyze` takes folders"),
        (["analyze", "x"], "x: no run and no comparison here"),
        (["list", "surplus"], "unexpected argument 'surplus'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("maxsup: ")
    assert err.count("\n") == 1
    assert message in err
    assert os.listdir(tmp_path) == []


def test_a_value_of_the_wrong_kind_is_explained(capsys):
    code, _, err = run(capsys, "train", "digits-convnet", "--epochs", "many", "--out", "x")
    assert code == 2
    assert "--epochs" in err
    assert "many" in err
    assert "Traceback" not in err


def test_train_then_the_same_folder_with_another_recipe(capsys, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    code, shown, _ = run(capsys, "train", "digits-convnet", *FAST, *out)
    assert code == 0
    assert "test: n 360, accuracy" in shown
    code, _, err = run(capsys, "train", "digits-convnet", "--epochs", "2", "--data.train-size", "100", *out)
    assert code == 2
    assert "recipe.epochs: 1 -> 2" in err


def test_damaged_data_is_one_error_that_names_the_file(capsys, tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b broken")
    code, _, err = run(
        capsys, "compare", "fashion-mnist-resnet18", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")
    )
    assert code == 1
    assert err.startswith(f"maxsup: {tmp_path / 'train-images-idx3-ubyte.gz'}: corrupt or truncated")
    assert not (tmp_path / "out").exists()


def test_a_data_folder_that_is_not_there_is_an_error_though_the_data_be_elsewhere(capsys, tmp_path):
    code, _, err = run(
        capsys, "train", "digits-convnet", "--data-dir", str(tmp_path / "typo"), "--out", str(tmp_path / "out")
    )
    assert (code, err) == (1, f"maxsup: --data-dir {tmp_path / 'typo'}: no such folder\n")


def test_a_file_that_cannot_be_written_is_named_first(capsys, tmp_path):
    (tmp_path / "out").write_text("no folder")
    code, _, err = run(capsys, "train", "digits-convnet", *FAST, "--out", str(tmp_path / "out"))
    assert (code, err) == (1, f"maxsup: {tmp_path / 'out'}: File exists\n")


def test_a_terminal_without_the_characters_shows_others():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(
        [sys.executable, "-m", "maxsup"], env=environment, capture_output=True, text=True, check=True
    )
    assert "methods ? seeds" in shown.stdout


def test_report_of_no_comparison(capsys, tmp_path):
    code, _, err = run(capsys, "report", str(tmp_path))
    assert (code, err) == (2, f"maxsup: {tmp_path}: no comparison here (comparison.json is missing)\n")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two methods × two seeds, trained on the digits 0 to 4."""
    directory = tmp_path_factory.mktemp("comparison") / "out"
    arguments = ["compare", "digits-convnet", "--epochs", "1", "--pretrain-classes", "0", "1", "2", "3", "4"]
    methods = ["--methods", "cross-entropy", "max-sup", "--seeds", "0", "1"]
    assert cli.main([*arguments, *methods, "--out", str(directory)]) == 0
    return directory


def test_a_report_takes_its_differences_from_the_method_that_is_named(capsys, comparison):
    code, out, _ = run(capsys, "report", str(comparison), "--reference", "max-sup")
    assert code == 0
    assert "paired difference from max-sup" in " ".join(out.split())
    assert json.loads((comparison / "summary.json").read_text())["reference"] == "max-sup"
    code, _, err = run(capsys, "report", str(comparison), "--reference", "max-supp")
    assert (code, err) == (2, "maxsup: unknown method of this comparison 'max-supp'; did you mean max-sup?\n")
    assert run(capsys, "report", str(comparison))[0] == 0


def test_probe_of_a_comparison_takes_the_classes_that_it_was_not_trained_on(capsys, comparison):
    recipe = json.loads((comparison / "comparison.json").read_text())["recipe"]
    assert recipe["data"]["classes"] == [0, 1, 2, 3, 4]
    code, out, err = run(capsys, "probe", str(comparison), "--data", "digits", "--train-size", "100")
    assert code == 0
    first, *lines = err.splitlines()
    assert (first, len(lines)) == ("probe on digits, runs: 4", 4)
    assert all(", all fits converged" in line for line in lines)
    shares = {}
    for method in ("cross-entropy", "max-sup"):
        for seed in (0, 1):
            record = json.loads(
                (comparison / f"runs/{method}/seed-{seed}/probe-digits-classes-5-9-train-100.json").read_text()
            )
            assert record["data"]["class_names"] == ["5", "6", "7", "8", "9"]
            shares[method, seed] = 100 * record["linear"]["accuracy"]
    assert "Probe on digits: 100 training and 179 test images" in out
    for method in ("cross-entropy", "max-sup"):
        of = [shares[method, 0], shares[method, 1]]
        row = next(line for line in out.splitlines() if line.startswith(f"│ {method} ") and "of 92" in line)
        assert [cell.strip() for cell in row.split("│")][2:4] == [
            "2",
            f"{statistics.mean(of):.2f} ± {statistics.stdev(of):.2f}",
        ]
    assert "report.html" in out


def test_analyze_of_a_comparison_keeps_measures_and_pictures(capsys, comparison):
    code, out, err = run(capsys, "analyze", str(comparison), "--classes", "4", "0", "1")
    assert code == 0
    assert len(err.splitlines()) == 5
    for method in ("cross-entropy", "max-sup"):
        for seed in (0, 1):
            assert (comparison / "runs" / method / f"seed-{seed}" / "analysis.json").is_file()
    assert json.loads((comparison / "analysis/projection.json").read_text())["classes"] == ["4", "0", "1"]
    assert (comparison / "analysis/gradcam.json").is_file()
    assert "report.html" in out


def test_wrong_names_for_a_comparison_are_found_before_anything_is_analyzed(capsys, comparison, tmp_path):
    copy = shutil.copytree(comparison / "runs", tmp_path / "runs").parent
    shutil.copy(comparison / "comparison.json", copy)
    for file in copy.rglob("analysis.json"):
        file.unlink()
    code, _, err = run(capsys, "analyze", str(copy), "--classes", "4", "0", "5")
    assert (code, err) == (2, "maxsup: unknown class '5'; known: 0, 1, 2, 3, 4\n")
    code, _, err = run(capsys, "analyze", str(copy), "--method", "maxsup")
    assert (code, err) == (2, "maxsup: unknown method 'maxsup'; did you mean max-sup?\n")
    one = str(copy / "runs/max-sup/seed-0")
    code, _, err = run(capsys, "analyze", one, "--method", "max-sup")
    assert (code, err.count("\n")) == (2, 1)
    assert "no PATH is a comparison" in err
    assert list(copy.rglob("analysis.json")) == []


def test_corrupt_tests_a_run_and_tells_its_means(capsys, comparison, tmp_path):
    one = shutil.copytree(comparison / "runs/max-sup/seed-0", tmp_path / "run")
    code, _, err = run(capsys, "corrupt", str(one))
    assert code == 0
    record = json.loads((one / "corruptions.json").read_text())
    assert f"max-sup seed 0: error {record['mean']['error']:.4f} (clean {record['clean']['error']:.4f})" in err
    assert len(record["corruptions"]) == 12


def test_a_damaged_run_stops_no_other_and_is_named(capsys, comparison, tmp_path):
    copy = shutil.copytree(comparison, tmp_path / "copy")
    broken = copy / "runs/max-sup/seed-1"
    for file in copy.rglob("probe-*.json"):
        file.unlink()
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (copy / "runs/max-sup/seed-0/result.json").unlink()  # unfinished: left out
    code, out, err = run(capsys, "probe", str(copy), "--data", "digits", "--train-size", "50", "--workers", "1")
    assert code == 1
    assert "max-sup seed 1: failed" in err
    assert f"maxsup: {broken}: {broken / 'model.safetensors'}: truncated or corrupt weights" in err
    assert [path.parent.parent.name for path in sorted(copy.rglob("probe-*.json"))] == ["cross-entropy"] * 2
    row = next(line for line in out.splitlines() if line.startswith("│ max-sup ") and "of" in line)
    assert [cell.strip() for cell in row.split("│")][2:6] == ["0", "–", "–", "0 of 0"]
    code, _, err = run(capsys, "probe", str(copy / "runs/max-sup/seed-0"), "--data", "digits")
    assert code == 2
    assert "the run is unfinished" in err


def test_an_unwritable_folder_is_a_clear_error(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, "train", "digits-convnet", *FAST, "--out", str(tmp_path / "file" / "run"))
    assert code == 1
    assert err.startswith("maxsup: ")
    assert str(tmp_path / "file") in err
    assert err.count("\n") == 1


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_written_file(capsys, tmp_path, monkeypatch):
    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(torch, "save", full)
    code, _, err = run(capsys, "train", "digits-convnet", *FAST, "--out", str(tmp_path))
    assert code == 1
    assert "No space left on device" in err
    assert sorted(os.listdir(tmp_path)) == ["error.txt", "run.json"]


def test_import_is_light():
    # In a process of its own: this one has imported everything.
    script = (
        "import torch, sys; before = set(sys.modules); import maxsup; "
        "added = {name.split('.')[0] for name in set(sys.modules) - before}; print(*sorted(added - {'maxsup'}))"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    lab = {"accelerate", "jinja2", "matplotlib", "numpy", "rich", "safetensors", "scipy", "sklearn", "timm"}
    assert lab.isdisjoint(shown)
    assert {"torchmetrics", "torchvision", "triton", "tyro"}.isdisjoint(shown)


def test_a_launched_command_trains_in_two_processes_and_prints_once(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "maxsup"]
    command = ["train", "digits-convnet", *FAST, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["train", "validation", "test", "records"]
    assert done.stderr.count("epoch 1/1") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


def test_a_comparison_cannot_be_launched(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(capsys, "compare", "digits-convnet", "--out", str(tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert "`maxsup compare` starts its own processes" in err
