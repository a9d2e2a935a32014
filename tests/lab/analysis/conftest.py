import dataclasses
import shutil

import pytest

from maxsup.lab import train
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run on the digits 0 to 4; for reading alone."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    data = Data(name="digits", train_size=200, classes=(0, 1, 2, 3, 4))
    train.train(dataclasses.replace(digits_convnet(), epochs=2, data=data), "max-sup", 3, directory)
    return directory


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of the run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")
