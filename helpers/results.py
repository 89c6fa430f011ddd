"""Measured results as JSON: every number with its count, its interval and what is needed to repeat it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from helpers.files import peak_ram_mb, sha256
from helpers.models import ROOT

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "unsloth",
    "unsloth_zoo",
    "gguf",
    "llama-cpp-python",
    "numpy",
    "scipy",
)


def metric(k: int, n: int) -> dict:
    """The share k/n with its 95 % Wilson interval: {"value", "n", "ci95": [low, high]}; value None for n = 0.

    Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    if n == 0:
        return {"value": None, "n": 0, "ci95": [0.0, 1.0]}
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(0.95, method="wilson")
    return {"value": k / n, "n": n, "ci95": [round(float(interval.low), 6), round(float(interval.high), 6)]}


def pooled(runs: Sequence[dict[str, dict]]) -> dict[str, dict]:
    """The metrics {name: metric} of several runs as one, each over the questions of all runs that have it.

    The intervals take every question as independent; questions to one model are not quite.
    """
    names = dict.fromkeys(name for run in runs for name in run)
    counts = {name: [run[name] for run in runs if name in run and run[name]["n"]] for name in names}
    return {
        name: metric(sum(round(one["value"] * one["n"]) for one in found), sum(one["n"] for one in found))
        for name, found in counts.items()
    }


def cpu_model() -> str:
    """The processor's name as its maker writes it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Hardware", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return (_output("sysctl", "-n", "machdep.cpu.brand_string") if platform.system() == "Darwin" else "") or (
        platform.processor() or platform.machine()
    )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    """Name and memory of the first NVIDIA GPU, without loading torch; None where there is none."""
    query = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    lines = _output(*query).splitlines() if shutil.which("nvidia-smi") else []
    return lines[0].strip() if lines else None


@cache
def hardware() -> dict:
    """{"cpu", "cores", "ram_gb" (10^9 bytes), "gpu"} of this machine."""
    import psutil

    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu(),
    }


@cache
def packages() -> dict[str, str]:
    """Versions of Python and of the PACKAGES that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def commit(folder: Path = ROOT) -> str:
    """The commit checked out in `folder`, or "unknown": no git, no repository, or a part of another one."""
    top, _, head = _output("git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD").partition("\n")
    return head if head and Path(top).resolve() == Path(folder).resolve() else "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def record(
    benchmark: str,
    model: str,
    metrics: dict,
    settings: dict,
    started: float,
    *,
    seed: int,
    data: Path | Sequence[Path] | None = None,
    peak_mb: float | None = None,
) -> dict:
    """One result file: what was measured (`metrics`), on what, with what, when and for how long.

    `started` is time.time() at the beginning; `data` the file(s) measured with, whose checksum is kept (of
    several files: the checksum of their checksums). `peak_mb` only where another process did the work.
    """
    files = [data] if isinstance(data, str | Path) else list(data or [])
    sums = [sha256(file) for file in files]
    joined = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest() if sums else None
    return {
        "benchmark": benchmark,
        "model": model,
        "metrics": metrics,
        "settings": settings,
        "hardware": dict(hardware()),
        "packages": dict(packages()),
        "commit": commit(),
        "data_sha256": joined,
        "seed": seed,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "peak_ram_mb": round(peak_ram_mb() if peak_mb is None else peak_mb, 1),
    }
