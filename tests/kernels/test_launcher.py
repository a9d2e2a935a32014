import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from maxsup.functional import max_sup_cross_entropy

ROOT = Path(__file__).parents[2]


def launches(*arguments):
    """The launches by kept cuts, and the faults, that `launches.py` counts."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/kernels/launches.py", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    hits, faults = map(int, done.stdout.split())
    return hits, faults, done.stderr


def test_a_kept_cut_is_what_would_be_compiled():
    hits, faults, details = launches("4000")
    assert hits > 1500
    assert faults == 0, details


def test_a_key_without_addresses_would_be_found_out():
    _, faults, _ = launches("500", "blind")
    assert faults > 10


BASE = {
    "rows": 64,
    "classes": 40,
    "first": 0,
    "stride": 44,
    "dtype": torch.float32,
    "alpha": 0.3,
    "weight": None,
    "target": 0,
    "soft": False,
    "reduction": "mean",
    "num_items": None,
    "upstream": "same",
    "inplace": False,
}
CHANGES = [
    {"rows": 2_100},
    {"rows": 1},
    {"classes": 36},
    {"first": 1},
    {"stride": 40},
    {"dtype": torch.bfloat16},
    {"alpha": 0.7},
    {"alpha": "tensor"},
    {"weight": 0},
    {"weight": 1},
    {"target": 1},
    {"soft": True},
    {"num_items": 1},
    {"num_items": 5.0},
    {"reduction": "none"},
    {"reduction": "none", "upstream": "own"},
    {"stride": 40, "inplace": True},
]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_gpu_what_was_compiled_for_other_arguments_is_not_taken(change):
    generator = torch.Generator("cuda").manual_seed(0)

    def check(
        rows, classes, first, stride, dtype, alpha, weight, target, soft, reduction, num_items, upstream, inplace
    ):
        memory = torch.randn(rows * stride + first, device="cuda", generator=generator).to(dtype)
        leaf = memory.as_strided((rows, classes), (stride, 1), first).detach().requires_grad_()
        if soft:
            targets = torch.randn(rows, classes, device="cuda", generator=generator).softmax(1)
        else:
            targets = torch.randint(classes, (rows + target,), device="cuda", generator=generator)[target:]
            targets[1::5] = -100
        weights = None if weight is None else torch.linspace(0.5, 2, classes + weight, device="cuda")[weight:]
        strength = torch.tensor([0.1, 0.5], device="cuda")[1] if alpha == "tensor" else alpha
        factor = 3.0
        if upstream == "own":
            factor = torch.linspace(-1, 1, rows, device="cuda")
        found = []
        for impl in ("triton", "torch"):
            options = {"weight": weights, "reduction": reduction, "num_items": num_items, "impl": impl}
            logits = leaf * 1 if inplace else leaf
            if impl == "triton":
                options["inplace"] = inplace
            loss = max_sup_cross_entropy(logits, targets, strength, **options)
            (gradient,) = torch.autograd.grad((loss * factor).sum(), leaf)
            found.append((loss.float(), gradient.float()))
        rough = dtype == torch.bfloat16
        assert_close(found[0][0], found[1][0], rtol=1e-2 if rough else 1e-5, atol=1e-6)
        assert_close(found[0][1], found[1][1], rtol=1e-2 if rough else 1e-5, atol=1e-3 if rough else 1e-5)

    for arguments in (BASE, BASE | change, BASE, BASE | change):
        check(**arguments)
