import pytest

from maxsup.kernels import launch


@pytest.fixture(autouse=True)
def own_cuts(monkeypatch):
    """Nothing is left of another test's plans, which it may have replaced."""
    monkeypatch.setattr(launch, "_cuts", {})
