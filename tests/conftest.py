"""Fixtures shared by the tests: a tiny chat model, so that they need no download."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch loads OpenMP: waiting threads sleep, so that tests stay quick on a busy computer.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


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
