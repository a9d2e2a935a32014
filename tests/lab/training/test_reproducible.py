import os

import pytest
import torch

from maxsup.lab.training.reproducible import reproducible


def settings():
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "threads": torch.get_num_threads(),
        "deterministic": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "NaN first": torch.utils.deterministic.fill_uninitialized_memory,
        "fused attention": cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled(),
        "attention as products": cuda.math_sdp_enabled(),
    }


@pytest.mark.parametrize(
    ("device", "kernels", "changed"),
    [
        ("cpu", "convolutions", {"threads": 3, "deterministic": True}),
        # The number of threads is a matter of CPUs.
        ("cuda", "convolutions", {"deterministic": True}),
        ("cuda", "fastest", {"benchmark": True}),
        (
            "cuda",
            "all",
            {
                "deterministic": True,
                "algorithms": True,
                "only warns": True,
                "NaN first": False,
                "fused attention": False,
            },
        ),
    ],
)
def test_settings_are_made_and_restored(monkeypatch, device, kernels, changed):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = settings()
    assert before["fused attention"]
    assert before["attention as products"]
    with reproducible(torch.device(device), kernels, threads=3):
        assert settings() == before | changed
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if kernels == "all" else None)
    assert settings() == before
    assert before["NaN first"]
