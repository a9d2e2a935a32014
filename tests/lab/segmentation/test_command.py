import os
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import distributed, multiprocessing

from maxsup import cli
from maxsup.lab import records
from maxsup.lab.commands import segmentation as module
from maxsup.lab.processes import leave

from .conftest import write_pair

QUICK = ["--iterations", "2", "--batch-size", "2", "--interval", "1", "--augmentation.crop", "16"]
QUICK += ["--augmentation.resize", "64", "16", "--decoder.channels", "8", "--decoder.auxiliary-channels", "4"]
QUICK += ["--multi-scale.scales", "0.5", "1.0"]


def test_a_comparison_is_fine_tuned_run_by_run_and_reported(compared, ade20k, capfd):
    arguments = ["segment", str(compared), "--data", "ade20k", "--data-dir", str(ade20k), *QUICK, "--workers", "2"]
    assert cli.main(arguments) == 0
    out, err = capfd.readouterr()
    for method in ("cross-entropy", "max-sup"):
        directory = records.run_directory(compared, method, 0) / "segment-ade20k"
        result = records.read_json(directory / "result.json")
        assert result["settings"]["recipe"]["iterations"] == 2
        assert f"{method} seed 0: mIoU {result['measures']['single']['miou']:.4f}, mIoU at several scales" in err
        assert not (directory / "model.safetensors").exists()
    assert "report.html" in out
    # Again: nothing is trained.
    before = (directory / "result.json").stat().st_mtime_ns
    assert cli.main(arguments) == 0
    assert (directory / "result.json").stat().st_mtime_ns == before


def test_one_run_tells_of_each_interval(run_dir, ade20k, capfd):
    arguments = ["segment", str(run_dir), "--data=ade20k", "--data-dir", str(ade20k), *QUICK, "--label", "mine"]
    assert cli.main([*arguments, "--keep-weights", "--seed", "5"]) == 0
    assert "max-sup seed 0: iteration 1/2, loss " in capfd.readouterr().err
    assert records.read_json(run_dir / "segment-mine" / "settings.json")["seed"] == 5
    assert (run_dir / "segment-mine" / "model.safetensors").is_file()
    assert cli.main(arguments) == 1
    assert "holds another fine-tuning: seed: 5 -> 0" in capfd.readouterr().err


def test_options_that_are_not_the_recipes_reach_the_run(run_dir, ade20k, monkeypatch):
    jobs = []
    monkeypatch.setattr(
        module, "segment_run", lambda job, **of: jobs.append(job) or {"status": "none", "iterations": 0}
    )
    arguments = ["segment", str(run_dir), "--data=ade20k", "--data-dir", str(ade20k), *QUICK]
    assert cli.main([*arguments, "--cuda-graph", "--loaders", "3", "--label", "mine", "--keep-weights"]) == 0
    (job,) = jobs
    assert (job.cuda_graph, job.loaders, job.label, job.keep_weights) == (True, 3, "mine", True)


def test_damaged_data_is_one_error_before_anything_is_trained(compared, ade20k, capsys):
    write_pair(ade20k, "validation", "ADE_val_00000001", (24, 20), 0, values=(151,))
    assert cli.main(["segment", str(compared), "--data", "ade20k", "--data-dir", str(ade20k), *QUICK]) == 1
    err = capsys.readouterr().err
    assert err.startswith("maxsup: ")
    assert "ADE_val_00000001.png: label 151 where there are 150 classes" in err
    assert not list(compared.rglob("segment-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment"], "`maxsup segment` needs --data NAME"),
        (["segment", "--data", "ade20k"], "`maxsup segment` takes folders"),
        (["segment", "x", "--data"], "--data needs a value"),
        (["segment", "x", "--data", "ade"], "unknown data set with labels per pixel 'ade'; did you mean ade20k"),
        (["segment", "x", "--data", "voc"], "x: no run and no comparison here"),
        (["segment", "x", "--recipe", "ade20k"], "unknown recipe 'ade20k'; did you mean ade20k-upernet"),
        (["segment", "x", "--data", "voc", "--iteration", "3"], "unknown option '--iteration'; did you mean"),
        (["segment", "x", "--data", "voc", "--batch-size", "1"], "batch_size must be at least 2, got 1"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_says_how(capsys, arguments, message):
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def shared_arguments(run_dir, folder):
    """Without dropout, in which the processes differ."""
    where = [str(run_dir), "--data", "label-folder", "--data-dir", str(folder)]
    return ["segment", *where, *QUICK, "--batch-size", "4", "--decoder.dropout", "0", "--keep-weights"]


def worker(rank, port, run_dir, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    arguments = shared_arguments(run_dir, folder)
    assert cli.main(arguments) == 0
    # What the first process refuses ends all of them, and none waits for another.
    assert cli.main([*arguments, "--seed", "9"]) == 1
    leave()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch was built without gloo")
def test_two_processes_train_as_one_and_count_every_test_pixel_once(run_dir, tmp_path):
    """Seven test images over two processes: padding the shares to one length would count one twice."""
    folder = tmp_path / "folder"
    random = np.random.default_rng(0)
    for part, n in (("train", 6), ("val", 7)):
        for kind, values in (("images", 256), ("labels", 2)):
            (folder / kind / part).mkdir(parents=True)
            for i in range(n):
                pixels = random.integers(0, values, (16, 16 + i), np.uint8)
                Image.fromarray(pixels).save(folder / kind / part / f"{i}.png")
    (folder / "classes.txt").write_text("a\nb\n")
    multiprocessing.spawn(worker, (free_port(), str(run_dir), str(folder)), nprocs=2)
    result = records.read_json(run_dir / "segment-label-folder" / "result.json")
    for way in ("single", "multi"):
        assert np.sum(result["confusion"][way]) == sum(16 * (16 + i) for i in range(7))
    assert torch.tensor(result["confusion"]["single"]).sum(1).min() > 0
    assert result["iterations"] == 2
    assert cli.main([*shared_arguments(run_dir, folder), "--label", "alone"]) == 0
    both, alone = (run_dir / f"segment-{label}" for label in ("label-folder", "alone"))
    losses = [[row["train_loss"] for row in records.read_json_lines(of / "metrics.jsonl")] for of in (both, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    weights = load_file(both / "model.safetensors")
    for name, value in load_file(alone / "model.safetensors").items():
        # Adam's first steps move each weight by the learning rate at most, whichever way noise around 0 points.
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-3)
