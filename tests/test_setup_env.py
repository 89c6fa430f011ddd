"""The setup: what it asks for, what it keeps, and how it goes on after a kill. Nothing is installed here."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from helpers import llama_build, setup_env, toolchain
from helpers.errors import UserError
from helpers.llama_build import Failed, Missing

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONAL_LLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


# -- what it asks for


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 14), (2, 7)])
def test_other_pythons_are_refused_in_one_line(version):
    with pytest.raises(Missing, match=r"^Python .* install Python 3.11, 3.12 or 3.13$"):
        setup_env.check_python(version)


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_pythons(version):
    setup_env.check_python(version)


@pytest.mark.parametrize(
    ("tool", "mend"),
    [("apt-get", "apt-get install build-essential"), ("dnf", "dnf install gcc"), ("pacman", "base-devel")],
)
def test_no_compiler_names_the_package(monkeypatch, tool, mend):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == tool else None)
    with pytest.raises(Missing, match=mend) as told:
        llama_build.check_compiler()
    assert "\n" not in str(told.value)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Missing, match="xcode-select --install"):
        llama_build.check_compiler()


def test_no_compiler_ends_the_command_with_2_before_anything_is_made(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setup_env, "compilers", lambda: None)
    monkeypatch.setattr(llama_build, "compilers", lambda: None)
    assert setup_env.main(["--venv", str(tmp_path / "venv")]) == 2
    assert "compiler" in capsys.readouterr().err and not (tmp_path / "venv").exists()


def test_a_folder_with_other_things_is_never_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Missing, match="no virtual environment"):
        setup_env.make_venv(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_failed_step_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / "setup-x.log"
    with pytest.raises(Failed, match="the reason") as told:
        llama_build.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], log)
    assert str(log) in str(told.value) and "the reason" in log.read_text()


# -- torch's CPU wheels


def test_an_unreachable_wheel_host_costs_at_most_three_seconds(monkeypatch):
    def hang(*_, **__):
        time.sleep(30)
        raise TimeoutError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(socket, "create_connection", hang)
    started = time.monotonic()
    assert setup_env.torch_index() == [] and time.monotonic() - started < 4


def test_cpu_wheels_only_without_a_gpu(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert setup_env.torch_index()[1] == "https://download.pytorch.org/whl/cpu"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    assert setup_env.torch_index() == []


# -- the build


def test_amx_is_left_out_only_on_x86_and_if_the_compiler_knows_how(monkeypatch, tmp_path):
    old = tmp_path / "old-cc"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setattr(llama_build.platform, "machine", lambda: "x86_64")
    assert llama_build.compiler_flags(str(old)) == []
    assert llama_build.compiler_flags("true") == list(llama_build.NO_AMX)
    monkeypatch.setattr(llama_build.platform, "machine", lambda: "arm64")
    assert llama_build.compiler_flags("true") == []


def test_the_wheel_cache_tells_cpus_and_options_apart(cache, monkeypatch):
    plain = llama_build.wheel_dir([])
    assert plain.parent == cache / "wheels" and plain == llama_build.wheel_dir([])
    assert llama_build.wheel_dir(["-mno-amx-tile"]) != plain
    monkeypatch.setattr(llama_build, "cpu_flags", lambda: "sse2 avx")
    assert llama_build.wheel_dir([]) != plain


def write_archive(path: Path) -> None:
    prefix = f"llama_cpp_python-{toolchain.LLAMA_VERSION}/vendor/llama.cpp/"
    names = [
        "convert_hf_to_gguf.py",
        "conversion/base.py",
        "gguf-py/gguf/x.py",
        "models/ggml-vocab-qwen2.gguf",
    ]
    names += ["models/ggml-vocab-falcon.gguf", "models/templates/a.jinja", "src/llama.cpp", "LICENSE"]
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(prefix + name), io.BytesIO(b""))


def test_only_what_is_needed_is_kept_of_the_archive(cache, tmp_path):
    with pytest.raises(UserError, match="setup_env.py"):
        toolchain.converter_dir()
    write_archive(tmp_path / "a.tar.gz")
    llama_build.unpack_converter(tmp_path / "a.tar.gz")
    folder = toolchain.converter_dir()
    assert {f.name for f in folder.iterdir()} == {
        "convert_hf_to_gguf.py", "conversion", "gguf-py", "models", "LICENSE"
    }  # fmt: skip
    assert {f.name for f in (folder / "models").iterdir()} == {"ggml-vocab-qwen2.gguf", "templates"}


# -- going on


def test_a_second_run_does_nothing_in_less_than_a_second(cache, tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (venv / "setup-stamp").write_text(setup_env.stamp_of((3, 11, 7)))
    toolchain.llama_dir().mkdir()
    (toolchain.llama_dir() / "convert_hf_to_gguf.py").touch()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, ROOT / "helpers" / "setup_env.py", "--venv", venv], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - started < 5  # a busy computer; 0.1 s measured on a quiet one
    assert sorted(f.name for f in venv.iterdir()) == ["pyvenv.cfg", "setup-stamp"]


def test_the_stamp_changes_with_python_and_requirements(monkeypatch, tmp_path):
    before = setup_env.stamp_of((3, 11, 7))
    assert setup_env.stamp_of((3, 12, 1)) != before
    other = tmp_path / "requirements.txt"
    other.write_text("torch==9\n")
    monkeypatch.setattr(setup_env, "REQUIREMENTS", (other,))
    assert setup_env.stamp_of((3, 11, 7)) != before


def test_packages_broken_by_a_kill_are_forgotten_and_whole_ones_kept(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, record, files in [
        ("whole", "whole.py,,\n__pycache__/whole.pyc,,\n", ["whole.py"]),
        ("half", "half.py,,\nmissing.py,,\n", ["half.py"]),
        ("early", None, []),
    ]:
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").touch()
        if record:
            (info / "RECORD").write_text(record)
        for file in files:
            (site / file).touch()
    setup_env.forget_broken_packages(tmp_path)
    assert [f.name for f in site.glob("*.dist-info")] == ["whole-1.0.dist-info"]


def test_a_pip_left_behind_by_a_kill_keeps_the_next_setup_waiting(cache):
    fcntl = pytest.importorskip("fcntl")
    with setup_env.only_one():
        child = subprocess.Popen(["sleep", "20"], pass_fds=llama_build.HELD)
    with open(cache / "setup.lock", "w") as file:
        try:
            with pytest.raises(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            child.kill()
            child.wait()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- the files it reads


def test_requirements_are_exact_pins_and_agree_with_the_package(monkeypatch):
    pins = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name] = version
    assert {"torch", "transformers", "trl", "peft"} <= set(pins)
    text = (ROOT / "pyproject.toml").read_text()
    declared = set(re.findall(r'"([a-z0-9-]+)>=', text)) - {"llama-cpp-python", "setuptools"}
    assert declared <= set(pins), declared - set(pins)
    assert "==" not in text


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_alone_lists_its_commands_and_passes_over_a_broken_python(tmp_path):
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    for target in ("run", "test", "chat", "notebooks", "lab", "bench", "doctor", "clean"):
        assert re.search(rf"^  make {target} +\w", done.stdout, re.MULTILINE), target
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    (tmp_path / "python3.13").symlink_to(shim)
    fake = tmp_path / "python3.12"
    fake.write_text("#!/bin/sh\ncase $1 in -c) exit 0;; *) echo used $0;; esac\n")
    fake.chmod(0o755)
    done = subprocess.run(["make", "setup"], cwd=ROOT, capture_output=True, text=True,
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin"})  # fmt: skip
    assert f"used {fake}" in done.stdout or "used python3.12" in done.stdout, done
