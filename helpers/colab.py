"""What a notebook's set-up cell does in Colab: packages beside what Colab has. Standard library only."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from helpers.llama_build import LlamaBuild, run
from helpers.toolchain import LLAMA_VERSION, cache_dir, llama_dir

ROOT = Path(__file__).resolve().parent.parent
# Colab's own builds, made for its GPU driver and for one another: kept as they are, whatever the pins say.
KEPT = ("torch", "numpy")
# Colab has these, in versions that fit its numpy and its front end; or only the project's tests need them.
NOT_NEEDED = (
    "scipy",
    "matplotlib",
    "ipykernel",
    "jupyterlab",
    "nbclient",
    "nbconvert",
    "nbformat",
    "hypothesis",
    "pytest",
    "pytest-xdist",
    "ruff",
)
SHOWN = ("torch", "numpy", "transformers", "trl", "peft", "unsloth", "llama-cpp-python")


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plan(requirements: str, kept: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(requirements to install, constraints) from the text of requirements.txt and the versions to keep."""
    wanted = []
    for line in requirements.splitlines():
        line = line.split("#")[0].strip()
        name = re.split(r"[^A-Za-z0-9._-]", line)[0].lower()
        if line and name not in kept and name not in NOT_NEEDED:
            wanted.append(line)
    return wanted, [f"{name}=={version}" for name, version in kept.items()]


def install() -> None:
    """Install the pinned packages and llama.cpp into this kernel's Python, once; prints the versions.

    Colab's torch and numpy stay. Raises RuntimeError when torch is loaded already: new packages beside a
    loaded old one fail in ways that nobody can read.
    """
    if installed(("llama-cpp-python",)).get("llama-cpp-python") != LLAMA_VERSION or not llama_dir().is_dir():
        if "torch" in sys.modules:
            raise RuntimeError("torch is loaded already: Runtime > Restart session, then run this cell first")
        _install()
    versions = [f"{name} {version}" for name, version in installed(SHOWN).items()]
    print(" · ".join([f"Python {sys.version.split()[0]}", *versions]))


def _install() -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--progress-bar", "off"]
    wanted, constraints = plan((ROOT / "requirements.txt").read_text(encoding="utf-8"), installed(KEPT))
    cache_dir().mkdir(parents=True, exist_ok=True)
    build = LlamaBuild(cache_dir(), Path(sys.executable))  # llama.cpp compiles while pip downloads
    build.start()
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        run([*pip, "-c", pins, *wanted], None)
        run([*pip, "--no-deps", "-r", ROOT / "requirements-unsloth.txt"], None)
    build.join()
    if build.error:
        raise build.error
    run([*pip, "--force-reinstall", "--no-deps", build.wheel], None)
