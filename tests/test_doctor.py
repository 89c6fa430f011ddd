"""The doctor says the right thing about machines that are well, and about those that are not."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import doctor
from helpers.doctor import MODULES, Machine
from helpers.models import Model

HEALTHY = Machine(
    python=(3, 12),
    modules=frozenset(MODULES),
    ram_gb=16.0,
    free_ram_gb=9.5,
    free_disk_gb=50.0,
    cpu="Some CPU",
    cores=2,
    amx=False,
    llama_path="fast kernels: this CPU has no AMX",
    llama_loads=True,
    converter=True,
    compiler="/usr/bin/cc",
    gpu=None,
)
HUB = Model("middle", "someone/middle", parameters=500_000_000, min_ram_gb=6.0)


@pytest.fixture
def small(tmp_path) -> Model:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    return Model("small", str(tmp_path), min_ram_gb=2.0)


def examine(model: Model, **changes) -> tuple[dict, bool, str]:
    """(checks by name, usable, report) of HEALTHY with some things changed."""
    others = {model.key: model, "least": Model("least", "someone/least", min_ram_gb=1.0)}
    found = doctor.checks(dataclasses.replace(HEALTHY, **changes), model, others)
    return {check.name: check for check in found}, doctor.usable(found), doctor.report(found)


def test_healthy(small):
    found, usable, report = examine(small)
    assert usable and {check.status for check in found.values()} == {"ok"}
    assert not any(check.mend for check in found.values())
    assert report.endswith("Ready: a profile can become a chat model here.")


def test_without_the_compiled_package(small):
    found, usable, report = examine(
        small, modules=frozenset(MODULES) - {"llama_cpp"}, llama_loads=False, llama_path="not installed"
    )
    assert not usable and found["llama.cpp"].status == "fail"
    assert "not installed" in found["llama.cpp"].detail and "make run" in found["llama.cpp"].mend
    assert report.endswith("Not ready: llama.cpp.")


def test_without_the_compiled_package_and_without_a_compiler(small):
    found, usable, _ = examine(small, modules=frozenset(), llama_loads=False, compiler=None)
    assert not usable and "compiler" in found["llama.cpp"].mend and found["compiler"].status == "warn"
    assert found["training"].detail == "missing: torch, transformers, peft, trl"


def test_package_that_does_not_load(small):
    found, usable, _ = examine(small, llama_loads=False, llama_path="libgomp.so.1: cannot open shared object file")
    assert not usable and "libgomp" in found["llama.cpp"].detail


def test_too_little_memory_now(small):
    found, usable, report = examine(small, free_ram_gb=1.2)
    assert not usable and found["memory"].status == "fail"
    assert found["memory"].detail == "1.2 of 16.0 GB free; small needs 2 GB"
    assert found["memory"].mend == "Close other programs, or use --base least."
    assert "Not ready: memory." in report


def test_too_little_memory_ever():
    found, usable, _ = examine(HUB, ram_gb=4.0, free_ram_gb=3.0)
    assert not usable and found["memory"].mend == "Use --base least, which fits."
    found, usable, _ = examine(HUB, ram_gb=0.8, free_ram_gb=0.5)
    assert not usable and "more memory" in found["memory"].mend


def test_disk_full():
    found, usable, _ = examine(HUB, free_disk_gb=1.0)
    assert not usable and found["disk"].detail == "1.0 GB free; a run with middle needs 4.5 GB"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")]
)
def test_python(small, version, status):
    assert examine(small, python=version)[0]["python"].status == status


def test_amx_with_a_library_built_for_it_is_a_warning(small):
    """The trap of llama.cpp on AMX machines: the doctor says which kernels run, and the mend."""
    found, usable, _ = examine(
        small, amx=True, llama_path="plain kernels: llama.cpp was built with AMX; run setup_env.py"
    )
    assert usable and found["llama.cpp"].status == "warn" and "setup_env.py" in found["llama.cpp"].mend
    assert found["cpu"].detail.endswith("with AMX")
    found, _, _ = examine(small, amx=True, llama_path="fast kernels: llama.cpp was built without AMX")
    assert found["llama.cpp"].status == "ok"


def test_without_unsloth_it_goes_slower(small):
    found, usable, _ = examine(small, modules=frozenset(MODULES) - {"unsloth"})
    assert usable and found["training"].status == "warn"


def test_without_the_converter(small):
    found, usable, _ = examine(small, converter=False)
    assert not usable and found["converter"].status == "fail"


def test_gpu(small):
    assert examine(small, gpu="Tesla T4, 15360 MiB")[0]["gpu"].detail == "Tesla T4, 15360 MiB"
    large = Model("large", "someone/large", parameters=8_000_000_000, min_ram_gb=9.0)
    assert examine(large, free_disk_gb=500)[0]["gpu"].status == "warn"


def test_base_without_weights(tmp_path):
    assert examine(Model("small", str(tmp_path)))[0]["base model"].status == "fail"
    assert examine(Model("small", str(tmp_path / "gone")))[0]["base model"].status == "fail"
    assert "fetched from the hub" in examine(HUB)[0]["base model"].detail


def test_this_machine_can_be_looked_at(tmp_path, small):
    machine = doctor.look(tmp_path / "not" / "there" / "yet")
    assert machine.cores >= 1 and 0 < machine.free_ram_gb <= machine.ram_gb * 1.01 and machine.free_disk_gb > 0
    assert "torch" in machine.modules and machine.cpu
    assert doctor.report(doctor.checks(machine, small))
