"""Every script under `examples/` runs as a reader would run it, and prints what it claims."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()


@pytest.mark.parametrize("name", ["training_loop.py", "mixup.py"])
def test_a_loop_on_the_digits_learns_them(name):
    lines = run(name)
    accuracies = [float(re.fullmatch(r"epoch \d+: loss \d+\.\d+, test accuracy (.*)", line)[1]) for line in lines]
    assert len(accuracies) == 8
    assert accuracies[-1] > 0.93
    assert accuracies[-1] > accuracies[0]


def test_a_resumed_schedule_goes_on_with_the_same_values():
    lines = run("schedule_and_resume.py")
    resumed = lines.index("interrupted, and resumed")
    assert resumed == 2
    expected = [f"epoch {epoch + 1}: alpha {0.1 + 0.1 * epoch / 4:.3f}" for epoch in range(5)]
    assert lines[:resumed] + lines[resumed + 1 :] == expected


def test_examples_are_short():
    for script in EXAMPLES.glob("*.py"):
        assert len(script.read_text().splitlines()) < 40, script.name
