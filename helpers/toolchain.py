"""Where the llama.cpp tools that `setup_env.py` fetched once are kept. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

LLAMA_VERSION = "0.3.36"  # of llama-cpp-python; its archive carries the converter of the same commit
MEND = "Run `make run`, or `python3 helpers/setup_env.py`: it fetches the converter once."


def cache_dir() -> Path:
    """The folder for downloads and builds: PERSONAL_LLM_CACHE, otherwise ~/.cache/personal-llm."""
    return Path(os.environ.get("PERSONAL_LLM_CACHE") or Path.home() / ".cache" / "personal-llm").expanduser()


def llama_dir() -> Path:
    """Where the converter of this llama.cpp version belongs, there or not."""
    return cache_dir() / f"llama.cpp-{LLAMA_VERSION}"


def converter_dir() -> Path:
    """The folder with convert_hf_to_gguf.py, gguf-py/ and models/ (vocabularies, chat templates).

    Raises UserError when it has not been fetched yet.
    """
    folder = llama_dir()
    if not (folder / "convert_hf_to_gguf.py").is_file():
        from helpers.errors import UserError

        raise UserError("the GGUF converter is missing", folder, MEND)
    return folder
