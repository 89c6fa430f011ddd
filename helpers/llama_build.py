"""Fetches and builds llama.cpp once per computer, for `setup_env.py`. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

from helpers.toolchain import LLAMA_VERSION, cache_dir, llama_dir

BUILD_TOOLS = ("scikit-build-core[pyproject]", "cmake", "ninja")
VOCABULARIES = ("llama-bpe", "qwen2", "gpt-2", "llama-spm")  # real tokenizers for tests and notebook 03
# llama.cpp's AMX kernels crash in the first decode of a quantised model (llama.cpp #20824).
NO_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
BUILD_OPTIONS = {
    "build.targets": "llama",
    "cmake.define.LLAVA_BUILD": "OFF",
    "cmake.define.LLAMA_OPENSSL": "OFF",
}
COMPILER_MEND = {
    "apt-get": "sudo apt-get install build-essential",
    "dnf": "sudo dnf install gcc gcc-c++ make",
    "pacman": "sudo pacman -S base-devel",
    "apk": "apk add build-base linux-headers",
}
SAFE = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later
# The setup's lock file. Children keep it open, so after a kill the next setup waits for a pip left behind.
HELD: list[int] = []


class Missing(Exception):
    """Something that only the user can install; the message is the one line shown."""


class Failed(Exception):
    """A step that failed; its log has the details."""


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def run(command: list, log: Path | None, env: dict | None = None, cwd: Path | None = None) -> None:
    """Run a command with its output in `log`; Failed with the last lines otherwise."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(log, "ab")) if log else subprocess.PIPE
        done = subprocess.run(
            [str(part) for part in command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            pass_fds=HELD,
        )
    if done.returncode:
        text = log.read_bytes() if log else done.stdout
        tail = "\n".join(text.decode(errors="replace").splitlines()[-8:])
        where = f"\nThe whole log: {log}" if log else ""
        raise Failed(f"{tail}{where}")


def compilers() -> tuple[str, str] | None:
    """The C and C++ compilers, or None."""
    pairs = [
        (os.environ.get("CC"), os.environ.get("CXX")),
        ("cc", "c++"),
        ("gcc", "g++"),
        ("clang", "clang++"),
    ]
    for c, cpp in pairs:
        if c and cpp and shutil.which(c.split()[0]) and shutil.which(cpp.split()[0]):
            return c, cpp
    return None


def check_compiler() -> tuple[str, str]:
    found = compilers()
    if found:
        return found
    if sys.platform == "darwin":
        mend = "xcode-select --install"
    else:
        mend = next((text for tool, text in COMPILER_MEND.items() if shutil.which(tool)), "install gcc and g++")
    raise Missing(f"a C and C++ compiler is needed to build llama.cpp: {mend}")


def cpu_flags() -> str:
    """What `-march=native` depends on: the CPU's instruction sets, or its name without such a list."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return " ".join(sorted(found[1].split())) if found else platform.processor()


def wheel_dir(flags: list[str]) -> Path:
    """Cache folder of the wheel that was built for this CPU, Python and set of options."""
    parts = [LLAMA_VERSION, platform.machine(), sys.platform, cpu_flags(), *flags, json.dumps(BUILD_OPTIONS)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return cache_dir() / "wheels" / f"{LLAMA_VERSION}-py{sys.version_info[0]}{sys.version_info[1]}-{key}"


def compiler_flags(compiler: str | None) -> list[str]:
    """The flags that leave AMX out, on x86-64 and where the compiler knows them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return []
    if compiler is None:
        return list(NO_AMX)
    probe = subprocess.run([*compiler.split(), *NO_AMX, "-E", "-x", "c", os.devnull], capture_output=True)
    return list(NO_AMX) if probe.returncode == 0 else []


def fetch_archive(pip: list, log: Path, env: dict) -> Path:
    """The source archive of llama-cpp-python, downloaded once into the cache."""
    name = f"llama_cpp_python-{LLAMA_VERSION}.tar.gz"
    archive = cache_dir() / "downloads" / name
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            # Without build isolation pip only reads the version instead of preparing a build.
            run(
                [
                    *pip,
                    "download",
                    "--no-deps",
                    "--no-build-isolation",
                    "--no-binary",
                    ":all:",
                    "-d",
                    folder,
                    f"llama-cpp-python=={LLAMA_VERSION}",
                ],
                log,
                env,
            )
            os.replace(Path(folder) / name, archive)
    return archive


def unpack_converter(archive: Path) -> None:
    """Copy the converter, some real vocabularies and chat templates from the archive to the cache."""
    target = llama_dir()
    if (target / "convert_hf_to_gguf.py").is_file():
        return
    keep = (
        "convert_hf_to_gguf.py",
        "convert_lora_to_gguf.py",
        "conversion/",
        "gguf-py/",
        "models/templates/",
        "LICENSE",
        *(f"models/ggml-vocab-{name}.gguf" for name in VOCABULARIES),
    )
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        with tarfile.open(archive) as tar:
            prefix = f"llama_cpp_python-{LLAMA_VERSION}/vendor/llama.cpp/"
            wanted = [m for m in tar if m.name.startswith(prefix) and m.name[len(prefix) :].startswith(keep)]
            tar.extractall(folder, members=wanted, **SAFE)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(Path(folder) / prefix, target)


def build_wheel(pip: list, archive: Path, target: Path, flags: list[str], log: Path, env: dict) -> Path:
    """Build the library and its Python binding; only what this project uses, so that it takes two minutes."""
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="build-") as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, **SAFE)
        source = Path(folder) / f"llama_cpp_python-{LLAMA_VERSION}"
        # The archive insists on llama.cpp's "common" library, which only its command-line programs use.
        cmake = source / "CMakeLists.txt"
        text = cmake.read_text(encoding="utf-8")
        cmake.write_text(text.replace("set(LLAMA_BUILD_COMMON ON ", "set(LLAMA_BUILD_COMMON OFF "), encoding="utf-8")
        env = {**env, **{key: " ".join([env.get(key, ""), *flags]).strip() for key in ("CFLAGS", "CXXFLAGS")}}
        options = [part for key, value in BUILD_OPTIONS.items() for part in ("-C", f"{key}={value}")]
        run(
            [
                *pip,
                "wheel",
                "-v",
                "--no-deps",
                "--no-build-isolation",
                *options,
                "-w",
                f"{folder}/out",
                source,
            ],
            log,
            env,
        )
        built = next(Path(folder, "out").glob("llama_cpp_python-*.whl"))
        target.mkdir(parents=True, exist_ok=True)
        os.replace(built, target / built.name)
    return target / built.name


