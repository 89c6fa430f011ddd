"""What this machine can do, what is missing, and how to mend it, in plain words."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from helpers.errors import UserError
from helpers.models import Model
from helpers.results import cores, cpu_model, gpu

SET_UP = "Run `make run`, or `python3 helpers/setup_env.py`."
PYTHONS = ((3, 11), (3, 13))  # oldest and newest that the pins are made for
MODULES = ("torch", "transformers", "peft", "trl", "unsloth", "llama_cpp", "bitsandbytes")


@dataclass(frozen=True)
class Check:
    """One finding. `fail` keeps the project from running, `warn` takes something away, `ok` needs nothing."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Machine:
    """What the checks look at; `look` fills it in here, tests make up their own. Sizes in GB (10^9 bytes)."""

    python: tuple[int, int]
    modules: frozenset[str]  # those of MODULES that are installed
    ram_gb: float
    free_ram_gb: float
    free_disk_gb: float
    cpu: str
    cores: int
    amx: bool
    llama_path: str  # which kernels llama.cpp takes, or why it cannot be loaded
    llama_loads: bool
    converter: bool
    compiler: str | None
    gpu: str | None


def look(folder: Path | str = ".") -> Machine:
    """The machine that this runs on; `folder` is where runs will be written. Loads no model and no torch."""
    import psutil

    from helpers import llama_cpu, toolchain

    modules = frozenset(name for name in MODULES if find_spec(name))
    loads, path = "llama_cpp" in modules, "not installed"
    if loads:
        try:
            llama_cpu.load_library()
            path = llama_cpu.compute_path()[1]
        except UserError as error:
            loads, path = False, error.what
    try:
        toolchain.converter_dir()
        converter = True
    except UserError:
        converter = False
    there = Path(folder).resolve()
    while not there.exists():
        there = there.parent
    return Machine(
        python=sys.version_info[:2],
        modules=modules,
        ram_gb=psutil.virtual_memory().total / 1e9,
        free_ram_gb=llama_cpu.free_memory() / 1e9,
        free_disk_gb=shutil.disk_usage(there).free / 1e9,
        cpu=cpu_model(),
        cores=cores(),
        amx=llama_cpu.cpu_has_amx(),
        llama_path=path,
        llama_loads=loads,
        converter=converter,
        compiler=next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None),
        gpu=gpu(),
    )


def disk_need_gb(model: Model) -> float:
    """Room for a run: weights, merged model, 16-bit GGUF and a quantised one, and half a GB for the rest."""
    size = model.parameters * 2 / 1e9
    if model.local:
        size = sum(file.stat().st_size for file in Path(model.path).glob("*.safetensors")) / 1e9
    return 0.5 + 4 * size


def _python(machine: Machine) -> Check:
    version = ".".join(map(str, machine.python))
    if PYTHONS[0] <= machine.python <= PYTHONS[1]:
        return Check("python", "ok", f"{version} on {platform.system()}")
    return Check("python", "fail", f"{version} is not supported", "Install Python 3.11, 3.12 or 3.13.")


def _memory(machine: Machine, model: Model, models: Mapping[str, Model]) -> Check:
    free = f"{machine.free_ram_gb:.1f} of {machine.ram_gb:.1f} GB free"
    detail = f"{free}; {model.key} needs {model.min_ram_gb:g} GB"
    if machine.free_ram_gb >= model.min_ram_gb:
        return Check("memory", "ok", detail)
    fitting = [other for other in models.values() if other.min_ram_gb <= machine.free_ram_gb]
    best = max(fitting, key=lambda other: other.min_ram_gb, default=None)
    if machine.ram_gb >= model.min_ram_gb:
        mend = "Close other programs"
        mend += f", or use --base {best.key}." if best else "."
    else:
        mend = f"Use --base {best.key}, which fits." if best else "Use a machine with more memory, such as free Colab."
    return Check("memory", "fail", detail, mend)


def _disk(machine: Machine, model: Model) -> Check:
    need = disk_need_gb(model)
    detail = f"{machine.free_disk_gb:.1f} GB free; a run with {model.key} needs {need:.1f} GB"
    return (
        Check("disk", "ok", detail)
        if machine.free_disk_gb >= need
        else Check("disk", "fail", detail, "Delete old folders under runs/, or choose another OUT.")
    )


