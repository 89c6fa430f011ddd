"""How the threads of torch and llama.cpp wait for each other; to be called before either is imported."""

from __future__ import annotations

import os

SPINS = "30000"  # some tens of microseconds


def suit_machine() -> None:
    """Let OpenMP's threads spin for a moment on a quiet machine, and sleep at once on a busy one.

    Measured on two cores: a moment of spinning makes LoRA training of the shipped base a quarter faster, beside another
    busy process up to five times slower; spinning without end made short answers a hundred times slower there.
    What the user has set counts. OpenMP reads these variables once, when it is loaded.
    """
    import psutil

    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    if psutil.cpu_percent(interval=0.1) < 20:
        os.environ["GOMP_SPINCOUNT"] = SPINS
