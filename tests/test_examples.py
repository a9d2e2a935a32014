"""Every script under `examples/` runs as a reader would run it, and prints what it claims."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *ignored):
    """The lines that a script prints; a warning is an error, but for those that begin as `ignored`."""
    options = [option for warning in ignored for option in ("-W", f"ignore{warning}")]
    command = [sys.executable, "-W", "error", *options, str(EXAMPLES / name)]
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


def resumed_as_unbroken(lines, pattern):
    """Checks that the lines after a resume are the last of those before it; the groups of `pattern` of these."""
    (at,) = [index for index, line in enumerate(lines) if line.startswith("resumed after")]
    whole, again = lines[:at], lines[at + 1 :]
    assert 0 < len(again) < len(whole)
    assert again == whole[-len(again) :]
    return [tuple(float(value) for value in re.fullmatch(pattern, line).groups()) for line in whole]


def test_timm_loader_mixup_and_ema():
    # timm leaves its image files to the garbage collector.
    lines = run("timm_loader.py", "::ResourceWarning")
    rows = resumed_as_unbroken(lines, r"epoch (\d+): alpha (.*), loss .*, wrong_top1 .*, EMA (.*)")
    assert [alpha for _, alpha, _ in rows] == pytest.approx([0.1 + 0.1 * epoch / 3 for epoch in range(4)], abs=1e-4)
    assert rows[-1][2] > 0.85


def test_lightning():
    pytest.importorskip("lightning", reason="Lightning is in the extra maxsup[integrations]")
    # What Lightning uses of PyTorch, and the folder of the run that goes on.
    lines = run("lightning_digits.py", "::FutureWarning", ":Checkpoint directory")
    rows = resumed_as_unbroken(lines, r"epoch \d+: maxsup/alpha (.*), loss (.*), maxsup/penalty .*")
    assert [alpha for alpha, _ in rows] == pytest.approx([0.1 + 0.1 * epoch / 4 for epoch in range(5)], abs=1e-4)
    assert rows[1][1] < rows[0][1] - 0.3


def numbers(line):
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)]


def trainer_lines(name):
    pytest.importorskip("transformers", reason="Transformers is in the extra maxsup[integrations]")
    return [line for line in run(name) if not line.startswith("{")]  # Trainer's own


def test_a_text_classifier_of_transformers():
    lines = trainer_lines("huggingface_classifier.py")
    rows = resumed_as_unbroken(lines, r"update (\d+): alpha (.*), loss (.*)")
    assert [step for step, _, _ in rows] == [20, 40, 60, 80]
    assert [alpha for _, alpha, _ in rows] == pytest.approx([0.1 + 0.1 * (s - 1) / 79 for s, _, _ in rows], abs=1e-4)
    assert rows[-1][2] < rows[0][2] - 0.1


def test_a_language_model_of_transformers_without_its_logits():
    lines = trainer_lines("huggingface_language_model.py")
    at = lines.index("without logits")
    fused = lines[at + 1 : lines.index("resumed after epoch 1")]
    for with_logits, without in zip(lines[:at], fused, strict=True):
        assert numbers(without) == pytest.approx(numbers(with_logits), abs=2e-4)
    rows = resumed_as_unbroken(
        fused + lines[lines.index("resumed after epoch 1") :], r"epoch \d: alpha (.*), loss (.*)"
    )
    assert [alpha for alpha, _ in rows] == pytest.approx([0.05, 0.075, 0.1])
    assert rows[-1][1] < rows[0][1] - 0.3


def test_examples_are_short():
    for script in EXAMPLES.glob("*.py"):
        assert len(script.read_text().splitlines()) < 80, script.name