def _cpu(machine: Machine) -> Check:
    return Check(
        "cpu",
        "ok",
        f"{machine.cpu}, {machine.cores} core{'s' * (machine.cores != 1)}" + (", with AMX" if machine.amx else ""),
    )


def _gpu(machine: Machine, model: Model) -> Check:
    if machine.gpu:
        return Check("gpu", "ok", machine.gpu)
    if model.min_ram_gb > 8:
        return Check(
            "gpu",
            "warn",
            f"none; {model.key} is too slow without one",
            "Use a smaller base, or a GPU in Colab.",
        )
    return Check("gpu", "ok", "none; everything runs on the CPU")


def _base(model: Model) -> Check:
    if not model.local:
        if model.path.startswith(("/", ".")):
            return Check(
                "base model",
                "fail",
                f"{model.key}: its folder is missing",
                "Restore it: git checkout data/base",
            )
        return Check("base model", "ok", f"{model.key}: {model.path}, fetched from the hub at first use")
    if not any(Path(model.path).glob("*.safetensors")):
        return Check(
            "base model",
            "fail",
            f"{model.key}: the folder has no weights",
            "Restore it: git checkout data/base",
        )
    return Check("base model", "ok", f"{model.key}: on this disk, works offline")


def _training(machine: Machine) -> Check:
    missing = [name for name in ("torch", "transformers", "peft", "trl") if name not in machine.modules]
    if missing:
        return Check("training", "fail", f"missing: {', '.join(missing)}", SET_UP)
    if "unsloth" not in machine.modules:
        return Check(
            "training",
            "warn",
            "PEFT and TRL; Unsloth is not installed, so it is somewhat slower",
            f"{SET_UP} It goes without, too.",
        )
    return Check("training", "ok", "Unsloth, with PEFT and TRL to fall back on")


def _llama(machine: Machine) -> Check:
    if not machine.llama_loads:
        installed = "llama_cpp" in machine.modules
        mend = SET_UP if machine.compiler else f"Install a C/C++ compiler ({_compiler_hint()}), then: {SET_UP}"
        detail = machine.llama_path if installed else "llama-cpp-python is not installed: no export check, no chat"
        return Check("llama.cpp", "fail", detail, mend)
    if machine.llama_path.startswith("plain"):
        path, _, mend = machine.llama_path.partition("; ")
        return Check("llama.cpp", "warn", path, f"It is safe, but slower. For the fast build: {SET_UP}" if mend else "")
    return Check("llama.cpp", "ok", machine.llama_path)


def _converter(machine: Machine) -> Check:
    return (
        Check("converter", "ok", "llama.cpp's own, of the same version")
        if machine.converter
        else Check("converter", "fail", "missing: no GGUF can be made", SET_UP)
    )


def _compiler_hint() -> str:
    return {"Darwin": "xcode-select --install"}.get(
        platform.system(), "apt install build-essential, or dnf install gcc-c++"
    )


def _compiler(machine: Machine) -> Check:
    if machine.compiler:
        return Check("compiler", "ok", machine.compiler)
    return Check("compiler", "warn", "none; only needed to build llama-cpp-python", f"{_compiler_hint()}.")


def checks(machine: Machine, model: Model, models: Mapping[str, Model] | None = None) -> list[Check]:
    """What `machine` can do with the base `model`; `models` are those that may be named as smaller ones."""
    if models is None:
        from helpers.models import MODELS as models
    return [
        _python(machine),
        _cpu(machine),
        _memory(machine, model, models),
        _disk(machine, model),
        _gpu(machine, model),
        _base(model),
        _training(machine),
        _llama(machine),
        _converter(machine),
        _compiler(machine),
    ]


def usable(found: Sequence[Check]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(check.status != "fail" for check in found)


def report(found: Sequence[Check]) -> str:
    """The findings as text, one a line, each mend beneath, and a verdict."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        lines.append(f"{check.status:<4}  {check.name:<{width}}  {check.detail}")
        if check.mend:
            lines.append(f"{'':<6}{'':<{width}}  -> {check.mend}")
    failed = [check.name for check in found if check.status == "fail"]
    verdict = f"Not ready: {', '.join(failed)}." if failed else "Ready: a profile can become a chat model here."
    return "\n".join([*lines, "", verdict])
