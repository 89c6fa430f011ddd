"""Makes the virtual environment: pinned packages and a llama.cpp built for this CPU. Standard library only.

    python3 helpers/setup_env.py [--venv .venv]

Can be stopped at any point and run again: it goes on where it was. Exit code 2 says what to install first.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a file, before the package is installed

from helpers.llama_build import HELD, Failed, LlamaBuild, Missing, check_compiler, compilers, run, say  # noqa: E402
from helpers.toolchain import LLAMA_VERSION, cache_dir, llama_dir  # noqa: E402

REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-unsloth.txt")
SUPPORTED = ((3, 11), (3, 12), (3, 13))
CPU_WHEELS = "download.pytorch.org"


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    if tuple(version) not in SUPPORTED:
        raise Missing(f"Python {version[0]}.{version[1]} is not supported: install Python 3.11, 3.12 or 3.13")


def check_venv_module() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Missing(f"Python's venv module is missing: sudo apt-get install {name}") from None


def stamp_of(version: tuple[int, ...]) -> str:
    """A hash of all that decides the content of an environment with this Python version."""
    parts = [str(version), LLAMA_VERSION, *(path.read_text(encoding="utf-8") for path in REQUIREMENTS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def torch_index() -> list[str]:
    """pip options for torch's CPU wheels: on Linux without an NVIDIA GPU, if their host answers in 3 s."""
    if sys.platform != "linux" or shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        return []
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((CPU_WHEELS, 443), timeout=3).close()
            answered.set()

    # In a thread of its own: looking up a host name has no time limit.
    threading.Thread(target=connect, daemon=True).start()
    return ["--extra-index-url", f"https://{CPU_WHEELS}/whl/cpu"] if answered.wait(3) else []


def make_venv(folder: Path) -> Path:
    """Create the environment, or mend a half-made one; return its python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists():
        whole = subprocess.run([python, "-m", "pip", "--version"], capture_output=True)
        if whole.returncode == 0 and venv_version(folder)[:2] in SUPPORTED:
            return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        if any(entry.name not in ("bin", "lib", "lib64", "include", "Scripts", "Lib") for entry in folder.iterdir()):
            raise Missing(f"{folder} is no virtual environment: name another folder with --venv")
    say(f"creating the environment in {folder}")
    check_venv_module()
    run([sys.executable, "-m", "venv", "--clear", folder], None)
    return python


def venv_version(folder: Path) -> tuple[int, ...]:
    """Python version of an environment, as its pyvenv.cfg tells it; () without one."""
    with contextlib.suppress(OSError):
        found = re.search(r"^version\w* *= *(\d+)\.(\d+)\.(\d+)", (folder / "pyvenv.cfg").read_text(), re.MULTILINE)
        return tuple(map(int, found.groups())) if found else ()
    return ()


def forget_broken_packages(folder: Path) -> None:
    """After a kill in the middle of an installation: pip must not take half a package for a whole one."""
    for info in [
        *folder.glob("lib*/python*/site-packages/*.dist-info"),
        *folder.glob("Lib/site-packages/*.dist-info"),
    ]:
        record = info / "RECORD"
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []
        paths = [line.rsplit(",", 2)[0].strip('"') for line in lines]
        if not paths or any(not (info.parent / p).exists() for p in paths if not p.endswith(".pyc")):
            shutil.rmtree(info)


def report_progress(build: LlamaBuild, done: threading.Event, seconds: float = 15) -> None:
    last = ""
    while not done.wait(seconds):
        if build.is_alive() and (text := build.progress()) != last:
            last = text
            say(text)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two setups at the same time would spoil each other's files: the second waits."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / "setup.lock", "w") as file:
        with contextlib.suppress(ImportError):  # no fcntl on Windows
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("waiting for another setup to end")
                fcntl.flock(file, fcntl.LOCK_EX)
        HELD.append(file.fileno())
        try:
            yield
        finally:
            HELD.clear()


def setup(venv: Path) -> None:
    stamp, started = venv / "setup-stamp", time.monotonic()
    converter = llama_dir() / "convert_hf_to_gguf.py"
    if stamp.is_file() and stamp.read_text() == stamp_of(venv_version(venv)) and converter.is_file():
        return
    with only_one():
        if not compilers() and not list((cache_dir() / "wheels").glob("*/*.whl")):
            check_compiler()  # said now, not after minutes of downloads
        python = make_venv(venv)
        if (venv / "setup-running").exists():
            forget_broken_packages(venv)
        (venv / "setup-running").touch()
        stamp.unlink(missing_ok=True)
        build, done = LlamaBuild(venv, python), threading.Event()
        build.start()
        threading.Thread(target=report_progress, args=(build, done), daemon=True).start()
        try:
            say("installing the packages (some minutes the first time)")
            log = venv / "setup-pip.log"
            log.unlink(missing_ok=True)
            # Without compiling: the few modules that are imported get compiled then.
            install = [python, "-m", "pip", "install", "--no-compile", "--progress-bar", "off"]
            run([*install, *torch_index(), "-r", REQUIREMENTS[0]], log)
            run([*install, "--no-deps", "-r", REQUIREMENTS[1]], log)
            build.join()
        finally:
            done.set()
        if build.error:
            raise build.error
        run([*install, "--force-reinstall", "--no-deps", build.wheel], log)
        run([python, "-c", "import llama_cpp, torch, transformers"], log)
        (venv / "setup-running").unlink()
        stamp.write_text(stamp_of(venv_version(venv)))
    say(f"ready in {time.monotonic() - started:.0f} s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default .venv)")
    venv = parser.parse_args(arguments).venv.absolute()
    try:
        check_python()
        setup(venv)
    except Missing as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 2
    except Failed as error:
        print(
            f"{error}\n[setup] a step failed. With a network and 6 GB of free disk the same command goes on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("[setup] stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