class LlamaBuild(threading.Thread):
    """Fetches and builds llama.cpp while pip installs the other packages."""

    def __init__(self, venv: Path, python: Path):
        super().__init__(daemon=True)
        self.pip, self.log = [python, "-m", "pip"], venv / "setup-llama.log"
        self.tools = venv / "build-tools"
        self.wheel: Path | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.wheel = self._wheel()
        except BaseException as error:
            self.error = error

    def _wheel(self) -> Path:
        found = compilers()
        flags = compiler_flags(found[0] if found else None)
        target = wheel_dir(flags)
        ready = sorted(target.glob("llama_cpp_python-*.whl"))
        if ready and (llama_dir() / "convert_hf_to_gguf.py").is_file():
            return ready[0]
        check_compiler()
        self.log.unlink(missing_ok=True)
        # A folder of its own: the build must not depend on what the other pip is installing at the same time.
        run([*self.pip, "install", "--upgrade", "--target", self.tools, *BUILD_TOOLS], self.log)
        env = {
            **os.environ,
            "PYTHONPATH": str(self.tools),
            "PATH": os.pathsep.join([str(self.tools / "bin"), os.environ.get("PATH", "")]),
        }
        archive = fetch_archive(self.pip, self.log, env)
        unpack_converter(archive)
        if ready:
            return ready[0]
        say("building llama.cpp for this CPU (about two minutes on two cores)")
        wheel = build_wheel(self.pip, archive, target, flags, self.log, env)
        shutil.rmtree(self.tools, ignore_errors=True)
        return wheel

    def progress(self) -> str:
        """How far the compiler is, as ninja counts it."""
        with contextlib.suppress(OSError):
            counts = re.findall(rb"\[(\d+/\d+)\]", self.log.read_bytes()[-200_000:])
            if counts:
                return f"llama.cpp: {counts[-1].decode()} files compiled"
        return "llama.cpp: getting ready"
