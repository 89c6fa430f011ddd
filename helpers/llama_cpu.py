"""llama.cpp on this computer: the library, the fastest safe kernels, memory and threads."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from helpers.errors import UserError
from helpers.gguf_header import file_type, kv_cache_bytes
from helpers.threads import suit_machine

MB = 1_000_000
# File size as a share of the 16-bit file, from SmolLM2 and Qwen2.5; best quality first.
QUANT_SHARE = {"f16": 1.0, "q8_0": 0.53, "q6_k": 0.45, "q5_k_m": 0.41, "q4_k_m": 0.38, "q4_0": 0.33}


@cache
def load_library():
    """The llama_cpp module, silenced and initialised. Raises UserError when it is not installed."""
    suit_machine()
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"llama-cpp-python cannot be loaded ({error})",
            None,
            "Run `python3 helpers/setup_env.py` and read .venv/setup-llama.log.",
        ) from error

    @llama_cpp.llama_log_callback
    def silent(level, text, user_data):
        pass

    llama_cpp.silent_callback = silent  # C keeps the pointer: Python must keep the object
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def cpu_has_amx(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether this CPU has Intel's matrix unit AMX, on which llama.cpp crashes with quantised models."""
    try:
        return "amx_int8" in Path(cpuinfo).read_text(errors="replace").split()
    except OSError:
        return False  # no /proc: not Linux; no Mac has AMX and llama.cpp enables it only on Linux


def compute_path() -> tuple[bool, str]:
    """(use the fast repacked kernels?, why in plain words).

    llama.cpp's AMX kernels crash in the first decode of a quantised model. They are "extra buffer types", as
    the fast repacked kernels are, so those go too, but only where both CPU and library have AMX. The
    library's system info tells what it was compiled with, so nothing has to crash to find out.
    """
    if not cpu_has_amx():
        return True, "fast kernels: this CPU has no AMX"
    info = load_library().llama_print_system_info().decode(errors="replace")
    if "AMX_INT8 = 1" not in info:
        return True, "fast kernels: llama.cpp was built without AMX, which is safe on this CPU"
    return (
        False,
        "plain kernels: llama.cpp was built with AMX, which crashes here; setup_env.py builds one without it",
    )


def free_memory() -> int:
    """Bytes that a new process can use without swapping; a container's own limit counts."""
    import psutil

    free = psutil.virtual_memory().available
    try:  # cgroup v2
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = sum(
            int(line.split()[1])
            for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
            if line.startswith(("inactive_file ", "active_file "))
        )
        if limit != "max":
            free = min(free, int(limit) - used + cached)
    except (OSError, ValueError):
        pass
    return max(0, free)


def check_memory(path: Path, header: dict, n_ctx: int, free: int) -> None:
    """UserError, with what would fit, when weights, cache and work space need more than `free` bytes."""
    overhead = 100 * MB
    size = path.stat().st_size
    needed = size + kv_cache_bytes(header, n_ctx) + overhead
    if needed <= free:
        return
    mend = "Choose a smaller base model or close other programs."
    small = [other for other in path.parent.glob("model-*.gguf") if other.stat().st_size + needed - size <= free]
    full = size / QUANT_SHARE.get(file_type(header), 1.0)
    quants = [q for q, share in QUANT_SHARE.items() if full * share + needed - size <= free]
    if size + kv_cache_bytes(header, 256) + overhead <= free:
        per_token = kv_cache_bytes(header, 1)
        mend = f"A context of {int((free - size - overhead) // per_token)} tokens fits."
    elif small:
        mend = f"{max(small, key=lambda file: file.stat().st_size).name} beside it fits."
    elif quants:
        mend = f"Quantised to {quants[0]} (about {full * QUANT_SHARE[quants[0]] / MB:.0f} MB) it would fit."
    raise UserError(f"needs about {needed / MB:.0f} MB of memory, {free / MB:.0f} MB are free", path, mend)


def default_threads() -> int:
    """Physical cores this process may use: llama.cpp gains nothing from hyper-threads."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
