import os
import subprocess
import sys

import pytest

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
    for word in ("list", "train RECIPE", "compare RECIPE", "report DIR", "Exit codes"):
        assert word in out
    assert run(capsys) == (0, out, "")
    assert run(capsys, "--version") == (0, f"maxsup {__version__}\n", "")


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
        (["train", "digits-convnet", "--epoch", "3", "--out", "x"], "unknown option '--epoch'; did you mean --epochs"),
        (
            ["train", "digits-convnet", "--optimizer.rl=3", "--out", "x"],
            "unknown option '--optimizer.rl'; did you mean",
        ),
        (["train", "digits-convnet", "surplus", "--out", "x"], "unexpected argument 'surplus'"),
        (["train", "--method", "max-sup"], "takes a recipe first"),
        (["compare", "digits-convnet", "--workers", "0", "--out", "x"], "workers must be at least 1, got 0"),
        (["compare", "digits-convnet", "--seeds", "-1", "--out", "x"], "seeds must be at least 0, got -1"),
        (["train", "digits-convnet", "--epochs", "0", "--out", "x"], "epochs must be at least 1, got 0"),
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


def test_report_of_no_comparison(capsys, tmp_path):
    code, _, err = run(capsys, "report", str(tmp_path))
    assert (code, err) == (2, f"maxsup: {tmp_path}: no comparison here (comparison.json is missing)\n")


def test_an_unwritable_folder_is_a_clear_error(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, "train", "digits-convnet", *FAST, "--out", str(tmp_path / "file" / "run"))
    assert code == 1
    assert err.startswith("maxsup: ")
    assert str(tmp_path / "file") in err
    assert err.count("\n") == 1


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_written_file(capsys, tmp_path, monkeypatch):
    from maxsup.lab import train

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(train.torch, "save", full)
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
