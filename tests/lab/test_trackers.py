"""What a tracker has at the end is what the run recorded."""

import sys
import types

import pytest
from accelerate import PartialState

from maxsup import cli
from maxsup.lab import trackers
from maxsup.lab.names import UnknownNameError
from maxsup.lab.records import read_json_lines, run_directory
from maxsup.lab.trackers import tracking

ROWS = [
    {"epoch": 0, "train_loss": 2.0, "validation_nll": None, "alpha": 0.1},
    {"epoch": 1, "train_loss": 1.5, "validation_nll": 1.25, "alpha": 0.2},
]
RUN = {"method": "max-sup", "seed": 3, "recipe": {"optimizer": {"lr": 0.1}}}


def track(names, directory):
    with tracking(names, directory, project="maxsup", run=RUN) as on_epoch:
        for row in ROWS:
            on_epoch(row)


def scalars(directory):
    """What TensorBoard shows of a run: for each name the values by step."""
    pytest.importorskip("tensorboard", reason="TensorBoard is in the extra maxsup[dev]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {tag: [(x.step, x.value) for x in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_every_number_at_its_epoch(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is in the extra maxsup[dev]")
    track(("tensorboard", "tensorboard"), tmp_path)
    assert scalars(tmp_path) == {
        "train_loss": [(1, 2.0), (2, 1.5)],
        "validation_nll": [(2, 1.25)],
        "alpha": [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))],
    }
    (hparams,) = (tmp_path / "tensorboard").rglob("hparams.yml")
    assert "recipe.optimizer.lr: 0.1" in hparams.read_text()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_commands_show_what_they_record(command, tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="TensorBoard is in the extra maxsup[dev]")
    arguments = [command, "digits-convnet", "--epochs", "2", "--data.train-size", "100", "--tracker", "tensorboard"]
    arguments += ["--methods", "max-sup", "--seeds", "0", "--workers", "1"] if command == "compare" else []
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    directory = tmp_path if command == "train" else run_directory(tmp_path, "max-sup", 0)
    rows = read_json_lines(directory / "metrics.jsonl")
    expected = {
        name: [(row["epoch"] + 1, pytest.approx(row[name])) for row in rows]
        for name in rows[0]
        if name != "epoch" and rows[0][name] is not None
    }
    assert scalars(directory) == expected
    assert {"train_loss", "validation_accuracy", "learning_rate"} <= set(expected)
    # The run is finished: nothing is trained, and nothing shown again.
    files = sorted((directory / "tensorboard").rglob("*"))
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    assert sorted((directory / "tensorboard").rglob("*")) == files
    capsys.readouterr()
    assert cli.main([*arguments, "tensorbord", "--out", str(tmp_path / "other")]) == 2
    assert "tensorbord" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


class Fake:
    """A tracker's package, as far as Accelerate uses it, which writes down what it is told."""

    def __init__(self, name):
        self.told = []
        self.module = types.ModuleType(name)

    def __call__(self, what, result=None):
        def call(*args, **kwargs):
            self.told.append((what, args, kwargs))
            return result

        return call


@pytest.fixture
def wandb(monkeypatch):
    fake = Fake("wandb")
    run = types.SimpleNamespace(log=fake("log"), finish=fake("finish"))
    fake.module.init = fake("init", run)
    fake.module.config = types.SimpleNamespace(update=fake("config"))
    monkeypatch.setitem(sys.modules, "wandb", fake.module)
    monkeypatch.setattr(trackers.accelerate_tracking, "get_available_trackers", lambda: ["wandb"])
    return fake.told


def test_wandb_gets_project_run_and_rows(wandb, tmp_path):
    directory = tmp_path / "seed-3"
    track(("wandb",), directory)
    assert wandb == [
        ("init", (), {"project": "maxsup", "name": "seed-3", "dir": str(directory)}),
        ("config", ({"method": "max-sup", "seed": 3, "recipe.optimizer.lr": 0.1},), {"allow_val_change": True}),
        ("log", ({"train_loss": 2.0, "alpha": 0.1},), {"step": 1}),
        ("log", ({"train_loss": 1.5, "validation_nll": 1.25, "alpha": 0.2},), {"step": 2}),
        ("finish", (), {}),
    ]


def test_mlflow_gets_experiment_run_and_rows(monkeypatch, tmp_path):
    fake = Fake("mlflow")
    fake.module.search_experiments = fake("search", [])
    fake.module.create_experiment = fake("create", "7")
    for name in ("start_run", "log_params", "log_metrics", "end_run"):
        setattr(fake.module, name, fake(name))
    limits = types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    fake.module.utils = types.SimpleNamespace(validation=limits)
    monkeypatch.setitem(sys.modules, "mlflow", fake.module)
    monkeypatch.setattr(trackers.accelerate_tracking, "get_available_trackers", lambda: ["mlflow"])
    track(("mlflow",), tmp_path / "seed-3")
    told = {what: (args, kwargs) for what, args, kwargs in fake.told}
    assert told["create"][1]["name"] == "maxsup"
    assert told["start_run"][1]["experiment_id"] == "7"
    assert told["start_run"][1]["run_name"] == "seed-3"
    assert told["log_params"][0] == ({"method": "max-sup", "seed": 3, "recipe.optimizer.lr": 0.1},)
    assert told["log_metrics"] == (({"train_loss": 1.5, "validation_nll": 1.25, "alpha": 0.2},), {"step": 2})
    assert fake.told[-1][0] == "end_run"


def test_trackers_are_closed_after_an_error(wandb, tmp_path):
    PartialState._reset_state()
    with pytest.raises(KeyError), tracking(("wandb",), tmp_path, project="maxsup", run=RUN) as on_epoch:
        on_epoch({"train_loss": 2.0})  # has no epoch
    assert wandb[-1][0] == "finish"
    assert not PartialState._shared_state  # as before


def test_names_and_packages_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(UnknownNameError, match="tensorbord"):
        track(("tensorbord",), tmp_path)
    monkeypatch.setattr(trackers.accelerate_tracking, "get_available_trackers", list)
    with pytest.raises(ValueError, match="tracker wandb needs a package that is not installed: pip install wandb"):
        track(("wandb",), tmp_path)
    track((), tmp_path)  # none: nothing happens
    assert not any(tmp_path.iterdir())
