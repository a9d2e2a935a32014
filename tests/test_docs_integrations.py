"""The code on the page of integrations runs, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "integrations.md"


# What Lightning and Transformers say of an example without workers and logs.
@pytest.mark.filterwarnings("ignore:.*(num_workers|log_every_n_steps|LeafSpec|logging_steps).*")
def test_code_blocks_run_in_their_order(tmp_path, monkeypatch):
    for name in ("timm", "transformers", "lightning", "jax", "optax"):
        pytest.importorskip(name, reason="the page needs maxsup[integrations,lab]")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) == 7
    namespace = {"__name__": "__main__"}
    for block in blocks:
        before = "\n" * text.count("\n", 0, block.start(1))  # so that a traceback names the page's line
        exec(compile(before + block[1], str(PAGE), "exec"), namespace)
