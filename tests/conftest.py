"""Fixtures shared by the tests: a tiny chat model, so that they need no download."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before torch loads OpenMP: waiting threads sleep, so that tests stay quick on a busy computer.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tests run side by side (pytest-xdist): each process lets Unsloth write its compiled modules into a folder of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ["UNSLOTH_COMPILE_LOCATION"] = str(Path(tempfile.gettempdir(), f"unsloth_tests_{WORKER}"))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """Folder of a tiny trained chat model in transformers form."""
    from tests.tiny import make_base

    return make_base(tmp_path_factory.mktemp("tiny_base"))


@pytest.fixture(scope="session")
def tiny_gguf(tiny_base, tmp_path_factory) -> Path:
    """The tiny model as a 16-bit GGUF file."""
    from helpers.export import to_gguf

    return to_gguf(tiny_base, tmp_path_factory.mktemp("tiny_gguf") / "model-f16.gguf")
